//! What inventory decides about many operations at once: the same as about each of them alone, one after the other, but each row is
//! changed once. Pure but for the awaits, as the decisions about one; called by the participant's handler.

use std::collections::{BTreeMap, BTreeSet};

use tcc_types::Refusal;

use crate::{
    Aim, Change, Changed, Levels, Line, Lines, Place, Reservation, Reserved, SettleError, Share, Split, StockStore,
    aim::Look,
    buckets::{BUCKETS_MAX, Taken, take},
    stock::{not_frozen, out_of_stock, unknown_sku},
};

/// Most times that the rest of a SKU's rows is locked: once for those that the first one names, once more for those that were made
/// while the lock was waited for. A row that is missing then is not there.
const ROUNDS_MAX: usize = 3;

/// Operations of one local transaction. What is settled has its effect first, so that the tries find what it gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// What confirmed branches had reserved.
    pub spends: Vec<Reserved>,
    /// What cancelled branches had reserved.
    pub releases: Vec<Reserved>,
    /// What is to be reserved.
    pub tries: Vec<Lines>,
}

impl Operations {
    fn settled(&self) -> impl Iterator<Item = Share<'_>> {
        self.spends.iter().chain(&self.releases).flat_map(Reserved::shares)
    }

    /// What they do to each row if none of them is refused and each SKU's first bucket has enough, in the order of the rows.
    fn changes(&self, aim: &Aim) -> Vec<Change<'_>> {
        let mut changes = BTreeMap::new();
        for share in self.spends.iter().flat_map(Reserved::shares) {
            let change = change_of(&mut changes, share.place());
            change.sold += share.quantity;
            change.settled += share.quantity;
        }
        for share in self.releases.iter().flat_map(Reserved::shares) {
            let change = change_of(&mut changes, share.place());
            change.available += share.quantity;
            change.settled += share.quantity;
        }
        for line in self.tries.iter().flatten() {
            let place = Place { sku: line.sku(), bucket: aim.bucket(line.sku()) };
            change_of(&mut changes, place).available -= line.quantity();
        }
        changes.into_values().collect()
    }

    /// The rows that they need, in order, where not every SKU's first bucket is likely to have enough.
    fn places(&self, aim: &Aim) -> Vec<Place<'_>> {
        let mut places: BTreeSet<_> = self.settled().map(|share| share.place()).collect();
        for sku in self.tries.iter().flatten().map(Line::sku) {
            match aim.look(sku) {
                Look::In(bucket) => places.extend([Place { sku, bucket }]),
                Look::Everywhere(made) => places.extend((0..made).map(|bucket| Place { sku, bucket })),
            }
        }
        places.into_iter().collect()
    }

    fn looks_everywhere(&self, aim: &Aim) -> bool {
        self.tries.iter().flatten().any(|line| matches!(aim.look(line.sku()), Look::Everywhere(_)))
    }

    /// How much of each SKU is asked for.
    fn wanted(&self) -> BTreeMap<&str, i64> {
        let mut wanted = BTreeMap::new();
        for line in self.tries.iter().flatten() {
            *wanted.entry(line.sku()).or_insert(0) += line.quantity();
        }
        wanted
    }
}

impl<'a> Share<'a> {
    pub(crate) const fn place(self) -> Place<'a> {
        Place { sku: self.sku, bucket: self.bucket }
    }
}

fn change_of<'a, 'm>(changes: &'m mut BTreeMap<Place<'a>, Change<'a>>, place: Place<'a>) -> &'m mut Change<'a> {
    let Place { sku, bucket } = place;
    changes.entry(place).or_insert_with(|| Change { sku, bucket, available: 0, sold: 0, settled: 0 })
}

/// Runs the operations as [`spend`](crate::spend), [`release`](crate::release) and [`reserve`](crate::reserve) would one after the
/// other, a Try that is refused leaving nothing behind. Returns what became of the tries, in their order.
///
/// `aim`: where tries look first; it learns. `likely`: that none of them is refused. Both change what this costs, and from which
/// buckets pieces are taken, and nothing else.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn run<S: StockStore>(
    store: &mut S,
    operations: &Operations,
    aim: &mut Aim,
    likely: bool,
) -> Result<Vec<Reservation>, SettleError<S::Error>> {
    if operations.looks_everywhere(aim) {
        let places = operations.places(aim);
        let levels = store.lock(&places, false).await.map_err(SettleError::Store)?;
        return decide(store, operations, aim, Rows::new(places.into_iter(), levels)).await;
    }
    let hoped = operations.changes(aim);
    if hoped.is_empty() {
        return Ok(Vec::new());
    }
    match store.apply_if_all_fit(&hoped, likely).await.map_err(SettleError::Store)? {
        // Merged they fit only if each does: what is settled is frozen, and no Try takes more than there is.
        Changed::All(levels) => {
            let outcomes = operations.tries.iter().map(|lines| Reservation::Frozen(all_from_first(lines, aim))).collect();
            learn(aim, hoped.iter().map(Change::place).zip(levels));
            Ok(outcomes)
        }
        Changed::Nothing(levels) => decide(store, operations, aim, Rows::new(hoped.iter().map(Change::place), levels)).await,
    }
}

/// Takes a line from wherever its SKU has pieces, with all of its buckets locked; or says why it cannot be had.
pub(crate) async fn reserve_anywhere<S: StockStore>(
    store: &mut S,
    line: &Line,
    aim: &mut Aim,
    at_once: bool,
) -> Result<Result<Vec<Taken>, Refusal>, S::Error> {
    let made = match aim.look(line.sku()) {
        Look::Everywhere(made) => made,
        Look::In(_) => 1,
    };
    let places: Vec<_> = (0..made).map(|bucket| Place { sku: line.sku(), bucket }).collect();
    let levels = store.lock(&places, at_once).await?;
    let mut rows = Rows::new(places.into_iter(), levels);
    complete(store, &mut rows, aim, &BTreeSet::from([line.sku()])).await?;
    let taken = match rows.find(line, aim, true) {
        Find::Taken(taken) => Ok(taken),
        Find::Refused(refusal) => Err(refusal),
        // With the rows complete nothing is elsewhere.
        Find::Elsewhere => Err(out_of_stock(line)),
    };
    if let Ok(taken) = &taken {
        rows.freeze(line.sku(), taken);
        store.apply(&rows.changes()).await?;
    }
    aim.found(line.sku(), line.quantity(), rows.of(line.sku()));
    Ok(taken)
}

fn all_from_first(lines: &Lines, aim: &Aim) -> Split {
    let mut split = Split::new();
    for (index, line) in lines.iter().enumerate() {
        let bucket = aim.bucket(line.sku());
        if bucket != 0 {
            split.set(index, vec![Taken { bucket, quantity: line.quantity() }]);
        }
    }
    split
}

fn learn<'a>(aim: &mut Aim, rows: impl Iterator<Item = (Place<'a>, Option<Levels>)>) {
    for (place, levels) in rows {
        if let Some(levels) = levels {
            aim.learn(place.sku, levels.buckets, levels.made);
        }
    }
}

/// Decides each operation and makes what comes together, with more rows where those first looked at have too few.
async fn decide<'a, S: StockStore>(
    store: &mut S,
    operations: &'a Operations,
    aim: &mut Aim,
    mut rows: Rows<'a>,
) -> Result<Vec<Reservation>, SettleError<S::Error>> {
    rows.teach(aim);
    let mut looked = BTreeSet::new();
    let outcomes = loop {
        let decided = rows.decide(operations, aim, &looked)?;
        if decided.elsewhere.is_empty() {
            break decided.outcomes;
        }
        rows.forget();
        complete(store, &mut rows, aim, &decided.elsewhere).await.map_err(SettleError::Store)?;
        looked.extend(decided.elsewhere);
    };
    let changes = rows.changes();
    if !changes.is_empty() {
        store.apply(&changes).await.map_err(SettleError::Store)?;
    }
    for (sku, wanted) in operations.wanted() {
        if looked.contains(sku) || matches!(aim.look(sku), Look::Everywhere(_)) {
            aim.found(sku, wanted, rows.of(sku));
        }
    }
    Ok(outcomes)
}

/// Locks what is missing of these SKUs' rows. They come out of order, so this never waits: where a row is taken, the whole transaction
/// runs anew, and locks all of them in order.
async fn complete<'a, S: StockStore>(
    store: &mut S,
    rows: &mut Rows<'a>,
    aim: &mut Aim,
    skus: &BTreeSet<&'a str>,
) -> Result<(), S::Error> {
    for _ in 0..ROUNDS_MAX {
        let missing: Vec<_> = skus.iter().flat_map(|sku| rows.missing(sku)).collect();
        rows.teach(aim);
        if missing.is_empty() {
            break;
        }
        skus.iter().for_each(|sku| aim.look_everywhere(sku));
        let levels = store.lock(&missing, true).await?;
        rows.0.extend(missing.into_iter().zip(levels.into_iter().map(|levels| levels.map(Row::new))));
    }
    Ok(())
}

/// The rows as the operations find them, one after the other; `None`: there is no such row.
struct Rows<'a>(BTreeMap<Place<'a>, Option<Row>>);

struct Row {
    before: Levels,
    now: Levels,
    available: i64,
    sold: i64,
    settled: i64,
}

impl Row {
    const fn new(levels: Levels) -> Self {
        Self { before: levels, now: levels, available: 0, sold: 0, settled: 0 }
    }

    const fn freeze(&mut self, quantity: i64) {
        self.now.available -= quantity;
        self.now.frozen += quantity;
        self.available -= quantity;
    }
}

/// What was decided, as far as it can be with the rows that are there.
struct Decided<'a> {
    outcomes: Vec<Reservation>,
    /// Of these SKUs too little was found in the rows that were looked at.
    elsewhere: BTreeSet<&'a str>,
}

/// Where a line can be had.
enum Find {
    Taken(Vec<Taken>),
    Refused(Refusal),
    /// Perhaps in a row that is not looked at yet.
    Elsewhere,
}

impl<'a> Rows<'a> {
    fn new(places: impl Iterator<Item = Place<'a>>, levels: Vec<Option<Levels>>) -> Self {
        Self(places.zip(levels.into_iter().map(|levels| levels.map(Row::new))).collect())
    }

    fn range(&self, sku: &'a str) -> impl Iterator<Item = (u8, &Row)> {
        let range = self.0.range(Place { sku, bucket: 0 }..=Place { sku, bucket: BUCKETS_MAX });
        range.filter_map(|(place, row)| row.as_ref().map(|row| (place.bucket, row)))
    }

    fn of(&self, sku: &'a str) -> impl Iterator<Item = (u8, Levels)> {
        self.range(sku).map(|(bucket, row)| (bucket, row.now))
    }

    /// Those that the SKU has, as one of its rows or its first one would say, and that are not here.
    fn missing(&self, sku: &'a str) -> Vec<Place<'a>> {
        let made = self.range(sku).map(|(_, row)| row.before.made).max();
        let place = |bucket| Place { sku, bucket };
        match made {
            Some(made) => (0..made).map(place).filter(|place| !matches!(self.0.get(place), Some(Some(_)))).collect(),
            None if self.0.contains_key(&place(0)) => Vec::new(),
            None => vec![place(0)],
        }
    }

    fn teach(&self, aim: &mut Aim) {
        learn(aim, self.0.iter().map(|(place, row)| (*place, row.as_ref().map(|row| row.before))));
    }

    /// As before anything was decided.
    fn forget(&mut self) {
        for row in self.0.values_mut().flatten() {
            *row = Row::new(row.before);
        }
    }

    fn decide<E>(
        &mut self,
        operations: &'a Operations,
        aim: &Aim,
        complete: &BTreeSet<&'a str>,
    ) -> Result<Decided<'a>, SettleError<E>> {
        for share in operations.spends.iter().flat_map(Reserved::shares) {
            let row = self.unfreeze(share)?;
            row.sold += share.quantity;
        }
        for share in operations.releases.iter().flat_map(Reserved::shares) {
            let row = self.unfreeze(share)?;
            row.available += share.quantity;
            row.now.available += share.quantity;
        }
        let mut decided = Decided { outcomes: Vec::with_capacity(operations.tries.len()), elsewhere: BTreeSet::new() };
        for lines in &operations.tries {
            match self.reserve(lines, aim, complete) {
                Ok(outcome) => decided.outcomes.push(outcome),
                Err(sku) => decided.elsewhere.extend([sku]),
            }
        }
        Ok(decided)
    }

    /// Takes away what a branch holds.
    fn unfreeze<E>(&mut self, share: Share<'a>) -> Result<&mut Row, SettleError<E>> {
        let row = self.0.get_mut(&share.place()).and_then(Option::as_mut).filter(|row| row.now.frozen >= share.quantity);
        let Some(row) = row else { return Err(not_frozen(share)) };
        row.now.frozen -= share.quantity;
        row.settled += share.quantity;
        Ok(row)
    }

    /// Freezes all lines or none; or names the SKU of which all rows must be looked at first.
    fn reserve(&mut self, lines: &'a Lines, aim: &Aim, complete: &BTreeSet<&'a str>) -> Result<Reservation, &'a str> {
        let mut split = Split::new();
        let mut found = Vec::with_capacity(lines.iter().len());
        for (index, line) in lines.iter().enumerate() {
            match self.find(line, aim, complete.contains(line.sku())) {
                Find::Taken(taken) => found.push((index, line.sku(), taken)),
                Find::Refused(refusal) => return Ok(Reservation::Refused(refusal)),
                Find::Elsewhere => return Err(line.sku()),
            }
        }
        for (index, sku, taken) in found {
            self.freeze(sku, &taken);
            split.set(index, taken);
        }
        Ok(Reservation::Frozen(split))
    }

    fn freeze(&mut self, sku: &'a str, taken: &[Taken]) {
        for Taken { bucket, quantity } in taken {
            if let Some(Some(row)) = self.0.get_mut(&Place { sku, bucket: *bucket }) {
                row.freeze(*quantity);
            }
        }
    }

    fn find(&self, line: &'a Line, aim: &Aim, complete: bool) -> Find {
        let (sku, bucket) = (line.sku(), aim.bucket(line.sku()));
        if let Some(Some(row)) = self.0.get(&Place { sku, bucket })
            && row.now.available >= line.quantity()
        {
            return Find::Taken(vec![Taken { bucket, quantity: line.quantity() }]);
        }
        if !complete && !self.missing(sku).is_empty() {
            return Find::Elsewhere;
        }
        match take(line, self.range(sku).map(|(bucket, row)| (bucket, row.now.available))) {
            Some(taken) => Find::Taken(taken),
            None if self.range(sku).next().is_none() => Find::Refused(unknown_sku(line)),
            None => Find::Refused(out_of_stock(line)),
        }
    }

    /// What has come together, in the order of the rows.
    fn changes(&self) -> Vec<Change<'a>> {
        let rows = self.0.iter().filter_map(|(place, row)| row.as_ref().map(|row| (*place, row)));
        let change = |(Place { sku, bucket }, row): (Place<'a>, &Row)| Change {
            sku,
            bucket,
            available: row.available,
            sold: row.sold,
            settled: row.settled,
        };
        rows.map(change).filter(Change::is_any).collect()
    }
}

#[cfg(test)]
mod tests;

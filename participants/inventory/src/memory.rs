//! Stock in this process, for the tests of the decisions.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, ready},
};

use crate::{Change, Changed, Levels, Lines, Place, Reserved, Share, StockStore};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) available: i64,
    pub(crate) frozen: i64,
    pub(crate) sold: i64,
}

/// A SKU: its rows, and how many of them are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sku {
    pub(crate) rows: Vec<Row>,
    pub(crate) buckets: u8,
}

impl Sku {
    pub(crate) fn sums(&self) -> (i64, i64, i64) {
        self.rows.iter().fold((0, 0, 0), |sum, row| (sum.0 + row.available, sum.1 + row.frozen, sum.2 + row.sold))
    }

    fn levels(&self, bucket: u8) -> Option<Levels> {
        let made = u8::try_from(self.rows.len()).unwrap();
        let row = self.rows.get(usize::from(bucket))?;
        Some(Levels { available: row.available, frozen: row.frozen, buckets: self.buckets, made })
    }
}

/// A store that also remembers in which order rows were touched, which were locked without waiting, and how often rows were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) skus: BTreeMap<String, Sku>,
    pub(crate) touched: Vec<(String, u8)>,
    pub(crate) locked_at_once: Vec<(String, u8)>,
    pub(crate) writes: usize,
}

impl Memory {
    /// Each in one bucket.
    pub(crate) fn with(rows: &[(&str, i64)]) -> Self {
        Self::with_buckets(&rows.iter().map(|(sku, available)| (*sku, vec![*available])).collect::<Vec<_>>())
    }

    pub(crate) fn with_buckets(skus: &[(&str, Vec<i64>)]) -> Self {
        let mut store = Self::default();
        for (sku, available) in skus {
            store.put(sku, available.iter().map(|available| Row { available: *available, ..Row::default() }).collect());
        }
        store
    }

    pub(crate) fn put(&mut self, sku: &str, rows: Vec<Row>) {
        let buckets = u8::try_from(rows.len()).unwrap();
        self.skus.insert(sku.to_owned(), Sku { rows, buckets });
    }

    fn step(&mut self, share: Share<'_>, change: impl FnOnce(&mut Row, i64)) -> Option<u8> {
        self.touched.push((share.sku.to_owned(), share.bucket));
        let sku = self.skus.get_mut(share.sku)?;
        let row = sku.rows.get_mut(usize::from(share.bucket))?;
        let mut after = *row;
        change(&mut after, share.quantity);
        if after.available < 0 || after.frozen < 0 {
            return None;
        }
        *row = after;
        Some(sku.buckets)
    }

    /// The sums over its buckets.
    pub(crate) fn row(&self, sku: &str) -> (i64, i64, i64) {
        self.skus[sku].sums()
    }

    pub(crate) fn available(&self, sku: &str) -> Vec<i64> {
        self.skus[sku].rows.iter().map(|row| row.available).collect()
    }

    fn levels(&self, place: Place<'_>) -> Option<Levels> {
        self.skus.get(place.sku).and_then(|sku| sku.levels(place.bucket))
    }

    fn touch(&mut self, places: impl Iterator<Item = (String, u8)>) {
        let places: Vec<_> = places.collect();
        assert!(places.is_sorted() && places.windows(2).all(|pair| pair[0] != pair[1]), "{places:?}");
        self.touched.extend(places);
    }
}

fn owned(place: Place<'_>) -> (String, u8) {
    (place.sku.to_owned(), place.bucket)
}

impl StockStore for Memory {
    type Error = Infallible;

    fn freeze(&mut self, share: Share<'_>) -> impl Future<Output = Result<Option<u8>, Infallible>> + Send {
        ready(Ok(self.step(share, |row, quantity| {
            (row.available, row.frozen) = (row.available - quantity, row.frozen + quantity);
        })))
    }

    fn spend(&mut self, share: Share<'_>) -> impl Future<Output = Result<bool, Infallible>> + Send {
        let spend = |row: &mut Row, quantity| (row.frozen, row.sold) = (row.frozen - quantity, row.sold + quantity);
        ready(Ok(self.step(share, spend).is_some()))
    }

    fn release(&mut self, share: Share<'_>) -> impl Future<Output = Result<bool, Infallible>> + Send {
        let release = |row: &mut Row, quantity| (row.frozen, row.available) = (row.frozen - quantity, row.available + quantity);
        ready(Ok(self.step(share, release).is_some()))
    }

    fn look(&mut self, sku: &str) -> impl Future<Output = Result<Option<Levels>, Infallible>> + Send {
        ready(Ok(self.levels(Place { sku, bucket: 0 })))
    }

    async fn lock(&mut self, places: &[Place<'_>], at_once: bool) -> Result<Vec<Option<Levels>>, Infallible> {
        self.touch(places.iter().map(|place| owned(*place)));
        if at_once {
            self.locked_at_once.extend(places.iter().map(|place| owned(*place)));
        }
        Ok(places.iter().map(|place| self.levels(*place)).collect())
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], _likely: bool) -> Result<Changed, Infallible> {
        self.touch(changes.iter().map(|change| owned(change.place())));
        let levels: Vec<_> = changes.iter().map(|change| self.levels(change.place())).collect();
        if changes.iter().zip(&levels).all(|(change, levels)| levels.is_some_and(|levels| change.fits(levels))) {
            let changes: Vec<_> = changes.iter().copied().filter(Change::is_any).collect();
            self.apply(&changes).await?;
            return Ok(Changed::All(levels));
        }
        Ok(Changed::Nothing(levels))
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), Infallible> {
        assert!(changes.is_sorted_by_key(Change::place), "{changes:?}");
        for change in changes {
            let levels = self.levels(change.place()).expect("it was told");
            assert!(change.is_any() && change.fits(levels), "{change:?} {levels:?}");
            let row = &mut self.skus.get_mut(change.sku).unwrap().rows[usize::from(change.bucket)];
            row.available += change.available;
            row.sold += change.sold;
            row.frozen -= change.available + change.sold;
            self.writes += 1;
        }
        Ok(())
    }
}

/// Lines of an order.
pub(crate) fn lines(wanted: &[(&str, i64)]) -> Lines {
    Lines::new(wanted.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity))).unwrap()
}

/// What a branch holds of first buckets.
pub(crate) fn held(wanted: &[(&str, i64)]) -> Reserved {
    lines(wanted).into()
}

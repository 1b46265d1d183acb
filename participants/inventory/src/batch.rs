//! What inventory decides about many operations at once: the same as about each of them alone, one after the other, but each SKU's
//! row is changed once. Pure but for the awaits, as the decisions about one; called by the participant's handler.

use std::collections::BTreeMap;

use tcc_types::Refusal;

use crate::{
    Change, Changed, Levels, Line, Lines, Reservation, SettleError, StockStore,
    stock::{not_frozen, out_of_stock, unknown_sku},
};

/// Operations of one local transaction. What is settled has its effect first, so that the tries find what it gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// What confirmed branches had reserved.
    pub spends: Vec<Lines>,
    /// What cancelled branches had reserved.
    pub releases: Vec<Lines>,
    /// What is to be reserved.
    pub tries: Vec<Lines>,
}

impl Operations {
    /// What they do to each SKU if none of them is refused, in SKU order.
    fn changes(&self) -> Vec<Change<'_>> {
        let mut changes = BTreeMap::new();
        for line in self.spends.iter().flatten() {
            let change = change_of(&mut changes, line);
            change.sold += line.quantity();
            change.settled += line.quantity();
        }
        for line in self.releases.iter().flatten() {
            let change = change_of(&mut changes, line);
            change.available += line.quantity();
            change.settled += line.quantity();
        }
        for line in self.tries.iter().flatten() {
            change_of(&mut changes, line).available -= line.quantity();
        }
        changes.into_values().collect()
    }
}

fn change_of<'a, 'm>(changes: &'m mut BTreeMap<&'a str, Change<'a>>, line: &'a Line) -> &'m mut Change<'a> {
    changes.entry(line.sku()).or_insert_with(|| Change { sku: line.sku(), available: 0, sold: 0, settled: 0 })
}

/// Runs the operations as [`spend`](crate::spend), [`release`](crate::release) and [`reserve`](crate::reserve) would one after the
/// other, a Try that is refused leaving nothing behind. Returns what became of the tries, in their order.
///
/// `likely`: that none of them is refused. It changes what this costs, and nothing else.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn run<S: StockStore>(
    store: &mut S,
    operations: &Operations,
    likely: bool,
) -> Result<Vec<Reservation>, SettleError<S::Error>> {
    let hoped = operations.changes();
    if hoped.is_empty() {
        return Ok(Vec::new());
    }
    let levels = match store.apply_if_all_fit(&hoped, likely).await.map_err(SettleError::Store)? {
        // Merged they fit only if each does: what is settled is frozen, and no Try takes more than there is.
        Changed::All => return Ok(vec![Reservation::Frozen; operations.tries.len()]),
        Changed::Nothing(levels) => levels,
    };
    let mut rows = Rows(hoped.iter().zip(levels).map(|(change, levels)| (change.sku, levels.map(Row::new))).collect());
    let outcomes = rows.decide(operations)?;
    let changes = rows.changes();
    if !changes.is_empty() {
        store.apply(&changes).await.map_err(SettleError::Store)?;
    }
    Ok(outcomes)
}

/// The rows as the operations find them, one after the other; `None`: there is no such SKU.
struct Rows<'a>(BTreeMap<&'a str, Option<Row>>);

struct Row {
    now: Levels,
    available: i64,
    sold: i64,
    settled: i64,
}

impl Row {
    const fn new(levels: Levels) -> Self {
        Self { now: levels, available: 0, sold: 0, settled: 0 }
    }
}

impl<'a> Rows<'a> {
    fn decide<E>(&mut self, operations: &'a Operations) -> Result<Vec<Reservation>, SettleError<E>> {
        for line in operations.spends.iter().flatten() {
            let row = self.unfreeze(line)?;
            row.sold += line.quantity();
        }
        for line in operations.releases.iter().flatten() {
            let row = self.unfreeze(line)?;
            row.available += line.quantity();
            row.now.available += line.quantity();
        }
        Ok(operations.tries.iter().map(|lines| self.reserve(lines)).collect())
    }

    /// Takes away what a branch holds.
    fn unfreeze<E>(&mut self, line: &'a Line) -> Result<&mut Row, SettleError<E>> {
        let row = self.0.get_mut(line.sku()).and_then(Option::as_mut).filter(|row| row.now.frozen >= line.quantity());
        let Some(row) = row else { return Err(not_frozen(line)) };
        row.now.frozen -= line.quantity();
        row.settled += line.quantity();
        Ok(row)
    }

    /// Freezes all lines or none.
    fn reserve(&mut self, lines: &'a Lines) -> Reservation {
        if let Some(refusal) = lines.iter().find_map(|line| self.why_not(line)) {
            return Reservation::Refused(refusal);
        }
        for line in lines {
            if let Some(Some(row)) = self.0.get_mut(line.sku()) {
                row.now.available -= line.quantity();
                row.now.frozen += line.quantity();
                row.available -= line.quantity();
            }
        }
        Reservation::Frozen
    }

    fn why_not(&self, line: &Line) -> Option<Refusal> {
        match self.0.get(line.sku()) {
            None | Some(None) => Some(unknown_sku(line)),
            Some(Some(row)) if row.now.available < line.quantity() => Some(out_of_stock(line)),
            Some(Some(_)) => None,
        }
    }

    /// What has come together, in SKU order.
    fn changes(&self) -> Vec<Change<'a>> {
        let rows = self.0.iter().filter_map(|(sku, row)| row.as_ref().map(|row| (*sku, row)));
        let changes = rows.map(|(sku, row)| Change { sku, available: row.available, sold: row.sold, settled: row.settled });
        changes.filter(Change::is_any).collect()
    }
}

#[cfg(test)]
mod tests;

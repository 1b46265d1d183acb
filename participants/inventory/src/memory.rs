//! Stock in memory, for simulations: the rows, and what each statement does to them, under the same checks that the databases' tables
//! have. Decides nothing. Written to by `databases::memory`; simulations read it.

use std::collections::BTreeMap;

use imbl::OrdMap;
use tcc_participant::memory::{BranchTable, HasBranches, MemoryError};
use tcc_types::Timestamp;

use crate::{BUCKETS_MAX, Change, Levels, Line, Place, STOCK_MAX, Share, Stock, participant::reserved_from_bytes};

/// A row: one bucket of a SKU. Always: `available + frozen + sold = initial`, and none is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockRow {
    /// All pieces ever added to it.
    pub initial: i64,
    /// Free to be ordered.
    pub available: i64,
    /// Reserved by orders that are not decided yet.
    pub frozen: i64,
    /// Spent by confirmed orders.
    pub sold: i64,
    /// Last change, by the database's clock.
    pub updated_at: Timestamp,
}

impl Default for StockRow {
    fn default() -> Self {
        Self { initial: 0, available: 0, frozen: 0, sold: 0, updated_at: Timestamp::EPOCH }
    }
}

impl StockRow {
    fn is_sound(&self) -> bool {
        let is_in_range = (0..=STOCK_MAX).contains(&self.initial) && self.available.min(self.frozen).min(self.sold) >= 0;
        is_in_range && self.available + self.frozen + self.sold == self.initial
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            initial: self.initial + other.initial,
            available: self.available + other.available,
            frozen: self.frozen + other.frozen,
            sold: self.sold + other.sold,
            updated_at: self.updated_at.max(other.updated_at),
        }
    }
}

/// A SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sku {
    /// By bucket.
    pub rows: Vec<StockRow>,
    /// Over how many of them its free stock is spread: the first ones.
    pub buckets: u8,
}

impl Sku {
    /// Over all of its rows.
    #[must_use]
    pub fn sums(&self) -> StockRow {
        self.rows.iter().fold(StockRow::default(), StockRow::plus)
    }

    fn made(&self) -> u8 {
        u8::try_from(self.rows.len()).unwrap_or(u8::MAX)
    }

    fn check(&self) -> Result<(), MemoryError> {
        let has_buckets = (1..=self.made()).contains(&self.buckets) && self.made() <= BUCKETS_MAX;
        if has_buckets && self.rows.iter().all(StockRow::is_sound) { Ok(()) } else { Err(MemoryError::Check) }
    }
}

/// The stock rows and the deliveries. A clone is cheap, and a snapshot.
#[derive(Clone, Debug, Default)]
pub struct StockTable {
    pub(crate) skus: OrdMap<String, Sku>,
    receipts: OrdMap<String, (Line, Timestamp)>,
}

impl StockTable {
    /// All SKUs, in their order.
    pub fn skus(&self) -> impl Iterator<Item = (&str, &Sku)> {
        self.skus.iter().map(|(sku, rows)| (sku.as_str(), rows))
    }

    /// One of them.
    #[must_use]
    pub fn sku(&self, sku: &str) -> Option<&Sku> {
        self.skus.get(sku)
    }

    /// One of them, as its keeper sees it.
    #[must_use]
    pub fn stock(&self, sku: &str) -> Option<Stock> {
        let rows = self.skus.get(sku)?;
        let StockRow { initial, available, frozen, sold, updated_at } = rows.sums();
        Some(Stock { sku: sku.to_owned(), initial, available, frozen, sold, updated_at, buckets: rows.buckets })
    }

    /// The deliveries that were counted, by their ids, and when.
    pub fn receipts(&self) -> impl Iterator<Item = (&str, &Line, Timestamp)> {
        self.receipts.iter().map(|(id, (line, received_at))| (id.as_str(), line, *received_at))
    }

    /// Changes a SKU, as somebody might beside the framework; false where there is none.
    ///
    /// # Errors
    /// The table's checks forbid it.
    pub fn change(&mut self, sku: &str, change: impl FnOnce(&mut Sku)) -> Result<bool, MemoryError> {
        let Some(rows) = self.skus.get(sku) else { return Ok(false) };
        let mut rows = rows.clone();
        change(&mut rows);
        rows.check()?;
        self.skus.insert(sku.to_owned(), rows);
        Ok(true)
    }

    fn row(&self, place: Place<'_>) -> Option<&StockRow> {
        self.skus.get(place.sku)?.rows.get(usize::from(place.bucket))
    }

    /// Changes one row if it is there and `fits`; then returns the SKU's number of buckets.
    fn change_row(
        &mut self,
        place: Place<'_>,
        now: Timestamp,
        fits: impl FnOnce(&StockRow) -> bool,
        change: impl FnOnce(&mut StockRow),
    ) -> Result<Option<u8>, MemoryError> {
        if !self.row(place).is_some_and(fits) {
            return Ok(None);
        }
        self.change(place.sku, |rows| {
            if let Some(row) = rows.rows.get_mut(usize::from(place.bucket)) {
                change(row);
                row.updated_at = now;
            }
        })?;
        Ok(self.skus.get(place.sku).map(|rows| rows.buckets))
    }

    /// See [`StockStore::freeze`](crate::StockStore::freeze).
    pub(crate) fn freeze(&mut self, share: Share<'_>, now: Timestamp) -> Result<Option<u8>, MemoryError> {
        let freeze =
            |row: &mut StockRow| (row.available, row.frozen) = (row.available - share.quantity, row.frozen + share.quantity);
        self.change_row(share.place(), now, |row| row.available >= share.quantity, freeze)
    }

    /// See [`StockStore::spend`](crate::StockStore::spend).
    pub(crate) fn spend(&mut self, share: Share<'_>, now: Timestamp) -> Result<bool, MemoryError> {
        let spend = |row: &mut StockRow| (row.frozen, row.sold) = (row.frozen - share.quantity, row.sold + share.quantity);
        self.change_row(share.place(), now, |row| row.frozen >= share.quantity, spend).map(|changed| changed.is_some())
    }

    /// See [`StockStore::release`](crate::StockStore::release).
    pub(crate) fn release(&mut self, share: Share<'_>, now: Timestamp) -> Result<bool, MemoryError> {
        let release =
            |row: &mut StockRow| (row.frozen, row.available) = (row.frozen - share.quantity, row.available + share.quantity);
        self.change_row(share.place(), now, |row| row.frozen >= share.quantity, release).map(|changed| changed.is_some())
    }

    /// What a row has.
    pub(crate) fn levels(&self, place: Place<'_>) -> Option<Levels> {
        let rows = self.skus.get(place.sku)?;
        let StockRow { available, frozen, .. } = *rows.rows.get(usize::from(place.bucket))?;
        Some(Levels { available, frozen, buckets: rows.buckets, made: rows.made() })
    }

    /// Makes a change, whether it fits or not. False where there is no such row.
    pub(crate) fn apply(&mut self, change: Change<'_>, now: Timestamp) -> Result<bool, MemoryError> {
        let make = |row: &mut StockRow| {
            row.available += change.available;
            row.sold += change.sold;
            row.frozen -= change.available + change.sold;
        };
        self.change_row(change.place(), now, |_| true, make).map(|changed| changed.is_some())
    }

    /// Notes a delivery. False: one with its id is there.
    pub(crate) fn note(&mut self, id: &str, line: &Line, now: Timestamp) -> bool {
        let is_new = !self.receipts.contains_key(id);
        if is_new {
            self.receipts.insert(id.to_owned(), (line.clone(), now));
        }
        is_new
    }

    /// What the delivery with this id was.
    pub(crate) fn noted(&self, id: &str) -> Option<&Line> {
        self.receipts.get(id).map(|(line, _)| line)
    }

    /// Counts a delivery of a SKU that is new, or has one row with room for it; `None`: it is neither.
    pub(crate) fn deliver_to_one(&mut self, line: &Line, now: Timestamp) -> Result<Option<Stock>, MemoryError> {
        if !self.skus.contains_key(line.sku()) {
            self.skus.insert(line.sku().to_owned(), Sku { rows: vec![StockRow::default()], buckets: 1 });
        }
        let is_one = self.skus.get(line.sku()).is_some_and(|rows| rows.made() == 1);
        let has_room = |row: &StockRow| is_one && row.initial <= STOCK_MAX - line.quantity();
        let counted = self.add(Place { sku: line.sku(), bucket: 0 }, line.quantity(), now, has_room)?;
        Ok(counted.and_then(|_| self.stock(line.sku())))
    }

    /// Adds free pieces to a row, which may be negative.
    fn add(
        &mut self,
        place: Place<'_>,
        pieces: i64,
        now: Timestamp,
        fits: impl FnOnce(&StockRow) -> bool,
    ) -> Result<Option<u8>, MemoryError> {
        let add = |row: &mut StockRow| (row.initial, row.available) = (row.initial + pieces, row.available + pieces);
        self.change_row(place, now, fits, add)
    }

    /// Adds an empty row to a SKU. Over how many its stock is spread is written with what each of them gets.
    pub(crate) fn make(&mut self, sku: &str, now: Timestamp) -> Result<bool, MemoryError> {
        self.change(sku, |rows| rows.rows.push(StockRow { updated_at: now, ..StockRow::default() }))
    }

    /// Adds free pieces to a row, which may be negative, and writes over how many buckets the SKU is spread.
    pub(crate) fn fill(&mut self, place: Place<'_>, pieces: i64, buckets: u8, now: Timestamp) -> Result<(), MemoryError> {
        self.change(place.sku, |rows| rows.buckets = buckets)?;
        self.add(place, pieces, now, |_| true).map(drop)
    }
}

/// Inventory's tables, the SDK's among them.
#[derive(Clone, Debug, Default)]
pub struct StockTables {
    /// The branches' rows.
    pub branches: BranchTable,
    /// The stock.
    pub stock: StockTable,
}

impl HasBranches for StockTables {
    fn branches(&self) -> &BranchTable {
        &self.branches
    }

    fn branches_mut(&mut self) -> &mut BranchTable {
        &mut self.branches
    }
}

impl StockTables {
    /// What the branches that are still tried hold, by SKU and bucket.
    ///
    /// # Errors
    /// What one of them holds cannot be read.
    pub fn held(&self) -> Result<BTreeMap<(String, u8), i64>, String> {
        let mut held = BTreeMap::new();
        for stored in self.branches.tried() {
            let key = &stored.row.key;
            let bytes = stored.reserved.clone().ok_or_else(|| format!("{key}: is tried and has reserved nothing"))?;
            let reserved = reserved_from_bytes(bytes).map_err(|error| format!("{key}: {error}"))?;
            for share in reserved.shares() {
                *held.entry((share.sku.to_owned(), share.bucket)).or_default() += share.quantity;
            }
        }
        Ok(held)
    }

    /// The books: every row balances, and what is frozen in it is what the tried branches hold of it. Holds at each commit.
    ///
    /// # Errors
    /// The first row for which it is not so.
    pub fn check(&self) -> Result<(), String> {
        let mut held = self.held()?;
        for (sku, rows) in self.stock.skus() {
            for (bucket, row) in (0_u8..).zip(&rows.rows) {
                let holds = held.remove(&(sku.to_owned(), bucket)).unwrap_or(0);
                if !row.is_sound() || row.frozen != holds {
                    return Err(format!("sku {sku}, bucket {bucket}: {row:?}, of which the tried branches hold {holds}"));
                }
            }
        }
        match held.into_iter().next() {
            None => Ok(()),
            Some(((sku, bucket), holds)) => Err(format!("sku {sku}, bucket {bucket}: is not there, and branches hold {holds}")),
        }
    }
}

#[cfg(test)]
pub(crate) mod watched;

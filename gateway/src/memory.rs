//! Orders in memory, for simulations: the rows, and what each statement does to them, under the same checks that the databases' tables
//! have. Decides nothing. Written to by `databases::memory`; simulations read it.

use std::sync::Arc;

use imbl::OrdMap;
use tcc_participant::memory::{BranchTable, HasBranches, MemoryError, StoredBranch};
use tcc_types::{BranchRowStatus, Gid};

use crate::{ORDER, OrderRow, Placed, RowStatus};

/// The orders' rows. A clone is cheap, and a snapshot.
#[derive(Clone, Debug, Default)]
pub struct OrderTable {
    rows: OrdMap<Gid, Arc<OrderRow>>,
}

impl OrderTable {
    /// All of them, in the order of their ids.
    pub fn orders(&self) -> impl DoubleEndedIterator<Item = &OrderRow> {
        self.rows.values().map(|row| &**row)
    }

    /// Those whose ids are less.
    pub(crate) fn before(&self, id: Gid) -> impl DoubleEndedIterator<Item = &OrderRow> {
        self.rows.range(..id).map(|(_, row)| &**row)
    }

    /// One of them.
    #[must_use]
    pub fn order(&self, id: Gid) -> Option<&OrderRow> {
        self.rows.get(&id).map(|row| &**row)
    }

    /// Changes an order, its id included, as somebody might beside the framework; false where there is none.
    ///
    /// # Errors
    /// The table's checks forbid it.
    pub fn change(&mut self, id: Gid, change: impl FnOnce(&mut OrderRow)) -> Result<bool, MemoryError> {
        let Some(row) = self.order(id) else { return Ok(false) };
        let mut row = row.clone();
        change(&mut row);
        if row.held && !row.placed.hold() {
            return Err(MemoryError::Check);
        }
        if row.id != id && self.rows.contains_key(&row.id) {
            return Err(MemoryError::Duplicate);
        }
        self.rows.remove(&id);
        self.rows.insert(row.id, Arc::new(row));
        Ok(true)
    }

    /// See [`OrderStore::insert`](crate::OrderStore::insert).
    pub(crate) fn insert(&mut self, id: Gid, placed: &Placed) -> bool {
        let is_new = !self.rows.contains_key(&id);
        if is_new {
            self.rows.insert(id, Arc::new(OrderRow { id, placed: placed.clone(), status: RowStatus::Tried, held: false }));
        }
        is_new
    }

    /// See [`OrderStore::settle`](crate::OrderStore::settle).
    pub(crate) fn settle(&mut self, id: Gid, status: RowStatus) -> Result<bool, MemoryError> {
        let is_tried = self.order(id).is_some_and(|row| row.status == RowStatus::Tried);
        Ok(is_tried && self.change(id, |row| row.status = status)?)
    }

    /// See [`OrderBooks::mark_held`](crate::OrderBooks::mark_held).
    pub(crate) fn mark_held(&mut self, id: Gid) -> Result<(), MemoryError> {
        if self.may_be_marked(id) {
            self.change(id, |row| row.held = true)?;
        }
        Ok(())
    }

    /// A hold that is still tried, and not marked yet.
    pub(crate) fn may_be_marked(&self, id: Gid) -> bool {
        self.order(id).is_some_and(|row| row.status == RowStatus::Tried && row.placed.hold() && !row.held)
    }
}

/// The orders' tables, the SDK's among them.
#[derive(Clone, Debug, Default)]
pub struct OrderTables {
    /// The branches' rows.
    pub branches: BranchTable,
    /// The orders.
    pub orders: OrderTable,
}

impl HasBranches for OrderTables {
    fn branches(&self) -> &BranchTable {
        &self.branches
    }

    fn branches_mut(&mut self) -> &mut BranchTable {
        &mut self.branches
    }
}

impl OrderTables {
    /// The books: an order's row is where its branch is, as long as that is there, and a tried one has a branch. Holds at each commit.
    ///
    /// # Errors
    /// The first order for which it is not so.
    pub fn check(&self) -> Result<(), String> {
        let is_orders = |stored: &&StoredBranch| stored.row.key.branch.as_str() == ORDER;
        for stored in self.branches.rows().filter(is_orders) {
            let (order, row) = (self.orders.order(stored.row.key.gid), &stored.row);
            let wanted = match row.status {
                BranchRowStatus::Tried => Some(RowStatus::Tried),
                BranchRowStatus::Confirmed => Some(RowStatus::Confirmed),
                BranchRowStatus::Cancelled if !row.empty => Some(RowStatus::Cancelled),
                // What was refused may be the id of an order that is there.
                BranchRowStatus::Refused => continue,
                BranchRowStatus::Cancelled => None,
            };
            if order.map(|order| order.status) != wanted {
                return Err(format!("{}: its branch is {:?}, and its row is {order:?}", row.key, row.status));
            }
        }
        let tried = self.orders.orders().filter(|order| order.status == RowStatus::Tried).count();
        match self.branches.tried().filter(is_orders).count() {
            branches if branches == tried => Ok(()),
            branches => Err(format!("{tried} orders are tried, and the branches of {branches}")),
        }
    }
}

//! The log's tables as one value: what the statements change, and what the checks of a simulation look at. Every collection is
//! ordered, so that nothing here depends on chance.

use std::{ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use tcc_types::{Gid, IdempotencyKey, Initiator, LogName, Timestamp};

use crate::{AuditRecord, Due, NewAudit, Owner, TxRecord};

/// The tables of a log on a [`Memory`](tcc_database::memory::Memory). A clone shares whatever was not changed since.
#[derive(Clone, Debug)]
pub struct LogTables {
    name: LogName,
    transactions: OrdMap<Gid, Row>,
    /// Which transaction an initiator began under a key.
    keys: OrdMap<(Initiator, IdempotencyKey), Gid>,
    /// What is unfinished, by when recovery may claim it: the fresh, and what has stuck branches.
    unfinished: [OrdSet<(Timestamp, Gid)>; 2],
    /// The last number that was taken.
    owner: u64,
    audit: OrdMap<u64, Arc<AuditRecord>>,
}

/// A transaction with its branches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) record: Arc<TxRecord>,
    /// Some branch of it was parked as stuck.
    pub(super) has_stuck: bool,
}

impl Row {
    pub(super) fn is_unfinished(&self) -> bool {
        self.record.finished_at.is_none()
    }

    /// Its place among what is unfinished.
    fn due(&self) -> (Timestamp, Gid) {
        (self.record.next_attempt_at, self.record.gid)
    }
}

/// What a commit did to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It came to be.
    Inserted(&'a TxRecord),
    /// It, or a branch of it, is another than before.
    Updated {
        /// As it was.
        before: &'a TxRecord,
        /// As it is.
        after: &'a TxRecord,
    },
    /// It is gone.
    Deleted(&'a TxRecord),
}

impl LogTables {
    /// Empty ones, of the log of this name.
    #[must_use]
    pub fn new(name: LogName) -> Self {
        Self {
            name,
            transactions: OrdMap::new(),
            keys: OrdMap::new(),
            unfinished: [OrdSet::new(), OrdSet::new()],
            owner: Owner::NOBODY.0,
            audit: OrdMap::new(),
        }
    }

    /// Whose they are.
    #[must_use]
    pub const fn name(&self) -> &LogName {
        &self.name
    }

    /// One transaction with its branches.
    #[must_use]
    pub fn transaction(&self, gid: Gid) -> Option<&TxRecord> {
        self.row(gid).map(|row| &*row.record)
    }

    /// All transactions with their branches, by their gids.
    pub fn transactions(&self) -> impl DoubleEndedIterator<Item = &TxRecord> {
        self.transactions.values().map(|row| &*row.record)
    }

    /// How many transactions there are.
    #[must_use]
    pub fn transaction_count(&self) -> usize {
        self.transactions.len()
    }

    /// Which transactions are others than in these earlier tables, by their gids. Costs what has changed, not what there is.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Change<'a>> {
        before.transactions.diff(&self.transactions).map(|item| match item {
            DiffItem::Add(_, row) => Change::Inserted(&row.record),
            DiffItem::Update { old: (_, old), new: (_, new) } => Change::Updated { before: &old.record, after: &new.record },
            DiffItem::Remove(_, row) => Change::Deleted(&row.record),
        })
    }

    /// The audit record, oldest first.
    pub fn audit(&self) -> impl DoubleEndedIterator<Item = &AuditRecord> {
        self.audit.values().map(|record| &**record)
    }

    /// The last owner's number that was taken.
    #[must_use]
    pub const fn last_owner(&self) -> Owner {
        Owner(self.owner)
    }

    pub(super) fn row(&self, gid: Gid) -> Option<&Row> {
        self.transactions.get(&gid)
    }

    /// Those with greater gids, in their order.
    pub(super) fn after(&self, gid: Option<Gid>) -> impl Iterator<Item = &TxRecord> {
        let from = gid.map_or(Bound::Unbounded, Bound::Excluded);
        self.transactions.range::<_, Gid>((from, Bound::Unbounded)).map(|(_, row)| &*row.record)
    }

    /// Those with lesser gids, the greatest first.
    pub(super) fn before(&self, gid: Option<Gid>) -> impl Iterator<Item = &TxRecord> {
        let until = gid.map_or(Bound::Unbounded, Bound::Excluded);
        self.transactions.range::<_, Gid>((Bound::Unbounded, until)).rev().map(|(_, row)| &*row.record)
    }

    /// Lines of the audit record with lesser numbers, the greatest first.
    pub(super) fn audit_before(&self, sequence: Option<u64>) -> impl Iterator<Item = &AuditRecord> {
        let until = sequence.map_or(Bound::Unbounded, Bound::Excluded);
        self.audit.range::<_, u64>((Bound::Unbounded, until)).rev().map(|(_, record)| &**record)
    }

    pub(super) fn gid_of(&self, initiator: &Initiator, key: &IdempotencyKey) -> Option<Gid> {
        self.keys.get(&(initiator.clone(), key.clone())).copied()
    }

    /// What is unfinished of this kind, with when recovery may claim it, earliest first.
    pub(super) fn unfinished_of(&self, due: Due) -> impl Iterator<Item = (Timestamp, Gid)> {
        let kind = match due {
            Due::Fresh => 0,
            Due::Stuck => 1,
        };
        self.unfinished[kind].iter().copied()
    }

    pub(super) fn unfinished_count(&self) -> usize {
        self.unfinished.iter().map(OrdSet::len).sum()
    }

    /// Inserts it, unless its gid or its key is taken. Tells whether it did.
    pub(super) fn insert(&mut self, record: TxRecord) -> bool {
        let gid = record.gid;
        let key = record.key.clone().map(|key| (record.initiator.clone(), key));
        if self.transactions.contains_key(&gid) || key.as_ref().is_some_and(|key| self.keys.contains_key(key)) {
            return false;
        }
        if let Some(key) = key {
            self.keys.insert(key, gid);
        }
        let row = Row { record: Arc::new(record), has_stuck: false };
        self.put(gid, row);
        true
    }

    /// Changes one, if it is there and this is true of it; tells how it is then. Neither its gid nor its key may change.
    pub(super) fn update(
        &mut self,
        gid: Gid,
        only_if: impl FnOnce(&Row) -> bool,
        change: impl FnOnce(&mut TxRecord, &mut bool),
    ) -> Option<&Row> {
        let mut row = self.transactions.get(&gid).filter(|row| only_if(row))?.clone();
        self.unfinished[usize::from(row.has_stuck)].remove(&row.due());
        change(Arc::make_mut(&mut row.record), &mut row.has_stuck);
        self.put(gid, row);
        self.transactions.get(&gid)
    }

    pub(super) fn delete(&mut self, gid: Gid) {
        let Some(row) = self.transactions.remove(&gid) else { return };
        self.unfinished[usize::from(row.has_stuck)].remove(&row.due());
        if let Some(key) = &row.record.key {
            self.keys.remove(&(row.record.initiator.clone(), key.clone()));
        }
    }

    fn put(&mut self, gid: Gid, row: Row) {
        if row.is_unfinished() {
            self.unfinished[usize::from(row.has_stuck)].insert(row.due());
        }
        self.transactions.insert(gid, row);
    }

    pub(super) fn take_owner(&mut self) -> Owner {
        self.owner += 1;
        Owner(self.owner)
    }

    pub(super) fn append(&mut self, entry: NewAudit, at: Timestamp) -> AuditRecord {
        let sequence = self.audit.get_max().map_or(0, |(last, _)| *last) + 1;
        let record = AuditRecord { sequence, at, entry };
        self.audit.insert(sequence, Arc::new(record.clone()));
        record
    }
}

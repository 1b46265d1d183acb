//! The branches' rows in memory, and what each statement of the SDK does to them. Decides nothing: that is the barrier's. Written to by
//! the implementation of `Database`; simulations read it.

use std::{
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use tcc_barrier::{Kept, Request, Row};
use tcc_types::{BranchKey, BranchRowStatus, CancelCall, Decision, Fingerprint, Gid, Payload, Refusal, Timestamp, TryCall};

use crate::{
    BranchRow, InDoubt, OldRow,
    rows::{corrupt, settled, undone},
};

/// A branch's row with all that is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredBranch {
    /// What operators see too.
    pub row: BranchRow,
    /// Of what its Try asked; `None` after an empty rollback.
    pub fingerprint: Option<Fingerprint>,
    /// What its Try reserved.
    pub reserved: Option<Bytes>,
    /// What its Try answered beside yes.
    pub output: Option<Payload>,
}

impl StoredBranch {
    fn is_tried(&self) -> bool {
        self.row.status == BranchRowStatus::Tried
    }

    /// As the barrier sees it.
    pub(super) fn barrier_row(&self) -> Result<Row, sqlx::Error> {
        let coordinator = self.row.coordinator.clone();
        let request = self.fingerprint.zip(coordinator).map(|(fingerprint, coordinator)| Request { fingerprint, coordinator });
        let known = || request.clone().ok_or_else(|| corrupt("a row without the request of its Try"));
        Ok(match self.row.status {
            BranchRowStatus::Tried => Row::Tried { request: known()?, output: self.output.clone() },
            BranchRowStatus::Refused => {
                let refusal = self.row.refusal.clone().ok_or_else(|| corrupt("a refused row without its reason"))?;
                Row::Refused { request: known()?, refusal }
            }
            BranchRowStatus::Confirmed => Row::Confirmed { request: known()?, output: self.output.clone() },
            BranchRowStatus::Cancelled => Row::Cancelled { request },
        })
    }

    fn old_row(&self) -> OldRow {
        let BranchRow { key, status, coordinator, not_after, changed_at, .. } = self.row.clone();
        OldRow { key, status, coordinator, not_after, changed_at }
    }
}

/// The rows. A clone is cheap, and a snapshot.
#[derive(Clone, Debug, Default)]
pub struct BranchTable {
    rows: OrdMap<BranchKey, Arc<StoredBranch>>,
    /// Those still tried, by when they ask.
    tried: OrdSet<(Timestamp, BranchKey)>,
}

impl BranchTable {
    /// All rows, in the order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = &StoredBranch> {
        self.rows.values().map(|stored| &**stored)
    }

    /// A branch's row.
    #[must_use]
    pub fn get(&self, key: &BranchKey) -> Option<&StoredBranch> {
        self.rows.get(key).map(|stored| &**stored)
    }

    /// Which rows are others than in this earlier table, by their keys: as they were, and as they are. Costs what has changed, not what
    /// there is.
    pub fn changes_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a StoredBranch>, Option<&'a StoredBranch>)> {
        before.rows.diff(&self.rows).map(|item| match item {
            DiffItem::Add(_, new) => (None, Some(&**new)),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(&**old), Some(&**new)),
            DiffItem::Remove(_, old) => (Some(&**old), None),
        })
    }

    /// Those still tried, in the order in which they ask.
    pub fn tried(&self) -> impl Iterator<Item = &StoredBranch> {
        self.tried.iter().filter_map(|(_, key)| self.get(key))
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Changes a row whatever it is, as somebody would who goes around the SDK: for tests. False where there is none.
    pub fn tamper(&mut self, key: &BranchKey, change: impl FnOnce(&mut StoredBranch)) -> bool {
        let Some(stored) = self.get(key) else { return false };
        let mut stored = stored.clone();
        change(&mut stored);
        self.put(stored);
        true
    }

    /// Puts a row in the place of what is there.
    fn put(&mut self, stored: StoredBranch) {
        let key = stored.row.key.clone();
        self.forget(&key);
        if let (true, Some(ask_after)) = (stored.is_tried(), stored.row.ask_after) {
            self.tried.insert((ask_after, key.clone()));
        }
        self.rows.insert(key, Arc::new(stored));
    }

    fn forget(&mut self, key: &BranchKey) {
        if let Some(before) = self.rows.remove(key)
            && let (true, Some(ask_after)) = (before.is_tried(), before.row.ask_after)
        {
            self.tried.remove(&(ask_after, key.clone()));
        }
    }

    /// Changes a row that is tried. False where there is none.
    fn change_tried(&mut self, key: &BranchKey, change: impl FnOnce(&mut StoredBranch)) -> bool {
        self.get(key).is_some_and(StoredBranch::is_tried) && self.tamper(key, change)
    }

    /// See [`Database::insert_tried`](crate::Database::insert_tried).
    pub(super) fn insert_tried(&mut self, call: &TryCall, foreseen: Option<Kept<'_>>, now: Timestamp) -> bool {
        if self.rows.contains_key(&call.key) || now > call.not_after {
            return false;
        }
        let row = BranchRow {
            key: call.key.clone(),
            status: BranchRowStatus::Tried,
            empty: false,
            type_url: Some(call.payload.type_url.clone()),
            coordinator: Some(call.coordinator.clone()),
            refusal: None,
            not_after: call.not_after,
            ask_after: Some(call.ask_after),
            created_at: now,
            changed_at: now,
            forgotten_at: None,
        };
        self.put(StoredBranch {
            row,
            fingerprint: Some(call.payload.fingerprint()),
            reserved: foreseen.map(|kept| kept.reserved.clone()),
            output: foreseen.and_then(|kept| kept.output.cloned()),
        });
        true
    }

    /// See [`Database::settle_tried`](crate::Database::settle_tried).
    pub(super) fn settle_tried(
        &mut self,
        key: &BranchKey,
        decision: Decision,
        now: Timestamp,
    ) -> Result<Option<Bytes>, sqlx::Error> {
        let Some(tried) = self.get(key).filter(|stored| stored.is_tried()) else { return Ok(None) };
        let reserved = tried.reserved.clone().ok_or_else(|| corrupt("a tried row without what it reserved"))?;
        self.change_tried(key, |stored| (stored.row.status, stored.row.changed_at) = (settled(decision), now));
        Ok(Some(reserved))
    }

    /// See [`Database::insert_cancelled`](crate::Database::insert_cancelled).
    pub(super) fn insert_cancelled(&mut self, call: &CancelCall, now: Timestamp) -> bool {
        if self.rows.contains_key(&call.key) {
            return false;
        }
        let row = BranchRow {
            key: call.key.clone(),
            status: BranchRowStatus::Cancelled,
            empty: true,
            type_url: None,
            coordinator: None,
            refusal: None,
            not_after: call.not_after,
            ask_after: None,
            created_at: now,
            changed_at: now,
            forgotten_at: None,
        };
        self.put(StoredBranch { row, fingerprint: None, reserved: None, output: None });
        true
    }

    /// See [`Database::keep_reserved`](crate::Database::keep_reserved).
    pub(super) fn keep_reserved(&mut self, kept: Kept<'_>) -> Result<(), sqlx::Error> {
        let is_kept = self.change_tried(kept.key, |stored| {
            stored.reserved = Some(kept.reserved.clone());
            stored.output = kept.output.cloned();
        });
        if is_kept { Ok(()) } else { Err(undone()) }
    }

    /// See [`Database::keep_refusals`](crate::Database::keep_refusals).
    pub(super) fn keep_refusal(&mut self, key: &BranchKey, refusal: &Refusal) -> Result<(), sqlx::Error> {
        let is_kept = self.change_tried(key, |stored| {
            stored.row.status = BranchRowStatus::Refused;
            // Of its reason nothing is stored: it is always the same.
            stored.row.refusal = Some(Refusal::business(refusal.code.as_str(), &refusal.message));
            (stored.reserved, stored.output) = (None, None);
        });
        if is_kept { Ok(()) } else { Err(undone()) }
    }

    /// See [`Database::count_tried`](crate::Database::count_tried).
    pub(super) fn count_tried(&self) -> u64 {
        self.tried.len() as u64
    }

    /// See [`Database::tried_due`](crate::Database::tried_due).
    pub(super) fn tried_due(&self, now: Timestamp, limit: u32) -> Result<Vec<InDoubt>, sqlx::Error> {
        let due = self.tried.iter().take_while(|(ask_after, _)| *ask_after <= now).take(limit as usize);
        due.map(|(ask_after, key)| {
            let row = &self.get(key).ok_or_else(|| corrupt("a tried row that is not there"))?.row;
            let coordinator = row.coordinator.clone().ok_or_else(|| corrupt("a tried row without its coordinator"))?;
            Ok(InDoubt { key: key.clone(), coordinator, not_after: row.not_after, ask_after: *ask_after })
        })
        .collect()
    }

    /// See [`Database::postpone`](crate::Database::postpone).
    pub(super) fn postpone(&mut self, key: &BranchKey, ask_after: Timestamp, forgotten_at: Option<Timestamp>) -> bool {
        self.change_tried(key, |stored| {
            stored.row.ask_after = Some(ask_after);
            stored.row.forgotten_at = stored.row.forgotten_at.or(forgotten_at);
        })
    }

    /// See [`Database::ended_page`](crate::Database::ended_page).
    pub(super) fn ended_page(&self, after: Option<&BranchKey>, minted_before: Gid, limit: u32) -> Vec<OldRow> {
        let older = self.after(after).take_while(|stored| stored.row.key.gid < minted_before);
        older.take(limit as usize).map(StoredBranch::old_row).collect()
    }

    /// See [`Database::delete_ended`](crate::Database::delete_ended).
    pub(super) fn delete_ended(&mut self, row: &OldRow) -> bool {
        let as_read = |stored: &StoredBranch| stored.row.status == row.status && stored.row.changed_at == row.changed_at;
        let deletes = self.get(&row.key).is_some_and(|stored| as_read(stored) && !stored.is_tried());
        if deletes {
            self.forget(&row.key);
        }
        deletes
    }

    /// See [`Database::forgotten`](crate::Database::forgotten).
    pub(super) fn forgotten(&self, after: Option<&BranchKey>, limit: u32) -> Vec<BranchRow> {
        let forgotten = self.after(after).filter(|stored| stored.is_tried() && stored.row.forgotten_at.is_some());
        forgotten.take(limit as usize).map(|stored| stored.row.clone()).collect()
    }

    fn after(&self, key: Option<&BranchKey>) -> impl Iterator<Item = &StoredBranch> {
        let from = key.map_or(Unbounded, Excluded);
        self.rows.range::<_, BranchKey>((from, Unbounded)).map(|(_, stored)| &**stored)
    }
}

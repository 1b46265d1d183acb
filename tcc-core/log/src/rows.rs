//! Stored rows as records, the same in every database. Nothing else decodes a column of the log's tables.

use std::collections::HashMap;

use sqlx::Row;
use tcc_machine::{BranchProgress, CancelCause, Stuck};
use tcc_types::{
    BranchId, BranchKey, Fingerprint, Gid, IdempotencyKey, Initiator, ParticipantName, Payload, Timestamp, TxStatus,
};

use crate::{
    AuditRecord, BranchRecord, Error, NewAudit, Owner, StuckBranch, TxRecord,
    codes::Code,
    fault::{Fault, damaged},
};

/// The columns that [`head`] reads, in its order.
macro_rules! head_columns {
    () => {
        "gid, status, initiator, idempotency_key, fingerprint, try_order, decides, branch_count, try_until, decide_by, created_at, \
         decided_at, finished_at, next_attempt_at, cause, owner"
    };
}
pub(crate) use head_columns;

/// The columns that [`branch`] reads, in its order.
macro_rules! branch_columns {
    () => {
        "gid, branch_id, participant, type_url, payload, settled, attempts, stuck_kind, stuck_since, stuck_detail"
    };
}
pub(crate) use branch_columns;

/// The columns that [`stuck_branch`] reads, in its order, of a branch `b` and its transaction `t`.
macro_rules! stuck_columns {
    () => {
        "b.gid, b.branch_id, b.participant, t.status, b.stuck_kind, b.stuck_since, b.stuck_detail, b.attempts, t.next_attempt_at"
    };
}
pub(crate) use stuck_columns;

/// The columns that [`audit`] reads, in its order.
macro_rules! audit_columns {
    () => {
        "sequence, at, gid, branch_id, action, actor, reason"
    };
}
pub(crate) use audit_columns;

/// A row's values by their place. Integers may be of any width.
pub(crate) trait Columns {
    fn int(&self, index: usize) -> Result<i64, sqlx::Error>;
    fn maybe_int(&self, index: usize) -> Result<Option<i64>, sqlx::Error>;
    fn bytes(&self, index: usize) -> Result<&[u8], sqlx::Error>;
    fn maybe_bytes(&self, index: usize) -> Result<Option<&[u8]>, sqlx::Error>;
    fn text(&self, index: usize) -> Result<&str, sqlx::Error>;
    fn maybe_text(&self, index: usize) -> Result<Option<&str>, sqlx::Error>;
}

macro_rules! columns {
    ($($row:ty: $get:ident),+) => {$(
        impl Columns for $row {
            fn int(&self, index: usize) -> Result<i64, sqlx::Error> {
                self.$get(index)
            }
            fn maybe_int(&self, index: usize) -> Result<Option<i64>, sqlx::Error> {
                self.$get(index)
            }
            fn bytes(&self, index: usize) -> Result<&[u8], sqlx::Error> {
                self.try_get(index)
            }
            fn maybe_bytes(&self, index: usize) -> Result<Option<&[u8]>, sqlx::Error> {
                self.try_get(index)
            }
            fn text(&self, index: usize) -> Result<&str, sqlx::Error> {
                self.try_get(index)
            }
            fn maybe_text(&self, index: usize) -> Result<Option<&str>, sqlx::Error> {
                self.try_get(index)
            }
        }
    )+};
}

// The check that is left out for PostgreSQL wants an exact width; the decoder takes any.
columns!(sqlx::sqlite::SqliteRow: try_get, sqlx::postgres::PgRow: try_get_unchecked, sqlx::mysql::MySqlRow: try_get);

/// A gid's column.
pub(crate) fn gid(row: &impl Columns, index: usize) -> Result<Gid, Fault> {
    Ok(Gid::from_bytes(row.bytes(index)?).map_err(|_| damaged("gid"))?)
}

/// The gids in the first column.
pub(crate) fn gids<C: FromIterator<Gid>>(rows: &[impl Columns]) -> Result<C, Fault> {
    rows.iter().map(|row| gid(row, 0)).collect()
}

/// Counts by gid, from (gid, count).
pub(crate) fn gid_counts(rows: &[impl Columns]) -> Result<HashMap<Gid, u32>, Fault> {
    rows.iter().map(|row| Ok((gid(row, 0)?, count(row, 1)?))).collect()
}

/// An instant's column.
pub(crate) fn instant(row: &impl Columns, index: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_micros(row.int(index)?))
}

/// An owner's column.
pub(crate) fn owner(row: &impl Columns, index: usize) -> Result<Owner, Fault> {
    Ok(u64::try_from(row.int(index)?).map(Owner).map_err(|_| damaged("owner"))?)
}

/// An owner as it is stored.
pub(crate) fn owner_number(owner: Owner) -> i64 {
    // Numbers are given out by databases whose numbers these are.
    i64::try_from(owner.0).unwrap_or(i64::MAX)
}

/// A status' column.
pub(crate) fn status(row: &impl Columns, index: usize) -> Result<TxStatus, Fault> {
    Ok(TxStatus::from_code(row.int(index)?).ok_or_else(|| damaged("status"))?)
}

/// A small count's column.
pub(crate) fn count(row: &impl Columns, index: usize) -> Result<u32, Fault> {
    Ok(u32::try_from(row.int(index)?).map_err(|_| damaged("count"))?)
}

/// The column of an enum's number.
fn code<C: Code>(row: &impl Columns, index: usize, what: &str) -> Result<C, Fault> {
    Ok(C::from_code(row.int(index)?).ok_or_else(|| damaged(what))?)
}

/// The column of a cause.
fn cause(row: &impl Columns, index: usize) -> Result<Option<CancelCause>, Fault> {
    let text = row.maybe_text(index)?;
    Ok(text.map(|text| serde_json::from_str(text).map_err(|_| damaged("cause"))).transpose()?)
}

/// A cause as it is stored.
pub(crate) fn cause_text(cause: &CancelCause) -> Result<String, Error> {
    serde_json::to_string(cause).map_err(|error| Error::Unusable(format!("the cause cannot be stored: {error}")))
}

/// A transaction without its branches, from [`head_columns`].
pub(crate) fn head(row: &impl Columns) -> Result<TxRecord, Fault> {
    let fingerprint = row.maybe_bytes(4)?;
    let fingerprint = fingerprint.map(|bytes| Fingerprint::from_slice(bytes).ok_or_else(|| damaged("fingerprint")));
    Ok(TxRecord {
        gid: gid(row, 0)?,
        status: status(row, 1)?,
        initiator: Initiator::new(row.text(2)?).map_err(|_| damaged("initiator"))?,
        key: row.maybe_text(3)?.map(IdempotencyKey::new).transpose().map_err(|_| damaged("key"))?,
        fingerprint: fingerprint.transpose()?,
        try_order: code(row, 5, "try order")?,
        decides: code(row, 6, "way of deciding")?,
        branch_count: count(row, 7)?,
        try_until: instant(row, 8)?,
        decide_by: instant(row, 9)?,
        created_at: instant(row, 10)?,
        decided_at: row.maybe_int(11)?.map(Timestamp::from_micros),
        finished_at: row.maybe_int(12)?.map(Timestamp::from_micros),
        next_attempt_at: instant(row, 13)?,
        cause: cause(row, 14)?,
        owner: owner(row, 15)?,
        branches: Vec::new(),
    })
}

/// Transactions without their branches, by their gids.
pub(crate) fn heads(rows: &[impl Columns]) -> Result<HashMap<Gid, TxRecord>, Fault> {
    rows.iter().map(|row| head(row).map(|record| (record.gid, record))).collect()
}

/// Why a branch is stuck, from three columns beginning at `index`.
fn stuck(row: &impl Columns, index: usize) -> Result<Option<Stuck>, Fault> {
    let Some(kind) = row.maybe_int(index)? else { return Ok(None) };
    let kind = Code::from_code(kind).ok_or_else(|| damaged("kind of stuck"))?;
    Ok(Some(Stuck { kind, since: instant(row, index + 1)?, detail: row.text(index + 2)?.to_owned() }))
}

/// A branch's id.
pub(crate) fn branch_id(row: &impl Columns, index: usize) -> Result<BranchId, Fault> {
    Ok(BranchId::new(row.text(index)?).map_err(|_| damaged("branch id"))?)
}

fn participant(row: &impl Columns, index: usize) -> Result<ParticipantName, Fault> {
    Ok(ParticipantName::new(row.text(index)?).map_err(|_| damaged("participant"))?)
}

fn branch_key(row: &impl Columns, index: usize) -> Result<BranchKey, Fault> {
    Ok(BranchKey { gid: gid(row, index)?, branch: branch_id(row, index + 1)? })
}

/// A branch from [`branch_columns`].
fn branch(row: &impl Columns) -> Result<BranchRecord, Fault> {
    let settled = row.maybe_int(5)?;
    Ok(BranchRecord {
        branch: branch_id(row, 1)?,
        participant: participant(row, 2)?,
        payload: Payload { type_url: row.text(3)?.to_owned(), value: row.bytes(4)?.to_vec().into() },
        progress: BranchProgress {
            settled: settled.map(|number| Code::from_code(number).ok_or_else(|| damaged("settlement"))).transpose()?,
            attempts: count(row, 6)?,
            stuck: stuck(row, 7)?,
        },
    })
}

/// Gives each branch to its transaction. They must come in the initiator's order.
pub(crate) fn add_branches(records: &mut HashMap<Gid, TxRecord>, rows: &[impl Columns]) -> Result<(), Fault> {
    for row in rows {
        if let Some(record) = records.get_mut(&gid(row, 0)?) {
            record.branches.push(branch(row)?);
        }
    }
    Ok(())
}

/// Those that have branches to be read.
pub(crate) fn with_branches(records: &HashMap<Gid, TxRecord>) -> Vec<Gid> {
    records.values().filter(|record| record.branch_count > 0).map(|record| record.gid).collect()
}

/// A stuck branch from [`stuck_columns`].
pub(crate) fn stuck_branch(row: &impl Columns) -> Result<StuckBranch, Fault> {
    Ok(StuckBranch {
        key: branch_key(row, 0)?,
        participant: participant(row, 2)?,
        status: status(row, 3)?,
        stuck: stuck(row, 4)?.ok_or_else(|| damaged("stuck branch"))?,
        attempts: count(row, 7)?,
        next_attempt_at: instant(row, 8)?,
    })
}

/// A line of the audit record from [`audit_columns`].
pub(crate) fn audit(row: &impl Columns) -> Result<AuditRecord, Fault> {
    Ok(AuditRecord {
        sequence: row.int(0)?.unsigned_abs(),
        at: instant(row, 1)?,
        entry: NewAudit {
            key: branch_key(row, 2)?,
            action: code(row, 4, "audit action")?,
            actor: row.text(5)?.to_owned(),
            reason: row.text(6)?.to_owned(),
        },
    })
}

/// Counts by status from (status, count); what has none has zero.
pub(crate) fn counts(rows: &[impl Columns]) -> Result<Vec<(TxStatus, u64)>, Fault> {
    let mut counts = TxStatus::ALL.map(|status| (status, 0));
    for row in rows {
        let status = status(row, 0)?;
        for (_, count) in counts.iter_mut().filter(|(known, _)| *known == status) {
            *count = row.int(1)?.unsigned_abs();
        }
    }
    Ok(counts.to_vec())
}

/// For each key its transaction, and whether the branch is that one's, from rows of (gid, branch_id).
pub(crate) fn statuses(
    keys: &[BranchKey],
    heads: &HashMap<Gid, TxRecord>,
    branches: &[impl Columns],
) -> Result<Vec<Option<(TxRecord, bool)>>, Fault> {
    let branches = branches.iter().map(|row| branch_key(row, 0)).collect::<Result<std::collections::HashSet<_>, _>>()?;
    let found = |key: &BranchKey| heads.get(&key.gid).map(|record| (record.clone(), branches.contains(key)));
    Ok(keys.iter().map(found).collect())
}

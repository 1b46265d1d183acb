//! Stored rows as records. Nothing else decodes a column of a transaction or a branch.

use std::collections::HashMap;

use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use tcc_machine::{BranchProgress, CancelCause, Stuck};
use tcc_types::{BranchId, Fingerprint, Gid, IdempotencyKey, Initiator, ParticipantName, Payload, Timestamp, TxStatus};

use super::{
    fault::{damaged, nothing_done},
    values::{ManyRows, Values},
};
use crate::{BranchRecord, Error, TxRecord, codes::Code};

/// The columns that [`head`] reads, in its order.
macro_rules! head_columns {
    () => {
        "gid, status, initiator, idempotency_key, fingerprint, try_order, decides, branch_count, try_until, decide_by, created_at, \
         decided_at, finished_at, next_attempt_at, cause"
    };
}
pub(super) use head_columns;

/// One column's value.
pub(super) fn get<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, Error>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(|error| nothing_done(&error))
}

/// A gid's column.
pub(super) fn gid(row: &SqliteRow, index: usize) -> Result<Gid, Error> {
    Gid::from_bytes(get::<&[u8]>(row, index)?).map_err(|_| damaged("gid"))
}

/// An instant's column.
pub(super) fn instant(row: &SqliteRow, index: usize) -> Result<Timestamp, Error> {
    Ok(Timestamp::from_micros(get(row, index)?))
}

/// A status' column.
pub(super) fn status(row: &SqliteRow, index: usize) -> Result<TxStatus, Error> {
    TxStatus::from_code(get(row, index)?).ok_or_else(|| damaged("status"))
}

/// A small count's column.
pub(super) fn count(row: &SqliteRow, index: usize) -> Result<u32, Error> {
    u32::try_from(get::<i64>(row, index)?).map_err(|_| damaged("count"))
}

/// The column of an enum's number.
pub(super) fn code<C: Code>(row: &SqliteRow, index: usize, what: &str) -> Result<C, Error> {
    C::from_code(get(row, index)?).ok_or_else(|| damaged(what))
}

/// The column of a cause.
pub(super) fn cause(row: &SqliteRow, index: usize) -> Result<Option<CancelCause>, Error> {
    let text = get::<Option<&str>>(row, index)?;
    text.map(|text| serde_json::from_str(text).map_err(|_| damaged("cause"))).transpose()
}

/// A cause as it is stored.
pub(super) fn cause_text(cause: &CancelCause) -> Result<String, Error> {
    serde_json::to_string(cause).map_err(|error| Error::Unusable(format!("the cause cannot be stored: {error}")))
}

/// A transaction without its branches.
pub(super) fn head(row: &SqliteRow) -> Result<TxRecord, Error> {
    let fingerprint = get::<Option<&[u8]>>(row, 4)?;
    let key = get::<Option<String>>(row, 3)?;
    Ok(TxRecord {
        gid: gid(row, 0)?,
        status: status(row, 1)?,
        initiator: Initiator::new(get::<String>(row, 2)?).map_err(|_| damaged("initiator"))?,
        key: key.map(IdempotencyKey::new).transpose().map_err(|_| damaged("key"))?,
        fingerprint: fingerprint
            .map(|bytes| Fingerprint::from_slice(bytes).ok_or_else(|| damaged("fingerprint")))
            .transpose()?,
        try_order: code(row, 5, "try order")?,
        decides: code(row, 6, "way of deciding")?,
        branch_count: count(row, 7)?,
        try_until: instant(row, 8)?,
        decide_by: instant(row, 9)?,
        created_at: instant(row, 10)?,
        decided_at: get::<Option<i64>>(row, 11)?.map(Timestamp::from_micros),
        finished_at: get::<Option<i64>>(row, 12)?.map(Timestamp::from_micros),
        next_attempt_at: instant(row, 13)?,
        cause: cause(row, 14)?,
        branches: Vec::new(),
    })
}

/// Why a branch is stuck, from three columns beginning at `index`.
pub(super) fn stuck(row: &SqliteRow, index: usize) -> Result<Option<Stuck>, Error> {
    let Some(kind) = get::<Option<i64>>(row, index)? else { return Ok(None) };
    let kind = Code::from_code(kind).ok_or_else(|| damaged("kind of stuck"))?;
    Ok(Some(Stuck { kind, since: instant(row, index + 1)?, detail: get(row, index + 2)? }))
}

/// A branch's id.
pub(super) fn branch_id(row: &SqliteRow, index: usize) -> Result<BranchId, Error> {
    BranchId::new(get::<String>(row, index)?).map_err(|_| damaged("branch id"))
}

/// A participant's name.
pub(super) fn participant(row: &SqliteRow, index: usize) -> Result<ParticipantName, Error> {
    ParticipantName::new(get::<String>(row, index)?).map_err(|_| damaged("participant"))
}

/// A branch from [`BRANCHES`]'s columns.
fn branch(row: &SqliteRow) -> Result<BranchRecord, Error> {
    let settled = get::<Option<i64>>(row, 5)?;
    Ok(BranchRecord {
        branch: branch_id(row, 1)?,
        participant: participant(row, 2)?,
        payload: Payload { type_url: get(row, 3)?, value: get::<Vec<u8>>(row, 4)?.into() },
        progress: BranchProgress {
            settled: settled.map(|number| Code::from_code(number).ok_or_else(|| damaged("settlement"))).transpose()?,
            attempts: count(row, 6)?,
            stuck: stuck(row, 7)?,
        },
    })
}

pub(super) const HEADS: ManyRows = ManyRows {
    head: concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions WHERE gid IN (VALUES "),
    width: 1,
    tail: ")",
};

pub(super) const BRANCHES: ManyRows = ManyRows {
    head: "SELECT gid, branch_id, participant, type_url, payload, settled, attempts, stuck_kind, stuck_since, stuck_detail \
           FROM tcc_log_branches WHERE gid IN (VALUES ",
    width: 1,
    tail: ") ORDER BY gid, seq",
};

/// Binds a row that is only a gid.
pub(super) fn put_gid(values: &mut Values, gid: &Gid) {
    values.put(&gid.as_bytes()[..]);
}

/// Reads transactions without their branches; those that are missing are left out.
pub(super) async fn load_heads(connection: &mut SqliteConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Error> {
    let rows = HEADS.fetch(connection, &[], gids, put_gid).await?;
    rows.iter().map(|row| head(row).map(|record| (record.gid, record))).collect()
}

/// Reads transactions with their branches; those that are missing are left out. The caller's transaction makes the two agree.
pub(super) async fn load(connection: &mut SqliteConnection, gids: &[Gid]) -> Result<HashMap<Gid, TxRecord>, Error> {
    let mut records = load_heads(connection, gids).await?;
    let with_branches: Vec<Gid> = records.values().filter(|record| record.branch_count > 0).map(|record| record.gid).collect();
    let rows = BRANCHES.fetch(connection, &[], &with_branches, put_gid).await?;
    for row in &rows {
        if let Some(record) = records.get_mut(&gid(row, 0)?) {
            record.branches.push(branch(row)?);
        }
    }
    Ok(records)
}

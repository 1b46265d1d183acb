//! The statements over lists of branches: one each (one for each 256 branches), since a statement is a hop to sqlx's thread and back,
//! which costs more than a row. No rules here; called by the implementation of `Database`.
//!
//! Each goes through its list and looks every row up by its key, so that nothing depends on the size of the table.

use bytes::Bytes;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};
use tcc_barrier::{Kept, Look, Request};
use tcc_database::{sqlite::lists::ManyRows, sqlite_given, sqlite_now};
use tcc_types::{BranchKey, CancelCall, Decision, Refusal, Timestamp, TryCall};

use crate::rows::{Keys, answers, corrupt, inserted_here, row, row_of, settled};

/// The tried rows `t` of a list `v`, whose first columns are the key. The plus sign keeps the planner from taking the status for a
/// reason to walk through all that are tried.
macro_rules! of_list {
    () => {
        concat!(") AS v WHERE ", sqlite_given!(), " AND t.gid = v.column1 AND t.branch_id = v.column2 AND +t.status = 1")
    };
}

const INSERT_TRIED: ManyRows = ManyRows {
    head: concat!(
        "INSERT OR FAIL INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, ",
        "not_after, ask_after, reserved, output_type_url, output_value, created_at, changed_at) ",
        "SELECT column1, column2, 1, 0, column3, column4, column5, column6, column7, column8, column9, column10, ",
        sqlite_now!(),
        ", ",
        sqlite_now!(),
        " FROM (VALUES ",
    ),
    width: 10,
    tail: concat!(") WHERE ", sqlite_now!(), " <= column6 ON CONFLICT (gid, branch_id) DO NOTHING RETURNING gid, branch_id"),
};

const SETTLE_TRIED: ManyRows = ManyRows {
    head: concat!("UPDATE OR FAIL tcc_branches AS t SET status = v.column3, changed_at = ", sqlite_now!(), " FROM (VALUES "),
    width: 3,
    tail: concat!(of_list!(), " RETURNING gid, branch_id, reserved"),
};

const INSERT_CANCELLED: ManyRows = ManyRows {
    head: concat!(
        "INSERT OR FAIL INTO tcc_branches (gid, branch_id, status, empty, not_after, created_at, changed_at) ",
        "SELECT column1, column2, 4, 1, column3, ",
        sqlite_now!(),
        ", ",
        sqlite_now!(),
        " FROM (VALUES ",
    ),
    width: 3,
    tail: ") WHERE column1 IS NOT NULL ON CONFLICT (gid, branch_id) DO NOTHING RETURNING gid, branch_id",
};

/// The join yields a row for each key in any case, and so the clock too.
const LOOK: ManyRows = ManyRows {
    head: concat!(
        "SELECT v.column1 AS gid, v.column2 AS branch_id, ",
        sqlite_now!(),
        " AS looked_at, ",
        row!(),
        " FROM (VALUES "
    ),
    width: 2,
    tail: concat!(
        ") AS v LEFT JOIN tcc_branches AS t ON t.gid = v.column1 AND t.branch_id = v.column2 WHERE ",
        sqlite_given!()
    ),
};

const KEEP_RESERVED: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_branches AS t SET reserved = v.column3, output_type_url = v.column4, output_value = v.column5 FROM (VALUES ",
    width: 5,
    tail: of_list!(),
};

const KEEP_REFUSALS: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_branches AS t SET status = 2, refusal_code = v.column3, refusal_message = v.column4, \
           reserved = NULL, output_type_url = NULL, output_value = NULL FROM (VALUES ",
    width: 4,
    tail: of_list!(),
};

pub(super) async fn insert_tried(
    conn: &mut SqliteConnection,
    calls: &[&TryCall],
    foreseen: &[Option<Kept<'_>>],
) -> Result<Vec<bool>, sqlx::Error> {
    let keys = Keys::new(calls.iter().map(|call| &call.key));
    let rows: Vec<_> = calls.iter().copied().zip(foreseen.iter().copied()).collect();
    let inserted = INSERT_TRIED
        .fetch(conn, &[], &rows, |values, (call, kept)| {
            let request = Request::from(*call);
            let output = kept.and_then(|kept| kept.output);
            values
                .put(call.key.gid.to_string())
                .put(call.key.branch.as_str())
                .put(&call.payload.type_url)
                .put(request.fingerprint.as_slice())
                .put(request.coordinator.as_str())
                .put(call.not_after.as_micros())
                .put(call.ask_after.as_micros())
                .put(kept.map(|kept| &kept.reserved[..]))
                .put(output.map(|output| output.type_url.as_str()))
                .put(output.map(|output| &output.value[..]));
        })
        .await?;
    made(&keys, &inserted)
}

pub(super) async fn settle_tried(
    conn: &mut SqliteConnection,
    settles: &[(&BranchKey, Decision)],
) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
    let keys = Keys::new(settles.iter().map(|(key, _)| *key));
    let changed = SETTLE_TRIED
        .fetch(conn, &[], settles, |values, (key, decision)| {
            values.put(key.gid.to_string()).put(key.branch.as_str()).put(settled(*decision).code());
        })
        .await?;
    let changed = changed.iter().map(|row| {
        let reserved: Vec<u8> = row.try_get("reserved")?;
        Ok((place(&keys, row)?, Some(reserved.into())))
    });
    answers(settles.len(), None, changed)
}

pub(super) async fn insert_cancelled(conn: &mut SqliteConnection, calls: &[&CancelCall]) -> Result<Vec<bool>, sqlx::Error> {
    let keys = Keys::new(calls.iter().map(|call| &call.key));
    let inserted = INSERT_CANCELLED
        .fetch(conn, &[], calls, |values, call| {
            values.put(call.key.gid.to_string()).put(call.key.branch.as_str()).put(call.not_after.as_micros());
        })
        .await?;
    made(&keys, &inserted)
}

pub(super) async fn look(conn: &mut SqliteConnection, keys: &[&BranchKey]) -> Result<Look, sqlx::Error> {
    let asked = Keys::new(keys.iter().copied());
    let found = LOOK
        .fetch(conn, &[], keys, |values, key| {
            values.put(key.gid.to_string()).put(key.branch.as_str());
        })
        .await?;
    // A list of several statements has several instants: the latest holds for all.
    let now = found.last().ok_or_else(|| corrupt("no row for a key"))?.try_get("looked_at")?;
    let rows = answers(keys.len(), None, found.iter().map(|row| Ok((place(&asked, row)?, row_of(row)?))))?;
    Ok(Look { rows, now: Timestamp::from_micros(now) })
}

pub(super) async fn keep_reserved(conn: &mut SqliteConnection, kept: &[Kept<'_>]) -> Result<(), sqlx::Error> {
    let changed = KEEP_RESERVED
        .execute(conn, &[], kept, |values, kept| {
            values
                .put(kept.key.gid.to_string())
                .put(kept.key.branch.as_str())
                .put(&kept.reserved[..])
                .put(kept.output.map(|output| output.type_url.as_str()))
                .put(kept.output.map(|output| &output.value[..]));
        })
        .await?;
    inserted_here(changed, kept.len())
}

pub(super) async fn keep_refusals(conn: &mut SqliteConnection, refused: &[(&BranchKey, &Refusal)]) -> Result<(), sqlx::Error> {
    let changed = KEEP_REFUSALS
        .execute(conn, &[], refused, |values, (key, refusal)| {
            values.put(key.gid.to_string()).put(key.branch.as_str()).put(refusal.code.as_str()).put(refusal.message.as_str());
        })
        .await?;
    inserted_here(changed, refused.len())
}

/// Which of the keys are among the inserted rows.
fn made(keys: &Keys<'_>, inserted: &[SqliteRow]) -> Result<Vec<bool>, sqlx::Error> {
    answers(keys.gids.len(), false, inserted.iter().map(|row| Ok((place(keys, row)?, true))))
}

/// The place in the question of the key that a row is for.
fn place(keys: &Keys<'_>, row: &SqliteRow) -> Result<usize, sqlx::Error> {
    keys.place(row.try_get("gid")?, row.try_get("branch_id")?)
}

#[cfg(test)]
mod tests;

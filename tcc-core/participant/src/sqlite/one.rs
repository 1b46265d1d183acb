//! The statements about one branch, each by its key: shorter than lists of one, and faster. No rules here; called by the
//! implementation of `Database`.

use bytes::Bytes;
use sqlx::{Row as _, SqliteConnection};
use tcc_barrier::{Kept, Look, Request};
use tcc_database::sqlite_now;
use tcc_types::{BranchKey, CancelCall, Decision, Refusal, Timestamp, TryCall};

use crate::rows::{inserted_here, row, row_of, settled};

pub(super) async fn insert_tried(conn: &mut SqliteConnection, call: &TryCall) -> Result<bool, sqlx::Error> {
    const SQL: &str = concat!(
        "INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, ",
        "not_after, ask_after, created_at, changed_at) ",
        "SELECT ?1, ?2, 1, 0, ?3, ?4, ?5, ?6, ?7, ",
        sqlite_now!(),
        ", ",
        sqlite_now!(),
        " WHERE ",
        sqlite_now!(),
        " <= ?6 ON CONFLICT (gid, branch_id) DO NOTHING"
    );
    let request = Request::from(call);
    let done = sqlx::query(SQL)
        .bind(call.key.gid.to_string())
        .bind(call.key.branch.as_str())
        .bind(&call.payload.type_url)
        .bind(request.fingerprint.as_slice())
        .bind(request.coordinator.as_str())
        .bind(call.not_after.as_micros())
        .bind(call.ask_after.as_micros())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn settle_tried(
    conn: &mut SqliteConnection,
    key: &BranchKey,
    decision: Decision,
) -> Result<Option<Bytes>, sqlx::Error> {
    const SQL: &str = concat!(
        "UPDATE tcc_branches SET status = ?3, changed_at = ",
        sqlite_now!(),
        " WHERE gid = ?1 AND branch_id = ?2 AND status = 1 RETURNING reserved"
    );
    let query = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).bind(settled(decision).code());
    // All rows (one at most) are fetched, so that the statement runs to its end.
    let mut changed = query.fetch_all(conn).await?;
    changed.pop().map(|row| row.try_get::<Vec<u8>, _>("reserved").map(Bytes::from)).transpose()
}

pub(super) async fn insert_cancelled(conn: &mut SqliteConnection, call: &CancelCall) -> Result<bool, sqlx::Error> {
    const SQL: &str = concat!(
        "INSERT INTO tcc_branches (gid, branch_id, status, empty, not_after, created_at, changed_at) VALUES (?1, ?2, 4, 1, ?3, ",
        sqlite_now!(),
        ", ",
        sqlite_now!(),
        ") ON CONFLICT (gid, branch_id) DO NOTHING"
    );
    let done = sqlx::query(SQL)
        .bind(call.key.gid.to_string())
        .bind(call.key.branch.as_str())
        .bind(call.not_after.as_micros())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn look(conn: &mut SqliteConnection, key: &BranchKey) -> Result<Look, sqlx::Error> {
    // The join yields one row in any case, so that the clock is read in the same statement as the branch.
    const SQL: &str = concat!(
        "SELECT ",
        sqlite_now!(),
        " AS looked_at, ",
        row!(),
        " FROM (SELECT 1) LEFT JOIN tcc_branches ON gid = ?1 AND branch_id = ?2"
    );
    let found = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_one(conn).await?;
    Ok(Look { rows: vec![row_of(&found)?], now: Timestamp::from_micros(found.try_get("looked_at")?) })
}

pub(super) async fn keep_reserved(conn: &mut SqliteConnection, kept: Kept<'_>) -> Result<(), sqlx::Error> {
    const SQL: &str = "UPDATE tcc_branches SET reserved = ?3, output_type_url = ?4, output_value = ?5 \
         WHERE gid = ?1 AND branch_id = ?2 AND status = 1";
    let done = sqlx::query(SQL)
        .bind(kept.key.gid.to_string())
        .bind(kept.key.branch.as_str())
        .bind(&kept.reserved[..])
        .bind(kept.output.map(|output| output.type_url.as_str()))
        .bind(kept.output.map(|output| &output.value[..]))
        .execute(conn)
        .await?;
    inserted_here(done.rows_affected(), 1)
}

pub(super) async fn keep_refusal(conn: &mut SqliteConnection, key: &BranchKey, refusal: &Refusal) -> Result<(), sqlx::Error> {
    const SQL: &str = "UPDATE tcc_branches SET status = 2, refusal_code = ?3, refusal_message = ?4, \
         reserved = NULL, output_type_url = NULL, output_value = NULL \
         WHERE gid = ?1 AND branch_id = ?2 AND status = 1";
    let done = sqlx::query(SQL)
        .bind(key.gid.to_string())
        .bind(key.branch.as_str())
        .bind(&refusal.code)
        .bind(&refusal.message)
        .execute(conn)
        .await?;
    inserted_here(done.rows_affected(), 1)
}

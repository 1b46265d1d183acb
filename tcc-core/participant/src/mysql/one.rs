//! The statements about one branch, each by its key. No rules here; called by the implementation of `Database`.

use bytes::Bytes;
use sqlx::{MySqlConnection, Row as _};
use tcc_barrier::{Kept, Request};
use tcc_database::mysql_now;
use tcc_types::{BranchKey, CancelCall, Decision, Refusal, TryCall};

use super::found;
use crate::rows::{inserted_here, settled};

pub(super) async fn insert_tried(
    conn: &mut MySqlConnection,
    call: &TryCall,
    foreseen: Option<Kept<'_>>,
) -> Result<bool, sqlx::Error> {
    const SQL: &str = concat!(
        "INSERT INTO tcc_branches (gid, branch_id, status, `empty`, type_url, request_fingerprint, coordinator, ",
        "reserved, output_type_url, output_value, not_after, ask_after, created_at, changed_at) ",
        "SELECT ?, ?, 1, 0, ?, ?, ?, ?, ?, ?, ?, ?, ",
        mysql_now!(),
        ", ",
        mysql_now!(),
        " FROM DUAL WHERE ",
        mysql_now!(),
        " <= ? ",
        found!()
    );
    let request = Request::from(call);
    let inserted = sqlx::query(SQL)
        .bind(call.key.gid.to_string())
        .bind(call.key.branch.as_str())
        .bind(&call.payload.type_url)
        .bind(request.fingerprint.as_slice())
        .bind(request.coordinator.as_str())
        .bind(foreseen.map(|kept| &kept.reserved[..]))
        .bind(foreseen.and_then(|kept| Some(kept.output?.type_url.as_str())))
        .bind(foreseen.and_then(|kept| Some(&kept.output?.value[..])))
        .bind(call.not_after.as_micros())
        .bind(call.ask_after.as_micros())
        .bind(call.not_after.as_micros())
        .execute(conn)
        .await?;
    Ok(inserted.rows_affected() == 1)
}

/// What it changed is read after it, since there is no RETURNING.
pub(super) async fn settle_tried(
    conn: &mut MySqlConnection,
    key: &BranchKey,
    decision: Decision,
) -> Result<Option<Bytes>, sqlx::Error> {
    const SQL: &str = concat!(
        "UPDATE tcc_branches FORCE INDEX (PRIMARY) SET status = ?, changed_at = ",
        mysql_now!(),
        " WHERE gid = ? AND branch_id = ? AND status = 1"
    );
    const RESERVED: &str = "SELECT reserved FROM tcc_branches WHERE gid = ? AND branch_id = ?";
    let (gid, branch) = (key.gid.to_string(), key.branch.as_str());
    let changed = sqlx::query(SQL).bind(settled(decision).code()).bind(&gid).bind(branch).execute(&mut *conn).await?;
    // sqlx counts the rows that were found, not those that were changed: the same here, since the status must be another.
    if changed.rows_affected() == 0 {
        return Ok(None);
    }
    let row = sqlx::query(RESERVED).bind(gid).bind(branch).fetch_one(conn).await?;
    Ok(Some(row.try_get::<Vec<u8>, _>("reserved")?.into()))
}

pub(super) async fn insert_cancelled(conn: &mut MySqlConnection, call: &CancelCall) -> Result<bool, sqlx::Error> {
    const SQL: &str = concat!(
        "INSERT INTO tcc_branches (gid, branch_id, status, `empty`, not_after, created_at, changed_at) VALUES (?, ?, 4, 1, ?, ",
        mysql_now!(),
        ", ",
        mysql_now!(),
        ") ",
        found!()
    );
    let inserted = sqlx::query(SQL)
        .bind(call.key.gid.to_string())
        .bind(call.key.branch.as_str())
        .bind(call.not_after.as_micros())
        .execute(conn)
        .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn keep_reserved(conn: &mut MySqlConnection, kept: Kept<'_>) -> Result<(), sqlx::Error> {
    const SQL: &str = "UPDATE tcc_branches FORCE INDEX (PRIMARY) SET reserved = ?, output_type_url = ?, output_value = ? \
         WHERE gid = ? AND branch_id = ? AND status = 1";
    let done = sqlx::query(SQL)
        .bind(&kept.reserved[..])
        .bind(kept.output.map(|output| output.type_url.as_str()))
        .bind(kept.output.map(|output| &output.value[..]))
        .bind(kept.key.gid.to_string())
        .bind(kept.key.branch.as_str())
        .execute(conn)
        .await?;
    inserted_here(done.rows_affected(), 1)
}

pub(super) async fn keep_refusal(conn: &mut MySqlConnection, key: &BranchKey, refusal: &Refusal) -> Result<(), sqlx::Error> {
    const SQL: &str = "UPDATE tcc_branches FORCE INDEX (PRIMARY) SET status = 2, refusal_code = ?, refusal_message = ?, \
         reserved = NULL, output_type_url = NULL, output_value = NULL WHERE gid = ? AND branch_id = ? AND status = 1";
    let kept = sqlx::query(SQL)
        .bind(&refusal.code)
        .bind(&refusal.message)
        .bind(key.gid.to_string())
        .bind(key.branch.as_str())
        .execute(conn)
        .await?;
    inserted_here(kept.rows_affected(), 1)
}

//! The writes that are not grouped: claims, released leases, the audit record.

use sqlx::{SqliteConnection, query};
use tcc_types::{Gid, Timestamp};

use crate::{
    AuditRecord, Error, MarkedSettled, NewAudit, TxRecord,
    codes::Code,
    sqlite::{
        fault::nothing_done,
        rows::{self, put_gid},
        values::ManyRows,
        write::{Alone, Claim},
    },
};

/// Only the index of unfinished transactions: this must not slow down as the history grows.
pub(super) const DUE: &str = "SELECT gid FROM tcc_log_transactions INDEXED BY tcc_log_transactions_due \
                              WHERE finished_at IS NULL AND next_attempt_at <= ? ORDER BY next_attempt_at, gid LIMIT ?";

pub(super) const LEASE: ManyRows =
    ManyRows { head: "UPDATE tcc_log_transactions SET next_attempt_at = ? WHERE gid IN (VALUES ", width: 1, tail: ")" };

/// Status 1 is trying; ways of deciding 2 and 3 are on request: holds. What is stuck keeps its time, so that it is not all
/// due at once and before what was under way.
pub(super) const RELEASE: &str = "UPDATE tcc_log_transactions INDEXED BY tcc_log_transactions_due \
                                  SET next_attempt_at = CASE WHEN status = 1 AND decides IN (2, 3) THEN decide_by \
                                  WHEN has_stuck THEN next_attempt_at ELSE ? END \
                                  WHERE finished_at IS NULL";

pub(super) const SETTLE: &str = "UPDATE tcc_log_branches SET settled = 2, stuck_kind = NULL, stuck_since = NULL, stuck_detail = NULL \
                                 WHERE gid = ? AND branch_id = ? AND stuck_kind IS NOT NULL";

pub(super) async fn apply(connection: &mut SqliteConnection, alone: &mut Alone, now: Timestamp) -> Result<(), Error> {
    match alone {
        Alone::Claim(ask) => {
            let claimed = claim(connection, ask.question, now).await?;
            ask.answer(claimed);
        }
        Alone::ReleaseLeases(ask) => {
            let done = query(RELEASE).bind(now.as_micros()).execute(connection).await.map_err(|error| nothing_done(&error))?;
            ask.answer(done.rows_affected());
        }
        Alone::Audit(ask) => {
            let record = append(connection, &ask.question, now).await?;
            ask.answer(record);
        }
        Alone::MarkSettled(ask) => {
            let marked = mark_settled(connection, &ask.question, now).await?;
            ask.answer(marked);
        }
    }
    Ok(())
}

async fn claim(connection: &mut SqliteConnection, claim: Claim, now: Timestamp) -> Result<Vec<TxRecord>, Error> {
    let due = query(DUE).bind(now.as_micros()).bind(i64::from(claim.limit)).fetch_all(&mut *connection).await;
    let rows = due.map_err(|error| nothing_done(&error))?;
    let gids = rows.iter().map(|row| rows::gid(row, 0)).collect::<Result<Vec<Gid>, _>>()?;
    LEASE.fetch(connection, &[claim.lease_until.as_micros()], &gids, put_gid).await?;
    let mut records = rows::load(connection, &gids).await?;
    Ok(gids.iter().filter_map(|gid| records.remove(gid)).collect())
}

async fn append(connection: &mut SqliteConnection, entry: &NewAudit, now: Timestamp) -> Result<AuditRecord, Error> {
    let row = query(
        "INSERT INTO tcc_log_audit (at, gid, branch_id, action, actor, reason) VALUES (?, ?, ?, ?, ?, ?) RETURNING sequence",
    )
    .bind(now.as_micros())
    .bind(&entry.key.gid.as_bytes()[..])
    .bind(entry.key.branch.as_str())
    .bind(entry.action.code())
    .bind(entry.actor.as_str())
    .bind(entry.reason.as_str())
    .fetch_one(connection)
    .await
    .map_err(|error| nothing_done(&error))?;
    let sequence = rows::get::<i64>(&row, 0)?;
    Ok(AuditRecord { sequence: sequence.unsigned_abs(), at: now, entry: entry.clone() })
}

async fn mark_settled(connection: &mut SqliteConnection, entry: &NewAudit, now: Timestamp) -> Result<MarkedSettled, Error> {
    let (gid, branch) = (&entry.key.gid.as_bytes()[..], entry.key.branch.as_str());
    let settled = query(SETTLE).bind(gid).bind(branch).execute(&mut *connection).await;
    if settled.map_err(|error| nothing_done(&error))?.rows_affected() == 0 {
        let found = query("SELECT 1 FROM tcc_log_branches WHERE gid = ? AND branch_id = ?")
            .bind(gid)
            .bind(branch)
            .fetch_optional(connection)
            .await
            .map_err(|error| nothing_done(&error))?;
        return Ok(if found.is_some() { MarkedSettled::NotStuck } else { MarkedSettled::Missing });
    }
    append(connection, entry, now).await?;
    query("UPDATE tcc_log_transactions SET next_attempt_at = ? WHERE gid = ? AND finished_at IS NULL")
        .bind(now.as_micros())
        .bind(gid)
        .execute(connection)
        .await
        .map_err(|error| nothing_done(&error))?;
    Ok(MarkedSettled::Marked)
}

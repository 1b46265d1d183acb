//! The writes that are not grouped: owners, claims, leases, deletion, the audit record.

use std::time::Duration;

use sqlx::{PgConnection, query};
use tcc_database::postgres_now;
use tcc_types::{Gid, Timestamp};

use crate::{
    AuditRecord, Deleted, MarkedSettled, NewAudit, Owner, RENEW_MAX, TxRecord,
    codes::Code,
    fault::Fault,
    postgres::load::{bytes_of, load_readable},
    rows::{self, Columns},
    writer::write::{Alone, Claim, DeleteEnded, Renew},
};

/// Most transactions that are looked at in one deletion.
const LOOKED_AT_MAX: u32 = RENEW_MAX as u32;

/// Only the index of unfinished transactions, and there only of one kind: this must not slow down as the history grows, nor as more
/// and more is stuck. The clock is read once, in a
/// subquery: what the index could be asked for with a function that may change from row to row would be nothing.
pub(super) const DUE: &str = concat!(
    "SELECT gid FROM tcc_log_transactions WHERE finished_at IS NULL AND has_stuck = $2::bigint AND next_attempt_at <= (SELECT ",
    postgres_now!(),
    ") ORDER BY next_attempt_at, gid LIMIT $1 FOR UPDATE SKIP LOCKED"
);

/// The rows are locked: nobody came between.
pub(super) const LEASE: &str = concat!(
    "UPDATE tcc_log_transactions SET owner = $2, next_attempt_at = greatest($4, ",
    postgres_now!(),
    ") + $3 WHERE gid = ANY($1::bytea[])"
);

/// Status 1, 2 and 4 are what is unfinished; see [`PARK`](super::progress::PARK).
pub(super) const RENEW: &str = concat!(
    "UPDATE tcc_log_transactions AS t SET next_attempt_at = greatest($4, ",
    postgres_now!(),
    ") + $3 FROM unnest($1::bytea[]) AS v(gid) \
     WHERE t.gid = ANY(ARRAY[v.gid]) AND t.owner = $2 AND t.status + 0 IN (1, 2, 4) RETURNING t.gid"
);

/// By the primary key, whose order is that of minting.
pub(super) const MINTED: &str =
    "SELECT gid, finished_at FROM tcc_log_transactions WHERE gid > $1 AND gid < $2 ORDER BY gid LIMIT $3";

pub(super) const DELETE: &str =
    "DELETE FROM tcc_log_transactions WHERE gid = ANY($1::bytea[]) AND finished_at IS NOT NULL RETURNING gid";

pub(super) const DELETE_BRANCHES: &str = "DELETE FROM tcc_log_branches WHERE gid = ANY($1::bytea[])";

pub(super) const MAKE_DUE: &str = "UPDATE tcc_log_transactions SET next_attempt_at = $1 WHERE gid = $2 AND status IN (1, 2, 4)";

pub(super) const SETTLE: &str = "UPDATE tcc_log_branches SET settled = 2, stuck_kind = NULL, stuck_since = NULL, stuck_detail = NULL \
                      WHERE gid = $1 AND branch_id = $2 AND coalesce(stuck_kind, 0) > 0";

pub(super) async fn apply(connection: &mut PgConnection, alone: &mut Alone, now: Timestamp) -> Result<(), Fault> {
    match alone {
        Alone::TakeOwner(ask) => {
            let owner = take_owner(connection, now).await?;
            ask.answer(owner);
        }
        Alone::Probe(ask) => {
            probe(connection, ask.question, now).await?;
            ask.answer(());
        }
        Alone::Claim(ask) => {
            let claimed = claim(connection, ask.question, now).await?;
            ask.answer(claimed);
        }
        Alone::Renew(ask) => {
            let renewed = renew(connection, &ask.question, now).await?;
            ask.answer(renewed);
        }
        Alone::DeleteEnded(ask) => {
            let deleted = delete_ended(connection, ask.question).await?;
            ask.answer(deleted);
        }
        Alone::ReleaseLeases(ask) => {
            let text = "SELECT count(*) FROM tcc_log_transactions WHERE finished_at IS NULL";
            let count = query(text).fetch_one(connection).await?.int(0)?;
            ask.answer(count.unsigned_abs());
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

async fn take_owner(connection: &mut PgConnection, now: Timestamp) -> Result<Owner, Fault> {
    let text = "INSERT INTO tcc_log_owners (taken_at, seen_at) VALUES ($1, $1) RETURNING owner";
    rows::owner(&query(text).bind(now.as_micros()).fetch_one(connection).await?, 0)
}

/// Whose number it does not find, it leaves a trace for beside the log's name.
async fn probe(connection: &mut PgConnection, owner: Owner, now: Timestamp) -> Result<(), Fault> {
    let seen = query("UPDATE tcc_log_owners SET seen_at = $1 WHERE owner = $2")
        .bind(now.as_micros())
        .bind(rows::owner_number(owner))
        .execute(&mut *connection)
        .await?;
    if seen.rows_affected() == 0 {
        query("UPDATE tcc_log_identity SET seen_at = $1").bind(now.as_micros()).execute(connection).await?;
    }
    Ok(())
}

/// In microseconds.
fn micros(lease: Duration) -> i64 {
    // A lease of centuries, which must not overflow once it is added to the clock.
    i64::try_from(lease.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

async fn claim(connection: &mut PgConnection, claim: Claim, now: Timestamp) -> Result<Vec<TxRecord>, Fault> {
    let rows = query(DUE).bind(i64::from(claim.limit)).bind(claim.due.has_stuck()).fetch_all(&mut *connection).await?;
    let gids: Vec<Gid> = rows::gids(&rows)?;
    if gids.is_empty() {
        return Ok(Vec::new());
    }
    query(LEASE)
        .bind(bytes_of(&gids))
        .bind(rows::owner_number(claim.owner))
        .bind(micros(claim.lease))
        .bind(now.as_micros())
        .execute(&mut *connection)
        .await?;
    let mut records = load_readable(connection, &gids).await?;
    Ok(gids.iter().filter_map(|gid| records.remove(gid)).collect())
}

async fn renew(connection: &mut PgConnection, renew: &Renew, now: Timestamp) -> Result<Vec<Gid>, Fault> {
    let mut gids = renew.gids.clone();
    gids.sort_unstable();
    let rows = query(RENEW)
        .bind(bytes_of(&gids))
        .bind(rows::owner_number(renew.owner))
        .bind(micros(renew.lease))
        .bind(now.as_micros())
        .fetch_all(connection)
        .await?;
    rows::gids(&rows)
}

async fn delete_ended(connection: &mut PgConnection, question: DeleteEnded) -> Result<Deleted, Fault> {
    let limit = question.limit.min(LOOKED_AT_MAX);
    let looked_at = query(MINTED)
        .bind(question.after.map_or_else(Vec::new, |gid| gid.as_bytes().to_vec()))
        .bind(&Gid::first_of(question.ended_before).as_bytes()[..])
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
    let mut ended = Vec::with_capacity(looked_at.len());
    for row in &looked_at {
        if row.maybe_int(1)?.is_some_and(|at| at < question.ended_before.as_micros()) {
            ended.push(rows::gid(row, 0)?);
        }
    }
    let last = looked_at.last().map(|row| rows::gid(row, 0)).transpose()?;
    let next = last.filter(|_| looked_at.len() == limit as usize);
    if ended.is_empty() {
        return Ok(Deleted { transactions: 0, next });
    }
    // Another gateway may delete the same: only what this one deletes is counted, and loses its branches here.
    let rows = query(DELETE).bind(bytes_of(&ended)).fetch_all(&mut *connection).await?;
    let deleted: Vec<Gid> = rows::gids(&rows)?;
    query(DELETE_BRANCHES).bind(bytes_of(&deleted)).execute(connection).await?;
    Ok(Deleted { transactions: deleted.len() as u64, next })
}

async fn append(connection: &mut PgConnection, entry: &NewAudit, now: Timestamp) -> Result<AuditRecord, Fault> {
    let text = "INSERT INTO tcc_log_audit (at, gid, branch_id, action, actor, reason) VALUES ($1, $2, $3, $4, $5, $6) \
                RETURNING sequence";
    let row = query(text)
        .bind(now.as_micros())
        .bind(&entry.key.gid.as_bytes()[..])
        .bind(entry.key.branch.as_str())
        .bind(entry.action.code())
        .bind(entry.actor.as_str())
        .bind(entry.reason.as_str())
        .fetch_one(connection)
        .await?;
    Ok(AuditRecord { sequence: row.int(0)?.unsigned_abs(), at: now, entry: entry.clone() })
}

async fn mark_settled(connection: &mut PgConnection, entry: &NewAudit, now: Timestamp) -> Result<MarkedSettled, Fault> {
    let (gid, branch) = (&entry.key.gid.as_bytes()[..], entry.key.branch.as_str());
    let settled = query(SETTLE).bind(gid).bind(branch).execute(&mut *connection).await?;
    if settled.rows_affected() == 0 {
        let text = "SELECT 1 FROM tcc_log_branches WHERE gid = $1 AND branch_id = $2";
        let found = query(text).bind(gid).bind(branch).fetch_optional(connection).await?;
        return Ok(if found.is_some() { MarkedSettled::NotStuck } else { MarkedSettled::Missing });
    }
    append(connection, entry, now).await?;
    query(MAKE_DUE).bind(now.as_micros()).bind(gid).execute(connection).await?;
    Ok(MarkedSettled::Marked)
}

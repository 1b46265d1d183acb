//! The writes that are not grouped: claims, released leases, the audit record.

use sqlx::{SqliteConnection, query};
use tcc_database::sqlite::lists::ManyRows;
use tcc_types::{Gid, Timestamp};

use crate::{
    AuditRecord, Deleted, MarkedSettled, NewAudit, Owner, RENEW_MAX, TxRecord,
    codes::Code,
    fault::Fault,
    rows::{self, Columns},
    sqlite::load::{load_readable, put_gid},
    writer::write::{Alone, Claim, DeleteEnded, Renew},
};

/// Most transactions that are looked at in one deletion.
const LOOKED_AT_MAX: u32 = RENEW_MAX as u32;

/// Only the index of unfinished transactions, and there only of one kind: this must not slow down as the history grows, nor as more
/// and more is stuck.
pub(super) const DUE: &str = "SELECT gid FROM tcc_log_transactions INDEXED BY tcc_log_transactions_due \
                              WHERE finished_at IS NULL AND has_stuck = ? AND next_attempt_at <= ? ORDER BY next_attempt_at, gid LIMIT ?";

pub(super) const LEASE: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_transactions SET next_attempt_at = ?, owner = ? WHERE gid IN (VALUES ",
    width: 1,
    tail: ")",
};

/// The plus sign keeps the planner from taking its term for a reason to walk through all that is unfinished.
pub(super) const RENEW: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_transactions SET next_attempt_at = ? WHERE owner = ? AND +finished_at IS NULL AND gid IN (VALUES ",
    width: 1,
    tail: ") RETURNING gid",
};

/// By the primary key, whose order is that of minting.
pub(super) const MINTED: &str =
    "SELECT gid, finished_at FROM tcc_log_transactions WHERE gid > ? AND gid < ? ORDER BY gid LIMIT ?";

pub(super) const DELETE_BRANCHES: ManyRows =
    ManyRows { head: "DELETE FROM tcc_log_branches WHERE gid IN (VALUES ", width: 1, tail: ")" };

pub(super) const DELETE: ManyRows =
    ManyRows { head: "DELETE FROM tcc_log_transactions WHERE gid IN (VALUES ", width: 1, tail: ")" };

/// Status 1 is trying; ways of deciding 2 and 3 are on request: holds. What is stuck keeps its time, so that it is not all
/// due at once and before what was under way. What is as it should be is not written: holds are many, and wait for `decide_by` anyway.
pub(super) const RELEASE: &str = "UPDATE tcc_log_transactions INDEXED BY tcc_log_transactions_due \
                                  SET next_attempt_at = CASE WHEN status = 1 AND decides IN (2, 3) THEN decide_by ELSE ?1 END \
                                  WHERE finished_at IS NULL AND has_stuck = 0 AND next_attempt_at \
                                  <> CASE WHEN status = 1 AND decides IN (2, 3) THEN decide_by ELSE ?1 END";

pub(super) const UNFINISHED: &str =
    "SELECT count(*) FROM tcc_log_transactions INDEXED BY tcc_log_transactions_due WHERE finished_at IS NULL";

pub(super) const SETTLE: &str = "UPDATE tcc_log_branches SET settled = 2, stuck_kind = NULL, stuck_since = NULL, stuck_detail = NULL \
                                 WHERE gid = ? AND branch_id = ? AND stuck_kind IS NOT NULL";

pub(super) async fn apply(connection: &mut SqliteConnection, alone: &mut Alone, now: Timestamp) -> Result<(), Fault> {
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
            query(RELEASE).bind(now.as_micros()).execute(&mut *connection).await?;
            let unfinished = query(UNFINISHED).fetch_one(connection).await?.int(0)?;
            ask.answer(unfinished.unsigned_abs());
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

async fn claim(connection: &mut SqliteConnection, claim: Claim, now: Timestamp) -> Result<Vec<TxRecord>, Fault> {
    let rows = query(DUE)
        .bind(claim.due.has_stuck())
        .bind(now.as_micros())
        .bind(i64::from(claim.limit))
        .fetch_all(&mut *connection)
        .await?;
    let gids = rows::gids::<Vec<Gid>>(&rows)?;
    let lease = [now.plus(claim.lease).as_micros(), rows::owner_number(claim.owner)];
    LEASE.fetch(connection, &lease, &gids, put_gid).await?;
    let mut records = load_readable(connection, &gids).await?;
    Ok(gids.iter().filter_map(|gid| records.remove(gid)).collect())
}

async fn renew(connection: &mut SqliteConnection, renew: &Renew, now: Timestamp) -> Result<Vec<Gid>, Fault> {
    let lease = [now.plus(renew.lease).as_micros(), rows::owner_number(renew.owner)];
    let rows = RENEW.fetch(connection, &lease, &renew.gids, put_gid).await?;
    rows::gids(&rows)
}

async fn delete_ended(connection: &mut SqliteConnection, question: DeleteEnded) -> Result<Deleted, Fault> {
    let limit = question.limit.min(LOOKED_AT_MAX);
    let after = question.after.map_or_else(Vec::new, |gid| gid.as_bytes().to_vec());
    let rows = query(MINTED)
        .bind(after)
        .bind(&Gid::first_of(question.ended_before).as_bytes()[..])
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.maybe_int(1)?.is_some_and(|at| at < question.ended_before.as_micros()) {
            ended.push(rows::gid(row, 0)?);
        }
    }
    DELETE_BRANCHES.fetch(connection, &[], &ended, put_gid).await?;
    DELETE.fetch(connection, &[], &ended, put_gid).await?;
    let more = rows.len() == limit as usize;
    let last = rows.last().map(|row| rows::gid(row, 0)).transpose()?;
    Ok(Deleted { transactions: ended.len() as u64, next: last.filter(|_| more) })
}

async fn take_owner(connection: &mut SqliteConnection, now: Timestamp) -> Result<Owner, Fault> {
    let row = query("INSERT INTO tcc_log_owners (taken_at, seen_at) VALUES (?1, ?1) RETURNING owner")
        .bind(now.as_micros())
        .fetch_one(connection)
        .await?;
    rows::owner(&row, 0)
}

/// Whose number it does not find, it leaves a trace for beside the log's name.
async fn probe(connection: &mut SqliteConnection, owner: Owner, now: Timestamp) -> Result<(), Fault> {
    let seen = query("UPDATE tcc_log_owners SET seen_at = ? WHERE owner = ?")
        .bind(now.as_micros())
        .bind(rows::owner_number(owner))
        .execute(&mut *connection)
        .await?;
    if seen.rows_affected() == 0 {
        query("UPDATE tcc_log_identity SET seen_at = ?").bind(now.as_micros()).execute(connection).await?;
    }
    Ok(())
}

async fn append(connection: &mut SqliteConnection, entry: &NewAudit, now: Timestamp) -> Result<AuditRecord, Fault> {
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
    .await?;
    let sequence = row.int(0)?;
    Ok(AuditRecord { sequence: sequence.unsigned_abs(), at: now, entry: entry.clone() })
}

async fn mark_settled(connection: &mut SqliteConnection, entry: &NewAudit, now: Timestamp) -> Result<MarkedSettled, Fault> {
    let (gid, branch) = (&entry.key.gid.as_bytes()[..], entry.key.branch.as_str());
    let settled = query(SETTLE).bind(gid).bind(branch).execute(&mut *connection).await?;
    if settled.rows_affected() == 0 {
        let found = query("SELECT 1 FROM tcc_log_branches WHERE gid = ? AND branch_id = ?")
            .bind(gid)
            .bind(branch)
            .fetch_optional(connection)
            .await?;
        return Ok(if found.is_some() { MarkedSettled::NotStuck } else { MarkedSettled::Missing });
    }
    append(connection, entry, now).await?;
    query("UPDATE tcc_log_transactions SET next_attempt_at = ? WHERE gid = ? AND finished_at IS NULL")
        .bind(now.as_micros())
        .bind(gid)
        .execute(connection)
        .await?;
    Ok(MarkedSettled::Marked)
}

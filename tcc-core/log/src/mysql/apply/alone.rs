//! The writes that are not grouped: owners, claims, leases, deletion, the audit record.

use sqlx::{MySqlConnection, query};
use tcc_types::{Gid, Timestamp};

use super::marked;
use crate::{
    AuditRecord, Deleted, MarkedSettled, NewAudit, Owner, RENEW_MAX, TxRecord,
    codes::Code,
    fault::Fault,
    mysql::{
        load::load_readable,
        values::{Marks, branches, gid_lists, list, transactions},
    },
    rows::{self, Columns},
    writer::write::{Alone, Claim, DeleteEnded, Renew},
};

/// Most transactions that are looked at in one deletion.
const LOOKED_AT_MAX: u32 = RENEW_MAX as u32;

/// Only the due end of the index's part for this kind: this must not slow down as the history grows, nor as more and more is stuck.
pub(super) const DUE: &str = "SELECT gid FROM tcc_log_transactions FORCE INDEX (tcc_log_transactions_due) WHERE has_stuck = ? AND due_at <= ? \
                              ORDER BY due_at, gid LIMIT ? FOR UPDATE SKIP LOCKED";

/// The rows are locked: nobody came between.
pub(super) const LEASE: &str = concat!("UPDATE ", list!(g gid), transactions!(), "SET t.next_attempt_at = ?, t.owner = ?");

pub(super) const RENEW: &str = concat!(
    "UPDATE ",
    list!(g gid),
    transactions!(),
    "SET t.next_attempt_at = ?, t.touched_by = UNHEX(?) WHERE t.owner = ? AND t.finished_at IS NULL"
);

/// By the primary key, whose order is that of minting.
pub(super) const MINTED: &str = "SELECT gid, finished_at FROM tcc_log_transactions FORCE INDEX (PRIMARY) \
                                 WHERE gid > ? AND gid < ? ORDER BY gid LIMIT ?";

/// Another gateway may delete the same: whoever locks them first does.
pub(super) const LOCK_ENDED: &str =
    concat!("SELECT t.gid FROM ", list!(g gid), transactions!(), "WHERE t.finished_at < ? FOR UPDATE SKIP LOCKED");

pub(super) const DELETE_BRANCHES: &str = concat!("DELETE b FROM ", list!(g gid), branches!());

pub(super) const DELETE: &str = concat!("DELETE t FROM ", list!(g gid), transactions!());

pub(super) const UNFINISHED: &str = "SELECT COUNT(*) FROM tcc_log_transactions FORCE INDEX (tcc_log_transactions_due) \
                                     WHERE has_stuck IN (0, 1) AND due_at IS NOT NULL";

pub(super) const SETTLE: &str = "UPDATE tcc_log_branches SET settled = 2, stuck_kind = NULL, stuck_since = NULL, stuck_detail = NULL \
                                 WHERE gid = ? AND branch_id = ? AND stuck_kind IS NOT NULL";

pub(super) async fn apply(
    connection: &mut MySqlConnection,
    alone: &mut Alone,
    now: Timestamp,
    marks: &mut Marks,
) -> Result<(), Fault> {
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
            let renewed = renew(connection, &ask.question, now, &marks.take()).await?;
            ask.answer(renewed);
        }
        Alone::DeleteEnded(ask) => {
            let deleted = delete_ended(connection, ask.question).await?;
            ask.answer(deleted);
        }
        Alone::ReleaseLeases(ask) => {
            let count = query(UNFINISHED).fetch_one(connection).await?.int(0)?;
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

async fn take_owner(connection: &mut MySqlConnection, now: Timestamp) -> Result<Owner, Fault> {
    let taken = query("INSERT INTO tcc_log_owners (taken_at, seen_at) VALUES (?, ?)")
        .bind(now.as_micros())
        .bind(now.as_micros())
        .execute(connection)
        .await?;
    Ok(Owner(taken.last_insert_id()))
}

/// Whose number it does not find, it leaves a trace for beside the log's name. Always another value: the same one would not be
/// written.
async fn probe(connection: &mut MySqlConnection, owner: Owner, now: Timestamp) -> Result<(), Fault> {
    let seen = query("UPDATE tcc_log_owners SET seen_at = GREATEST(?, seen_at + 1) WHERE owner = ?")
        .bind(now.as_micros())
        .bind(rows::owner_number(owner))
        .execute(&mut *connection)
        .await?;
    if seen.rows_affected() == 0 {
        query("UPDATE tcc_log_identity SET seen_at = GREATEST(?, seen_at + 1)")
            .bind(now.as_micros())
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn claim(connection: &mut MySqlConnection, claim: Claim, now: Timestamp) -> Result<Vec<TxRecord>, Fault> {
    let rows = query(DUE)
        .bind(claim.due.has_stuck())
        .bind(now.as_micros())
        .bind(i64::from(claim.limit))
        .fetch_all(&mut *connection)
        .await?;
    let gids: Vec<Gid> = rows::gids(&rows)?;
    for list in gid_lists(&gids)? {
        query(LEASE)
            .bind(list)
            .bind(now.plus(claim.lease).as_micros())
            .bind(rows::owner_number(claim.owner))
            .execute(&mut *connection)
            .await?;
    }
    let mut records = load_readable(connection, &gids).await?;
    Ok(gids.iter().filter_map(|gid| records.remove(gid)).collect())
}

async fn renew(connection: &mut MySqlConnection, renew: &Renew, now: Timestamp, mark: &str) -> Result<Vec<Gid>, Fault> {
    let mut gids = renew.gids.clone();
    gids.sort_unstable();
    gids.dedup();
    let mut counted = 0;
    for list in gid_lists(&gids)? {
        let done = query(RENEW)
            .bind(list)
            .bind(now.plus(renew.lease).as_micros())
            .bind(mark)
            .bind(rows::owner_number(renew.owner))
            .execute(&mut *connection)
            .await?;
        counted += done.rows_affected();
    }
    if counted == gids.len() as u64 {
        return Ok(gids);
    }
    Ok(marked(connection, &gids, mark).await?.into_keys().collect())
}

async fn delete_ended(connection: &mut MySqlConnection, question: DeleteEnded) -> Result<Deleted, Fault> {
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
    let mut transactions = 0;
    for list in gid_lists(&ended)? {
        let rows = query(LOCK_ENDED).bind(list).bind(question.ended_before.as_micros()).fetch_all(&mut *connection).await?;
        let locked: Vec<Gid> = rows::gids(&rows)?;
        for list in gid_lists(&locked)? {
            query(DELETE_BRANCHES).bind(&list).execute(&mut *connection).await?;
            transactions += query(DELETE).bind(&list).execute(&mut *connection).await?.rows_affected();
        }
    }
    let last = looked_at.last().map(|row| rows::gid(row, 0)).transpose()?;
    Ok(Deleted { transactions, next: last.filter(|_| looked_at.len() == limit as usize) })
}

async fn append(connection: &mut MySqlConnection, entry: &NewAudit, now: Timestamp) -> Result<AuditRecord, Fault> {
    let appended = query("INSERT INTO tcc_log_audit (at, gid, branch_id, action, actor, reason) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(now.as_micros())
        .bind(&entry.key.gid.as_bytes()[..])
        .bind(entry.key.branch.as_str())
        .bind(entry.action.code())
        .bind(entry.actor.as_str())
        .bind(entry.reason.as_str())
        .execute(connection)
        .await?;
    Ok(AuditRecord { sequence: appended.last_insert_id(), at: now, entry: entry.clone() })
}

async fn mark_settled(connection: &mut MySqlConnection, entry: &NewAudit, now: Timestamp) -> Result<MarkedSettled, Fault> {
    let (gid, branch) = (&entry.key.gid.as_bytes()[..], entry.key.branch.as_str());
    // In the order of every other write: the transaction first, its branch then.
    query("SELECT gid FROM tcc_log_transactions WHERE gid = ? FOR UPDATE").bind(gid).fetch_optional(&mut *connection).await?;
    let settled = query(SETTLE).bind(gid).bind(branch).execute(&mut *connection).await?;
    if settled.rows_affected() == 0 {
        let text = "SELECT 1 FROM tcc_log_branches WHERE gid = ? AND branch_id = ?";
        let found = query(text).bind(gid).bind(branch).fetch_optional(connection).await?;
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

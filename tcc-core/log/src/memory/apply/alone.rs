//! The writes that are not grouped: owners, claims, leases, deletion, the audit record.

use std::collections::BTreeSet;

use tcc_database::memory::Session;
use tcc_machine::{Decides, Settled};
use tcc_types::{Gid, Timestamp, TxStatus};

use super::Given;
use crate::{
    Deleted, Due, MarkedSettled, NewAudit, RENEW_MAX, TxRecord,
    fault::Fault,
    memory::tables::LogTables,
    writer::write::{Alone, Claim, DeleteEnded, Renew},
};

/// Runs the statement and sets its answer.
pub(super) async fn apply(session: &mut Session<LogTables>, alone: &mut Alone, given: Given<'_>) -> Result<(), Fault> {
    let Given { now, clock, shared } = given;
    // A lease is taken by the clock of the statement, which may have waited, and never seems older than the transaction.
    let moment = || clock.now().max(now);
    match alone {
        Alone::TakeOwner(ask) => {
            let owner = session.write(|tables| Ok(tables.take_owner())).await?;
            ask.answer(owner);
        }
        // Its commit is what it is for: that is synced, whatever is in it.
        Alone::Probe(ask) => {
            session.write(|_| Ok(())).await?;
            ask.answer(());
        }
        Alone::Claim(ask) => {
            let question = ask.question;
            let claimed = session.write(|tables| Ok(claim(tables, question, moment()))).await?;
            ask.answer(claimed);
        }
        Alone::Renew(ask) => {
            let renewed = session.write(|tables| Ok(renew(tables, &ask.question, moment()))).await?;
            ask.answer(renewed);
        }
        Alone::DeleteEnded(ask) => {
            let question = ask.question;
            let deleted = session.write(|tables| Ok(delete_ended(tables, question))).await?;
            ask.answer(deleted);
        }
        Alone::ReleaseLeases(ask) => {
            let release = |tables: &mut LogTables| {
                if !shared {
                    release_leases(tables, now);
                }
                Ok(tables.unfinished_count() as u64)
            };
            let unfinished = session.write(release).await?;
            ask.answer(unfinished);
        }
        Alone::Audit(ask) => {
            let record = session.write(|tables| Ok(tables.append(ask.question.clone(), now))).await?;
            ask.answer(record);
        }
        Alone::MarkSettled(ask) => {
            let marked = session.write(|tables| Ok(mark_settled(tables, &ask.question, now))).await?;
            ask.answer(marked);
        }
    }
    Ok(())
}

fn claim(tables: &mut LogTables, claim: Claim, now: Timestamp) -> Vec<TxRecord> {
    let due = tables.unfinished_of(claim.due).take_while(|(at, _)| *at <= now).take(claim.limit as usize);
    let gids: Vec<Gid> = due.map(|(_, gid)| gid).collect();
    let lease = |gid| {
        let leased = tables.update(
            gid,
            |_| true,
            |record, _| (record.owner, record.next_attempt_at) = (claim.owner, now.plus(claim.lease)),
        );
        leased.map(|row| TxRecord::clone(&row.record))
    };
    gids.into_iter().filter_map(lease).collect()
}

fn renew(tables: &mut LogTables, renew: &Renew, now: Timestamp) -> Vec<Gid> {
    let gids: BTreeSet<Gid> = renew.gids.iter().copied().collect();
    let prolong = |gid: &Gid| {
        let renewed = tables.update(
            *gid,
            |row| row.is_unfinished() && row.record.owner == renew.owner,
            |record, _| record.next_attempt_at = now.plus(renew.lease),
        );
        renewed.is_some()
    };
    gids.into_iter().filter(prolong).collect()
}

/// What is stuck keeps its time, so that it is not all due at once and before what was under way.
fn release_leases(tables: &mut LogTables, now: Timestamp) {
    let fresh: Vec<Gid> = tables.unfinished_of(Due::Fresh).map(|(_, gid)| gid).collect();
    for gid in fresh {
        let release =
            |record: &mut TxRecord, _: &mut bool| record.next_attempt_at = if is_held(record) { record.decide_by } else { now };
        tables.update(gid, |_| true, release);
    }
}

/// Whether it waits for a request, and not only for its driver.
fn is_held(record: &TxRecord) -> bool {
    let on_request = match record.decides {
        Decides::AtVotes => false,
        Decides::OnRequest | Decides::OnRequestOpen => true,
    };
    on_request && record.status == TxStatus::Trying
}

fn delete_ended(tables: &mut LogTables, question: DeleteEnded) -> Deleted {
    let limit = (question.limit as usize).min(RENEW_MAX);
    let end = Gid::first_of(question.ended_before);
    let looked_at = tables.after(question.after).take_while(|record| record.gid < end).take(limit);
    let looked_at: Vec<(Gid, Option<Timestamp>)> = looked_at.map(|record| (record.gid, record.finished_at)).collect();
    let mut deleted = Deleted { transactions: 0, next: None };
    for (gid, finished_at) in &looked_at {
        if finished_at.is_some_and(|at| at < question.ended_before) {
            tables.delete(*gid);
            deleted.transactions += 1;
        }
    }
    deleted.next = looked_at.last().filter(|_| looked_at.len() == limit).map(|(gid, _)| *gid);
    deleted
}

fn mark_settled(tables: &mut LogTables, entry: &NewAudit, now: Timestamp) -> MarkedSettled {
    let branches = tables.transaction(entry.key.gid).map(|record| record.branches.as_slice()).unwrap_or_default();
    let Some(index) = branches.iter().position(|branch| branch.branch == entry.key.branch) else {
        return MarkedSettled::Missing;
    };
    if branches[index].progress.stuck.is_none() {
        return MarkedSettled::NotStuck;
    }
    tables.append(entry.clone(), now);
    tables.update(
        entry.key.gid,
        |_| true,
        |record, _| {
            let progress = &mut record.branches[index].progress;
            (progress.settled, progress.stuck) = (Some(Settled::Outside), None);
            if record.finished_at.is_none() {
                record.next_attempt_at = now;
            }
        },
    );
    MarkedSettled::Marked
}

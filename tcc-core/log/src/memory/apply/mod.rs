//! The statements of each kind of write, over whole groups. Runs inside the writer's transaction; sets answers, tells none.
//!
//! Each kind is one statement: nobody else writes before the transaction has ended, so that what stands in the way of a write is the
//! same wherever in the transaction it is looked at. What is written is what the statements of the SQL databases write.

mod alone;
mod begin;
mod progress;

use std::collections::HashMap;

use tcc_database::memory::Session;
use tcc_machine::Decides;
use tcc_types::{Clock, Gid, Timestamp, TxStatus};

use super::tables::LogTables;
use crate::{
    BranchRecord, Choice, Decide, Decided, Enlisted, NewBranch, TxRecord,
    fault::Fault,
    writer::{
        answers::{answer_decides, answer_enlists},
        plan::Run,
        write::{Ask, Enlist},
    },
};

/// What the statements need beside their transaction.
pub(super) struct Given<'a> {
    /// The transaction's time.
    pub(super) now: Timestamp,
    /// The database's clock, for what is measured from the moment of the statement.
    pub(super) clock: &'a dyn Clock,
    /// Whether leases may be those of others.
    pub(super) shared: bool,
}

/// Runs the statements of one run.
pub(super) async fn apply(session: &mut Session<LogTables>, run: &mut Run, given: Given<'_>) -> Result<(), Fault> {
    if !run.begins.is_empty() {
        begin::apply(session, &mut run.begins, given.now).await?;
    }
    if !run.enlists.is_empty() {
        enlist(session, &mut run.enlists).await?;
    }
    if !run.decides.is_empty() {
        decide(session, &mut run.decides, given.now).await?;
    }
    if !run.parks.is_empty() {
        progress::park(session, &mut run.parks).await?;
    }
    if !run.finishes.is_empty() {
        progress::finish(session, &mut run.finishes, given.now).await?;
    }
    match &mut run.alone {
        Some(alone) => alone::apply(session, alone, given).await,
        None => Ok(()),
    }
}

/// A branch as it is stored at first.
fn stored(new: &NewBranch) -> BranchRecord {
    let NewBranch { branch, participant, payload } = new.clone();
    BranchRecord { branch, participant, payload, progress: tcc_machine::BranchProgress::default() }
}

/// Those of these transactions that are there.
fn standing(tables: &LogTables, gids: impl Iterator<Item = Gid>) -> HashMap<Gid, TxRecord> {
    gids.filter_map(|gid| tables.transaction(gid).map(|record| (gid, record.clone()))).collect()
}

/// Enlisting: the branch and the raised count in one commit.
async fn enlist(session: &mut Session<LogTables>, asks: &mut [Ask<Enlist, Enlisted>]) -> Result<(), Fault> {
    let raise = |tables: &mut LogTables| {
        let mut raised = HashMap::new();
        for Enlist { gid, branch, branches_max } in asks.iter().map(|ask| &ask.question) {
            let is_open = |record: &TxRecord| {
                record.status == TxStatus::Trying
                    && record.decides == Decides::OnRequestOpen
                    && record.branch_count < *branches_max
                    && !record.branches.iter().any(|there| there.branch == branch.branch)
            };
            let updated = tables.update(
                *gid,
                |row| is_open(&row.record),
                |record, _| {
                    record.branches.push(stored(branch));
                    record.branch_count += 1;
                },
            );
            raised.extend(updated.map(|row| (*gid, row.record.branch_count)));
        }
        let others = asks.iter().map(|ask| ask.question.gid).filter(|gid| !raised.contains_key(gid));
        let standing = standing(tables, others);
        Ok((raised, standing))
    };
    let (raised, mut standing) = session.write(raise).await?;
    answer_enlists(asks, &raised, &mut standing)
}

/// The compare-and-set. The only statement that moves a transaction out of trying.
async fn decide(session: &mut Session<LogTables>, asks: &mut [Ask<Decide, Decided>], now: Timestamp) -> Result<(), Fault> {
    let decide = |tables: &mut LogTables| {
        let mut changed = HashMap::new();
        for Decide { gid, choice, owner, next_attempt_at } in asks.iter().map(|ask| &ask.question) {
            let (status, cause, votes) = match choice {
                Choice::Confirm { votes } => (TxStatus::Confirming, None, Some(*votes)),
                Choice::Cancel { cause } => (TxStatus::Cancelling, Some(cause.clone()), None),
            };
            let updated = tables.update(
                *gid,
                |row| row.record.status == TxStatus::Trying && votes.is_none_or(|votes| row.record.branch_count == votes),
                |record, _| {
                    (record.status, record.cause, record.owner) = (status, cause, *owner);
                    (record.next_attempt_at, record.decided_at) = (*next_attempt_at, Some(now));
                },
            );
            changed.extend(updated.map(|row| (*gid, row.record.branch_count)));
        }
        let others = asks.iter().map(|ask| ask.question.gid).filter(|gid| !changed.contains_key(gid));
        let standing = standing(tables, others);
        Ok((changed, standing))
    };
    let (changed, mut standing) = session.write(decide).await?;
    answer_decides(asks, &changed, &mut standing, now)
}

//! The rules, held against every commit as it is made, and against everything when a run is over. The oracle: it looks at the tables
//! themselves, and shares no code with what it checks.

mod books;
mod end;

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

use tcc_database::memory::{Memory, Tables};
use tcc_log::{AuditAction, BranchProgress, Change, LogTables, NewAudit, Settled, TxRecord};
use tcc_participant::memory::{BranchTable, HasBranches, StoredBranch};
use tcc_types::{BranchKey, BranchRowStatus, Decision, Op, TxStatus};

pub(crate) use self::end::{at_the_end, open};
use crate::{place::Db, world::World};

/// From now on every commit is looked at.
pub(crate) fn watch(world: &Arc<World>) {
    let of_log = Arc::downgrade(world);
    world.log.observe(Box::new(move |before, after| with(&of_log, |world| log(world, before, after))));
    watch_participant(world, &world.orders, Db::Orders, |_, _, _| {});
    watch_participant(world, &world.inventory, Db::Inventory, books::stock);
    watch_participant(world, &world.coupon, Db::Coupon, books::coupons);
}

fn watch_participant<T: Tables + HasBranches>(
    world: &Arc<World>,
    database: &Memory<T>,
    db: Db,
    books: impl Fn(&World, &T, &T) + Send + Sync + 'static,
) {
    let weak = Arc::downgrade(world);
    database.observe(Box::new(move |before, after| {
        with(&weak, |world| {
            branches(world, db, before.branches(), after.branches());
            books(world, before, after);
        });
    }));
}

fn with(world: &Weak<World>, check: impl FnOnce(&World)) {
    if let Some(world) = world.upgrade() {
        check(&world);
    }
}

/// S1: a decision never changes; a transaction goes from status to status as it should, and ends only when its branches have.
fn log(world: &World, before: &LogTables, after: &LogTables) {
    let faults = world.faults();
    operators(world, before, after);
    for change in after.changes_since(before) {
        let (gid, from, to) = match change {
            Change::Inserted(new) => (new.gid, None, Some(new)),
            Change::Updated { before, after } => (after.gid, Some(before), Some(after)),
            Change::Deleted(old) => (old.gid, Some(old), None),
        };
        let name = |record: Option<&TxRecord>| record.map_or_else(|| "none".to_owned(), |it| format!("{:?}", it.status));
        if from.map(|it| it.status) != to.map(|it| it.status) {
            world.tell(Db::Log, format_args!("{gid} {} -> {}", name(from), name(to)));
            world.coverage().transition(&name(from), &name(to), &faults);
        }
        let fits = match (from.map(|it| it.status), to.map(|it| it.status)) {
            (None, Some(TxStatus::Trying | TxStatus::Cancelled)) => true,
            (Some(TxStatus::Trying), Some(to)) => !to.has_ended() || to == TxStatus::Trying,
            (Some(from), Some(to)) => from.decision() == to.decision() && (!from.has_ended() || to.has_ended()),
            (Some(from), None) => from.has_ended(),
            (None, _) => false,
        };
        if !fits {
            world.violation("S1", format_args!("transaction {gid} went from {} to {}", name(from), name(to)));
        }
        if let (Some(from), Some(to)) = (from, to)
            && from.decided_at.is_some()
            && (from.cause != to.cause || from.decided_at != to.decided_at || from.branch_count != to.branch_count)
        {
            world.violation("S1", format_args!("transaction {gid}: what was decided was changed"));
        }
        if let Some(to) = to
            && to.status.has_ended()
            && from.is_some_and(|from| !from.status.has_ended())
        {
            ended(world, to);
        }
    }
}

/// Who did what is on record, and nothing else was done: the record only grows, with a name on each line; what is settled outside was
/// stuck, and is in the same commit as its line; what is tried anew is to be confirmed.
fn operators(world: &World, before: &LogTables, after: &LogTables) {
    let known = before.audit().count();
    if !before.audit().eq(after.audit().take(known)) {
        world.violation("operators", "what is on the audit record was changed");
    }
    let progress = |tables: &LogTables, key: &BranchKey| {
        let record = tables.transaction(key.gid)?;
        record.branches.iter().find(|it| it.branch == key.branch).map(|it| it.progress.clone())
    };
    let is_outside = |progress: Option<&BranchProgress>| progress.is_some_and(|it| it.settled == Some(Settled::Outside));
    let mut marked = BTreeSet::new();
    for NewAudit { key, action, actor, .. } in after.audit().skip(known).map(|line| &line.entry) {
        let (was, is) = (progress(before, key), progress(after, key));
        let fits = match action {
            AuditAction::Probe => true,
            AuditAction::TryAnew => {
                after.transaction(key.gid).is_some_and(|it| it.status.decision() == Some(Decision::Confirm))
            }
            AuditAction::MarkSettled => {
                marked.insert(key.clone());
                was.as_ref().is_some_and(|was| was.stuck.is_some() && was.settled.is_none()) && is_outside(is.as_ref())
            }
        };
        if !fits || actor.is_empty() {
            world.violation("operators", format_args!("{action:?} of {key} by {actor:?}: it was {was:?}, and is {is:?}"));
        }
    }
    for change in after.changes_since(before) {
        let Change::Updated { before: was, after: is } = change else { continue };
        for branch in &is.branches {
            let key = BranchKey { gid: is.gid, branch: branch.branch.clone() };
            let before = was.branches.iter().find(|it| it.branch == branch.branch).map(|it| &it.progress);
            if is_outside(Some(&branch.progress)) && !is_outside(before) && !marked.contains(&key) {
                world.violation("operators", format_args!("{key} was settled outside, and by whom is not on record"));
            }
        }
    }
}

/// What has ended has branches that have, all in the same way.
fn ended(world: &World, record: &TxRecord) {
    for branch in &record.branches {
        let key = BranchKey { gid: record.gid, branch: branch.branch.clone() };
        // Settled outside, it is carried out once its participant asks.
        if branch.progress.settled == Some(Settled::Outside) || world.is_lost(&key) {
            continue;
        }
        let row = end::row(world, branch.participant.as_str(), &key);
        let fits = match (record.status.decision(), row) {
            (Some(Decision::Confirm), Some(status)) => status == BranchRowStatus::Confirmed,
            (Some(Decision::Cancel), Some(status)) => matches!(status, BranchRowStatus::Cancelled | BranchRowStatus::Refused),
            // A branch whose Try was refused late has no row, and needs no other answer.
            (Some(Decision::Cancel), None) => true,
            (Some(Decision::Confirm) | None, _) => false,
        };
        if !fits {
            let gid = record.gid;
            world.violation("end", format_args!("{gid} is {:?}, its branch {} {row:?}", record.status, branch.branch));
        }
    }
}

/// S2 and S3: a branch goes only where the durable decision leads, and never from one end to the other.
fn branches(world: &World, db: Db, before: &BranchTable, after: &BranchTable) {
    let faults = world.faults();
    for (old, new) in after.changes_since(before) {
        let Some(row) = new.or(old) else { continue };
        let key = &row.row.key;
        let status = |stored: Option<&StoredBranch>| stored.map(|it| it.row.status);
        let (from, to) = (status(old), status(new));
        if from == to {
            continue;
        }
        let name = |status: Option<BranchRowStatus>| status.map_or_else(|| "none".to_owned(), |it| format!("{it:?}"));
        world.tell(db, format_args!("{} {} {} -> {}", key.gid, key.branch, name(from), name(to)));
        world.coverage().row(&name(from), &name(to), &faults);
        let fits = match (from, to) {
            (None, Some(BranchRowStatus::Confirmed)) => false,
            (None, Some(_)) => true,
            (Some(BranchRowStatus::Tried), Some(_)) => true,
            (Some(BranchRowStatus::Tried), None) => false,
            (Some(_), Some(_)) => false,
            (_, None) => true,
        };
        if !fits {
            let what = format!("branch {} of {} went from {} to {}", key.branch, key.gid, name(from), name(to));
            world.violation("S3", what);
        }
        let decided = match to {
            Some(BranchRowStatus::Confirmed) => Op::Confirm,
            Some(BranchRowStatus::Cancelled) => Op::Cancel,
            Some(BranchRowStatus::Tried | BranchRowStatus::Refused) | None => continue,
        };
        let decision = world.log.durable().transaction(key.gid).and_then(|record| record.status.decision());
        if decision.map(Decision::op) != Some(decided) {
            let what = format!("{decided:?} of {} ran in {db}; the durable decision is {decision:?}", key.gid);
            world.violation("S2", what);
        }
    }
}

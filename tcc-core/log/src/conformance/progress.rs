//! What follows a decision: parked and finished.

use std::sync::Arc;

use tcc_machine::{BranchProgress, Settled, Stuck, StuckKind};
use tcc_types::{Gid, TxStatus};

use super::{begin_new, loaded, samples};
use crate::{Park, TxLog};

/// A cancelled-by-decision transaction with two branches.
async fn cancelling(log: &dyn TxLog) -> Gid {
    let new = samples::transaction(log.now(), 2);
    begin_new(log, &new).await;
    log.decide(samples::cancel(log.now(), new.gid)).await.expect("cancel");
    new.gid
}

async fn park(log: &dyn TxLog, gid: Gid, branches: &[(&str, BranchProgress)]) {
    let branches = branches.iter().map(|(branch, progress)| (samples::branch_id(branch), progress.clone())).collect();
    log.park(Park { gid, owner: samples::OWNER, next_attempt_at: samples::future(log.now()), branches }).await.expect("park");
}

fn settled(settled: Settled) -> BranchProgress {
    BranchProgress { settled: Some(settled), attempts: 1, stuck: None }
}

/// Each to its own end.
pub async fn finish_ends_what_was_decided(log: Arc<dyn TxLog>) {
    let cancelled = cancelling(&*log).await;
    let confirmed = samples::transaction(log.now(), 1);
    begin_new(&*log, &confirmed).await;
    log.decide(samples::confirm(log.now(), confirmed.gid, 1)).await.expect("confirm");
    for (gid, status) in [(cancelled, TxStatus::Cancelled), (confirmed.gid, TxStatus::Confirmed)] {
        let before = log.now();
        log.finish(gid).await.expect("finish");
        let stored = loaded(&*log, gid).await;
        assert_eq!(stored.status, status);
        assert!(stored.finished_at.is_some_and(|at| before <= at && at <= log.now()));
        assert!(stored.decided_at <= stored.finished_at);
    }
}

/// Its end keeps its time.
pub async fn a_repeated_finish_changes_nothing(log: Arc<dyn TxLog>) {
    let gid = cancelling(&*log).await;
    log.finish(gid).await.expect("finish");
    let stored = loaded(&*log, gid).await;
    log.finish(gid).await.expect("again");
    assert_eq!(loaded(&*log, gid).await, stored);
}

/// Only a decision can be finished.
pub async fn finish_leaves_the_undecided_and_the_unknown_alone(log: Arc<dyn TxLog>) {
    let new = samples::transaction(log.now(), 1);
    begin_new(&*log, &new).await;
    let stored = loaded(&*log, new.gid).await;
    log.finish(new.gid).await.expect("finish");
    assert_eq!(loaded(&*log, new.gid).await, stored);
    let unknown = samples::gid(log.now());
    log.finish(unknown).await.expect("finish");
    assert_eq!(log.load(unknown).await.expect("load"), None);
}

/// Of the branches that were named; the others keep theirs.
pub async fn parked_progress_reads_back(log: Arc<dyn TxLog>) {
    let gid = cancelling(&*log).await;
    let kinds = [StuckKind::Unreachable, StuckKind::UnknownParticipant, StuckKind::NoReservation, StuckKind::OtherOutcome];
    for (attempts, kind) in (1..).zip(kinds) {
        let stuck =
            Stuck { kind, since: samples::past(log.now()), detail: "Verbindung verweigert – 接続拒否".to_owned() };
        let progress = BranchProgress { settled: None, attempts, stuck: Some(stuck) };
        let next_attempt_at = samples::future(log.now());
        log.park(Park {
            gid,
            owner: samples::OWNER,
            next_attempt_at,
            branches: vec![(samples::branch_id("b1"), progress.clone())],
        })
        .await
        .expect("park");
        let stored = loaded(&*log, gid).await;
        assert_eq!(stored.next_attempt_at, next_attempt_at);
        assert_eq!(stored.branches[0].progress, BranchProgress::default());
        assert_eq!(stored.branches[1].progress, progress);
        assert_eq!(stored.status, TxStatus::Cancelling);
    }
}

/// Whatever a driver with an older view says, and as what it was first.
pub async fn what_is_settled_stays_settled(log: Arc<dyn TxLog>) {
    let gid = cancelling(&*log).await;
    park(&*log, gid, &[("b0", settled(Settled::Acknowledged)), ("b1", samples::stuck(log.now()))]).await;
    park(&*log, gid, &[("b0", samples::stuck(log.now())), ("b1", settled(Settled::Outside))]).await;
    park(&*log, gid, &[("b0", BranchProgress::default()), ("b1", settled(Settled::Acknowledged))]).await;
    let branches = loaded(&*log, gid).await.branches;
    assert_eq!((branches[0].progress.settled, &branches[0].progress.stuck), (Some(Settled::Acknowledged), &None));
    assert_eq!((branches[1].progress.settled, &branches[1].progress.stuck), (Some(Settled::Outside), &None));
}

/// A slow driver does not change what has ended.
pub async fn parking_leaves_the_ended_alone(log: Arc<dyn TxLog>) {
    let gid = cancelling(&*log).await;
    log.finish(gid).await.expect("finish");
    let stored = loaded(&*log, gid).await;
    let branches = vec![(samples::branch_id("b0"), samples::stuck(log.now()))];
    log.park(Park { gid, owner: samples::OWNER, next_attempt_at: samples::past(log.now()), branches }).await.expect("park");
    assert_eq!(loaded(&*log, gid).await, stored);
    assert_eq!(log.list_stuck(None, None, 10).await.expect("list"), []);
}

/// Nothing comes to be.
pub async fn parking_an_unknown_transaction_or_branch_changes_nothing(log: Arc<dyn TxLog>) {
    let unknown = samples::gid(log.now());
    park(&*log, unknown, &[("b0", samples::stuck(log.now()))]).await;
    assert_eq!(log.load(unknown).await.expect("load"), None);
    let gid = cancelling(&*log).await;
    park(&*log, gid, &[("nobody", samples::stuck(log.now()))]).await;
    let branches = loaded(&*log, gid).await.branches;
    assert!(branches.len() == 2 && branches.iter().all(|branch| branch.progress == BranchProgress::default()));
}

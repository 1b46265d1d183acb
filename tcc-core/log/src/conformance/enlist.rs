//! Branches that come after the beginning.

use std::sync::Arc;

use tcc_machine::Decides;
use tcc_types::TxStatus;

use super::{begin_new, loaded, samples};
use crate::{Decided, Enlisted, NewTransaction, TxLog};

const BRANCHES_MAX: u32 = 8;

/// In the initiator's order, after those of the beginning.
pub async fn an_enlisted_branch_comes_last_and_is_counted(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 0);
    begin_new(&*log, &new).await;
    for (name, branch_count) in [("z", 1), ("a", 2), ("m", 3)] {
        let enlisted = log.enlist(new.gid, samples::branch(name), BRANCHES_MAX).await.expect("enlist");
        assert_eq!(enlisted, Enlisted::Inserted { branch_count });
    }
    let stored = loaded(&*log, new.gid).await;
    assert_eq!(stored.branch_count, 3);
    assert_eq!(stored.branches.iter().map(|branch| branch.branch.as_str()).collect::<Vec<_>>(), ["z", "a", "m"]);
    assert_eq!(stored.branches[0].payload, samples::branch("z").payload);
    assert_eq!(stored.branches[0].participant, samples::branch("z").participant);
}

/// A Confirm that holds too few votes decides nothing.
pub async fn an_enlisted_branch_must_be_voted_for(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 1);
    begin_new(&*log, &new).await;
    log.enlist(new.gid, samples::branch("late"), BRANCHES_MAX).await.expect("enlist");
    let decided = log.decide(samples::confirm(log.now(), new.gid, 1)).await.expect("decide");
    assert_eq!(decided, Decided::CountMoved { branch_count: 2 });
    let decided = log.decide(samples::confirm(log.now(), new.gid, 2)).await.expect("decide");
    assert!(matches!(decided, Decided::Stands { status: TxStatus::Confirming, .. }), "{decided:?}");
}

/// The stored payload is told, not the repeated one: the caller compares.
pub async fn a_repeated_enlist_tells_the_branch_and_counts_once(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 0);
    begin_new(&*log, &new).await;
    log.enlist(new.gid, samples::branch("b"), BRANCHES_MAX).await.expect("enlist");
    let mut other = samples::branch("c");
    other.branch = samples::branch_id("b");
    match log.enlist(new.gid, other, BRANCHES_MAX).await.expect("again") {
        Enlisted::Exists(record) => assert_eq!(record.payload, samples::branch("b").payload),
        enlisted => panic!("{enlisted:?}"),
    }
    assert_eq!(loaded(&*log, new.gid).await.branch_count, 1);
}

/// The ids are unique however a branch came in.
pub async fn a_branch_that_was_begun_with_cannot_be_enlisted_again(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 2);
    begin_new(&*log, &new).await;
    let enlisted = log.enlist(new.gid, samples::branch("b1"), BRANCHES_MAX).await.expect("enlist");
    assert!(matches!(enlisted, Enlisted::Exists(_)), "{enlisted:?}");
    assert_eq!(loaded(&*log, new.gid).await.branch_count, 2);
}

/// Whichever decision it is.
pub async fn a_decided_transaction_takes_no_branches(log: Arc<dyn TxLog>) {
    let (confirmed, cancelled) = (samples::open(log.now(), 1), samples::open(log.now(), 1));
    begin_new(&*log, &confirmed).await;
    begin_new(&*log, &cancelled).await;
    log.decide(samples::confirm(log.now(), confirmed.gid, 1)).await.expect("confirm");
    log.decide(samples::cancel(log.now(), cancelled.gid)).await.expect("cancel");
    log.finish(cancelled.gid).await.expect("finish");
    for (gid, status) in [(confirmed.gid, TxStatus::Confirming), (cancelled.gid, TxStatus::Cancelled)] {
        let enlisted = log.enlist(gid, samples::branch("late"), BRANCHES_MAX).await.expect("enlist");
        assert_eq!(enlisted, Enlisted::Closed(status));
        assert_eq!(loaded(&*log, gid).await.branches.len(), 1);
    }
}

/// So a repeated call learns that it had succeeded.
pub async fn a_branch_is_still_told_after_the_decision(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 1);
    begin_new(&*log, &new).await;
    log.decide(samples::cancel(log.now(), new.gid)).await.expect("cancel");
    let enlisted = log.enlist(new.gid, samples::branch("b0"), BRANCHES_MAX).await.expect("enlist");
    assert!(matches!(enlisted, Enlisted::Exists(_)), "{enlisted:?}");
}

/// Others were told all their branches at the beginning.
pub async fn only_an_open_transaction_takes_branches(log: Arc<dyn TxLog>) {
    for decides in [Decides::AtVotes, Decides::OnRequest] {
        let new = NewTransaction { decides, ..samples::transaction(log.now(), 1) };
        begin_new(&*log, &new).await;
        let enlisted = log.enlist(new.gid, samples::branch("late"), BRANCHES_MAX).await.expect("enlist");
        assert_eq!(enlisted, Enlisted::Closed(TxStatus::Trying));
        assert_eq!(loaded(&*log, new.gid).await.branch_count, 1);
    }
}

/// The last one that fits goes in, the next does not, and a repeated one is still told.
pub async fn branches_are_bounded(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 1);
    begin_new(&*log, &new).await;
    let enlist = |name: &str| log.enlist(new.gid, samples::branch(name), 2);
    assert_eq!(enlist("fits").await.expect("enlist"), Enlisted::Inserted { branch_count: 2 });
    assert_eq!(enlist("over").await.expect("enlist"), Enlisted::Full);
    assert!(matches!(enlist("fits").await.expect("enlist"), Enlisted::Exists(_)));
    assert_eq!(loaded(&*log, new.gid).await.branches.len(), 2);
}

/// And no branch comes to be.
pub async fn an_unknown_gid_takes_no_branches(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 0);
    let enlisted = log.enlist(new.gid, samples::branch("b"), BRANCHES_MAX).await.expect("enlist");
    assert_eq!(enlisted, Enlisted::Missing);
    begin_new(&*log, &new).await;
    assert_eq!(loaded(&*log, new.gid).await.branches, []);
}

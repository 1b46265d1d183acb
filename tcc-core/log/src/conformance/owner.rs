//! Who drives a transaction, and for how long.

use std::{sync::Arc, time::Duration};

use tcc_machine::BranchProgress;
use tcc_types::Gid;

use super::{begin_new, loaded, samples};
use crate::{Decide, Due, Error, NewTransaction, Owner, Park, RENEW_MAX, TxLog};

/// A transaction that is due, driven by [`samples::OWNER`].
async fn due(log: &dyn TxLog) -> Gid {
    let new = NewTransaction { next_attempt_at: samples::past(log.now()), ..samples::transaction(log.now(), 2) };
    begin_new(log, &new).await;
    new.gid
}

/// Nobody is a number of its own, below all of them.
pub async fn each_owner_that_is_taken_is_greater_than_all_before(log: Arc<dyn TxLog>) {
    let mut last = Owner::NOBODY;
    for _ in 0..5 {
        let owner = log.take_owner().await.expect("take_owner");
        assert!(owner > last, "{owner:?} after {last:?}");
        last = owner;
    }
}

/// None gets the number of another.
pub async fn owners_taken_at_once_are_distinct(log: Arc<dyn TxLog>) {
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let log = Arc::clone(&log);
        callers.spawn(async move { log.take_owner().await.expect("take_owner") });
    }
    let mut owners = callers.join_all().await;
    owners.sort();
    owners.dedup();
    assert_eq!(owners.len(), 16);
}

/// Before an owner was taken, and after.
pub async fn a_log_that_can_be_written_to_says_so(log: Arc<dyn TxLog>) {
    log.probe().await.expect("probe");
    log.take_owner().await.expect("take_owner");
    log.probe().await.expect("probe");
    log.probe().await.expect("probe");
}

/// A repeated one by somebody else changes nothing.
pub async fn whoever_begins_is_the_owner(log: Arc<dyn TxLog>) {
    let new = NewTransaction { owner: samples::OTHER, ..samples::transaction(log.now(), 1) };
    begin_new(&*log, &new).await;
    assert_eq!(loaded(&*log, new.gid).await.owner, samples::OTHER);
    log.begin(NewTransaction { owner: samples::OWNER, ..new.clone() }).await.expect("again");
    assert_eq!(loaded(&*log, new.gid).await.owner, samples::OTHER);
}

/// Even of what is another's; whoever loses does not.
pub async fn whoever_decides_is_the_owner(log: Arc<dyn TxLog>) {
    let gid = due(&*log).await;
    let decide = |owner| Decide { owner, ..samples::cancel(log.now(), gid) };
    log.decide(decide(samples::OTHER)).await.expect("decide");
    assert_eq!(loaded(&*log, gid).await.owner, samples::OTHER);
    log.decide(decide(samples::OWNER)).await.expect("decide");
    assert_eq!(loaded(&*log, gid).await.owner, samples::OTHER);
    // Nor does a Confirm that decides nothing.
    let open = due(&*log).await;
    log.decide(Decide { owner: samples::OTHER, ..samples::confirm(log.now(), open, 1) }).await.expect("decide");
    assert_eq!(loaded(&*log, open).await.owner, samples::OWNER);
}

/// Whose it was does not matter.
pub async fn whoever_claims_is_the_owner(log: Arc<dyn TxLog>) {
    let gid = due(&*log).await;
    let claimed = log.claim(samples::OTHER, Due::Fresh, 10, samples::LEASE).await.expect("claim");
    assert_eq!(claimed.iter().map(|record| (record.gid, record.owner)).collect::<Vec<_>>(), [(gid, samples::OTHER)]);
    assert_eq!(loaded(&*log, gid).await.owner, samples::OTHER);
}

/// Neither the transaction nor its branches.
pub async fn a_park_by_another_owner_changes_nothing(log: Arc<dyn TxLog>) {
    let gid = due(&*log).await;
    log.decide(samples::cancel(log.now(), gid)).await.expect("decide");
    let stored = loaded(&*log, gid).await;
    let park = |owner| {
        let branches = vec![(samples::branch_id("b0"), samples::stuck(samples::past(log.now())))];
        Park { gid, owner, next_attempt_at: samples::past(log.now()), branches }
    };
    for stale in [samples::OTHER, Owner::NOBODY] {
        log.park(park(stale)).await.expect("park");
        assert_eq!(loaded(&*log, gid).await, stored);
    }
    assert_eq!(log.list_stuck(None, None, 10).await.expect("list"), []);
    log.park(park(samples::OWNER)).await.expect("park");
    assert_ne!(loaded(&*log, gid).await.branches[0].progress, BranchProgress::default());
}

/// What has ended and what is unknown is left out; what is another's too, and stays as it is.
pub async fn a_lease_is_renewed_only_of_what_is_unfinished_and_the_owners(log: Arc<dyn TxLog>) {
    let mine = [due(&*log).await, due(&*log).await];
    let decided = due(&*log).await;
    log.decide(samples::confirm(log.now(), decided, 2)).await.expect("decide");
    let ended = due(&*log).await;
    log.decide(samples::cancel(log.now(), ended)).await.expect("decide");
    log.finish(ended).await.expect("finish");
    let foreign = NewTransaction { owner: samples::OTHER, ..samples::transaction(log.now(), 1) };
    begin_new(&*log, &foreign).await;
    let (ended_before, foreign_before) = (loaded(&*log, ended).await, loaded(&*log, foreign.gid).await);
    let gids = [foreign.gid, mine[1], ended, samples::gid(log.now()), mine[0], decided];
    let before = log.now();
    let mut renewed = log.renew(samples::OWNER, &gids, samples::LEASE).await.expect("renew");
    // Compares the clocks: the leases were taken by the database's.
    log.probe().await.expect("probe");
    let (from, until) = (before.plus(samples::LEASE), log.now().plus(samples::LEASE));
    let mut expected = [mine[0], mine[1], decided];
    renewed.sort();
    expected.sort();
    assert_eq!(renewed, expected);
    for gid in expected {
        let stored = loaded(&*log, gid).await;
        assert_eq!(stored.owner, samples::OWNER);
        assert!(from <= stored.next_attempt_at && stored.next_attempt_at <= until, "{stored:?}");
    }
    assert_eq!(loaded(&*log, ended).await, ended_before);
    assert_eq!(loaded(&*log, foreign.gid).await, foreign_before);
}

/// Its owner lives.
pub async fn a_renewed_transaction_is_not_claimed(log: Arc<dyn TxLog>) {
    let (renewed, left) = (due(&*log).await, due(&*log).await);
    assert_eq!(log.renew(samples::OWNER, &[renewed], samples::LEASE).await.expect("renew"), [renewed]);
    let claimed = log.claim(samples::OTHER, Due::Fresh, 10, samples::LEASE).await.expect("claim");
    assert_eq!(claimed.iter().map(|record| record.gid).collect::<Vec<_>>(), [left]);
}

/// Its old owner's lease is not prolonged any more.
pub async fn what_was_claimed_cannot_be_renewed_by_its_last_owner(log: Arc<dyn TxLog>) {
    let gid = due(&*log).await;
    log.claim(samples::OTHER, Due::Fresh, 10, Duration::ZERO).await.expect("claim");
    assert_eq!(log.renew(samples::OWNER, &[gid], samples::LEASE).await.expect("renew"), []);
    assert_eq!(log.renew(samples::OTHER, &[gid], samples::LEASE).await.expect("renew"), [gid]);
}

/// As many as the contract allows, none, and not one more.
pub async fn leases_are_renewed_up_to_a_limit(log: Arc<dyn TxLog>) {
    let gid = due(&*log).await;
    assert_eq!(log.renew(samples::OWNER, &[], samples::LEASE).await.expect("renew"), []);
    let mut gids: Vec<Gid> = (1..RENEW_MAX).map(|_| samples::gid(log.now())).collect();
    gids.push(gid);
    assert_eq!(log.renew(samples::OWNER, &gids, samples::LEASE).await.expect("renew"), [gid]);
    gids.push(samples::gid(log.now()));
    let refused = log.renew(samples::OWNER, &gids, samples::LEASE).await;
    assert!(matches!(refused, Err(Error::Unusable(_))), "{refused:?}");
}

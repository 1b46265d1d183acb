//! What recovery takes up.

use std::{sync::Arc, time::Duration};

use tcc_machine::Decides;
use tcc_types::{Gid, Timestamp};

use super::{begin_new, loaded, samples};
use crate::{Decide, Due, NewTransaction, Park, TxLog, TxRecord};

/// A transaction that may be claimed from then on.
async fn begun(log: &dyn TxLog, next_attempt_at: Timestamp) -> Gid {
    let new = NewTransaction { next_attempt_at, ..samples::transaction(log.now(), 2) };
    begin_new(log, &new).await;
    new.gid
}

async fn claim(log: &dyn TxLog, limit: u32) -> Vec<Gid> {
    log.claim(samples::OTHER, Due::Fresh, limit, samples::LEASE).await.expect("claim").iter().map(|record| record.gid).collect()
}

/// As they are stored, with the new lease.
pub async fn what_is_due_is_claimed_with_its_branches_earliest_first(log: Arc<dyn TxLog>) {
    let past = samples::past(log.now());
    let at = |ms: u64| past.plus(Duration::from_millis(ms));
    let (third, first, second) = (begun(&*log, at(3)).await, begun(&*log, at(1)).await, begun(&*log, at(2)).await);
    let before = log.now();
    let claimed: Vec<TxRecord> = log.claim(samples::OTHER, Due::Fresh, 10, samples::LEASE).await.expect("claim");
    // Compares the clocks: the lease was taken by the database's.
    log.probe().await.expect("probe");
    let (from, until) = (before.plus(samples::LEASE), log.now().plus(samples::LEASE));
    assert_eq!(claimed.iter().map(|record| record.gid).collect::<Vec<_>>(), [first, second, third]);
    for record in claimed {
        assert!(from <= record.next_attempt_at && record.next_attempt_at <= until, "{record:?}");
        assert_eq!((record.owner, record.branches.len()), (samples::OTHER, 2));
        assert_eq!(loaded(&*log, record.gid).await, record);
    }
}

/// The rest comes with the next one.
pub async fn a_claim_is_bounded(log: Arc<dyn TxLog>) {
    let past = samples::past(log.now());
    let mut gids = Vec::new();
    for ms in 0..5 {
        gids.push(begun(&*log, past.plus(Duration::from_millis(ms))).await);
    }
    assert_eq!(claim(&*log, 0).await, []);
    assert_eq!(claim(&*log, 2).await, gids[..2]);
    assert_eq!(claim(&*log, 2).await, gids[2..4]);
    assert_eq!(claim(&*log, 2).await, gids[4..]);
    assert_eq!(claim(&*log, 2).await, []);
}

/// Nobody else gets it.
pub async fn a_claimed_transaction_is_leased(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, samples::past(log.now())).await;
    assert_eq!(claim(&*log, 10).await, [gid]);
    assert_eq!(claim(&*log, 10).await, []);
}

/// A driver that died is replaced.
pub async fn a_lease_that_has_passed_is_claimed_again(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, samples::past(log.now())).await;
    assert_eq!(log.claim(samples::OWNER, Due::Fresh, 10, Duration::ZERO).await.expect("claim").len(), 1);
    assert_eq!(claim(&*log, 10).await, [gid]);
}

/// Not even when asked for everything.
pub async fn nothing_is_claimed_before_its_time(log: Arc<dyn TxLog>) {
    begun(&*log, samples::future(log.now())).await;
    assert_eq!(claim(&*log, u32::MAX).await, []);
}

/// Neither what went its way, nor a cancelled record.
pub async fn the_finished_is_never_claimed(log: Arc<dyn TxLog>) {
    let past = samples::past(log.now());
    let gid = begun(&*log, past).await;
    log.decide(Decide { next_attempt_at: past, ..samples::confirm(log.now(), gid, 2) }).await.expect("decide");
    log.finish(gid).await.expect("finish");
    log.begin_cancelled(samples::gid(log.now()), samples::initiator("shop")).await.expect("begin_cancelled");
    assert_eq!(log.release_leases().await.expect("release"), 0);
    assert_eq!(claim(&*log, 10).await, []);
}

/// And so does parking.
pub async fn a_decision_sets_the_next_attempt(log: Arc<dyn TxLog>) {
    let (past, future) = (samples::past(log.now()), samples::future(log.now()));
    let gid = begun(&*log, past).await;
    log.decide(samples::cancel(log.now(), gid)).await.expect("decide");
    assert_eq!(claim(&*log, 10).await, []);
    log.park(Park { gid, owner: samples::OWNER, next_attempt_at: past, branches: Vec::new() }).await.expect("park");
    assert_eq!(claim(&*log, 10).await, [gid]);
    log.park(Park { gid, owner: samples::OWNER, next_attempt_at: future, branches: Vec::new() }).await.expect("park");
    assert_eq!(claim(&*log, 10).await, []);
}

/// A hold that was decided is like any other. A shared log leaves all leases alone.
pub async fn released_leases_are_due_at_once_but_holds_wait_for_decide_by(log: Arc<dyn TxLog>) {
    let (past, future) = (samples::past(log.now()), samples::future(log.now()));
    let hold = |decides, decide_by| NewTransaction { decides, decide_by, ..samples::transaction(log.now(), 1) };
    let trying = begun(&*log, future).await;
    let waiting = [hold(Decides::OnRequest, future), hold(Decides::OnRequestOpen, future)];
    let over = hold(Decides::OnRequest, past);
    let decided = hold(Decides::OnRequest, future);
    for new in waiting.iter().chain([&over, &decided]) {
        begin_new(&*log, new).await;
    }
    log.decide(samples::confirm(log.now(), decided.gid, 1)).await.expect("decide");
    assert_eq!(log.release_leases().await.expect("release"), 5);
    if log.is_shared() {
        for new in waiting.iter().chain([&over]) {
            assert_eq!(loaded(&*log, new.gid).await.next_attempt_at, new.next_attempt_at);
        }
        assert_eq!(claim(&*log, 10).await, []);
        return;
    }
    for new in &waiting {
        assert_eq!(loaded(&*log, new.gid).await.next_attempt_at, new.decide_by);
    }
    let mut claimed = claim(&*log, 10).await;
    let mut expected = [trying, over.gid, decided.gid];
    claimed.sort();
    expected.sort();
    assert_eq!(claimed, expected);
}

/// A transaction with a stuck branch that may be claimed from then on.
async fn stuck(log: &dyn TxLog, next_attempt_at: Timestamp) -> Gid {
    let gid = begun(log, samples::future(log.now())).await;
    log.decide(samples::confirm(log.now(), gid, 2)).await.expect("decide");
    let branches = vec![(samples::branch_id("b1"), samples::stuck(log.now()))];
    log.park(Park { gid, owner: samples::OWNER, next_attempt_at, branches }).await.expect("park");
    gid
}

async fn claim_stuck(log: &dyn TxLog, limit: u32) -> Vec<Gid> {
    log.claim(samples::OTHER, Due::Stuck, limit, samples::LEASE).await.expect("claim").iter().map(|record| record.gid).collect()
}

/// However many are stuck, and however long they have been due.
pub async fn what_is_stuck_and_what_is_fresh_are_claimed_each_for_itself(log: Arc<dyn TxLog>) {
    let past = samples::past(log.now());
    let at = |ms: u64| past.plus(Duration::from_millis(ms));
    let mut older = Vec::new();
    for ms in 0..5 {
        older.push(stuck(&*log, at(ms)).await);
    }
    let waiting = stuck(&*log, samples::future(log.now())).await;
    let (fresh, later) = (begun(&*log, at(10)).await, begun(&*log, at(11)).await);
    assert_eq!(claim(&*log, 1).await, [fresh]);
    assert_eq!(claim_stuck(&*log, 2).await, older[..2]);
    assert_eq!(claim(&*log, 10).await, [later]);
    assert_eq!(claim(&*log, 10).await, []);
    assert_eq!(claim_stuck(&*log, 0).await, []);
    assert_eq!(claim_stuck(&*log, 10).await, older[2..]);
    assert_eq!(claim_stuck(&*log, 10).await, []);
    assert!(loaded(&*log, waiting).await.next_attempt_at > log.now());
}

/// It keeps what was claimed as stuck from being in the way as fresh; its last lease is not the end of it.
pub async fn a_stuck_transaction_stays_of_its_kind_to_its_end(log: Arc<dyn TxLog>) {
    let past = samples::past(log.now());
    let gid = stuck(&*log, past).await;
    assert_eq!(claim_stuck(&*log, 10).await, [gid]);
    // Whoever parks it next has nothing to say of its stuck branch.
    log.park(Park { gid, owner: samples::OTHER, next_attempt_at: past, branches: Vec::new() }).await.expect("park");
    assert_eq!(claim(&*log, 10).await, []);
    assert_eq!(claim_stuck(&*log, 10).await, [gid]);
    log.finish(gid).await.expect("finish");
    log.park(Park { gid, owner: samples::OTHER, next_attempt_at: past, branches: Vec::new() }).await.expect("park");
    assert_eq!(claim_stuck(&*log, 10).await, []);
}

/// So that it does not stand before what was under way.
pub async fn a_released_lease_leaves_the_stuck_to_its_next_attempt(log: Arc<dyn TxLog>) {
    let future = samples::future(log.now());
    let (kept, fresh) = (begun(&*log, future).await, begun(&*log, future).await);
    for gid in [kept, fresh] {
        log.decide(samples::confirm(log.now(), gid, 2)).await.expect("decide");
    }
    let branches = vec![(samples::branch_id("b0"), samples::stuck(log.now()))];
    log.park(Park { gid: kept, owner: samples::OWNER, next_attempt_at: future, branches }).await.expect("park");
    assert_eq!(log.release_leases().await.expect("release"), 2);
    let expected = if log.is_shared() { Vec::new() } else { vec![fresh] };
    assert_eq!(claim(&*log, 10).await, expected);
    assert_eq!(claim_stuck(&*log, 10).await, []);
}

//! Many callers at once: whatever shares a commit, every caller is told what stands.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tcc_machine::CancelCause;
use tcc_types::{Gid, TxStatus};
use tokio::task::JoinSet;

use super::{begin_new, loaded, samples};
use crate::{Begun, Decided, Due, Enlisted, NewTransaction, Park, TxLog};

const CALLERS: usize = 64;

/// Exactly one comes to be; the others are told which.
pub async fn of_many_begins_under_one_key_one_wins(log: Arc<dyn TxLog>) {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let log = Arc::clone(&log);
        callers.spawn(async move {
            let new = samples::keyed(log.now(), "the-key");
            match log.begin(new.clone()).await.expect("begin") {
                Begun::Inserted { .. } => (true, new.gid),
                Begun::Exists(record) => (false, record.gid),
            }
        });
    }
    let answers = callers.join_all().await;
    let winners: Vec<Gid> = answers.iter().filter(|(won, _)| *won).map(|(_, gid)| *gid).collect();
    assert_eq!(winners.len(), 1);
    assert!(answers.iter().all(|(_, gid)| *gid == winners[0]));
    assert_eq!(log.list(&crate::ListFilter::default(), None, 100).await.expect("list").len(), 1);
}

/// With different requests: what is stored is the winner's, whole.
pub async fn of_many_begins_of_one_gid_one_wins(log: Arc<dyn TxLog>) {
    let gid = samples::gid(log.now());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let log = Arc::clone(&log);
        let branches = vec![samples::branch("same"), samples::branch(&format!("of-{caller}"))];
        // Every other one brings a key, so that both ways of losing meet.
        let key = caller.is_multiple_of(2).then(|| samples::key(&format!("k{}", caller % 8)));
        let new = NewTransaction { gid, branches, key, ..samples::transaction(log.now(), 0) };
        callers.spawn(async move { (log.begin(new.clone()).await.expect("begin"), new) });
    }
    let answers = callers.join_all().await;
    let stored = loaded(&*log, gid).await;
    let mut winners = Vec::new();
    for (begun, new) in answers {
        match begun {
            Begun::Inserted { .. } => winners.push(new),
            Begun::Exists(record) => assert_eq!(*record, stored),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(stored.fingerprint, Some(winners[0].fingerprint));
    assert_eq!(stored.branches.len(), 2);
    assert_eq!(stored.branches[1].branch, winners[0].branches[1].branch);
}

/// Whoever is first, both callers see the same one.
pub async fn begin_and_the_cancelled_record_agree(log: Arc<dyn TxLog>) {
    let mut pairs = JoinSet::new();
    for pair in 0..CALLERS {
        let log = Arc::clone(&log);
        pairs.spawn(async move {
            let new = samples::transaction(log.now(), 1);
            let cancel = log.begin_cancelled(new.gid, samples::initiator("market"));
            let (begun, record) = if pair.is_multiple_of(2) {
                tokio::join!(log.begin(new.clone()), cancel)
            } else {
                let (record, begun) = tokio::join!(cancel, log.begin(new.clone()));
                (begun, record)
            };
            let record = record.expect("begin_cancelled");
            match begun.expect("begin") {
                Begun::Inserted { .. } => assert_eq!(record.status, TxStatus::Trying),
                Begun::Exists(stored) => assert_eq!((stored.status, *stored), (TxStatus::Cancelled, record)),
            }
        });
    }
    pairs.join_all().await;
}

/// Half of them want Confirm, half Cancel, each with a cause of its own.
pub async fn of_many_decisions_one_stands_for_all(log: Arc<dyn TxLog>) {
    for _ in 0..8 {
        let new = samples::transaction(log.now(), 2);
        begin_new(&*log, &new).await;
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let log = Arc::clone(&log);
            let decide = if caller.is_multiple_of(2) {
                samples::confirm(log.now(), new.gid, 2)
            } else {
                let cause = CancelCause::Requested { by: samples::initiator(&format!("caller-{caller}")) };
                crate::Decide { choice: tcc_machine::Choice::Cancel { cause }, ..samples::cancel(log.now(), new.gid) }
            };
            callers.spawn(async move { log.decide(decide).await.expect("decide") });
        }
        let answers = callers.join_all().await;
        let stored = loaded(&*log, new.gid).await;
        let stands = Decided::Stands {
            status: stored.status,
            decided_at: stored.decided_at.expect("decided"),
            cause: stored.cause,
            branch_count: stored.branch_count,
        };
        assert!(answers.iter().all(|answer| *answer == stands), "{answers:?}");
        assert_ne!(stored.status, TxStatus::Trying);
    }
}

/// Either the branch is in and the Confirm with too few votes is not, or the other way round.
pub async fn a_confirm_never_overlooks_an_enlisted_branch(log: Arc<dyn TxLog>) {
    let mut pairs = JoinSet::new();
    for pair in 0..CALLERS {
        let log = Arc::clone(&log);
        pairs.spawn(async move {
            let new = samples::open(log.now(), 1);
            begin_new(&*log, &new).await;
            let enlist = log.enlist(new.gid, samples::branch("late"), 8);
            let confirm = log.decide(samples::confirm(log.now(), new.gid, 1));
            let (enlisted, decided) = if pair.is_multiple_of(2) {
                tokio::join!(enlist, confirm)
            } else {
                let (decided, enlisted) = tokio::join!(confirm, enlist);
                (enlisted, decided)
            };
            let stored = loaded(&*log, new.gid).await;
            assert_eq!(stored.branch_count as usize, stored.branches.len());
            match (enlisted.expect("enlist"), decided.expect("decide")) {
                (Enlisted::Inserted { branch_count: 2 }, Decided::CountMoved { branch_count: 2 }) => {
                    assert_eq!((stored.status, stored.branches.len()), (TxStatus::Trying, 2));
                }
                (Enlisted::Closed(TxStatus::Confirming), Decided::Stands { status: TxStatus::Confirming, .. }) => {
                    assert_eq!((stored.status, stored.branches.len()), (TxStatus::Confirming, 1));
                }
                both => panic!("{both:?}"),
            }
        });
    }
    pairs.join_all().await;
}

/// Distinct branches all come in, each id once, and the counts told are distinct.
pub async fn many_enlists_are_each_counted_once(log: Arc<dyn TxLog>) {
    let new = samples::open(log.now(), 0);
    begin_new(&*log, &new).await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let log = Arc::clone(&log);
        // Two callers for each id.
        callers
            .spawn(async move { log.enlist(new.gid, samples::branch(&format!("b{}", caller / 2)), 64).await.expect("enlist") });
    }
    let (mut counts, mut existing) = (HashSet::new(), 0);
    for enlisted in callers.join_all().await {
        match enlisted {
            Enlisted::Inserted { branch_count } => assert!(counts.insert(branch_count), "{branch_count} was told twice"),
            Enlisted::Exists(_) => existing += 1,
            enlisted @ (Enlisted::Closed(_) | Enlisted::Full | Enlisted::Missing) => panic!("{enlisted:?}"),
        }
    }
    assert_eq!((counts.len(), existing), (CALLERS / 2, CALLERS / 2));
    let stored = loaded(&*log, new.gid).await;
    assert_eq!((stored.branch_count as usize, stored.branches.len()), (CALLERS / 2, CALLERS / 2));
}

/// Everything due is claimed, by one each.
pub async fn concurrent_claims_never_share(log: Arc<dyn TxLog>) {
    let past = samples::past(log.now());
    for _ in 0..CALLERS {
        begin_new(&*log, &NewTransaction { next_attempt_at: past, ..samples::transaction(log.now(), 1) }).await;
    }
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let log = Arc::clone(&log);
        callers.spawn(async move { log.claim(samples::OTHER, Due::Fresh, 7, samples::LEASE).await.expect("claim") });
    }
    let claimed: Vec<Gid> = callers.join_all().await.into_iter().flatten().map(|record| record.gid).collect();
    assert_eq!(claimed.len(), CALLERS);
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), CALLERS);
}

/// Two kinds of claims side by side: everything due is claimed, by one each, and by a claim of its kind.
pub async fn concurrent_claims_of_both_kinds_never_share(log: Arc<dyn TxLog>) {
    let past = samples::past(log.now());
    let mut kinds = HashMap::new();
    for number in 0..CALLERS {
        let new = NewTransaction { next_attempt_at: past, ..samples::transaction(log.now(), 1) };
        begin_new(&*log, &new).await;
        let due = if number.is_multiple_of(2) { Due::Fresh } else { Due::Stuck };
        if due == Due::Stuck {
            let branches = vec![(samples::branch_id("b0"), samples::stuck(log.now()))];
            log.decide(samples::confirm(log.now(), new.gid, 1)).await.expect("decide");
            log.park(Park { gid: new.gid, owner: samples::OWNER, next_attempt_at: past, branches }).await.expect("park");
        }
        kinds.insert(new.gid, due);
    }
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let log = Arc::clone(&log);
        let due = if caller % 2 == 0 { Due::Fresh } else { Due::Stuck };
        callers.spawn(async move { (due, log.claim(samples::OTHER, due, 7, samples::LEASE).await.expect("claim")) });
    }
    for (due, claimed) in callers.join_all().await {
        for record in claimed {
            assert_eq!(kinds.remove(&record.gid), Some(due), "{record:?}");
        }
    }
    assert_eq!(kinds, HashMap::new());
}

/// Begins, enlists, decisions, parks and ends of different transactions share commits and keep apart.
pub async fn whole_lives_run_side_by_side(log: Arc<dyn TxLog>) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS * 4 {
        let log = Arc::clone(&log);
        callers.spawn(async move {
            let new = samples::open(log.now(), 1 + caller % 3);
            begin_new(&*log, &new).await;
            let enlisted = log.enlist(new.gid, samples::branch("late"), 8).await.expect("enlist");
            let votes = u32::try_from(2 + caller % 3).expect("few");
            assert_eq!(enlisted, Enlisted::Inserted { branch_count: votes });
            let (decide, end) = if caller.is_multiple_of(3) {
                (samples::cancel(log.now(), new.gid), TxStatus::Cancelled)
            } else {
                (samples::confirm(log.now(), new.gid, votes), TxStatus::Confirmed)
            };
            let decided = log.decide(decide).await.expect("decide");
            assert!(matches!(decided, Decided::Stands { .. }), "{decided:?}");
            let branches = vec![(samples::branch_id("late"), samples::stuck(log.now()))];
            let park =
                crate::Park { gid: new.gid, owner: samples::OWNER, next_attempt_at: samples::future(log.now()), branches };
            log.park(park).await.expect("park");
            log.finish(new.gid).await.expect("finish");
            let stored = loaded(&*log, new.gid).await;
            assert_eq!((stored.status, stored.branches.len()), (end, votes as usize));
            assert_eq!(stored.branches.last().map(|branch| branch.payload.clone()), Some(samples::branch("late").payload));
        });
    }
    callers.join_all().await;
    assert_eq!(log.list_stuck(None, None, 10).await.expect("list"), []);
}

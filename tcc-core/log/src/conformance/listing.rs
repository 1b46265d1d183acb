//! Listings, counts and statuses.

use std::{sync::Arc, time::Duration};

use tcc_types::{BranchKey, Gid, Timestamp, TxStatus};

use super::{begin_new, loaded, samples};
use crate::{Due, ListFilter, NewTransaction, Park, TxLog};

/// Transactions minted a second apart, oldest first.
async fn begun(log: &dyn TxLog, count: u64) -> Vec<Gid> {
    let mut gids = Vec::new();
    for second in 0..count {
        let gid = samples::gid(log.now().plus(Duration::from_secs(second)));
        begin_new(log, &NewTransaction { gid, ..samples::transaction(log.now(), 1) }).await;
        gids.push(gid);
    }
    gids
}

async fn list(log: &dyn TxLog, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Vec<Gid> {
    log.list(filter, before, limit).await.expect("list").iter().map(|record| record.gid).collect()
}

/// Keys of others are others' keys.
pub async fn a_transaction_is_found_by_initiator_and_key(log: Arc<dyn TxLog>) {
    let key = samples::key("order-1");
    let new = NewTransaction { key: Some(key.clone()), ..samples::transaction(log.now(), 2) };
    begin_new(&*log, &new).await;
    let mut expected = loaded(&*log, new.gid).await;
    expected.branches.clear();
    assert_eq!(log.find(&new.initiator, &key).await.expect("find"), Some(expected));
    assert_eq!(log.find(&samples::initiator("market"), &key).await.expect("find"), None);
    assert_eq!(log.find(&new.initiator, &samples::key("order-2")).await.expect("find"), None);
}

/// Without branches, but with their number.
pub async fn transactions_are_listed_newest_first_in_pages(log: Arc<dyn TxLog>) {
    let mut gids = begun(&*log, 5).await;
    gids.reverse();
    let all = ListFilter::default();
    assert_eq!(list(&*log, &all, None, 10).await, gids);
    assert_eq!(list(&*log, &all, None, 2).await, gids[..2]);
    assert_eq!(list(&*log, &all, Some(gids[1]), 2).await, gids[2..4]);
    assert_eq!(list(&*log, &all, Some(gids[3]), 2).await, gids[4..]);
    assert_eq!(list(&*log, &all, Some(gids[4]), 2).await, []);
    let mut expected = loaded(&*log, gids[0]).await;
    expected.branches.clear();
    assert_eq!(log.list(&all, None, 1).await.expect("list"), [expected]);
}

/// Together and alone; pages go on within the filter.
pub async fn a_listing_is_filtered_by_status_and_initiator(log: Arc<dyn TxLog>) {
    let gids = begun(&*log, 4).await;
    log.decide(samples::confirm(log.now(), gids[0], 1)).await.expect("confirm");
    log.decide(samples::confirm(log.now(), gids[1], 1)).await.expect("confirm");
    log.finish(gids[1]).await.expect("finish");
    let market = NewTransaction { initiator: samples::initiator("market"), ..samples::transaction(log.now(), 1) };
    begin_new(&*log, &market).await;
    let of = |statuses: &[TxStatus], initiator: Option<&str>| ListFilter {
        statuses: statuses.to_vec(),
        initiator: initiator.map(samples::initiator),
    };
    assert_eq!(list(&*log, &of(&[TxStatus::Confirming], None), None, 10).await, [gids[0]]);
    assert_eq!(list(&*log, &of(&[TxStatus::Confirmed, TxStatus::Confirming], None), None, 10).await, [gids[1], gids[0]]);
    assert_eq!(list(&*log, &of(&[TxStatus::Cancelled], None), None, 10).await, []);
    assert_eq!(list(&*log, &of(&[], Some("market")), None, 10).await, [market.gid]);
    assert_eq!(list(&*log, &of(&[TxStatus::Trying], Some("shop")), None, 10).await, [gids[3], gids[2]]);
    assert_eq!(list(&*log, &of(&[TxStatus::Trying], Some("shop")), Some(gids[3]), 10).await, [gids[2]]);
    assert_eq!(list(&*log, &of(&[TxStatus::Trying], Some("nobody")), None, 10).await, []);
}

/// Those that nothing has, too.
pub async fn every_status_is_counted(log: Arc<dyn TxLog>) {
    let gids = begun(&*log, 4).await;
    log.decide(samples::confirm(log.now(), gids[0], 1)).await.expect("confirm");
    log.decide(samples::cancel(log.now(), gids[1])).await.expect("cancel");
    log.finish(gids[1]).await.expect("finish");
    let mut counts = log.count_by_status().await.expect("count");
    counts.sort();
    let expected = [
        (TxStatus::Trying, 2),
        (TxStatus::Confirming, 1),
        (TxStatus::Confirmed, 0),
        (TxStatus::Cancelling, 0),
        (TxStatus::Cancelled, 1),
    ];
    assert_eq!(counts, expected);
}

/// A cancelling transaction with branches that are stuck since then.
async fn stuck(log: &dyn TxLog, branches: &[(&str, Timestamp)]) -> Gid {
    let new = samples::transaction(log.now(), 3);
    begin_new(log, &new).await;
    log.decide(samples::cancel(log.now(), new.gid)).await.expect("cancel");
    let branches = branches.iter().map(|(branch, since)| (samples::branch_id(branch), samples::stuck(*since))).collect();
    log.park(Park { gid: new.gid, owner: samples::OWNER, next_attempt_at: samples::future(log.now()), branches })
        .await
        .expect("park");
    new.gid
}

/// Equal times go by gid and branch, and pages cut between them.
pub async fn stuck_branches_are_listed_longest_stuck_first_in_pages(log: Arc<dyn TxLog>) {
    let old = samples::past(log.now());
    let older = samples::past(old);
    let one = stuck(&*log, &[("b0", old), ("b2", older)]).await;
    let two = stuck(&*log, &[("b1", old), ("b0", old)]).await;
    let mut expected = vec![
        (older, samples::branch_key(one, "b2")),
        (old, samples::branch_key(one, "b0")),
        (old, samples::branch_key(two, "b0")),
        (old, samples::branch_key(two, "b1")),
    ];
    expected.sort();
    let (mut found, mut after): (Vec<(Timestamp, BranchKey)>, _) = (Vec::new(), None);
    loop {
        let page = log.list_stuck(None, after.take(), 1).await.expect("list");
        let Some(branch) = page.into_iter().next() else { break };
        assert_eq!((branch.status, branch.attempts), (TxStatus::Cancelling, 7));
        assert_eq!(branch.stuck, samples::stuck(branch.stuck.since).stuck.expect("stuck"));
        assert_eq!(branch.participant, samples::participant("inventory"));
        assert_eq!(branch.next_attempt_at, loaded(&*log, branch.key.gid).await.next_attempt_at);
        found.push((branch.stuck.since, branch.key.clone()));
        after = Some((branch.stuck.since, branch.key));
    }
    assert_eq!(found, expected);
    assert_eq!(log.list_stuck(None, None, 3).await.expect("list").len(), 3);
}

/// By the branch's participant.
pub async fn stuck_branches_are_filtered_by_participant(log: Arc<dyn TxLog>) {
    stuck(&*log, &[("b0", log.now()), ("b1", log.now())]).await;
    let of = async |name: &str| log.list_stuck(Some(&samples::participant(name)), None, 10).await.expect("list").len();
    assert_eq!(of("inventory").await, 2);
    assert_eq!(of("coupon").await, 0);
}

/// Neither what moves again nor what has ended.
pub async fn what_is_not_stuck_any_more_is_not_listed(log: Arc<dyn TxLog>) {
    let moving = stuck(&*log, &[("b0", log.now())]).await;
    let ended = stuck(&*log, &[("b0", log.now())]).await;
    assert_eq!(log.list_stuck(None, None, 10).await.expect("list").len(), 2);
    let branches = vec![(samples::branch_id("b0"), tcc_machine::BranchProgress::default())];
    log.park(Park { gid: moving, owner: samples::OWNER, next_attempt_at: log.now(), branches }).await.expect("park");
    log.finish(ended).await.expect("finish");
    assert_eq!(log.list_stuck(None, None, 10).await.expect("list"), []);
    assert_eq!(loaded(&*log, ended).await.branches[0].progress.stuck, None);
}

/// Unknown ones are `None`, repeated ones are told twice, and a branch is looked for in its own transaction only.
pub async fn statuses_come_in_the_order_of_the_keys(log: Arc<dyn TxLog>) {
    let (one, two) = (samples::transaction(log.now(), 1), samples::transaction(log.now(), 2));
    begin_new(&*log, &one).await;
    begin_new(&*log, &two).await;
    log.decide(samples::cancel(log.now(), two.gid)).await.expect("cancel");
    let unknown = samples::gid(log.now());
    let keys = [(two.gid, "b1"), (unknown, "b0"), (one.gid, "b1"), (one.gid, "b0"), (two.gid, "b1")];
    let statuses = log.statuses(&keys.map(|(gid, branch)| samples::branch_key(gid, branch))).await.expect("statuses");
    let found: Vec<_> =
        statuses.iter().map(|found| found.as_ref().map(|(record, has)| (record.gid, record.status, *has))).collect();
    let (cancelling, trying) = (TxStatus::Cancelling, TxStatus::Trying);
    let expected = [
        Some((two.gid, cancelling, true)),
        None,
        Some((one.gid, trying, false)),
        Some((one.gid, trying, true)),
        Some((two.gid, cancelling, true)),
    ];
    assert_eq!(found, expected);
    assert_eq!(log.statuses(&[]).await.expect("statuses"), []);
}

/// More than fit into one statement.
pub async fn many_statuses_are_read_at_once(log: Arc<dyn TxLog>) {
    let known = samples::transaction(log.now(), 1);
    begin_new(&*log, &known).await;
    let mut keys: Vec<BranchKey> = (0..1_000).map(|_| samples::branch_key(samples::gid(log.now()), "b0")).collect();
    keys[777] = samples::branch_key(known.gid, "b0");
    let statuses = log.statuses(&keys).await.expect("statuses");
    assert_eq!(statuses.len(), 1_000);
    assert_eq!(statuses.iter().position(Option::is_some), Some(777));
    assert_eq!(statuses.iter().flatten().count(), 1);
}

/// Without an error.
pub async fn what_is_missing_is_not_found(log: Arc<dyn TxLog>) {
    assert_eq!(log.load(samples::gid(log.now())).await.expect("load"), None);
    assert_eq!(log.list(&ListFilter::default(), None, 10).await.expect("list"), []);
    assert_eq!(log.list_stuck(None, None, 10).await.expect("list"), []);
    assert_eq!(log.list_audit(None, None, 10).await.expect("list"), []);
    assert_eq!(log.claim(samples::OTHER, Due::Fresh, 10, samples::LEASE).await.expect("claim"), []);
}

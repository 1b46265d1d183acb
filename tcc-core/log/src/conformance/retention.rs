//! What is deleted, and what never is.

use std::{sync::Arc, time::Duration};

use tcc_types::{Gid, Timestamp};

use super::{begin_new, loaded, samples};
use crate::{Begun, Deleted, NewTransaction, TxLog};

/// The cases cannot make anything end long ago, so they ask for what ended before an instant to come.
fn soon(log: &dyn TxLog) -> Timestamp {
    samples::future(log.now())
}

/// A transaction whose gid was minted that many minutes ago.
async fn begun(log: &dyn TxLog, minutes: u64) -> NewTransaction {
    let gid = samples::gid(log.now().minus(Duration::from_secs(60 * minutes)));
    let new = NewTransaction { gid, ..samples::transaction(log.now(), 2) };
    begin_new(log, &new).await;
    new
}

async fn ended(log: &dyn TxLog, minutes: u64) -> NewTransaction {
    let new = begun(log, minutes).await;
    log.decide(samples::cancel(log.now(), new.gid)).await.expect("decide");
    log.finish(new.gid).await.expect("finish");
    new
}

async fn delete(log: &dyn TxLog, after: Option<Gid>, ended_before: Timestamp, limit: u32) -> Deleted {
    log.delete_ended(after, ended_before, limit).await.expect("delete_ended")
}

/// Of each kind, and a cancelled record too; the branches are gone with their transaction.
pub async fn what_has_ended_is_deleted_with_its_branches(log: Arc<dyn TxLog>) {
    let cancelled = ended(&*log, 3).await;
    let confirmed = begun(&*log, 2).await;
    log.decide(samples::confirm(log.now(), confirmed.gid, 2)).await.expect("decide");
    log.finish(confirmed.gid).await.expect("finish");
    let record = samples::gid(log.now());
    log.begin_cancelled(record, samples::initiator("market")).await.expect("begin_cancelled");
    assert_eq!(delete(&*log, None, soon(&*log), 10).await, Deleted { transactions: 3, next: None });
    for gid in [cancelled.gid, confirmed.gid, record] {
        assert_eq!(log.load(gid).await.expect("load"), None);
    }
    // A begin with the same gid finds neither row nor branch in its way.
    let again = NewTransaction { branches: vec![samples::branch("b1")], ..cancelled };
    begin_new(&*log, &again).await;
    assert_eq!(loaded(&*log, again.gid).await.branches.len(), 1);
}

/// However old: trying, confirming, cancelling.
pub async fn what_is_unfinished_is_never_deleted(log: Arc<dyn TxLog>) {
    let (trying, confirming, cancelling) = (begun(&*log, 50).await, begun(&*log, 40).await, begun(&*log, 30).await);
    log.decide(samples::confirm(log.now(), confirming.gid, 2)).await.expect("decide");
    log.decide(samples::cancel(log.now(), cancelling.gid)).await.expect("decide");
    assert_eq!(delete(&*log, None, soon(&*log), 10).await, Deleted { transactions: 0, next: None });
    for new in [trying, confirming, cancelling] {
        assert_eq!(loaded(&*log, new.gid).await.branches.len(), 2);
    }
}

/// Not by when it was minted alone.
pub async fn what_ended_lately_is_kept(log: Arc<dyn TxLog>) {
    let before = log.now();
    let old = ended(&*log, 30).await;
    assert_eq!(delete(&*log, None, before, 10).await, Deleted { transactions: 0, next: None });
    let stored = loaded(&*log, old.gid).await;
    assert_eq!(stored.branches.len(), 2);
    // The very instant of its end is not before it.
    let finished_at = stored.finished_at.expect("finished");
    assert_eq!(delete(&*log, None, finished_at, 10).await.transactions, 0);
    assert_eq!(delete(&*log, None, finished_at.plus(Duration::from_micros(1)), 10).await.transactions, 1);
}

/// A gid from a clock that is ahead waits until it is old enough.
pub async fn what_was_minted_later_is_not_looked_at(log: Arc<dyn TxLog>) {
    let ahead = samples::gid(soon(&*log).plus(Duration::from_secs(60)));
    log.begin_cancelled(ahead, samples::initiator("market")).await.expect("begin_cancelled");
    assert_eq!(delete(&*log, None, soon(&*log), 1).await, Deleted { transactions: 0, next: None });
    assert!(log.load(ahead).await.expect("load").is_some());
}

/// Each looks at so many, whether it deletes them or not, and tells where to go on.
pub async fn a_deletion_is_bounded_and_goes_on_where_it_stopped(log: Arc<dyn TxLog>) {
    let mut gids = Vec::new();
    for minutes in [9, 8, 7, 6, 5] {
        // Every other one stays.
        let new = if minutes % 2 == 0 { begun(&*log, minutes).await } else { ended(&*log, minutes).await };
        gids.push(new.gid);
    }
    let until = soon(&*log);
    let first = delete(&*log, None, until, 2).await;
    assert_eq!(first, Deleted { transactions: 1, next: Some(gids[1]) });
    let second = delete(&*log, first.next, until, 2).await;
    assert_eq!(second, Deleted { transactions: 1, next: Some(gids[3]) });
    assert_eq!(delete(&*log, second.next, until, 2).await, Deleted { transactions: 1, next: None });
    for (index, gid) in gids.iter().enumerate() {
        assert_eq!(log.load(*gid).await.expect("load").is_some(), index % 2 == 1, "{index}");
    }
}

/// As long as the transaction, and no longer.
pub async fn a_deleted_transactions_key_is_free(log: Arc<dyn TxLog>) {
    let first = samples::keyed(log.now(), "k");
    begin_new(&*log, &first).await;
    log.decide(samples::confirm(log.now(), first.gid, 1)).await.expect("decide");
    log.finish(first.gid).await.expect("finish");
    let second = samples::keyed(log.now(), "k");
    assert!(matches!(log.begin(second.clone()).await.expect("begin"), Begun::Exists(_)));
    assert_eq!(delete(&*log, None, soon(&*log), 10).await.transactions, 1);
    begin_new(&*log, &second).await;
}

/// What operators did outlives what they did it to.
pub async fn the_audit_record_outlives_its_transaction(log: Arc<dyn TxLog>) {
    let new = ended(&*log, 1).await;
    let line = log.audit(samples::audit(new.gid, "b0")).await.expect("audit");
    assert_eq!(delete(&*log, None, soon(&*log), 10).await.transactions, 1);
    assert_eq!(log.list_audit(Some(new.gid), None, 10).await.expect("list"), [line]);
}

/// More than one statement of any backend takes.
pub async fn many_are_deleted_at_once(log: Arc<dyn TxLog>) {
    let by = samples::initiator("market");
    let count: u32 = 400;
    let records = (0..count).map(|_| {
        let (log, by, gid) = (Arc::clone(&log), by.clone(), samples::gid(log.now()));
        async move { log.begin_cancelled(gid, by).await.expect("begin_cancelled") }
    });
    let _records: Vec<_> = records.collect::<tokio::task::JoinSet<_>>().join_all().await;
    let deleted = delete(&*log, None, soon(&*log), count + 1).await;
    assert_eq!(deleted, Deleted { transactions: u64::from(count), next: None });
}

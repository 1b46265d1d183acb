//! What operators did.

use std::sync::Arc;

use tcc_machine::Settled;
use tcc_types::Gid;

use super::{begin_new, loaded, samples};
use crate::{AuditAction, Due, MarkedSettled, NewAudit, Park, TxLog};

/// With growing numbers, whatever the action.
pub async fn the_audit_record_is_listed_newest_first_in_pages(log: Arc<dyn TxLog>) {
    let gid = samples::gid(log.now());
    let mut records = Vec::new();
    for action in [AuditAction::Probe, AuditAction::TryAnew, AuditAction::MarkSettled] {
        let before = log.now();
        let entry = NewAudit { action, ..samples::audit(gid, "b0") };
        let record = log.audit(entry.clone()).await.expect("audit");
        assert_eq!(record.entry, entry);
        assert!(before <= record.at && record.at <= log.now());
        records.insert(0, record);
    }
    assert!(records[0].sequence > records[1].sequence && records[1].sequence > records[2].sequence);
    assert_eq!(log.list_audit(None, None, 10).await.expect("list"), records);
    assert_eq!(log.list_audit(None, None, 2).await.expect("list"), records[..2]);
    assert_eq!(log.list_audit(None, Some(records[1].sequence), 2).await.expect("list"), records[2..]);
}

/// The transaction need not be there (any more).
pub async fn the_audit_record_is_listed_by_transaction(log: Arc<dyn TxLog>) {
    let (one, two) = (samples::gid(log.now()), samples::gid(log.now()));
    let first = log.audit(samples::audit(one, "b0")).await.expect("audit");
    log.audit(samples::audit(two, "b0")).await.expect("audit");
    let second = log.audit(samples::audit(one, "b1")).await.expect("audit");
    assert_eq!(log.list_audit(Some(one), None, 10).await.expect("list"), [second.clone(), first.clone()]);
    assert_eq!(log.list_audit(Some(one), Some(second.sequence), 10).await.expect("list"), [first]);
    assert_eq!(log.list_audit(Some(samples::gid(log.now())), None, 10).await.expect("list"), []);
}

/// A cancelling transaction whose first branch is stuck and whose second is not.
async fn half_stuck(log: &dyn TxLog) -> Gid {
    let new = samples::transaction(log.now(), 2);
    begin_new(log, &new).await;
    log.decide(samples::cancel(log.now(), new.gid)).await.expect("cancel");
    let branches = vec![(samples::branch_id("b0"), samples::stuck(log.now()))];
    log.park(Park { gid: new.gid, owner: samples::OWNER, next_attempt_at: samples::future(log.now()), branches })
        .await
        .expect("park");
    new.gid
}

/// The branch is not stuck any more, and recovery goes on with the transaction.
pub async fn marking_settled_is_recorded_and_makes_the_transaction_due(log: Arc<dyn TxLog>) {
    let gid = half_stuck(&*log).await;
    assert_eq!(log.claim(samples::OTHER, Due::Stuck, 10, samples::LEASE).await.expect("claim"), []);
    let entry = samples::audit(gid, "b0");
    assert_eq!(log.mark_settled(entry.clone()).await.expect("mark"), MarkedSettled::Marked);
    let branches = loaded(&*log, gid).await.branches;
    assert_eq!((branches[0].progress.settled, &branches[0].progress.stuck), (Some(Settled::Outside), &None));
    assert_eq!(branches[1].progress.settled, None);
    assert_eq!(log.list_stuck(None, None, 10).await.expect("list"), []);
    let lines = log.list_audit(Some(gid), None, 10).await.expect("list");
    assert_eq!(lines.into_iter().map(|line| line.entry).collect::<Vec<_>>(), [entry]);
    assert_eq!(log.claim(samples::OTHER, Due::Stuck, 10, samples::LEASE).await.expect("claim").len(), 1);
}

/// Not one that was never stuck, and none twice; what was not done is not recorded.
pub async fn only_a_stuck_branch_can_be_marked_settled(log: Arc<dyn TxLog>) {
    let gid = half_stuck(&*log).await;
    assert_eq!(log.mark_settled(samples::audit(gid, "b1")).await.expect("mark"), MarkedSettled::NotStuck);
    assert_eq!(log.list_audit(None, None, 10).await.expect("list"), []);
    assert_eq!(log.mark_settled(samples::audit(gid, "b0")).await.expect("mark"), MarkedSettled::Marked);
    assert_eq!(log.mark_settled(samples::audit(gid, "b0")).await.expect("mark"), MarkedSettled::NotStuck);
    assert_eq!(log.list_audit(None, None, 10).await.expect("list").len(), 1);
    assert_eq!(loaded(&*log, gid).await.branches[1].progress.settled, None);
}

/// Neither of a known nor of an unknown transaction.
pub async fn an_unknown_branch_cannot_be_marked_settled(log: Arc<dyn TxLog>) {
    let gid = half_stuck(&*log).await;
    for entry in [samples::audit(gid, "nobody"), samples::audit(samples::gid(log.now()), "b0")] {
        assert_eq!(log.mark_settled(entry).await.expect("mark"), MarkedSettled::Missing);
    }
    assert_eq!(log.list_audit(None, None, 10).await.expect("list"), []);
}

//! The compare-and-set.

use std::sync::Arc;

use tcc_machine::{CancelCause, Choice};
use tcc_types::{BranchRowStatus, Gid, Refusal, TxStatus, Violation, ViolationKind};

use super::{begin_new, loaded, samples};
use crate::{Decide, Decided, TxLog};

/// A transaction with that many branches.
async fn begun(log: &dyn TxLog, branches: usize) -> Gid {
    let new = samples::transaction(log.now(), branches);
    begin_new(log, &new).await;
    new.gid
}

async fn confirm(log: &dyn TxLog, gid: Gid, votes: u32) -> Decided {
    log.decide(samples::confirm(log.now(), gid, votes)).await.expect("confirm")
}

async fn cancel(log: &dyn TxLog, gid: Gid) -> Decided {
    log.decide(samples::cancel(log.now(), gid)).await.expect("cancel")
}

fn status_of(decided: &Decided) -> Option<TxStatus> {
    match decided {
        Decided::Stands { status, .. } => Some(*status),
        Decided::CountMoved { .. } | Decided::Missing => None,
    }
}

/// And it reads back, with the log's time.
pub async fn confirm_stands_with_as_many_votes_as_branches(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, 2).await;
    let before = log.now();
    let decided = confirm(&*log, gid, 2).await;
    let stored = loaded(&*log, gid).await;
    let decided_at = stored.decided_at.expect("decided");
    assert_eq!(
        decided,
        Decided::Stands { status: TxStatus::Confirming, decided_at, cause: None, branch_count: stored.branch_count }
    );
    assert!(before <= decided_at && decided_at <= log.now());
    assert_eq!((stored.status, stored.cause, stored.finished_at), (TxStatus::Confirming, None, None));
    assert_eq!(stored.branches.len(), 2);
}

/// Cancel needs no votes.
pub async fn cancel_stands_and_keeps_its_cause(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, 2).await;
    let decided = cancel(&*log, gid).await;
    let stored = loaded(&*log, gid).await;
    let decided_at = stored.decided_at.expect("decided");
    let cause = Some(CancelCause::TimedOut);
    assert_eq!(
        decided,
        Decided::Stands { status: TxStatus::Cancelling, decided_at, cause: cause.clone(), branch_count: stored.branch_count }
    );
    assert_eq!((stored.status, stored.cause), (TxStatus::Cancelling, cause));
}

/// With all that they carry.
pub async fn every_cause_reads_back(log: Arc<dyn TxLog>) {
    let branch = samples::branch_id("b0");
    let participant = samples::participant("inventory");
    let refusal = Refusal::business("OUT_OF_STOCK", "kein Vorrat: \"größe\" '; 在庫なし\n");
    let violation = Violation { kind: ViolationKind::DifferentPayload, row_status: Some(BranchRowStatus::Tried) };
    let causes = [
        CancelCause::Refused { branch: branch.clone(), participant: participant.clone(), refusal },
        CancelCause::Refused { branch: branch.clone(), participant: participant.clone(), refusal: Refusal::late() },
        CancelCause::Violated { branch, participant, violation },
        CancelCause::TimedOut,
        CancelCause::Requested { by: samples::initiator("shop") },
    ];
    for cause in causes {
        let gid = begun(&*log, 1).await;
        let choice = Choice::Cancel { cause: cause.clone() };
        log.decide(Decide { gid, choice, owner: samples::OWNER, next_attempt_at: samples::future(log.now()) })
            .await
            .expect("decide");
        assert_eq!(loaded(&*log, gid).await.cause, Some(cause));
    }
}

/// The first decision stands.
pub async fn a_confirm_after_cancel_gets_the_cancel(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, 1).await;
    let first = cancel(&*log, gid).await;
    assert_eq!(confirm(&*log, gid, 1).await, first);
    assert_eq!(loaded(&*log, gid).await.status, TxStatus::Cancelling);
}

/// The first decision stands.
pub async fn a_cancel_after_confirm_gets_the_confirm(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, 1).await;
    let first = confirm(&*log, gid, 1).await;
    assert_eq!(cancel(&*log, gid).await, first);
    let stored = loaded(&*log, gid).await;
    assert_eq!((stored.status, stored.cause), (TxStatus::Confirming, None));
}

/// Repeating settles an unknown commit: nothing moves, the next attempt neither.
pub async fn a_repeated_decision_keeps_its_time(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, 1).await;
    let first = confirm(&*log, gid, 1).await;
    let stored = loaded(&*log, gid).await;
    let again = Decide { next_attempt_at: samples::past(log.now()), ..samples::confirm(log.now(), gid, 1) };
    assert_eq!(log.decide(again).await.expect("again"), first);
    assert_eq!(loaded(&*log, gid).await, stored);
}

/// More votes, fewer votes, none.
pub async fn a_confirm_with_another_number_of_votes_decides_nothing(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, 2).await;
    for votes in [0, 1, 3, u32::MAX] {
        assert_eq!(confirm(&*log, gid, votes).await, Decided::CountMoved { branch_count: 2 });
    }
    let stored = loaded(&*log, gid).await;
    assert_eq!((stored.status, stored.decided_at), (TxStatus::Trying, None));
}

/// It is still trying.
pub async fn a_cancel_is_possible_after_a_confirm_that_decided_nothing(log: Arc<dyn TxLog>) {
    let gid = begun(&*log, 2).await;
    confirm(&*log, gid, 1).await;
    assert_eq!(status_of(&cancel(&*log, gid).await), Some(TxStatus::Cancelling));
}

/// And no record comes to be.
pub async fn an_unknown_gid_cannot_be_decided(log: Arc<dyn TxLog>) {
    let gid = samples::gid(log.now());
    assert_eq!(confirm(&*log, gid, 1).await, Decided::Missing);
    assert_eq!(cancel(&*log, gid).await, Decided::Missing);
    assert_eq!(log.load(gid).await.expect("load"), None);
}

/// Both ways.
pub async fn a_finished_transaction_tells_its_decision(log: Arc<dyn TxLog>) {
    let confirmed = begun(&*log, 1).await;
    confirm(&*log, confirmed, 1).await;
    let cancelled = begun(&*log, 1).await;
    cancel(&*log, cancelled).await;
    for gid in [confirmed, cancelled] {
        log.finish(gid).await.expect("finish");
    }
    assert_eq!(status_of(&cancel(&*log, confirmed).await), Some(TxStatus::Confirmed));
    assert_eq!(status_of(&confirm(&*log, cancelled, 1).await), Some(TxStatus::Cancelled));
}

/// Not even with its number of branches, which is none.
pub async fn a_cancelled_record_cannot_be_confirmed(log: Arc<dyn TxLog>) {
    let gid = samples::gid(log.now());
    log.begin_cancelled(gid, samples::initiator("shop")).await.expect("begin_cancelled");
    assert_eq!(status_of(&confirm(&*log, gid, 0).await), Some(TxStatus::Cancelled));
}

//! Transactions and their parts on the wire.

use tcc_log::{AuditAction, AuditRecord, BranchProgress, Settled, Stuck, StuckBranch, StuckKind};
use tcc_machine::{CancelCause, Vote};
use tcc_proto::tcc::v1 as proto;
use tcc_types::TxStatus;
use tcc_wire::{payload_to_proto, refusal_to_proto, timestamp_to_proto, violation_to_proto};

use crate::{BranchView, TxView};

pub(super) fn status_to_proto(status: TxStatus) -> proto::TransactionStatus {
    match status {
        TxStatus::Trying => proto::TransactionStatus::Trying,
        TxStatus::Confirming => proto::TransactionStatus::Confirming,
        TxStatus::Confirmed => proto::TransactionStatus::Confirmed,
        TxStatus::Cancelling => proto::TransactionStatus::Cancelling,
        TxStatus::Cancelled => proto::TransactionStatus::Cancelled,
    }
}

/// `None`: unspecified, or a number that this version does not know.
pub(super) fn status_from_proto(status: i32) -> Option<TxStatus> {
    match proto::TransactionStatus::try_from(status).ok()? {
        proto::TransactionStatus::Unspecified => None,
        proto::TransactionStatus::Trying => Some(TxStatus::Trying),
        proto::TransactionStatus::Confirming => Some(TxStatus::Confirming),
        proto::TransactionStatus::Confirmed => Some(TxStatus::Confirmed),
        proto::TransactionStatus::Cancelling => Some(TxStatus::Cancelling),
        proto::TransactionStatus::Cancelled => Some(TxStatus::Cancelled),
    }
}

pub(super) fn transaction_to_proto(view: TxView) -> proto::Transaction {
    proto::Transaction {
        gid: view.gid.to_string(),
        status: status_to_proto(view.status).into(),
        held: view.held,
        initiator: view.initiator.to_string(),
        idempotency_key: view.key.map(String::from).unwrap_or_default(),
        branches: view.branches.into_iter().map(branch_to_proto).collect(),
        cancel_cause: view.cause.map(cause_to_proto),
        try_until: Some(timestamp_to_proto(view.try_until)),
        decide_by: Some(timestamp_to_proto(view.decide_by)),
        created_at: Some(timestamp_to_proto(view.created_at)),
        decided_at: view.decided_at.map(timestamp_to_proto),
        finished_at: view.finished_at.map(timestamp_to_proto),
    }
}

fn branch_to_proto(view: BranchView) -> proto::Branch {
    let state = state_to_proto(&view.vote, &view.progress);
    let output = match view.vote {
        Vote::Yes(output) => output.as_ref().map(payload_to_proto),
        Vote::Unknown | Vote::No { .. } => None,
    };
    proto::Branch {
        branch_id: view.branch.into(),
        participant: view.participant.into(),
        state: state.into(),
        output,
        // The detail may quote a participant's internals: it is for operators.
        stuck: view.progress.stuck.map(|stuck| {
            let stuck = Stuck { detail: String::new(), ..stuck };
            stuck_to_proto(stuck, view.progress.attempts)
        }),
    }
}

fn state_to_proto(vote: &Vote, progress: &BranchProgress) -> proto::BranchState {
    match (progress.settled, vote) {
        (Some(Settled::Outside), _) => proto::BranchState::SettledOutside,
        // A durable refusal counts as settled, and says more.
        (_, Vote::No { .. }) => proto::BranchState::Refused,
        (Some(Settled::Acknowledged), Vote::Unknown | Vote::Yes(_)) => proto::BranchState::Done,
        (None, Vote::Yes(_)) => proto::BranchState::Reserved,
        (None, Vote::Unknown) => proto::BranchState::Pending,
    }
}

fn stuck_to_proto(stuck: Stuck, attempts: u32) -> proto::Stuck {
    let kind = match stuck.kind {
        StuckKind::Unreachable => proto::StuckKind::Unreachable,
        StuckKind::UnknownParticipant => proto::StuckKind::UnknownParticipant,
        StuckKind::NoReservation => proto::StuckKind::NoReservation,
        StuckKind::OtherOutcome => proto::StuckKind::OtherOutcome,
    };
    proto::Stuck { kind: kind.into(), detail: stuck.detail, attempts, since: Some(timestamp_to_proto(stuck.since)) }
}

fn cause_to_proto(cause: CancelCause) -> proto::CancelCause {
    use proto::cancel_cause::Cause;
    let cause = match cause {
        CancelCause::Refused { branch, participant, refusal } => Some(Cause::Refused(proto::RefusedBranch {
            branch_id: branch.into(),
            participant: participant.into(),
            refusal: Some(refusal_to_proto(&refusal)),
        })),
        CancelCause::Violated { branch, participant, violation } => Some(Cause::Violated(proto::ViolatedBranch {
            branch_id: branch.into(),
            participant: participant.into(),
            violation: Some(violation_to_proto(violation)),
        })),
        CancelCause::TimedOut => Some(Cause::TimedOut(proto::TimedOut {})),
        CancelCause::Requested { by } => Some(Cause::Requested(proto::CancelRequested { initiator: by.into() })),
        // Causes may be added; this version cannot say more of them.
        _ => None,
    };
    proto::CancelCause { cause }
}

pub(super) fn stuck_branch_to_proto(stuck: StuckBranch) -> proto::StuckBranch {
    proto::StuckBranch {
        gid: stuck.key.gid.to_string(),
        branch_id: stuck.key.branch.into(),
        participant: stuck.participant.into(),
        transaction_status: status_to_proto(stuck.status).into(),
        stuck: Some(stuck_to_proto(stuck.stuck, stuck.attempts)),
        next_attempt_at: Some(timestamp_to_proto(stuck.next_attempt_at)),
    }
}

pub(super) fn audit_to_proto(record: AuditRecord) -> proto::AuditRecord {
    let action = match record.entry.action {
        AuditAction::Probe => proto::AuditAction::Probe,
        AuditAction::TryAnew => proto::AuditAction::TryAnew,
        AuditAction::MarkSettled => proto::AuditAction::MarkSettled,
    };
    proto::AuditRecord {
        sequence: record.sequence,
        at: Some(timestamp_to_proto(record.at)),
        gid: record.entry.key.gid.to_string(),
        branch_id: record.entry.key.branch.into(),
        action: action.into(),
        warrant: Some(proto::Warrant { actor: record.entry.actor, reason: record.entry.reason }),
    }
}

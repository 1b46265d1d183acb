//! A transaction as callers see it.

use tcc_log::{BranchProgress, TxRecord};
use tcc_machine::{CancelCause, Vote};
use tcc_types::{
    BranchId, Decision, Gid, IdempotencyKey, Initiator, ParticipantName, Payload, Refusal, Timestamp, TxStatus, Violation,
};

/// A transaction at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxView {
    /// Its id.
    pub gid: Gid,
    /// Where it is.
    pub status: TxStatus,
    /// Every branch is reserved, as far as is known here, and it waits for a request.
    pub held: bool,
    /// Who asked for it.
    pub initiator: Initiator,
    /// Under which key.
    pub key: Option<IdempotencyKey>,
    /// In the initiator's order; empty in listings.
    pub branches: Vec<BranchView>,
    /// Why it was cancelled.
    pub cause: Option<CancelCause>,
    /// Until when Try may be repeated.
    pub try_until: Timestamp,
    /// Until when it may stay undecided.
    pub decide_by: Timestamp,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// When its end was recorded.
    pub finished_at: Option<Timestamp>,
}

/// A branch at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchView {
    /// Its id.
    pub branch: BranchId,
    /// Who holds it.
    pub participant: ParticipantName,
    /// What it voted, as far as is known here.
    pub vote: Vote,
    /// How far its second phase is.
    pub progress: BranchProgress,
}

/// What an enlisted branch's participant said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnlistAnswer {
    /// Reserved, with its output.
    Reserved(Option<Payload>),
    /// Refused; the transaction is being cancelled.
    Refused(Refusal),
    /// Contradicts what the participant has; the transaction is being cancelled.
    Violation(Violation),
    /// The transaction was decided before this branch answered.
    Overtaken,
}

impl EnlistAnswer {
    /// What a branch whose vote is not known here gets once the transaction is decided.
    pub(crate) fn of_decided(branch: &BranchId, status: TxStatus, cause: Option<&CancelCause>) -> Self {
        match (status.decision(), cause) {
            // No Confirm without every yes; what Try returned is no longer known.
            (Some(Decision::Confirm), _) => Self::Reserved(None),
            (_, Some(CancelCause::Refused { branch: by, refusal, .. })) if by == branch => Self::Refused(refusal.clone()),
            (_, Some(CancelCause::Violated { branch: by, violation, .. })) if by == branch => Self::Violation(*violation),
            (Some(Decision::Cancel) | None, _) => Self::Overtaken,
        }
    }
}

/// How far a status is: undecided, decided, ended. Never goes back.
pub(crate) fn steps(status: TxStatus) -> u8 {
    u8::from(status.decision().is_some()) + u8::from(status.has_ended())
}

impl TxView {
    /// As the log has it.
    pub(crate) fn of_record(record: &TxRecord) -> Self {
        Self {
            gid: record.gid,
            status: record.status,
            held: false,
            initiator: record.initiator.clone(),
            key: record.key.clone(),
            branches: record
                .branches
                .iter()
                .map(|branch| BranchView {
                    branch: branch.branch.clone(),
                    participant: branch.participant.clone(),
                    vote: Vote::Unknown,
                    progress: branch.progress.clone(),
                })
                .collect(),
            cause: record.cause.clone(),
            try_until: record.try_until,
            decide_by: record.decide_by,
            created_at: record.created_at,
            decided_at: record.decided_at,
            finished_at: record.finished_at,
        }
    }
}

//! The transaction log as the contract wants it: each write is one commit.

use tcc_machine::{BranchProgress, CancelCause, Choice};
use tcc_types::{Decision, Timestamp, TxStatus};

/// A transaction's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) status: TxStatus,
    /// The gateway that drives it, as far as the log knows.
    pub(crate) owner: usize,
    pub(crate) decided_at: Option<Timestamp>,
    pub(crate) cause: Option<CancelCause>,
    /// Of each branch. Empty: a cancelled record, which never had any.
    pub(crate) progress: Vec<BranchProgress>,
}

/// What a compare-and-set leads to.
#[derive(Clone, Debug)]
pub(crate) enum Decided {
    Stands { status: TxStatus, at: Timestamp, cause: Option<CancelCause> },
    CountMoved,
}

impl Record {
    pub(crate) fn begun(branches: usize, owner: usize) -> Self {
        let progress = vec![BranchProgress::default(); branches];
        Self { status: TxStatus::Trying, owner, decided_at: None, cause: None, progress }
    }

    pub(crate) fn cancelled(owner: usize, cause: CancelCause, now: Timestamp) -> Self {
        let (decided_at, cause) = (Some(now), Some(cause));
        Self { status: TxStatus::Cancelled, owner, decided_at, cause, progress: Vec::new() }
    }

    pub(crate) fn decide(&mut self, owner: usize, choice: &Choice, now: Timestamp) -> Decided {
        if self.status == TxStatus::Trying {
            let counted = match choice {
                Choice::Confirm { votes } => *votes as usize == self.progress.len(),
                Choice::Cancel { .. } => true,
            };
            if !counted {
                return Decided::CountMoved;
            }
            self.status = match choice.decision() {
                Decision::Confirm => TxStatus::Confirming,
                Decision::Cancel => TxStatus::Cancelling,
            };
            self.cause = match choice {
                Choice::Confirm { .. } => None,
                Choice::Cancel { cause } => Some(cause.clone()),
            };
            (self.owner, self.decided_at) = (owner, Some(now));
        }
        Decided::Stands { status: self.status, at: self.decided_at.unwrap_or(now), cause: self.cause.clone() }
    }

    pub(crate) fn finish(&mut self) {
        self.status = match self.status {
            TxStatus::Confirming => TxStatus::Confirmed,
            TxStatus::Cancelling => TxStatus::Cancelled,
            status @ (TxStatus::Trying | TxStatus::Confirmed | TxStatus::Cancelled) => status,
        };
    }

    pub(crate) fn park(&mut self, owner: usize, progress: &[BranchProgress]) {
        if self.owner != owner || self.status.has_ended() {
            return;
        }
        for (stored, new) in self.progress.iter_mut().zip(progress) {
            let settled = stored.settled.or(new.settled);
            *stored =
                BranchProgress { settled, attempts: new.attempts, stuck: new.stuck.clone().filter(|_| settled.is_none()) };
        }
    }
}

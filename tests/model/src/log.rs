//! The transaction log as the contract wants it: each write is one commit.

use tcc_machine::{BranchProgress, CancelCause, Choice, Settled};
use tcc_types::{Decision, Timestamp, TxStatus};

/// The owner of what nobody drives.
pub(crate) const NOBODY: usize = usize::MAX;

/// A transaction's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) status: TxStatus,
    /// The gateway that drives it, as far as the log knows.
    pub(crate) owner: usize,
    pub(crate) begun_at: Timestamp,
    pub(crate) decided_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) cause: Option<CancelCause>,
    /// Of the configuration, in the order in which they came to be, with how far each is.
    pub(crate) branches: Vec<(usize, BranchProgress)>,
    /// It was written for a gid that had not been begun.
    pub(crate) is_tombstone: bool,
}

/// What a compare-and-set leads to.
#[derive(Clone, Debug)]
pub(crate) enum Decided {
    Stands { status: TxStatus, at: Timestamp, cause: Option<CancelCause> },
    CountMoved,
}

impl Record {
    pub(crate) fn begun(branches: impl Iterator<Item = usize>, owner: usize, now: Timestamp) -> Self {
        Self {
            status: TxStatus::Trying,
            owner,
            begun_at: now,
            decided_at: None,
            finished_at: None,
            cause: None,
            branches: branches.map(|branch| (branch, BranchProgress::default())).collect(),
            is_tombstone: false,
        }
    }

    pub(crate) fn cancelled(cause: CancelCause, now: Timestamp) -> Self {
        Self {
            status: TxStatus::Cancelled,
            owner: NOBODY,
            begun_at: now,
            decided_at: Some(now),
            finished_at: Some(now),
            cause: Some(cause),
            branches: Vec::new(),
            is_tombstone: true,
        }
    }

    pub(crate) fn has_branch(&self, branch: usize) -> bool {
        self.branches.iter().any(|(there, _)| *there == branch)
    }

    /// One commit: the branch, while the transaction is open. False: it is not.
    pub(crate) fn enlist(&mut self, branch: usize) -> bool {
        if self.has_branch(branch) {
            return true;
        }
        let is_open = self.status == TxStatus::Trying;
        if is_open {
            self.branches.push((branch, BranchProgress::default()));
        }
        is_open
    }

    pub(crate) fn decide(&mut self, owner: usize, choice: &Choice, now: Timestamp) -> Decided {
        if self.status == TxStatus::Trying {
            let counted = match choice {
                Choice::Confirm { votes } => *votes as usize == self.branches.len(),
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

    pub(crate) fn finish(&mut self, now: Timestamp) {
        self.status = match self.status {
            TxStatus::Confirming => TxStatus::Confirmed,
            TxStatus::Cancelling => TxStatus::Cancelled,
            TxStatus::Trying | TxStatus::Confirmed | TxStatus::Cancelled => return,
        };
        self.finished_at = Some(now);
    }

    pub(crate) fn park(&mut self, owner: usize, progress: &[(usize, BranchProgress)]) {
        if self.owner != owner || self.status.has_ended() {
            return;
        }
        for (branch, stored) in &mut self.branches {
            let Some((_, new)) = progress.iter().find(|(parked, _)| parked == branch) else { continue };
            let settled = stored.settled.or(new.settled);
            *stored =
                BranchProgress { settled, attempts: new.attempts, stuck: new.stuck.clone().filter(|_| settled.is_none()) };
        }
    }

    /// By an operator; false: the branch is not stuck.
    pub(crate) fn mark_settled(&mut self, branch: usize) -> bool {
        let stuck = self.branches.iter_mut().find(|(there, progress)| *there == branch && progress.stuck.is_some());
        let Some((_, progress)) = stuck else { return false };
        (progress.settled, progress.stuck) = (Some(Settled::Outside), None);
        true
    }
}

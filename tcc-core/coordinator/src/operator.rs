//! What operators may do with stuck branches: never against a decision, and on record before it takes effect.

use std::time::Duration;

use tcc_log::{AuditAction, AuditRecord, BranchProgress, MarkedSettled, NewAudit, StuckBranch, StuckKind};
use tcc_types::{BranchKey, Gid, ParticipantName, Timestamp, TxStatus};

use crate::{Coordinator, Error, Page, TxView, Warrant, coordinator::page, driver::Command, validate};

impl Coordinator {
    /// Lists stuck branches, longest stuck first.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn list_stuck(
        &self,
        participant: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Page<StuckBranch>, Error> {
        Ok(page(self.0.log.list_stuck(participant, after, limit.saturating_add(1)).await?, limit))
    }

    /// Lists what operators did, newest first.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Page<AuditRecord>, Error> {
        Ok(page(self.0.log.list_audit(gid, before, limit.saturating_add(1)).await?, limit))
    }

    /// Sends the decided operation of a branch now; recorded before it takes effect.
    ///
    /// # Errors
    /// The transaction is not decided, has ended, has no such branch, or the log does not answer.
    pub async fn probe(&self, key: BranchKey, warrant: Warrant) -> Result<TxView, Error> {
        self.unsettled_branch(&key, &warrant).await?;
        self.0.log.audit(audit(&key, AuditAction::Probe, warrant)).await?;
        self.command(key.gid, Command::Probe(key.branch)).await?;
        self.get(key.gid).await
    }

    /// Tries a branch anew and then confirms it, where its Confirm found no reservation; recorded before it takes effect.
    ///
    /// # Errors
    /// The branch is not stuck like that, or the log does not answer.
    pub async fn try_anew(&self, key: BranchKey, warrant: Warrant) -> Result<TxView, Error> {
        let (status, progress) = self.unsettled_branch(&key, &warrant).await?;
        let lost = progress.stuck.is_some_and(|stuck| stuck.kind == StuckKind::NoReservation);
        if status != TxStatus::Confirming || !lost {
            let message = format!("branch {key} is not stuck at a Confirm that found no reservation");
            return Err(Error::Precondition { reason: "NOT_LOST", gid: key.gid, status, message });
        }
        self.0.log.audit(audit(&key, AuditAction::TryAnew, warrant)).await?;
        let config = self.config();
        // An operator's Try gets the time that a fresh transaction would have.
        let not_after = self.now().plus(Duration::from_millis(config.try_for_ms + config.clock_allowance_ms));
        self.command(key.gid, Command::TryAnew { branch: key.branch, not_after }).await?;
        self.get(key.gid).await
    }

    /// Records that a stuck branch was settled outside of the system.
    ///
    /// # Errors
    /// The branch is not stuck, or the log does not answer.
    pub async fn mark_settled(&self, key: BranchKey, warrant: Warrant) -> Result<TxView, Error> {
        let (status, _) = self.unsettled_branch(&key, &warrant).await?;
        match self.0.log.mark_settled(audit(&key, AuditAction::MarkSettled, warrant)).await? {
            MarkedSettled::Marked => {}
            MarkedSettled::NotStuck => {
                let message = format!("branch {key} is not stuck");
                return Err(Error::Precondition { reason: "NOT_STUCK", gid: key.gid, status, message });
            }
            MarkedSettled::Missing => return Err(Error::NoSuchBranch { gid: key.gid, branch: key.branch }),
        }
        self.command(key.gid, Command::SettledOutside(key.branch)).await?;
        self.get(key.gid).await
    }

    /// The branch that an operator means, if its decision still has to be carried out.
    async fn unsettled_branch(&self, key: &BranchKey, by: &Warrant) -> Result<(TxStatus, BranchProgress), Error> {
        validate::warrant(by).map_err(Error::Invalid)?;
        let view = self.get(key.gid).await?;
        let branch = view.branches.into_iter().find(|branch| branch.branch == key.branch);
        let branch = branch.ok_or_else(|| Error::NoSuchBranch { gid: key.gid, branch: key.branch.clone() })?;
        let open = matches!(view.status, TxStatus::Confirming | TxStatus::Cancelling) && branch.progress.settled.is_none();
        if !open {
            let message = format!("branch {key} has no decision left to carry out: its transaction is {:?}", view.status);
            return Err(Error::Precondition { reason: "NOTHING_TO_SETTLE", gid: key.gid, status: view.status, message });
        }
        Ok((view.status, branch.progress))
    }
}

fn audit(key: &BranchKey, action: AuditAction, warrant: Warrant) -> NewAudit {
    NewAudit { key: key.clone(), action, actor: warrant.actor, reason: warrant.reason }
}

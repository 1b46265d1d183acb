//! Reads for callers in the same process, who need more than the public API tells. Nothing here changes a transaction.

use tcc_types::{BranchId, BranchKey, Gid, ParticipantName, Payload};

use crate::{Coordinator, Error, TxView};

impl Coordinator {
    /// Reads many transactions in one look at the log, in the order of `keys`; `None`: there is no such transaction. Those
    /// that have no driver here come without their branches. A transaction is found whether or not it has the branch.
    ///
    /// # Errors
    /// The log does not answer; can be retried if [`Error::is_retryable`].
    pub async fn get_many(&self, keys: &[BranchKey]) -> Result<Vec<Option<TxView>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.0.log.statuses(keys).await?;
        // Side by side, so that whatever has to be written for it is written in one batch.
        let views = keys.iter().zip(known).map(|(key, known)| async move {
            match known {
                Some((record, _)) => self.told(record).await.map(Some),
                // Begun here since it was looked for.
                None => Ok(self.0.table.get(key.gid).map(|handle| handle.view.borrow().clone())),
            }
        });
        futures::future::try_join_all(views).await
    }

    /// What a branch was begun or enlisted with; `None`: there is no such branch.
    ///
    /// # Errors
    /// As [`Self::get_many`].
    pub async fn payload(&self, gid: Gid, branch: &BranchId) -> Result<Option<(ParticipantName, Payload)>, Error> {
        let record = self.0.log.load(gid).await?;
        let branches = record.map(|record| record.branches).unwrap_or_default();
        Ok(branches.into_iter().find(|there| there.branch == *branch).map(|there| (there.participant, there.payload)))
    }
}

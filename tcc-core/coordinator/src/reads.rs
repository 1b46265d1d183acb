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
        // What a driver has is newer than any read of the log before it was looked at.
        let view = |(key, known): (&BranchKey, Option<_>)| match self.0.table.get(key.gid) {
            Some(handle) => Some(handle.view.borrow().clone()),
            None => known.map(|(record, _)| TxView::of_record(&record)),
        };
        Ok(keys.iter().zip(known).map(view).collect())
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

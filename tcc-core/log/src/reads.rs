//! How one database is read. Each read sees one committed state and waits for no writer.

use async_trait::async_trait;
use tcc_types::{BranchKey, Gid, IdempotencyKey, Initiator, ParticipantName, Timestamp, TxStatus};

use crate::{
    AuditRecord, ListFilter, StuckBranch, TxRecord,
    fault::{Fault, Meaning},
};

/// The reads of [`TxLog`](crate::TxLog), by their names there.
#[async_trait]
pub(crate) trait Reads: Send + Sync + 'static {
    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Fault>;
    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Fault>;
    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Fault>;
    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Fault>;
    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Fault>;
    async fn list_stuck(
        &self,
        participant: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Fault>;
    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Fault>;
    async fn close(&self);

    /// What an error means.
    fn meaning_of(&self, error: &sqlx::Error) -> Meaning;
}

//! The trait that every backend implements, and what each call promises.

use async_trait::async_trait;
use tcc_types::{BranchKey, Gid, LogName, Timestamp, TxStatus};

use crate::{
    AuditRecord, Begun, Decide, Decided, Enlisted, Error, ListFilter, MarkedSettled, NewAudit, NewBranch, NewTransaction, Park,
    StuckBranch, TxRecord,
};

/// The coordinator's durable state.
///
/// Every write is durable (fsynced) when its call returns `Ok`. Writes of transactions are idempotent: repeating one whose
/// outcome is unknown tells what stands. The audit record is not: repeating `audit` appends again, and a repeated
/// `mark_settled` may find that the branch is not stuck any more. All calls are cancel-safe: a dropped call may or may not have its effect, wholly.
///
/// # Errors
/// Each call fails with [`Error`]; see [`Error::is_retryable`].
#[async_trait]
pub trait TxLog: Send + Sync + 'static {
    /// The name that participants keep in their rows, so that they know whom to ask.
    fn name(&self) -> &LogName;

    /// The log database's clock: the one by which deadlines are made and judged.
    fn now(&self) -> Timestamp;

    /// Makes a transaction and its branches durable, or tells which one has its gid, or else its initiator and key.
    async fn begin(&self, transaction: NewTransaction) -> Result<Begun, Error>;

    /// Writes the cancelled record of a gid that was never begun: status `Cancelled`, cause `Requested`, no branches, no
    /// fingerprint. Returns the stored record: that one, or the transaction that has the gid.
    async fn begin_cancelled(&self, gid: Gid, by: tcc_types::Initiator) -> Result<TxRecord, Error>;

    /// Adds a branch to an open transaction while it is trying, and raises its branch count in the same commit.
    async fn enlist(&self, gid: Gid, branch: NewBranch, branches_max: u32) -> Result<Enlisted, Error>;

    /// The compare-and-set: decides only while the status is `Trying` (and, for Confirm, with exactly as many branches as
    /// votes). The only way a decision comes to be.
    async fn decide(&self, decide: Decide) -> Result<Decided, Error>;

    /// Records that every branch has carried the decision out: `Confirming → Confirmed`, `Cancelling → Cancelled`. Changes
    /// nothing where the transaction is missing, undecided or has ended already.
    async fn finish(&self, gid: Gid) -> Result<(), Error>;

    /// Remembers how far branches are and when to go on. Changes nothing where the transaction has ended.
    async fn park(&self, park: Park) -> Result<(), Error>;

    /// Claims up to `limit` unfinished transactions that are due (`next_attempt_at` has passed), earliest first: their
    /// `next_attempt_at` becomes `lease_until`, durably, before they are returned with their branches.
    async fn claim(&self, limit: u32, lease_until: Timestamp) -> Result<Vec<TxRecord>, Error>;

    /// At start-up of the only gateway: makes everything unfinished due now, but holds that are still trying (they wait for
    /// `decide_by`) and what is stuck (it waits for its next attempt). Returns how many are unfinished, holds included.
    async fn release_leases(&self) -> Result<u64, Error>;

    /// Reads the transaction that this initiator began under this key, without its branches.
    async fn find(&self, initiator: &tcc_types::Initiator, key: &tcc_types::IdempotencyKey) -> Result<Option<TxRecord>, Error>;

    /// Reads one transaction with its branches.
    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Error>;

    /// Reads many transactions' statuses and, of those found, whether the given branch is theirs; in the order of `keys`.
    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Error>;

    /// Lists transactions without their branches, by descending gid, older than `before` if given; at most `limit`.
    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Error>;

    /// How many transactions have each status.
    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Error>;

    /// Lists stuck branches by (since, gid, branch), after `after` if given; at most `limit`.
    async fn list_stuck(
        &self,
        participant: Option<&tcc_types::ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Error>;

    /// Appends to the audit record; never changes what is there.
    async fn audit(&self, entry: NewAudit) -> Result<AuditRecord, Error>;

    /// Marks a stuck branch as settled outside, with its audit line in the same commit, and makes its transaction due now.
    async fn mark_settled(&self, entry: NewAudit) -> Result<MarkedSettled, Error>;

    /// Lists the audit record, newest first, older than `before` if given; at most `limit`.
    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Error>;

    /// Waits until every accepted write is durable, then refuses more. For the end of the process.
    async fn close(&self);
}

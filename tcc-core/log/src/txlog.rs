//! The trait that every backend implements, and what each call promises.

use std::time::Duration;

use async_trait::async_trait;
use tcc_types::{BranchKey, Gid, LogName, Timestamp, TxStatus};

use crate::{
    AuditRecord, Begun, Decide, Decided, Deleted, Due, Enlisted, Error, ListFilter, MarkedSettled, NewAudit, NewBranch,
    NewTransaction, Owner, Park, StuckBranch, TxRecord,
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

    /// The log database's clock: the one by which deadlines are made and judged. Where the database has a clock of its own, this
    /// is an estimate that is compared with it at every write; it never runs backwards.
    fn now(&self) -> Timestamp;

    /// Whether other processes may have the same log open.
    fn is_shared(&self) -> bool;

    /// Takes a new owner's number, greater than any that was taken before. Durable: it is never given out again.
    async fn take_owner(&self) -> Result<Owner, Error>;

    /// Writes something durable that means nothing, and compares the clocks: tells whether the log can be written to.
    async fn probe(&self) -> Result<(), Error>;

    /// Makes a transaction and its branches durable, or tells which one has its gid, or else its initiator and key.
    async fn begin(&self, transaction: NewTransaction) -> Result<Begun, Error>;

    /// Writes the cancelled record of a gid that was never begun: status `Cancelled`, cause `Requested`, no branches, no
    /// fingerprint. Returns the stored record: that one, or the transaction that has the gid.
    async fn begin_cancelled(&self, gid: Gid, by: tcc_types::Initiator) -> Result<TxRecord, Error>;

    /// Adds a branch to an open transaction while it is trying, and raises its branch count in the same commit.
    async fn enlist(&self, gid: Gid, branch: NewBranch, branches_max: u32) -> Result<Enlisted, Error>;

    /// The compare-and-set: decides only while the status is `Trying` (and, for Confirm, with exactly as many branches as
    /// votes). The only way a decision comes to be. Whoever decides is the owner from then on; whose it was does not matter.
    async fn decide(&self, decide: Decide) -> Result<Decided, Error>;

    /// Records that every branch has carried the decision out: `Confirming → Confirmed`, `Cancelling → Cancelled`. Changes
    /// nothing where the transaction is missing, undecided or has ended already. May take a little longer than other writes,
    /// since it waits for some to be committed with.
    async fn finish(&self, gid: Gid) -> Result<(), Error>;

    /// Remembers how far branches are and when to go on. Changes nothing where the transaction has ended or is another owner's.
    async fn park(&self, park: Park) -> Result<(), Error>;

    /// Claims up to `limit` unfinished transactions of this kind that are due (`next_attempt_at` has passed, by the database's clock),
    /// earliest first: they become `owner`'s and their `next_attempt_at` becomes now plus `lease`, durably, before they are returned with
    /// their branches. Side by side with other claims it waits for none and shares nothing.
    /// It costs what it claims: neither history, nor what is due and of the other kind.
    async fn claim(&self, owner: Owner, due: Due, limit: u32, lease: Duration) -> Result<Vec<TxRecord>, Error>;

    /// Prolongs leases: of these transactions, those that are unfinished and still `owner`'s get `next_attempt_at` now plus
    /// `lease`. Returns which; the others have ended or are another owner's. At most [`RENEW_MAX`](crate::RENEW_MAX) at once.
    async fn renew(&self, owner: Owner, gids: &[Gid], lease: Duration) -> Result<Vec<Gid>, Error>;

    /// At start-up of the only gateway: makes everything unfinished due now, but holds that are still trying (they wait for
    /// `decide_by`) and what is stuck (it waits for its next attempt). Returns how many are unfinished, holds included. A log
    /// that is shared releases nothing, since leases may be those of others, and only counts.
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

    /// Deletes, with their branches, transactions that ended before `ended_before`. Looks at up to `limit` transactions in gid
    /// order, after `after` if given, that were minted before `ended_before`; unfinished ones are left alone, however old. Never
    /// deletes audit records. Costs as much as what it looks at, not as much as there is.
    async fn delete_ended(&self, after: Option<Gid>, ended_before: Timestamp, limit: u32) -> Result<Deleted, Error>;

    /// Waits until every accepted write is durable, then refuses more. For the end of the process.
    async fn close(&self);
}

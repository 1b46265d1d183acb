//! Two gateways' logs on one database, as one log: each call goes to the other one than the call before. What is true of one
//! log must be true of the two.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tcc_types::{BranchKey, Gid, IdempotencyKey, Initiator, LogName, ParticipantName, Timestamp, TxStatus};

use crate::{
    AuditRecord, Begun, Decide, Decided, Deleted, Due, Enlisted, Error, ListFilter, MarkedSettled, NewAudit, NewBranch,
    NewTransaction, Owner, Park, StuckBranch, TxLog, TxRecord,
};

/// Two logs that take turns.
pub struct Pair {
    logs: [Arc<dyn TxLog>; 2],
    calls: AtomicUsize,
}

impl Pair {
    /// Both must be open on one database.
    #[must_use]
    pub fn new(one: Arc<dyn TxLog>, two: Arc<dyn TxLog>) -> Self {
        Self { logs: [one, two], calls: AtomicUsize::default() }
    }

    fn next(&self) -> &dyn TxLog {
        &*self.logs[self.calls.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

#[async_trait]
impl TxLog for Pair {
    fn name(&self) -> &LogName {
        self.logs[0].name()
    }

    fn now(&self) -> Timestamp {
        self.logs[0].now()
    }

    fn is_shared(&self) -> bool {
        self.logs[0].is_shared()
    }

    async fn take_owner(&self) -> Result<Owner, Error> {
        self.next().take_owner().await
    }

    async fn probe(&self) -> Result<(), Error> {
        self.logs[1].probe().await?;
        self.logs[0].probe().await
    }

    async fn begin(&self, transaction: NewTransaction) -> Result<Begun, Error> {
        self.next().begin(transaction).await
    }

    async fn begin_cancelled(&self, gid: Gid, by: Initiator) -> Result<TxRecord, Error> {
        self.next().begin_cancelled(gid, by).await
    }

    async fn enlist(&self, gid: Gid, branch: NewBranch, branches_max: u32) -> Result<Enlisted, Error> {
        self.next().enlist(gid, branch, branches_max).await
    }

    async fn decide(&self, decide: Decide) -> Result<Decided, Error> {
        self.next().decide(decide).await
    }

    async fn finish(&self, gid: Gid) -> Result<(), Error> {
        self.next().finish(gid).await
    }

    async fn park(&self, park: Park) -> Result<(), Error> {
        self.next().park(park).await
    }

    async fn claim(&self, owner: Owner, due: Due, limit: u32, lease: Duration) -> Result<Vec<TxRecord>, Error> {
        self.next().claim(owner, due, limit, lease).await
    }

    async fn renew(&self, owner: Owner, gids: &[Gid], lease: Duration) -> Result<Vec<Gid>, Error> {
        self.next().renew(owner, gids, lease).await
    }

    async fn release_leases(&self) -> Result<u64, Error> {
        self.next().release_leases().await
    }

    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Error> {
        self.next().find(initiator, key).await
    }

    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Error> {
        self.next().load(gid).await
    }

    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Error> {
        self.next().statuses(keys).await
    }

    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Error> {
        self.next().list(filter, before, limit).await
    }

    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Error> {
        self.next().count_by_status().await
    }

    async fn list_stuck(
        &self,
        participant: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Error> {
        self.next().list_stuck(participant, after, limit).await
    }

    async fn audit(&self, entry: NewAudit) -> Result<AuditRecord, Error> {
        self.next().audit(entry).await
    }

    async fn mark_settled(&self, entry: NewAudit) -> Result<MarkedSettled, Error> {
        self.next().mark_settled(entry).await
    }

    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        self.next().list_audit(gid, before, limit).await
    }

    async fn delete_ended(&self, after: Option<Gid>, ended_before: Timestamp, limit: u32) -> Result<Deleted, Error> {
        self.next().delete_ended(after, ended_before, limit).await
    }

    async fn close(&self) {
        for log in &self.logs {
            log.close().await;
        }
    }
}

//! One log for several coordinators, as a database server would be; on request one that knows nothing of leases, or one that
//! does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tcc_log::{
    AuditRecord, Begun, Decide, Decided, Deleted, Due, Enlisted, Error, ListFilter, MarkedSettled, NewAudit, NewBranch,
    NewTransaction, Owner, Park, StuckBranch, TxLog, TxRecord,
};
use tcc_types::{BranchKey, Gid, IdempotencyKey, Initiator, LogName, ParticipantName, Timestamp, TxStatus};

/// What the coordinators see of the log.
pub(crate) struct Shared {
    pub(crate) inner: Arc<dyn TxLog>,
    /// Whatever is unfinished is everybody's at any time, and nobody ever loses it: what is left is the decision's
    /// compare-and-set.
    pub(crate) without_leases: bool,
    /// Decisions can be seen, and are not known to be durable.
    pub(crate) is_slow: Arc<AtomicBool>,
    /// Nothing can be written.
    pub(crate) is_down: Arc<AtomicBool>,
}

impl Shared {
    fn reached(&self) -> Result<(), Error> {
        if self.is_down.load(Ordering::SeqCst) { Err(Error::Unavailable("it is down".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl TxLog for Shared {
    fn name(&self) -> &LogName {
        self.inner.name()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn take_owner(&self) -> Result<Owner, Error> {
        self.inner.take_owner().await
    }

    async fn probe(&self) -> Result<(), Error> {
        self.reached()?;
        self.inner.probe().await
    }

    async fn begin(&self, transaction: NewTransaction) -> Result<Begun, Error> {
        self.reached()?;
        self.inner.begin(transaction).await
    }

    async fn begin_cancelled(&self, gid: Gid, by: Initiator) -> Result<TxRecord, Error> {
        self.inner.begin_cancelled(gid, by).await
    }

    async fn enlist(&self, gid: Gid, branch: NewBranch, branches_max: u32) -> Result<Enlisted, Error> {
        self.inner.enlist(gid, branch, branches_max).await
    }

    async fn decide(&self, decide: Decide) -> Result<Decided, Error> {
        self.reached()?;
        let decided = self.inner.decide(decide).await;
        while self.is_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        decided
    }

    async fn finish(&self, gid: Gid) -> Result<(), Error> {
        self.reached()?;
        self.inner.finish(gid).await
    }

    async fn park(&self, park: Park) -> Result<(), Error> {
        if !self.without_leases {
            return self.inner.park(park).await;
        }
        // Whoever it is, it is the owner.
        let owner = self.inner.load(park.gid).await?.map_or(park.owner, |record| record.owner);
        self.inner.park(Park { owner, ..park }).await
    }

    async fn claim(&self, owner: Owner, due: Due, limit: u32, lease: Duration) -> Result<Vec<TxRecord>, Error> {
        if !self.without_leases {
            return self.inner.claim(owner, due, limit, lease).await;
        }
        if due == Due::Stuck {
            // Everything is claimed as fresh.
            return Ok(Vec::new());
        }
        let filter = ListFilter {
            statuses: vec![TxStatus::Trying, TxStatus::Confirming, TxStatus::Cancelling],
            ..ListFilter::default()
        };
        let mut records = Vec::new();
        for head in self.inner.list(&filter, None, limit).await? {
            records.extend(self.inner.load(head.gid).await?.filter(|record| !record.status.has_ended()));
        }
        Ok(records)
    }

    async fn renew(&self, owner: Owner, gids: &[Gid], lease: Duration) -> Result<Vec<Gid>, Error> {
        if self.without_leases { Ok(gids.to_vec()) } else { self.inner.renew(owner, gids, lease).await }
    }

    async fn release_leases(&self) -> Result<u64, Error> {
        // What a server's log does: leases may be those of others.
        Ok(0)
    }

    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Error> {
        self.inner.find(initiator, key).await
    }

    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Error> {
        self.inner.load(gid).await
    }

    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Error> {
        self.inner.statuses(keys).await
    }

    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Error> {
        self.inner.list(filter, before, limit).await
    }

    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Error> {
        self.inner.count_by_status().await
    }

    async fn list_stuck(
        &self,
        participant: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Error> {
        self.inner.list_stuck(participant, after, limit).await
    }

    async fn audit(&self, entry: NewAudit) -> Result<AuditRecord, Error> {
        self.inner.audit(entry).await
    }

    async fn mark_settled(&self, entry: NewAudit) -> Result<MarkedSettled, Error> {
        self.inner.mark_settled(entry).await
    }

    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        self.inner.list_audit(gid, before, limit).await
    }

    async fn delete_ended(&self, after: Option<Gid>, ended_before: Timestamp, limit: u32) -> Result<Deleted, Error> {
        self.inner.delete_ended(after, ended_before, limit).await
    }

    async fn close(&self) {
        // Others may still have it open.
    }
}

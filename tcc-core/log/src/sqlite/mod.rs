//! The transaction log on SQLite: one file, one process, one writer with natural batching.
//!
//! Every commit is synced to the disk (`synchronous=FULL` in WAL mode) before anybody is answered.

mod apply;
mod fault;
mod lock;
mod open;
mod options;
mod plan;
mod read;
mod rows;
mod values;
mod write;
mod writer;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
pub use options::SqliteLogOptions;
use sqlx::{Sqlite, SqlitePool, Transaction};
use tcc_types::{BranchKey, Clock, Gid, IdempotencyKey, Initiator, LogName, ParticipantName, Timestamp, TxStatus};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    fault::nothing_done,
    open::{Opened, open},
    write::{Alone, Ask, BeginCancelled, Beginning, Claim, Enlist, Reply, Write},
    writer::{Counters, Writer},
};
use crate::{
    AuditRecord, Begun, Decide, Decided, Enlisted, Error, ListFilter, MarkedSettled, NewAudit, NewBranch, NewTransaction, Park,
    StuckBranch, TxLog, TxRecord,
};

/// The transaction log on SQLite.
///
/// The file is locked until [`TxLog::close`] returns, or for some moments after the log was dropped: what was queued is still
/// written.
pub struct SqliteLog {
    name: LogName,
    clock: Arc<dyn Clock>,
    queue: mpsc::Sender<Write>,
    write_queue_max: usize,
    reads: SqlitePool,
    counters: Arc<Counters>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// What a [`SqliteLog`] has written since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteLogStats {
    /// Commits, each synced to the disk.
    pub commits: u64,
    /// Writes in them.
    pub writes: u64,
}

impl SqliteLog {
    /// Opens the database, making its file and folder if they are missing, and brings its tables up to date.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it, [`Error::Unusable`] if the options or the database are not fit for this
    /// program, [`Error::Unavailable`] (which can be retried) if it could not be opened.
    pub async fn open(options: SqliteLogOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let Opened { lock, connection, connect, reads } = open(&options).await?;
        let (queue, receiver) = mpsc::channel(options.write_queue_max);
        let (counters, closing, tasks) = (Arc::<Counters>::default(), CancellationToken::new(), TaskTracker::new());
        let writer = Writer {
            connection: Some(connection),
            connect,
            clock: Arc::clone(&clock),
            counters: Arc::clone(&counters),
            queue: receiver,
            closing: closing.clone(),
            batch_max: options.batch_max,
            batch_bytes_max: options.batch_bytes_max,
            lock,
        };
        tasks.spawn(writer.run());
        tasks.close();
        let SqliteLogOptions { name, write_queue_max, .. } = options;
        Ok(Self { name, clock, queue, write_queue_max, reads, counters, closing, tasks })
    }

    /// What it has written so far.
    #[must_use]
    pub fn stats(&self) -> SqliteLogStats {
        SqliteLogStats {
            commits: self.counters.commits.load(Ordering::Relaxed),
            writes: self.counters.writes.load(Ordering::Relaxed),
        }
    }

    /// Queues what may be refused when there is too much of it: what begins a transaction or a branch.
    async fn admit<A>(&self, write: Write, reply: Reply<A>) -> Result<A, Error> {
        match self.queue.try_send(write) {
            Ok(()) => answer(reply).await,
            Err(TrySendError::Full(_)) => Err(Error::Overloaded { limit: self.write_queue_max }),
            Err(TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Queues what must come to its end: waits for room.
    async fn send<A>(&self, write: Write, reply: Reply<A>) -> Result<A, Error> {
        match self.queue.send(write).await {
            Ok(()) => answer(reply).await,
            Err(_) => Err(closed()),
        }
    }

    /// A transaction in which all reads see the same state.
    async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        self.reads.begin().await.map_err(|error| match error {
            sqlx::Error::PoolClosed => closed(),
            error => nothing_done(&error),
        })
    }
}

fn closed() -> Error {
    Error::Unavailable("it is closed".to_owned())
}

async fn answer<A>(reply: Reply<A>) -> Result<A, Error> {
    // The writer never drops a write unanswered, unless its runtime ends; nobody can tell then how far it came.
    reply.await.unwrap_or(Err(Error::Unknown(sqlx::Error::WorkerCrashed)))
}

impl fmt::Debug for SqliteLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLog").field("name", &self.name).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TxLog for SqliteLog {
    fn name(&self) -> &LogName {
        &self.name
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn begin(&self, transaction: NewTransaction) -> Result<Begun, Error> {
        let mut ids = HashSet::with_capacity(transaction.branches.len());
        if !transaction.branches.iter().all(|branch| ids.insert(&branch.branch)) {
            return Err(Error::Unusable("a transaction cannot have two branches with one id".to_owned()));
        }
        let (ask, reply) = Ask::new(transaction);
        self.admit(Write::Begin(Beginning::New(ask)), reply).await
    }

    async fn begin_cancelled(&self, gid: Gid, by: Initiator) -> Result<TxRecord, Error> {
        let (ask, reply) = Ask::new(BeginCancelled { gid, by });
        self.send(Write::Begin(Beginning::Cancelled(ask)), reply).await
    }

    async fn enlist(&self, gid: Gid, branch: NewBranch, branches_max: u32) -> Result<Enlisted, Error> {
        let (ask, reply) = Ask::new(Enlist { gid, branch, branches_max });
        self.admit(Write::Enlist(ask), reply).await
    }

    async fn decide(&self, decide: Decide) -> Result<Decided, Error> {
        let (ask, reply) = Ask::new(decide);
        self.send(Write::Decide(ask), reply).await
    }

    async fn finish(&self, gid: Gid) -> Result<(), Error> {
        let (ask, reply) = Ask::new(gid);
        self.send(Write::Finish(ask), reply).await
    }

    async fn park(&self, park: Park) -> Result<(), Error> {
        let (ask, reply) = Ask::new(park);
        self.send(Write::Park(ask), reply).await
    }

    async fn claim(&self, limit: u32, lease_until: Timestamp) -> Result<Vec<TxRecord>, Error> {
        let (ask, reply) = Ask::new(Claim { limit, lease_until });
        self.send(Write::Alone(Alone::Claim(ask)), reply).await
    }

    async fn release_leases(&self) -> Result<u64, Error> {
        let (ask, reply) = Ask::new(());
        self.send(Write::Alone(Alone::ReleaseLeases(ask)), reply).await
    }

    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Error> {
        read::find(&mut *self.snapshot().await?, initiator, key).await
    }

    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Error> {
        let mut snapshot = self.snapshot().await?;
        Ok(rows::load(&mut snapshot, &[gid]).await?.remove(&gid))
    }

    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Error> {
        read::statuses(&mut *self.snapshot().await?, keys).await
    }

    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Error> {
        read::list(&mut *self.snapshot().await?, filter, before, limit).await
    }

    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Error> {
        read::count_by_status(&mut *self.snapshot().await?).await
    }

    async fn list_stuck(
        &self,
        participant: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Error> {
        read::list_stuck(&mut *self.snapshot().await?, participant, after, limit).await
    }

    async fn audit(&self, entry: NewAudit) -> Result<AuditRecord, Error> {
        let (ask, reply) = Ask::new(entry);
        self.send(Write::Alone(Alone::Audit(ask)), reply).await
    }

    async fn mark_settled(&self, entry: NewAudit) -> Result<MarkedSettled, Error> {
        let (ask, reply) = Ask::new(entry);
        self.send(Write::Alone(Alone::MarkSettled(ask)), reply).await
    }

    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        read::list_audit(&mut *self.snapshot().await?, gid, before, limit).await
    }

    async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
        self.reads.close().await;
    }
}

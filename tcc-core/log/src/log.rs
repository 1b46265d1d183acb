//! The log on any database: what a caller asks goes to the writers' queue, or is read.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
#[cfg(feature = "memory")]
use tcc_database::memory::{Memory, Weather};
use tcc_types::{BranchKey, Clock, Gid, IdempotencyKey, Initiator, LogName, ParticipantName, Timestamp, TxStatus};
use tokio::sync::{
    Mutex,
    mpsc::{self, error::TrySendError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(feature = "memory")]
use crate::memory::{self, LogTables};
use crate::{
    AuditRecord, Begun, Decide, Decided, Deleted, Due, Enlisted, Error, ListFilter, LogOptions, MarkedSettled, NewAudit,
    NewBranch, NewTransaction, Owner, Park, RENEW_MAX, StuckBranch, TxLog, TxRecord,
    fault::{Fault, closed},
    mysql,
    options::Database,
    postgres,
    reads::Reads,
    sqlite,
    writer::{
        Backend, Counters, Gathering, Writer,
        write::{Alone, Ask, BeginCancelled, Beginning, Claim, DeleteEnded, Enlist, Renew, Reply, Write},
    },
};

/// The transaction log on a database.
///
/// A SQLite file is locked until [`TxLog::close`] returns, or for some moments after the log was dropped: what was queued is
/// still written.
pub struct DatabaseLog {
    name: LogName,
    clock: Arc<dyn Clock>,
    shared: bool,
    queue: mpsc::Sender<Write>,
    write_queue_max: usize,
    reads: Arc<dyn Reads>,
    counters: Arc<Counters>,
    /// The last owner that was taken; 0: none.
    owner: AtomicU64,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// What a [`DatabaseLog`] has written since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// Commits, each synced to the disk.
    pub commits: u64,
    /// Writes in them.
    pub writes: u64,
    /// Transactions that the database gave up for the sake of another writer's (deadlocks, lock timeouts, serialization
    /// failures), and that were run again.
    pub conflicts: u64,
}

/// What a database brings to its log.
pub(crate) struct Opened<B: Backend> {
    pub(crate) backend: B,
    /// Where opening made one.
    pub(crate) connection: Option<B::Connection>,
    /// For further writers, which connect when they are needed.
    pub(crate) more: Vec<B>,
    pub(crate) reads: Arc<dyn Reads>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether other processes may have it open.
    pub(crate) shared: bool,
}

impl DatabaseLog {
    /// Opens the database that `database_url` names and brings its tables up to date. Makes a SQLite database's file and folder
    /// if they are missing. `clock` is SQLite's clock; other databases have their own.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has it, [`Error::Unusable`] if the options or the database are not fit for this
    /// program, [`Error::Unavailable`] (which can be retried) if it could not be opened.
    pub async fn open(options: LogOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        match options.checked()? {
            Database::Sqlite(path) => Ok(Self::start(sqlite::open(&options, &path, clock).await?, options)),
            Database::Postgres(connect) => Ok(Self::start(postgres::open(&options, *connect).await?, options)),
            Database::Mysql(connect) => Ok(Self::start(mysql::open(&options, *connect).await?, options)),
        }
    }

    /// Opens the log on a database in memory, for simulations. Several may be opened on one database, as several gateways are on a
    /// server: they are then `shared`, and `clock` is the database's, the same for all; it must not run backwards. Writers and readers
    /// connect when they have something to do, under this weather, and anew after a connection has failed. The weather must not call a
    /// commit that was sent a conflict after [`Step::Commit`](tcc_database::memory::Step::Commit): a conflict says that nothing was
    /// written. Of the options whatever concerns a server counts, but `lock_wait_ms`, and `database_url` is ignored.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the options are not fit, or the tables are another log's.
    #[cfg(feature = "memory")]
    pub fn in_memory(
        options: LogOptions,
        database: Memory<LogTables>,
        weather: Arc<dyn Weather>,
        clock: Arc<dyn Clock>,
        shared: bool,
    ) -> Result<Self, Error> {
        Ok(Self::start(memory::open(&options, database, weather, clock, shared)?, options))
    }

    fn start<B: Backend>(opened: Opened<B>, options: LogOptions) -> Self {
        let Opened { backend, connection, more, reads, clock, shared } = opened;
        let (queue, receiver) = mpsc::channel(options.write_queue_max);
        let (counters, closing, tasks) = (Arc::<Counters>::default(), CancellationToken::new(), TaskTracker::new());
        let gathering = Arc::new(Mutex::new(Gathering::new(receiver, closing.clone(), &options)));
        let first = (backend, connection);
        for (backend, connection) in more.into_iter().map(|backend| (backend, None)).chain([first]) {
            let (counters, gathering) = (Arc::clone(&counters), Arc::clone(&gathering));
            tasks.spawn(Writer { backend, connection, counters, gathering }.run());
        }
        tasks.close();
        let LogOptions { name, write_queue_max, .. } = options;
        Self { name, clock, shared, queue, write_queue_max, reads, counters, owner: AtomicU64::default(), closing, tasks }
    }

    /// What it has written so far.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            commits: self.counters.commits.load(Ordering::Relaxed),
            writes: self.counters.writes.load(Ordering::Relaxed),
            conflicts: self.counters.conflicts.load(Ordering::Relaxed),
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

    fn not_read(&self, fault: Fault) -> Error {
        fault.into_error(|error| self.reads.meaning_of(error))
    }

    /// Queues what must come to its end: waits for room.
    async fn send<A>(&self, write: Write, reply: Reply<A>) -> Result<A, Error> {
        match self.queue.send(write).await {
            Ok(()) => answer(reply).await,
            Err(_) => Err(closed()),
        }
    }
}

async fn answer<A>(reply: Reply<A>) -> Result<A, Error> {
    // The writer never drops a write unanswered, unless its runtime ends; nobody can tell then how far it came.
    reply.await.unwrap_or(Err(Error::Unknown(sqlx::Error::WorkerCrashed)))
}

impl fmt::Debug for DatabaseLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseLog").field("name", &self.name).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TxLog for DatabaseLog {
    fn name(&self) -> &LogName {
        &self.name
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    async fn take_owner(&self) -> Result<Owner, Error> {
        let (ask, reply) = Ask::new(());
        let owner = self.send(Write::Alone(Alone::TakeOwner(ask)), reply).await?;
        self.owner.store(owner.0, Ordering::Relaxed);
        Ok(owner)
    }

    async fn probe(&self) -> Result<(), Error> {
        let (ask, reply) = Ask::new(Owner(self.owner.load(Ordering::Relaxed)));
        self.send(Write::Alone(Alone::Probe(ask)), reply).await
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

    async fn claim(&self, owner: Owner, due: Due, limit: u32, lease: Duration) -> Result<Vec<TxRecord>, Error> {
        let (ask, reply) = Ask::new(Claim { owner, due, limit, lease });
        self.send(Write::Alone(Alone::Claim(ask)), reply).await
    }

    async fn renew(&self, owner: Owner, gids: &[Gid], lease: Duration) -> Result<Vec<Gid>, Error> {
        if gids.is_empty() {
            return Ok(Vec::new());
        }
        if gids.len() > RENEW_MAX {
            return Err(Error::Unusable(format!("at most {RENEW_MAX} leases are renewed at once, not {}", gids.len())));
        }
        let (ask, reply) = Ask::new(Renew { owner, gids: gids.to_vec(), lease });
        self.send(Write::Alone(Alone::Renew(ask)), reply).await
    }

    async fn release_leases(&self) -> Result<u64, Error> {
        let (ask, reply) = Ask::new(());
        self.send(Write::Alone(Alone::ReleaseLeases(ask)), reply).await
    }

    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Error> {
        self.reads.find(initiator, key).await.map_err(|fault| self.not_read(fault))
    }

    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Error> {
        self.reads.load(gid).await.map_err(|fault| self.not_read(fault))
    }

    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Error> {
        self.reads.statuses(keys).await.map_err(|fault| self.not_read(fault))
    }

    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Error> {
        self.reads.list(filter, before, limit).await.map_err(|fault| self.not_read(fault))
    }

    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Error> {
        self.reads.count_by_status().await.map_err(|fault| self.not_read(fault))
    }

    async fn list_stuck(
        &self,
        participant: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Error> {
        self.reads.list_stuck(participant, after, limit).await.map_err(|fault| self.not_read(fault))
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
        self.reads.list_audit(gid, before, limit).await.map_err(|fault| self.not_read(fault))
    }

    async fn delete_ended(&self, after: Option<Gid>, ended_before: Timestamp, limit: u32) -> Result<Deleted, Error> {
        let (ask, reply) = Ask::new(DeleteEnded { after, ended_before, limit });
        self.send(Write::Alone(Alone::DeleteEnded(ask)), reply).await
    }

    async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
        self.reads.close().await;
    }
}

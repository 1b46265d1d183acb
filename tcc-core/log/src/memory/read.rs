//! The reads. Each sees one committed state; none waits for a writer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tcc_database::{
    lease,
    memory::{Memory, Session, Weather},
};
use tcc_types::{BranchKey, Gid, IdempotencyKey, Initiator, ParticipantName, Timestamp, TxStatus};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{meaning_of, tables::LogTables};
use crate::{
    AuditRecord, Due, Error, ListFilter, LogOptions, StuckBranch, TxRecord,
    fault::{Fault, Meaning},
    readers::listing_max,
    reads::Reads,
};

/// A connection that was used less long ago is taken to be alive, as one of a server's is.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How long the test of another one may take.
const TEST_MAX: Duration = Duration::from_secs(1);

/// The connections for reading: no more at once than a server's log has, each made when it is needed.
pub(super) struct Readers {
    database: Memory<LogTables>,
    weather: Arc<dyn Weather>,
    /// As many as there may be.
    connections: Semaphore,
    /// Half of them, at least one.
    listings: Semaphore,
    /// Those that nobody uses, and since when.
    idle: Mutex<Vec<(Session<LogTables>, Instant)>>,
    connect_timeout: Duration,
    read_max: Duration,
    listing_max: Duration,
}

impl Readers {
    pub(super) fn new(options: &LogOptions, database: Memory<LogTables>, weather: Arc<dyn Weather>) -> Self {
        let places = |count: u32| Semaphore::new((count.max(1) as usize).min(Semaphore::MAX_PERMITS));
        Self {
            database,
            weather,
            connections: places(options.read_connections_max),
            listings: places(options.read_connections_max / 2),
            idle: Mutex::default(),
            connect_timeout: Duration::from_millis(options.connect_timeout_ms),
            read_max: Duration::from_millis(options.write_timeout_ms),
            listing_max: listing_max(options),
        }
    }

    /// A read that somebody waits for.
    async fn read<R>(&self, read: impl FnOnce(&LogTables) -> R) -> Result<R, Fault> {
        let late = |_| Fault::Other(Error::Unavailable("no answer within `write_timeout_ms`".to_owned()));
        timeout(self.read_max, self.read_on_one(read)).await.map_err(late)?
    }

    /// A listing.
    async fn listing<R>(&self, read: impl FnOnce(&LogTables) -> R) -> Result<R, Fault> {
        let listing = async {
            let _one = self.listings.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            self.read_on_one(read).await
        };
        let late = |_| Fault::Other(Error::Unavailable("the listing took longer than 4 x `write_timeout_ms`".to_owned()));
        timeout(self.listing_max, listing).await.map_err(late)?
    }

    /// What fails, or is dropped on the way, takes its connection with it.
    async fn read_on_one<R>(&self, read: impl FnOnce(&LogTables) -> R) -> Result<R, Fault> {
        let connection = async {
            let place = self.connections.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            Ok((place, self.connect().await?))
        };
        let connection = timeout(self.connect_timeout, connection).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let (_place, mut session) = connection?;
        let found = session.read(read).await?;
        self.idle().push((session, Instant::now()));
        Ok(found)
    }

    /// One that nobody uses, if it still stands; else a new one.
    async fn connect(&self) -> Result<Session<LogTables>, sqlx::Error> {
        loop {
            let Some((session, since)) = self.idle().pop() else { break };
            if since.elapsed() <= TRUSTED_FOR || lease::within(TEST_MAX, "it does not answer", session.ping()).await.is_ok() {
                return Ok(session);
            }
        }
        self.database.connect(Arc::clone(&self.weather)).await
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Session<LogTables>, Instant)>> {
        // Nothing panics while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a listing has it: without its branches.
fn head(record: &TxRecord) -> TxRecord {
    TxRecord { branches: Vec::new(), ..record.clone() }
}

#[async_trait]
impl Reads for Readers {
    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Fault> {
        self.read(|tables| tables.gid_of(initiator, key).and_then(|gid| tables.transaction(gid)).map(head)).await
    }

    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Fault> {
        self.read(|tables| tables.transaction(gid).cloned()).await
    }

    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Fault> {
        let status = |tables: &LogTables, key: &BranchKey| {
            let record = tables.transaction(key.gid)?;
            Some((head(record), record.branches.iter().any(|branch| branch.branch == key.branch)))
        };
        self.read(|tables| keys.iter().map(|key| status(tables, key)).collect()).await
    }

    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Fault> {
        let is_asked_for = |record: &TxRecord| {
            (filter.statuses.is_empty() || filter.statuses.contains(&record.status))
                && filter.initiator.as_ref().is_none_or(|initiator| record.initiator == *initiator)
        };
        self.listing(|tables| {
            let asked_for = tables.before(before).filter(|record| is_asked_for(record));
            asked_for.take(limit as usize).map(head).collect()
        })
        .await
    }

    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Fault> {
        let count = |tables: &LogTables, status| tables.transactions().filter(|record| record.status == status).count() as u64;
        self.listing(|tables| TxStatus::ALL.map(|status| (status, count(tables, status))).to_vec()).await
    }

    async fn list_stuck(
        &self,
        participant: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Fault> {
        self.listing(|tables| {
            let stuck =
                tables.unfinished_of(Due::Stuck).filter_map(|(_, gid)| tables.transaction(gid)).flat_map(stuck_branches);
            let stuck = stuck.filter(|branch| participant.is_none_or(|asked| branch.participant == *asked));
            let sorted: BTreeMap<(Timestamp, BranchKey), StuckBranch> =
                stuck.map(|branch| ((branch.stuck.since, branch.key.clone()), branch)).collect();
            let later = sorted.into_iter().filter(|(place, _)| after.as_ref().is_none_or(|after| place > after));
            later.take(limit as usize).map(|(_, branch)| branch).collect()
        })
        .await
    }

    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Fault> {
        self.listing(|tables| {
            let lines = tables.audit_before(before).filter(|line| gid.is_none_or(|gid| line.entry.key.gid == gid));
            lines.take(limit as usize).cloned().collect()
        })
        .await
    }

    async fn close(&self) {
        self.connections.close();
        self.listings.close();
        self.idle().clear();
    }

    fn meaning_of(&self, error: &sqlx::Error) -> Meaning {
        meaning_of(error)
    }
}

fn stuck_branches(record: &TxRecord) -> impl Iterator<Item = StuckBranch> {
    record.branches.iter().filter_map(|branch| {
        Some(StuckBranch {
            key: BranchKey { gid: record.gid, branch: branch.branch.clone() },
            participant: branch.participant.clone(),
            status: record.status,
            stuck: branch.progress.stuck.clone()?,
            attempts: branch.progress.attempts,
            next_attempt_at: record.next_attempt_at,
        })
    })
}

//! Reads the log's database while the gateways work on it: who owns what, for the times of takeovers.

use std::time::{Duration, Instant};

use anyhow::Context;
use tcc_types::{Clock, SystemClock};
use tokio::{sync::Mutex, time::sleep};
use tokio_util::sync::CancellationToken;

use super::takeover::{Open, Takeovers};
use crate::harness::{AnyRow, Snapshot, Store};

const INTERVAL: Duration = Duration::from_millis(50);
/// What is due later than this has no lease: it waits for a request, or for its next attempt.
const LEASE_MAX: Duration = Duration::from_secs(10);

/// Watches one log.
#[derive(Debug)]
pub(crate) struct Watch {
    store: Store,
    url: String,
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connection: Option<Snapshot>,
    takeovers: Takeovers,
}

impl Watch {
    pub(crate) fn new(store: Store, url: String, started: Instant) -> Self {
        Self { store, url, started, seen: Mutex::default() }
    }

    /// Looks again and again until it is told to stop. A database that is down is looked at later.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            {
                let mut seen = self.seen.lock().await;
                match self.open(&mut seen).await {
                    Ok(open) => {
                        let at = self.started.elapsed();
                        seen.takeovers.seen(at, &open);
                    }
                    Err(_) => seen.connection = None,
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(INTERVAL) => {}
            }
        }
    }

    /// The gateway with this number was killed at `at` and is gone.
    pub(crate) async fn killed(&self, owner: i64, at: Duration) -> anyhow::Result<()> {
        // Under the lock from the look on: no older look is taken for a later one.
        let mut seen = self.seen.lock().await;
        let open = self.open(&mut seen).await?;
        seen.takeovers.killed(owner, at, &open);
        Ok(())
    }

    /// The greatest number of any gateway's run: that of the one that came up last.
    pub(crate) async fn newest_owner(&self) -> anyhow::Result<i64> {
        let mut seen = self.seen.lock().await;
        let rows = self.rows(&mut seen, "SELECT owner FROM tcc_log_owners ORDER BY owner DESC LIMIT 1").await?;
        Ok(rows.first().context("no gateway has taken a number")?.integer(0)?)
    }

    /// How long takeovers took, and how many transactions wait for one.
    pub(crate) async fn takeovers(&self) -> (Vec<Duration>, usize) {
        let seen = self.seen.lock().await;
        (seen.takeovers.took().to_vec(), seen.takeovers.waiting())
    }

    async fn open(&self, seen: &mut Seen) -> anyhow::Result<Vec<Open>> {
        let sql = "SELECT gid, owner, next_attempt_at FROM tcc_log_transactions WHERE finished_at IS NULL";
        let rows = self.rows(seen, sql).await?;
        let leased_until = SystemClock.now().plus(LEASE_MAX).as_micros();
        let open =
            |row: &AnyRow| Ok(Open { gid: row.bytes(0)?, owner: row.integer(1)?, leased: row.integer(2)? <= leased_until });
        rows.iter().map(open).collect()
    }

    async fn rows(&self, seen: &mut Seen, sql: &'static str) -> anyhow::Result<Vec<AnyRow>> {
        let connection = match seen.connection.take() {
            Some(mut connection) => connection.renew().await.map(|()| connection),
            None => Snapshot::begin(self.store, &self.url).await,
        };
        let mut connection = connection.context("the log cannot be read")?;
        let rows = connection.all(sql).await?;
        // Only one that works is kept.
        seen.connection = Some(connection);
        Ok(rows)
    }
}

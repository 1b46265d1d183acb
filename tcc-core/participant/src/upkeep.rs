//! The background work of a participant: asking about reservations that nobody settles, and deleting rows of branches that have
//! ended. Runs both; what they do is in [`sweeper`] and [`retention`].

mod options;
pub(crate) mod retention;
pub(crate) mod sweeper;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tcc_types::{Entropy, SystemEntropy};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{Database, Engine, OutcomeSource, Participant, Store};

pub use options::UpkeepOptions;
use retention::Retention;
use sweeper::Sweeper;

/// After a walk, retention rests for so many times what the walk took: however many rows it has to keep, it costs little.
const REST_FACTOR: u32 = 10;

/// The background work of one participant, until it is stopped or dropped.
#[derive(Debug)]
pub struct Upkeep {
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Upkeep {
    /// Starts it on the engine's database, under the limits of its options ([`UpkeepOptions`]), until `shutdown`.
    ///
    /// Without a source nobody is asked: reservations whose coordinator is lost stay, and so do rows of confirmed branches. That
    /// is logged as a warning.
    #[must_use = "it stops when it is dropped"]
    pub fn start<P: Participant, S: OutcomeSource>(
        engine: &Engine<P>,
        source: Option<S>,
        shutdown: &CancellationToken,
    ) -> Self {
        let token = shutdown.child_token();
        let tasks = TaskTracker::new();
        let source = source.map(Arc::new);
        if let Some(source) = source.clone() {
            let sweeper = Sweeper::new(engine.clone(), source, Arc::new(SystemEntropy));
            tasks.spawn(token.clone().run_until_cancelled_owned(sweep_on(sweeper)));
        } else {
            tracing::warn!(
                "no coordinator is configured to be asked: reservations of a coordinator that is lost will stay, and rows of \
                 confirmed branches are kept for ever"
            );
        }
        let retention = Retention::new(engine.store().clone(), source);
        tasks.spawn(token.clone().run_until_cancelled_owned(walk_on(retention)));
        tasks.close();
        Self { tasks, stop: token.drop_guard() }
    }

    /// Stops it and waits until it has. Operations that it has begun run to their end in the engine: close that afterwards.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.wait().await;
    }
}

/// Sweeps for ever.
async fn sweep_on<P: Participant, S: OutcomeSource>(mut sweeper: Sweeper<P, S>) {
    let interval = sweeper.options().sweep_interval();
    loop {
        sleep(SystemEntropy.jitter(interval)).await;
        surviving(sweeper.sweep()).await;
    }
}

/// Walks for ever.
async fn walk_on<D: Database, S: OutcomeSource>(retention: Retention<D, S>) {
    let interval = retention.options().retention_interval();
    let mut took = Duration::ZERO;
    loop {
        sleep(SystemEntropy.jitter(interval).max(took * REST_FACTOR)).await;
        let began = Instant::now();
        surviving(retention.walk()).await;
        took = began.elapsed();
    }
}

/// A panic in one round (in a database's or a source's code) must not end all rounds: nobody would notice.
async fn surviving<T>(round: impl Future<Output = T>) {
    if AssertUnwindSafe(round).catch_unwind().await.is_err() {
        tracing::error!("a round of the participant's upkeep panicked: the next one starts anew");
    }
}

/// Runs a write in a transaction of its own: anew when the database asks for that, and bounded in time as an operation is.
async fn bounded_write<D: Database, T, F>(store: &Store<D>, write: impl Fn() -> F + Send) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>> + Send,
{
    let options = store.options();
    let limit = options.transaction_max() + options.connection_wait_max();
    // Dropped at the limit it rolls back; dropped within the commit, either, and both are safe to repeat.
    timeout(limit, store.retrying(write)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

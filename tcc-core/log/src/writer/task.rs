//! The one task that writes: drains what is queued, commits it as one batch, answers everybody, drains again.
//!
//! Nobody who waits is kept waiting by a timer: a lone write is committed at once, and the longer a commit takes, the more the next
//! one carries. Only what nobody waits for (that a transaction has ended) rides with a later write, or is written after a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Backend,
    plan::{Run, plan},
    write::Write,
};
use crate::{
    Error,
    fault::{FailedCommit, Fault, Meaning},
};

/// How often a transaction is run that the database gives up for the sake of others, before its writes run one by one; and how
/// often each of these.
const ATTEMPTS_MAX: u32 = 5;

/// What the writer has done, for [`LogStats`](crate::LogStats).
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) conflicts: AtomicU64,
}

/// The writer's own things. It ends when the log is dropped or closed, after the last queued write.
pub(crate) struct Writer<B: Backend> {
    pub(crate) backend: B,
    /// `None` after an error that may have broken it; opened anew for the next batch.
    pub(crate) connection: Option<B::Connection>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) queue: mpsc::Receiver<Write>,
    pub(crate) closing: CancellationToken,
    pub(crate) batch_max: usize,
    pub(crate) batch_bytes_max: usize,
    /// How long a write that nobody waits for may wait for others.
    pub(crate) finish_delay: Duration,
    /// Those, and until when they wait.
    pub(crate) lazy: Vec<Write>,
    pub(crate) lazy_until: Instant,
}

/// How far a transaction came that failed.
enum Failure {
    /// Nothing was written, and nothing would be now.
    Down(String),
    /// A statement failed and everything was rolled back.
    RolledBack(Error),
    /// The database gave it up for the sake of another.
    Conflict(Error),
    /// The commit failed: it may be durable or not.
    Unknown(FailedCommit),
}

impl<B: Backend> Writer<B> {
    pub(crate) async fn run(mut self) {
        while let Some(batch) = self.next().await {
            self.write(batch).await;
            // Whoever was just answered may have its next write ready: let it run first. Costs nothing when nobody has.
            tokio::task::yield_now().await;
        }
        self.disconnect().await;
        tracing::debug!("the transaction log's writer has ended");
    }

    /// The next batch, never empty; `None` once there will be none.
    async fn next(&mut self) -> Option<Vec<Write>> {
        loop {
            let write = tokio::select! {
                // Closing comes first: under a steady load the queue is never empty.
                biased;
                () = self.closing.cancelled(), if !self.queue.is_closed() => {
                    // What is queued was accepted and is still written.
                    self.queue.close();
                    continue;
                }
                write = self.queue.recv() => write,
                () = sleep_until(self.lazy_until), if !self.lazy.is_empty() => return Some(self.batch(None)),
            };
            match write {
                Some(write) if write.is_lazy() && !self.finish_delay.is_zero() => {
                    if self.lazy.is_empty() {
                        self.lazy_until = Instant::now() + self.finish_delay;
                    }
                    self.lazy.push(write);
                    if self.lazy.len() >= self.batch_max {
                        return Some(self.batch(None));
                    }
                }
                Some(write) => return Some(self.batch(Some(write))),
                None if self.lazy.is_empty() => return None,
                None => return Some(self.batch(None)),
            }
        }
    }

    /// What was put off, this write, and what is queued behind it.
    fn batch(&mut self, write: Option<Write>) -> Vec<Write> {
        let mut batch = std::mem::take(&mut self.lazy);
        batch.extend(write);
        let mut size_bytes: usize = batch.iter().map(Write::size_bytes).sum();
        while batch.len() < self.batch_max && size_bytes < self.batch_bytes_max {
            let Ok(write) = self.queue.try_recv() else { break };
            size_bytes += write.size_bytes();
            batch.push(write);
        }
        batch
    }

    /// Writes a batch and answers it.
    async fn write(&mut self, batch: Vec<Write>) {
        let count = batch.len();
        let mut runs = plan(batch);
        match self.commit(&mut runs, count).await {
            Ok(()) => writes_of(runs).for_each(Write::deliver),
            Err(Failure::RolledBack(error) | Failure::Conflict(error)) if count == 1 => {
                tracing::warn!(%error, "a write failed");
                writes_of(runs).for_each(|write| write.fail(error_again(&error)));
            }
            Err(Failure::RolledBack(error) | Failure::Conflict(error)) => {
                tracing::warn!(%error, count, "a batch failed; its writes run one by one");
                self.write_one_by_one(runs).await;
            }
            Err(Failure::Down(problem)) => {
                tracing::error!(problem, count, "a batch could not be written");
                writes_of(runs).for_each(|write| write.fail(Error::Unavailable(problem.clone())));
            }
            Err(Failure::Unknown(failed)) => {
                tracing::error!(error = %failed, count, "the outcome of a batch is unknown");
                writes_of(runs).for_each(|write| write.fail(failed.unknown()));
            }
        }
    }

    /// Gives each write a transaction of its own, so that one bad write fails alone.
    async fn write_one_by_one(&mut self, runs: Vec<Run>) {
        let mut writes = writes_of(runs);
        while let Some(write) = writes.next() {
            let mut run = [Run::from(write)];
            let outcome = self.commit(&mut run, 1).await;
            let own = run.into_iter().flat_map(Run::into_writes);
            match outcome {
                Ok(()) => own.for_each(Write::deliver),
                Err(Failure::RolledBack(error) | Failure::Conflict(error)) => {
                    own.for_each(|write| write.fail(error_again(&error)));
                }
                Err(Failure::Unknown(failed)) => own.for_each(|write| write.fail(failed.unknown())),
                Err(Failure::Down(problem)) => {
                    // Each further attempt may take as long as this one did.
                    own.chain(writes).for_each(|write| write.fail(Error::Unavailable(problem.clone())));
                    return;
                }
            }
        }
    }

    /// Runs everything in one transaction, again if the database gave it up for the sake of another.
    async fn commit(&mut self, runs: &mut [Run], count: usize) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            match self.attempt(runs).await {
                Ok(()) => break,
                Err(Failure::Conflict(error)) => {
                    self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, count, attempt, "a batch met another writer's");
                    if attempt == ATTEMPTS_MAX {
                        return Err(Failure::Conflict(error));
                    }
                    attempt += 1;
                }
                Err(failure @ (Failure::Down(_) | Failure::RolledBack(_) | Failure::Unknown(_))) => return Err(failure),
            }
        }
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.counters.writes.fetch_add(count as u64, Ordering::Relaxed);
        tracing::trace!(count, "committed");
        Ok(())
    }

    /// Runs everything in one transaction, once.
    async fn attempt(&mut self, runs: &mut [Run]) -> Result<(), Failure> {
        let limit = self.backend.write_timeout();
        // Not in `self` meanwhile: where a time limit or a panic cuts this short, the connection is dropped.
        let taken = self.connection.take();
        let Some(run) = within(limit, self.run_statements(taken, runs)).await else {
            return Err(Failure::Down("no answer within `write_timeout_ms`".to_owned()));
        };
        let mut connection = run?;
        let Some(committed) = within(limit, self.backend.commit(&mut connection)).await else {
            return Err(Failure::Unknown(FailedCommit::timed_out()));
        };
        match committed {
            Ok(()) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err(error) if B::meaning_of(&error) == Meaning::Again => {
                self.keep_rolled_back(connection).await;
                Err(Failure::Conflict(Error::Unavailable(error.to_string())))
            }
            Err(error) => {
                // It may be rolled back or not, and the connection may be fit for use or not: begin with a new one.
                self.keep_rolled_back(connection).await;
                self.disconnect().await;
                Err(Failure::Unknown(FailedCommit::new(error)))
            }
        }
    }

    /// Begins, on a new connection if the last one broke, and runs the statements. If they fail, everything is rolled back.
    async fn run_statements(&mut self, taken: Option<B::Connection>, runs: &mut [Run]) -> Result<B::Connection, Failure> {
        let mut connection = match taken {
            Some(connection) => connection,
            None => self.backend.connect().await.map_err(|error| Failure::Down(error.to_string()))?,
        };
        let now = match self.backend.begin(&mut connection).await {
            Ok(now) => now,
            Err(error) => {
                self.connection = Some(connection);
                self.disconnect().await;
                return Err(Failure::Down(error.to_string()));
            }
        };
        for run in runs {
            if let Err(fault) = self.backend.apply(&mut connection, run, now).await {
                return Err(self.failed(connection, fault).await);
            }
        }
        Ok(connection)
    }

    /// After a statement that failed.
    async fn failed(&mut self, connection: B::Connection, fault: Fault) -> Failure {
        let (meaning, error) = fault.explain(B::meaning_of);
        match meaning {
            // Nothing that is sent on it would arrive, or be done; dropping it is enough.
            Meaning::Down => return Failure::Down(error.to_string()),
            Meaning::Again | Meaning::Unavailable | Meaning::Unusable => self.keep_rolled_back(connection).await,
        }
        match meaning {
            Meaning::Again => Failure::Conflict(error),
            Meaning::Down | Meaning::Unavailable | Meaning::Unusable => Failure::RolledBack(error),
        }
    }

    /// Rolls back; where that fails too (some databases do it by themselves after some errors), the connection is dropped, which
    /// does it.
    async fn keep_rolled_back(&mut self, mut connection: B::Connection) {
        let limit = self.backend.write_timeout();
        match within(limit, self.backend.roll_back(&mut connection)).await {
            Some(Ok(())) => self.connection = Some(connection),
            Some(Err(error)) => {
                tracing::debug!(%error, "rolling back by closing the connection");
                self.connection = Some(connection);
                self.disconnect().await;
            }
            None => {}
        }
    }

    async fn disconnect(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let limit = self.backend.write_timeout();
        if let Some(Err(error)) = within(limit, self.backend.disconnect(connection)).await {
            tracing::debug!(%error, "closing the connection failed");
        }
    }
}

/// Its output; `None`: it took longer than that.
async fn within<F: Future>(limit: Option<Duration>, future: F) -> Option<F::Output> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

fn writes_of(runs: Vec<Run>) -> impl Iterator<Item = Write> {
    runs.into_iter().flat_map(Run::into_writes)
}

/// The same error for another caller. What comes from before a commit is one of two kinds.
fn error_again(error: &Error) -> Error {
    match error {
        Error::Unusable(text) => Error::Unusable(text.clone()),
        Error::Unavailable(text) => Error::Unavailable(text.clone()),
        Error::Unknown(_) | Error::Overloaded { .. } | Error::InUse { .. } => Error::Unavailable(error.to_string()),
    }
}

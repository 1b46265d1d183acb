//! A task that writes: takes a batch, commits it, answers everybody, takes the next one. A database server has a few of them, each with
//! a connection of its own.
//!
//! Nothing rests on their order: who waits for one write before he asks for the next has it in order, and whoever does not would
//! have to be right beside another gateway too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tcc_types::Timestamp;
use tokio::sync::Mutex;

use super::{
    Backend,
    gathering::Gathering,
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

/// A writer's own things. It ends when the log is dropped or closed, after the last queued write.
pub(crate) struct Writer<B: Backend> {
    pub(crate) backend: B,
    /// `None` before the first batch, and after an error that may have broken it; opened for the next batch.
    pub(crate) connection: Option<B::Connection>,
    pub(crate) counters: Arc<Counters>,
    /// What all writers take their batches from, one after the other.
    pub(crate) gathering: Arc<Mutex<Gathering>>,
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
        // Whoever is free waits in line.
        while let Some(batch) = take(&self.gathering).await {
            self.write(batch).await;
            // Whoever was just answered may have its next write ready: let it run first. Costs nothing when nobody has.
            tokio::task::yield_now().await;
        }
        self.disconnect().await;
        tracing::debug!("a writer of the transaction log has ended");
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

    /// Begins and runs the statements. If they fail, everything is rolled back.
    async fn run_statements(&mut self, taken: Option<B::Connection>, runs: &mut [Run]) -> Result<B::Connection, Failure> {
        let (mut connection, now) = self.begin(taken).await?;
        for run in runs {
            if let Err(fault) = self.backend.apply(&mut connection, run, now).await {
                return Err(self.failed(connection, fault).await);
            }
        }
        Ok(connection)
    }

    /// Begins on the connection there is; on a new one where there is none, or where it turns out to have been ended meanwhile (by its
    /// server, or by an operator).
    async fn begin(&mut self, taken: Option<B::Connection>) -> Result<(B::Connection, Timestamp), Failure> {
        if let Some(connection) = taken {
            match self.begin_on(connection).await {
                Err(error) if B::meaning_of(&error) == Meaning::Down => {
                    tracing::debug!(%error, "a connection had ended; a new one takes its place");
                }
                begun => return begun.map_err(|error| Failure::Down(error.to_string())),
            }
        }
        let begun = match self.backend.connect().await {
            Ok(connection) => self.begin_on(connection).await,
            Err(error) => Err(error),
        };
        begun.map_err(|error| Failure::Down(error.to_string()))
    }

    async fn begin_on(&mut self, mut connection: B::Connection) -> Result<(B::Connection, Timestamp), sqlx::Error> {
        match self.backend.begin(&mut connection).await {
            Ok(now) => Ok((connection, now)),
            Err(error) => {
                self.connection = Some(connection);
                self.disconnect().await;
                Err(error)
            }
        }
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

async fn take(gathering: &Mutex<Gathering>) -> Option<Vec<Write>> {
    gathering.lock().await.next().await
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

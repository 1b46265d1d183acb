//! The one task that writes: drains what is queued, commits it as one batch, answers everybody, drains again.
//!
//! There is no timer: a lone write is committed at once, and the longer a commit takes, the more the next one carries.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, query, sqlite::SqliteConnectOptions};
use tcc_types::Clock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    apply,
    fault::{FailedCommit, nothing_done},
    lock::FileLock,
    plan::{Run, plan},
    write::Write,
};
use crate::Error;

/// What the writer has done, for [`SqliteLogStats`](crate::SqliteLogStats).
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) writes: AtomicU64,
}

/// The writer's own things. It ends when the log is dropped or closed, after the last queued write.
pub(super) struct Writer {
    /// `None` after an error that may have broken it; opened anew for the next batch.
    pub(super) connection: Option<SqliteConnection>,
    pub(super) connect: SqliteConnectOptions,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) queue: mpsc::Receiver<Write>,
    pub(super) closing: CancellationToken,
    pub(super) batch_max: usize,
    pub(super) batch_bytes_max: usize,
    /// Held until the last write is done.
    pub(super) lock: FileLock,
}

/// How far a transaction came that failed.
enum Failure {
    /// It was not begun.
    NotBegun(String),
    /// A statement failed and everything was rolled back.
    RolledBack(Error),
    /// The commit failed: it may be durable or not.
    Unknown(FailedCommit),
}

impl Writer {
    pub(super) async fn run(mut self) {
        while let Some(first) = self.next().await {
            let mut size_bytes = first.size_bytes();
            let mut batch = vec![first];
            while batch.len() < self.batch_max && size_bytes < self.batch_bytes_max {
                let Ok(write) = self.queue.try_recv() else { break };
                size_bytes += write.size_bytes();
                batch.push(write);
            }
            self.write(batch).await;
            // Whoever was just answered may have its next write ready: let it run first. Costs nothing when nobody has.
            tokio::task::yield_now().await;
        }
        self.disconnect().await;
        tracing::debug!(lock = %self.lock, "the transaction log is closed");
    }

    /// The next write; `None` once there will be none.
    async fn next(&mut self) -> Option<Write> {
        tokio::select! {
            // Closing comes first: under a steady load the queue is never empty.
            biased;
            () = self.closing.cancelled(), if !self.queue.is_closed() => {
                // What is queued was accepted and is still written.
                self.queue.close();
                self.queue.recv().await
            }
            write = self.queue.recv() => write,
        }
    }

    /// Writes a batch and answers it.
    async fn write(&mut self, batch: Vec<Write>) {
        let count = batch.len();
        let mut runs = plan(batch);
        match self.commit(&mut runs, count).await {
            Ok(()) => writes_of(runs).for_each(Write::deliver),
            Err(Failure::RolledBack(error)) if count == 1 => {
                tracing::warn!(%error, "a write failed");
                writes_of(runs).for_each(|write| write.fail(error_again(&error)));
            }
            Err(Failure::RolledBack(error)) => {
                tracing::warn!(%error, count, "a batch failed; its writes run one by one");
                self.write_one_by_one(runs).await;
            }
            Err(Failure::NotBegun(problem)) => {
                tracing::error!(problem, count, "a batch could not be begun");
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
                Err(Failure::RolledBack(error)) => own.for_each(|write| write.fail(error_again(&error))),
                Err(Failure::Unknown(failed)) => own.for_each(|write| write.fail(failed.unknown())),
                Err(Failure::NotBegun(problem)) => {
                    // The database is out of reach, and each further attempt may take as long as this one did.
                    own.chain(writes).for_each(|write| write.fail(Error::Unavailable(problem.clone())));
                    return;
                }
            }
        }
    }

    /// Runs everything in one transaction.
    async fn commit(&mut self, runs: &mut [Run], count: usize) -> Result<(), Failure> {
        let now = self.clock.now();
        let connection = match self.begin().await {
            Ok(connection) => connection,
            Err(error) => {
                self.disconnect().await;
                return Err(Failure::NotBegun(error.to_string()));
            }
        };
        for run in runs {
            if let Err(error) = apply::apply(connection, run, now).await {
                self.roll_back().await;
                return Err(Failure::RolledBack(error));
            }
        }
        if let Err(error) = query("COMMIT").execute(connection).await {
            self.roll_back().await;
            // It may be rolled back or not, and the connection may be fit for use or not: begin with a new one.
            self.disconnect().await;
            return Err(Failure::Unknown(FailedCommit::new(error)));
        }
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.counters.writes.fetch_add(count as u64, Ordering::Relaxed);
        tracing::trace!(count, "committed");
        Ok(())
    }

    /// Begins a transaction, on a new connection if the last one broke.
    async fn begin(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect.connect().await?,
        };
        let connection = self.connection.insert(connection);
        query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        Ok(connection)
    }

    /// Rolls back; where that fails too (SQLite does it by itself after some errors), drops the connection, which does it.
    async fn roll_back(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Err(error) = query("ROLLBACK").execute(connection).await {
            tracing::debug!(%error, "rolling back by closing the connection");
            self.disconnect().await;
        }
    }

    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(error = %nothing_done(&error), "closing the connection failed");
        }
    }
}

fn writes_of(runs: Vec<Run>) -> impl Iterator<Item = Write> {
    runs.into_iter().flat_map(Run::into_writes)
}

/// The same error for another caller. What comes from before a commit is one of two kinds.
fn error_again(error: &Error) -> Error {
    match error {
        Error::Unusable(text) => Error::Unusable(text.clone()),
        Error::Unknown(_) | Error::Unavailable(_) | Error::Overloaded { .. } | Error::InUse { .. } => {
            Error::Unavailable(error.to_string())
        }
    }
}

//! Runs what waits: one local transaction for many operations, or one for each where they cannot share it.
//!
//! There is no timer: an operation that finds a worker free runs at once and alone, and the longer a transaction takes, the more
//! operations the next one carries.

use std::{panic::AssertUnwindSafe, sync::Arc, sync::atomic::Ordering};

use futures::FutureExt;
use tcc_barrier::{Answer, Call};
use tcc_types::BranchKey;
use tokio::time::timeout;
use tracing::Instrument;

use super::{Inner, Unknown, job::Job, queue::Waiting};
use crate::{Participant, within};

/// Why a transaction has no answers.
enum Failure {
    /// It did not begin: nothing was done, and nothing could be done now.
    Begin(within::Error),
    /// It was rolled back.
    Statement(within::Error),
    /// Its commit failed: it may stand or not.
    Commit(within::Error),
    /// It was rolled back, or its commit got no answer.
    TooSlow,
    /// It was rolled back.
    Panicked,
}

impl Failure {
    fn is_retryable<P: Participant>(&self) -> bool {
        match self {
            Self::Begin(error) | Self::Statement(error) | Self::Commit(error) => error.is_retryable::<P::Db>(),
            Self::TooSlow | Self::Panicked => false,
        }
    }

    /// Whether running its operations one by one may help some of them.
    fn may_be_one_operations_fault(&self) -> bool {
        match self {
            Self::Statement(error) => error.is_of_a_statement(),
            Self::Panicked => true,
            // Of the commit's outcome nobody knows; and where the database does not answer, it would not answer each of them.
            Self::Begin(_) | Self::Commit(_) | Self::TooSlow => false,
        }
    }
}

/// Runs what waits until nothing does.
pub(super) async fn work<P: Participant>(inner: Arc<Inner<P>>) {
    while let Some(jobs) = inner.next() {
        let keys: Vec<BranchKey> = jobs.iter().map(|job| job.key().clone()).collect();
        inner.run(jobs).await;
        inner.lanes().done(&keys);
        // Whoever was just answered may have its next operation ready: let it run first. Costs nothing when nobody has.
        tokio::task::yield_now().await;
    }
}

impl<P: Participant> Inner<P> {
    /// Runs each operation once at least, and answers it.
    async fn run(&self, mut jobs: Vec<Job>) {
        if jobs.len() > 1 {
            jobs.sort_by(|one, other| one.key().cmp(other.key()));
            let span = tracing::debug_span!("batch", operations = jobs.len());
            let Some(rest) = self.run_together(jobs).instrument(span).await else { return };
            jobs = rest;
        }
        self.run_one_by_one(jobs).await;
    }

    /// Runs them in one transaction and answers them, or hands them back where they should run one by one.
    async fn run_together(&self, jobs: Vec<Job>) -> Option<Vec<Job>> {
        let calls: Vec<_> = jobs.iter().map(|job| job.operation.call()).collect();
        match self.repeated(&calls).await {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    job.answer(Ok(answer));
                }
                None
            }
            Err(failure) if failure.may_be_one_operations_fault() => {
                let problem = failure.problem(self);
                tracing::warn!(problem, operations = jobs.len(), "a batch failed: its operations run one by one");
                Some(jobs)
            }
            Err(failure) => {
                if matches!(failure, Failure::TooSlow) {
                    // Who made it slow is not known: each may, by itself.
                    self.lanes().run_alone(jobs.iter().map(Job::key));
                }
                let (problem, unknown) = (failure.problem(self), failure.unknown(self));
                tracing::warn!(problem, operations = jobs.len(), "a batch failed: its outcome is answered as unknown");
                jobs.into_iter().for_each(|job| job.answer(Err(unknown)));
                None
            }
        }
    }

    async fn run_one_by_one(&self, jobs: Vec<Job>) {
        let mut down = None;
        for job in jobs {
            if let Some(unknown) = down {
                job.answer(Err(unknown));
                continue;
            }
            // Those before it may have taken long.
            if job.is_abandoned() {
                continue;
            }
            let call = job.operation.call();
            let (key, op) = (call.key(), call.op());
            let span = tracing::debug_span!("branch", gid = %key.gid, branch_id = %key.branch, ?op);
            match self.repeated(&[call]).instrument(span).await {
                Ok(mut answers) => job.answer(answers.pop().ok_or(Unknown::Failed)),
                Err(failure) => {
                    let (problem, unknown) = (failure.problem(self), failure.unknown(self));
                    let (gid, branch_id) = (key.gid, &key.branch);
                    tracing::warn!(%gid, %branch_id, ?op, problem, "the outcome is answered as unknown");
                    if matches!(failure, Failure::Begin(_)) {
                        // Each further one would wait as long.
                        down = Some(unknown);
                    } else {
                        self.lanes().run_alone([job.key()].into_iter());
                    }
                    job.answer(Err(unknown));
                }
            }
        }
    }

    /// Runs a whole local transaction, and anew when the database asks for it.
    async fn repeated(&self, calls: &[Call<'_>]) -> Result<Vec<Answer>, Failure> {
        let mut attempt = 1;
        loop {
            // A panic in a handler ends its transaction and nothing else. What is left behind is dropped: nothing half-changed is
            // looked at again.
            let attempted = AssertUnwindSafe(self.attempt(calls)).catch_unwind().await.unwrap_or(Err(Failure::Panicked));
            match attempted {
                Err(failure) if attempt < self.store.options().attempts_max && failure.is_retryable::<P>() => {
                    tracing::debug!(problem = failure.problem(self), attempt, "the local transaction runs anew");
                    attempt += 1;
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                ended => return ended,
            }
        }
    }

    /// One local transaction. Dropped anywhere, it rolls back; dropped within the commit, either.
    async fn attempt(&self, calls: &[Call<'_>]) -> Result<Vec<Answer>, Failure> {
        let mut transaction = self.store.begin().await.map_err(|error| Failure::Begin(error.into()))?;
        let options = self.store.options();
        let work = async move {
            let ran = match (calls, self.on_batch) {
                ([call], _) => {
                    within::one(&self.participant, &mut transaction, *call, options).await.map(|answer| vec![answer])
                }
                (_, Some(on_batch)) => within::run_batch(&self.participant, on_batch, &mut transaction, calls, options).await,
                (_, None) => Err(within::Error::Unordered),
            };
            match ran {
                Ok(answers) => {
                    transaction.commit().await.map_err(|error| Failure::Commit(error.into()))?;
                    Ok(answers)
                }
                Err(error) => {
                    transaction.leave();
                    Err(Failure::Statement(error))
                }
            }
        };
        timeout(options.transaction_max(), work).await.unwrap_or(Err(Failure::TooSlow))
    }
}

impl Failure {
    /// For the log.
    fn problem<P: Participant>(&self, inner: &Inner<P>) -> String {
        match self {
            Self::Begin(error) => format!("no transaction: {error}"),
            Self::Statement(error) => error.to_string(),
            Self::Commit(error) => format!("commit: {error}"),
            Self::TooSlow | Self::Panicked => self.unknown(inner).to_string(),
        }
    }

    /// For the caller.
    fn unknown<P: Participant>(&self, inner: &Inner<P>) -> Unknown {
        match self {
            Self::Begin(_) | Self::Statement(_) | Self::Commit(_) => Unknown::Failed,
            Self::TooSlow => Unknown::TooSlow { transaction_ms_max: inner.store.options().transaction_ms_max },
            Self::Panicked => Unknown::Panicked,
        }
    }
}

//! Runs what waits: one local transaction for many operations, or one for each where they cannot share it.
//!
//! There is no timer: an operation that finds a worker free runs at once and alone, and the longer a transaction takes, the more
//! operations the next one carries.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use futures::FutureExt;
use tcc_barrier::{Answer, Call};
use tokio::time::timeout;
use tracing::Instrument;

use super::{
    Inner, Unknown,
    running::{Running, Worker},
};
use crate::{Participant, within};

/// So many operations that fail one after the other mean that the others would fail too (a full disk, a defect).
const FAILURES_IN_A_ROW_MAX: u32 = 8;

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

    /// Whether a part of its operations may succeed without the others.
    fn may_be_one_operations_fault(&self) -> bool {
        match self {
            // A commit that the database answers with an error (a constraint that is checked late) did not happen; and if it had,
            // the rows would tell.
            Self::Statement(error) | Self::Commit(error) => error.may_be_one_operations(),
            Self::Panicked => true,
            Self::Begin(_) | Self::TooSlow => false,
        }
    }
}

/// Runs what waits until nothing does.
pub(super) async fn work<P: Participant>(inner: Arc<Inner<P>>) {
    let mut worker = Worker::counted(Arc::clone(&inner));
    loop {
        let jobs = worker.next();
        if jobs.is_empty() {
            return;
        }
        inner.run(jobs.into_iter().map(|job| Running::new(&inner, job)).collect()).await;
        // Whoever was just answered may have its next operation ready: let it run first. Costs nothing when nobody has.
        tokio::task::yield_now().await;
    }
}

impl<P: Participant> Inner<P> {
    /// Runs each operation once at least, and answers it: together if that succeeds, else in halves, down to one by one, so that
    /// what is to blame fails alone.
    async fn run(&self, mut jobs: Vec<Running<'_, P>>) {
        jobs.sort_by(|one, other| one.key().cmp(other.key()));
        let mut parts = vec![jobs];
        let mut failed_in_a_row = 0;
        while let Some(mut part) = parts.pop() {
            // Those before it may have taken long.
            part.retain(|job| !job.is_abandoned());
            if part.is_empty() {
                continue;
            }
            let Some(failure) = self.run_together(&mut part).await else {
                failed_in_a_row = 0;
                continue;
            };
            if part.len() > 1 && failure.may_be_one_operations_fault() {
                tracing::debug!(problem = failure.problem(self), operations = part.len(), "a batch failed: it runs in halves");
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
                continue;
            }
            failed_in_a_row += 1;
            let goes_on = failure.may_be_one_operations_fault() && failed_in_a_row < FAILURES_IN_A_ROW_MAX;
            self.fail(part, &failure);
            if !goes_on {
                // It would fail the others too, each after as long a time: whoever waits sends them again.
                parts.drain(..).for_each(|part| self.fail(part, &failure));
            }
        }
    }

    /// Answers operations as unknown.
    fn fail(&self, part: Vec<Running<'_, P>>, failure: &Failure) {
        let (problem, unknown) = (failure.problem(self), failure.unknown(self));
        if let [job] = &part[..] {
            let call = job.call();
            let (gid, branch_id, op) = (call.key().gid, &call.key().branch, call.op());
            tracing::warn!(%gid, %branch_id, ?op, problem, "the outcome is answered as unknown");
            if !matches!(failure, Failure::Begin(_)) {
                self.lanes().run_alone(job.key());
            }
        } else {
            tracing::warn!(problem, operations = part.len(), "a batch failed: its outcome is answered as unknown");
        }
        part.into_iter().for_each(|job| job.answer(Err(unknown)));
    }

    /// Runs them in one transaction and answers them; else tells why not.
    async fn run_together(&self, part: &mut Vec<Running<'_, P>>) -> Option<Failure> {
        let calls: Vec<_> = part.iter().map(|job| job.call()).collect();
        let span = tracing::debug_span!("batch", operations = calls.len());
        let outcome = self.repeated(&calls).instrument(span).await;
        self.lanes().learn(part.len(), matches!(outcome, Err(Failure::TooSlow)));
        match outcome {
            Ok(answers) => {
                part.drain(..).zip(answers).for_each(|(job, answer)| job.succeed(answer));
                None
            }
            Err(failure) => Some(failure),
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
            let ran = match (calls, self.handlers) {
                (_, Some(handlers)) => within::run_batch(&self.participant, handlers, &mut transaction, calls, options).await,
                ([call], None) => {
                    within::one(&self.participant, &mut transaction, *call, options).await.map(|answer| vec![answer])
                }
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

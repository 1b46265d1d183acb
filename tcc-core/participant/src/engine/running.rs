//! What a worker has in its hands: however it lets go of it, also by a panic, the queue goes on.

use std::sync::Arc;

use tcc_barrier::{Answer, Call};
use tcc_types::BranchKey;

use super::{Inner, Unknown, job::Job, queue::Waiting};
use crate::Participant;

/// A worker; counted as long as it lives.
pub(super) struct Worker<P: Participant> {
    inner: Arc<Inner<P>>,
    is_counted: bool,
}

impl<P: Participant> Worker<P> {
    /// One that was counted when its work came in.
    pub(super) fn counted(inner: Arc<Inner<P>>) -> Self {
        Self { inner, is_counted: true }
    }

    /// What it does next; nothing: it has ended, under the same lock under which more comes in.
    pub(super) fn next(&mut self) -> Vec<Job> {
        let bytes = usize::try_from(self.inner.store.options().batch_bytes_max).unwrap_or(usize::MAX);
        let mut lanes = self.inner.lanes();
        let jobs = lanes.take(bytes);
        if jobs.is_empty() {
            lanes.workers -= 1;
            self.is_counted = false;
        }
        jobs
    }
}

impl<P: Participant> Drop for Worker<P> {
    fn drop(&mut self) {
        if self.is_counted {
            self.inner.lanes().workers -= 1;
        }
    }
}

/// A job that was taken from the queue. The next one of its branch may run once this one is answered, or dropped.
pub(super) struct Running<'i, P: Participant> {
    inner: &'i Inner<P>,
    /// There until it is answered.
    job: Option<Job>,
}

impl<'i, P: Participant> Running<'i, P> {
    pub(super) fn new(inner: &'i Inner<P>, job: Job) -> Self {
        Self { inner, job: Some(job) }
    }

    pub(super) fn call(&self) -> Call<'_> {
        self.job.as_ref().expect(ANSWERED).operation.call()
    }

    pub(super) fn key(&self) -> &BranchKey {
        self.call().key()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.job.as_ref().is_none_or(Waiting::is_abandoned)
    }

    /// Tells its answer. Its branch's next operations may share a transaction again.
    pub(super) fn succeed(mut self, answer: Answer) {
        if let Some(job) = self.job.take() {
            let mut lanes = self.inner.lanes();
            lanes.queue.run_together(job.key());
            lanes.queue.done(job.key());
            drop(lanes);
            job.answer(Ok(answer));
        }
    }

    /// Tells its outcome.
    pub(super) fn answer(mut self, outcome: Result<Answer, Unknown>) {
        if let Some(job) = self.job.take() {
            self.inner.lanes().queue.done(job.key());
            job.answer(outcome);
        }
    }
}

const ANSWERED: &str = "a job is there until it is answered, which consumes it";

impl<P: Participant> Drop for Running<'_, P> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.inner.lanes().queue.done(job.key());
        }
    }
}

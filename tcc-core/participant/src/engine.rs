//! Runs operations: bounded in number and time, many in one local transaction where that is possible. Makes no decisions about
//! branches; called by the gRPC adapter and by callers in the same process.

mod job;
mod queue;
mod running;
mod slots;
mod worker;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tcc_barrier::Answer;
use tcc_types::{BranchKey, CancelCall, ConfirmCall, SettleAnswer, TryAnswer, TryCall};
use tokio_util::task::TaskTracker;

use self::{
    job::{Job, Operation},
    queue::Queue,
    slots::Slots,
};
use crate::{BatchParticipant, Database, Participant, Place, Store, within::Handlers};

/// The operation may or may not have run; sending it again is safe. The cause is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// Nothing was started.
    #[error("{limit_name} ({limit}) is reached")]
    Overloaded {
        /// The name of the option whose limit it is.
        limit_name: &'static str,
        /// The limit.
        limit: u32,
    },
    /// Nothing was started.
    #[error("the participant is shutting down")]
    ShuttingDown,
    /// The local transaction was rolled back, or its commit got no answer.
    #[error("the local transaction took longer than transaction_ms_max ({transaction_ms_max})")]
    TooSlow {
        /// The limit.
        transaction_ms_max: u64,
    },
    /// The handler panicked; its transaction was rolled back.
    #[error("the handler panicked")]
    Panicked,
    /// The database or the handler failed; the transaction was rolled back, or its commit got no answer.
    #[error("the operation failed")]
    Failed,
}

/// Runs a participant's operations on its store. A handle: clones share everything.
///
/// Operations of one branch run one after the other, in the order of their arrival. Those of different branches share a local
/// transaction, and so a commit, wherever more than one waits: on SQLite, which has one writer, with any participant; on a
/// database server with one that has a handler for many ([`Engine::batched`]), while those of others run side by side.
pub struct Engine<P: Participant> {
    inner: Arc<Inner<P>>,
}

struct Inner<P: Participant> {
    participant: P,
    store: Store<P::Db>,
    /// `None`: no two operations may share a transaction.
    handlers: Option<Handlers<P>>,
    slots: Slots,
    lanes: Mutex<Lanes>,
    tasks: TaskTracker,
    retries: AtomicU64,
}

/// What waits, and who works on it.
struct Lanes {
    queue: Queue<Job>,
    workers: u32,
    workers_max: u32,
    /// Operations in one transaction: fewer than the most if that many took too long.
    limit: usize,
    limit_max: usize,
}

impl<P: Participant> Clone for Engine<P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<P: Participant> Engine<P> {
    /// Of a participant and its opened database, with the store's limits.
    #[must_use]
    pub fn new(participant: P, store: Store<P::Db>) -> Self {
        // Handlers that were not written for it may take rows in any order: with one writer that cannot do harm.
        let handlers = match P::Db::PLACE {
            Place::Here => Some(Handlers::one_by_one()),
            Place::Server => None,
        };
        Self::with(participant, store, handlers)
    }

    fn with(participant: P, store: Store<P::Db>, handlers: Option<Handlers<P>>) -> Self {
        let options = store.options();
        let workers_max = match (P::Db::PLACE, handlers) {
            (Place::Here, _) => 1,
            (Place::Server, Some(_)) => options.batches_in_flight_max.min(options.write_connections_max),
            (Place::Server, None) => options.write_connections_max,
        };
        let batch_max = if handlers.is_some() { options.batch_max as usize } else { 1 };
        let lanes = Lanes { queue: Queue::default(), workers: 0, workers_max, limit: batch_max, limit_max: batch_max };
        let lanes = Mutex::new(lanes);
        let (slots, tasks, retries) = (Slots::new(options), TaskTracker::new(), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { participant, store, handlers, slots, lanes, tasks, retries }) }
    }

    /// Reserves, or says no, or tells again what was said.
    ///
    /// Cancel-safe: the transaction of a dropped call runs to its end if it has begun; otherwise it never begins.
    ///
    /// # Errors
    /// [`Unknown`]: send the same again.
    pub async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        match self.run(Operation::Try(call)).await? {
            Answer::Tried(answer) => Ok(answer),
            Answer::Settled(_) => Err(Unknown::Failed),
        }
    }

    /// Spends what was reserved, or tells that it is spent.
    ///
    /// Cancel-safe: the transaction of a dropped call runs to its end if it has begun; otherwise it never begins.
    ///
    /// # Errors
    /// [`Unknown`]: send the same again.
    pub async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        self.settle(Operation::Confirm(call)).await
    }

    /// Releases what was reserved, or tells that it is released, or records that nothing may be reserved any more.
    ///
    /// Cancel-safe: the transaction of a dropped call runs to its end if it has begun; otherwise it never begins.
    ///
    /// # Errors
    /// [`Unknown`]: send the same again.
    pub async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        self.settle(Operation::Cancel(call)).await
    }

    async fn settle(&self, operation: Operation) -> Result<SettleAnswer, Unknown> {
        match self.run(operation).await? {
            Answer::Settled(answer) => Ok(answer),
            Answer::Tried(_) => Err(Unknown::Failed),
        }
    }

    /// The participant.
    #[must_use]
    pub fn participant(&self) -> &P {
        &self.inner.participant
    }

    /// Its database.
    #[must_use]
    pub fn store(&self) -> &Store<P::Db> {
        &self.inner.store
    }

    /// How often a local transaction ran anew because the database asked for that (busy, deadlock, serialization failure).
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.inner.retries.load(Ordering::Relaxed)
    }

    /// Takes no more operations, waits until those under way have ended, and closes the store.
    pub async fn close(&self) {
        self.inner.slots.close();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        // Where a worker was lost, by a defect, what waited for it is told so.
        self.inner.lanes().queue = Queue::default();
        self.inner.store.close().await;
    }

    async fn run(&self, operation: Operation) -> Result<Answer, Unknown> {
        let inner = &self.inner;
        let call = operation.call();
        let slot = inner.slots.take(call.op())?;
        let (job, outcome) = Job::new(operation, slot);
        if inner.lanes().push(job) {
            // A task of its own: a dropped call must not leave a transaction half-way.
            inner.tasks.spawn(worker::work(Arc::clone(inner)));
        }
        // A worker answers whatever it takes; it is gone without that only where its runtime is.
        outcome.await.unwrap_or(Err(Unknown::ShuttingDown))
    }
}

impl<P: BatchParticipant> Engine<P> {
    /// Of a participant that does the business of many operations at once.
    #[must_use]
    pub fn batched(participant: P, store: Store<P::Db>) -> Self {
        Self::with(participant, store, Some(Handlers::of_batches()))
    }
}

impl<P: Participant> Inner<P> {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // No critical section can panic half-way.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// Puts a job in; true if a worker must be started for it.
    fn push(&mut self, job: Job) -> bool {
        self.queue.push(job);
        let starts = !self.queue.is_empty() && self.workers < self.workers_max;
        self.workers += u32::from(starts);
        starts
    }

    fn take(&mut self, bytes: usize) -> Vec<Job> {
        self.queue.take(self.limit, bytes)
    }

    fn run_alone(&mut self, key: &BranchKey) {
        self.queue.run_alone(key);
    }

    /// Fits the size of batches to the time that they have: handlers may be slow.
    fn learn(&mut self, operations: usize, too_slow: bool) {
        if operations < 2 {
            // Says nothing of how many have room.
        } else if too_slow {
            self.limit = (operations / 2).max(1);
        } else if operations >= self.limit {
            self.limit = (self.limit * 2).min(self.limit_max);
        }
    }
}

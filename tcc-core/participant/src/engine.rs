//! Runs operations: one local transaction each, in a task of its own, bounded in number and time. Makes no decisions about
//! branches; called by the gRPC adapter and by callers in the same process.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tcc_types::{BranchKey, CancelCall, ConfirmCall, Op, SettleAnswer, TryAnswer, TryCall};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::{ConnectionOf, Options, Participant, Store, within};

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
pub struct Engine<P: Participant> {
    inner: Arc<Inner<P>>,
}

struct Inner<P: Participant> {
    participant: P,
    store: Store<P::Db>,
    slots: Slots,
    tasks: TaskTracker,
    retries: AtomicU64,
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
        let slots = Slots::new(store.options());
        Self { inner: Arc::new(Inner { participant, store, slots, tasks: TaskTracker::new(), retries: AtomicU64::new(0) }) }
    }

    /// Reserves, or says no, or tells again what was said.
    ///
    /// Cancel-safe: a dropped call's transaction runs to its end.
    ///
    /// # Errors
    /// [`Unknown`]: send the same again.
    pub async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        self.run(call).await
    }

    /// Spends what was reserved, or tells that it is spent.
    ///
    /// Cancel-safe: a dropped call's transaction runs to its end.
    ///
    /// # Errors
    /// [`Unknown`]: send the same again.
    pub async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        self.run(call).await
    }

    /// Releases what was reserved, or tells that it is released, or records that nothing may be reserved any more.
    ///
    /// Cancel-safe: a dropped call's transaction runs to its end.
    ///
    /// # Errors
    /// [`Unknown`]: send the same again.
    pub async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        self.run(call).await
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
        self.inner.store.close().await;
    }

    async fn run<O: Operation<P>>(&self, call: O) -> Result<O::Answer, Unknown> {
        let slot = self.inner.slots.take(O::OP)?;
        let key = call.key();
        let span = tracing::info_span!("branch", gid = %key.gid, branch_id = %key.branch, op = ?O::OP);
        let inner = self.inner.clone();
        // A task of its own: neither a dropped call nor a panic may leave the transaction half-way.
        let operation = async move {
            let answer = inner.run(&call).await;
            drop(slot);
            answer
        };
        match self.inner.tasks.spawn(operation.instrument(span.clone())).await {
            Ok(answer) => answer,
            Err(error) => {
                let _entered = span.enter();
                tracing::error!(%error, "the handler panicked: its transaction is rolled back");
                Err(Unknown::Panicked)
            }
        }
    }
}

/// How many operations may be under way. Tries cannot take all the room: a rush of new reservations must not hold up the end of
/// those that stand.
struct Slots {
    operations: Limit,
    tries: Limit,
}

struct Limit {
    name: &'static str,
    limit: u32,
    permits: Arc<Semaphore>,
}

impl Slots {
    fn new(options: &Options) -> Self {
        Self {
            operations: Limit::new("operations_in_flight_max", options.operations_in_flight_max),
            tries: Limit::new("tries_in_flight_max", options.tries_in_flight_max),
        }
    }

    /// Room for one operation, until what it returns is dropped.
    fn take(&self, op: Op) -> Result<(Option<OwnedSemaphorePermit>, OwnedSemaphorePermit), Unknown> {
        let tries = match op {
            Op::Try => Some(self.tries.take()?),
            Op::Confirm | Op::Cancel => None,
        };
        Ok((tries, self.operations.take()?))
    }

    fn close(&self) {
        self.tries.permits.close();
        self.operations.permits.close();
    }
}

impl Limit {
    fn new(name: &'static str, limit: u32) -> Self {
        let permits = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { name, limit, permits: Arc::new(Semaphore::new(permits)) }
    }

    fn take(&self) -> Result<OwnedSemaphorePermit, Unknown> {
        self.permits.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => Unknown::Overloaded { limit_name: self.name, limit: self.limit },
            TryAcquireError::Closed => Unknown::ShuttingDown,
        })
    }
}

impl<P: Participant> Inner<P> {
    /// Runs the whole local transaction, and anew when the database asks for it.
    async fn run<O: Operation<P>>(&self, call: &O) -> Result<O::Answer, Unknown> {
        let options = self.store.options();
        let mut attempt = 1;
        loop {
            match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::TooSlow) => {
                    let transaction_ms_max = options.transaction_ms_max;
                    tracing::warn!(transaction_ms_max, "the local transaction was too slow: it is rolled back");
                    return Err(Unknown::TooSlow { transaction_ms_max });
                }
                Err(Failure::Error(error)) if attempt < options.attempts_max && error.is_retryable::<P::Db>() => {
                    tracing::debug!(%error, attempt, "the local transaction runs anew");
                    attempt += 1;
                    self.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                Err(Failure::Error(error)) => {
                    tracing::warn!(%error, attempt, "the local transaction failed: its outcome is answered as unknown");
                    return Err(Unknown::Failed);
                }
            }
        }
    }

    /// One local transaction. Dropped anywhere, it rolls back; dropped within the commit, either.
    async fn attempt<O: Operation<P>>(&self, call: &O) -> Result<O::Answer, Failure> {
        let mut transaction = self.store.begin().await?;
        let work = async move {
            match call.run(self, &mut transaction).await {
                Ok(answer) => {
                    transaction.commit().await?;
                    Ok(answer)
                }
                Err(error) => {
                    transaction.leave();
                    Err(error.into())
                }
            }
        };
        timeout(self.store.options().transaction_max(), work).await.unwrap_or(Err(Failure::TooSlow))
    }
}

enum Failure {
    TooSlow,
    Error(within::Error),
}

impl From<within::Error> for Failure {
    fn from(error: within::Error) -> Self {
        Self::Error(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Error(error.into())
    }
}

/// What the three calls have in common.
trait Operation<P: Participant>: Send + Sync + 'static {
    type Answer: Send + 'static;

    const OP: Op;

    fn key(&self) -> &BranchKey;

    fn run(
        &self,
        inner: &Inner<P>,
        conn: &mut ConnectionOf<P>,
    ) -> impl Future<Output = Result<Self::Answer, within::Error>> + Send;
}

impl<P: Participant> Operation<P> for TryCall {
    type Answer = TryAnswer;

    const OP: Op = Op::Try;

    fn key(&self) -> &BranchKey {
        &self.key
    }

    async fn run(&self, inner: &Inner<P>, conn: &mut ConnectionOf<P>) -> Result<TryAnswer, within::Error> {
        within::try_branch(&inner.participant, conn, self, inner.store.options()).await
    }
}

impl<P: Participant> Operation<P> for ConfirmCall {
    type Answer = SettleAnswer;

    const OP: Op = Op::Confirm;

    fn key(&self) -> &BranchKey {
        &self.key
    }

    async fn run(&self, inner: &Inner<P>, conn: &mut ConnectionOf<P>) -> Result<SettleAnswer, within::Error> {
        within::confirm(&inner.participant, conn, self).await
    }
}

impl<P: Participant> Operation<P> for CancelCall {
    type Answer = SettleAnswer;

    const OP: Op = Op::Cancel;

    fn key(&self) -> &BranchKey {
        &self.key
    }

    async fn run(&self, inner: &Inner<P>, conn: &mut ConnectionOf<P>) -> Result<SettleAnswer, within::Error> {
        within::cancel(&inner.participant, conn, self).await
    }
}

//! How branches are reached: participants by name, over gRPC or in process. The driver calls, whoever wires a coordinator fills
//! the registry; nothing here repeats an operation whose outcome is unknown.
//!
//! Calls over gRPC to one participant are merged: `grpc` is the way of one call, `places` is where it waits, `merge` gathers those
//! that may leave into a batch, `batch` hands the results of one batch out, `peer` is the participant itself and what is known of
//! it.

mod batch;
mod config;
mod grpc;
mod merge;
mod peer;
mod places;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tcc_types::{CancelCall, ConfirmCall, ParticipantName, SettleAnswer, TryAnswer, TryCall};
use tcc_wire::{Answer, Operation};
use tokio::time::timeout;

pub use self::{config::EndpointConfig, grpc::GrpcEndpoint};

/// No answer, or one that does not follow the contract: the operation may or may not have run. The text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// How a call is made.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long its answer may take, from when it leaves.
    pub answer_within: Duration,
    /// How long it may wait for its turn at the participant before it leaves; what waits longer never leaves.
    pub turn_within: Duration,
    /// Set as soon as nobody wants it any more: what has not left then never leaves. What has left is waited for.
    pub withdrawn: Option<Arc<AtomicBool>>,
}

impl Default for Terms {
    /// It leaves when its turn comes, and its answer may take any time.
    fn default() -> Self {
        Self { answer_within: Duration::MAX, turn_within: Duration::MAX, withdrawn: None }
    }
}

impl Terms {
    /// Whether nobody wants it any more.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.as_ref().is_some_and(|withdrawn| withdrawn.load(Ordering::Relaxed))
    }

    /// The answer of what leaves now.
    async fn answer(&self, answered: impl Future<Output = Result<Answer, Unknown>>) -> Result<Answer, Unknown> {
        timeout(self.answer_within, answered).await.unwrap_or_else(|_| Err(no_answer(self.answer_within)))
    }
}

fn no_turn(within: Duration) -> Unknown {
    Unknown(format!("its turn did not come within {} ms: the participant has too many calls to answer", within.as_millis()))
}

fn no_answer(within: Duration) -> Unknown {
    Unknown(format!("no answer within {} ms", within.as_millis()))
}

/// One participant, however it is reached.
///
/// # Errors
/// Every call fails only with [`Unknown`]. Calls are cancel-safe: a dropped one is unknown.
#[async_trait]
pub trait Endpoint: Send + Sync + 'static {
    /// Sends a Try.
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown>;
    /// Sends a Confirm.
    async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown>;
    /// Sends a Cancel.
    async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown>;

    /// Sends any of the three, on these terms: what drivers call.
    ///
    /// As provided, it leaves at once. Where calls wait before they leave, this keeps the terms.
    async fn call(&self, operation: Operation, terms: Terms) -> Result<Answer, Unknown> {
        let answered = async {
            match operation {
                Operation::Try(call) => self.try_branch(call).await.map(Answer::Tried),
                Operation::Confirm(call) => self.confirm(call).await.map(Answer::Settled),
                Operation::Cancel(call) => self.cancel(call).await.map(Answer::Settled),
            }
        };
        terms.answer(answered).await
    }

    /// What it has sent so far; `None` where calls are no messages.
    fn stats(&self) -> Option<EndpointStats> {
        None
    }
}

/// What was sent to one participant since this process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Messages, with one operation or with many.
    pub messages: u64,
    /// Operations in them; one that is sent twice counts twice.
    pub operations: u64,
}

/// The participants of one coordinator, by name.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<ParticipantName, Entry>);

#[derive(Clone)]
struct Entry {
    endpoint: Arc<dyn Endpoint>,
    reserved: bool,
}

impl Registry {
    /// Adds one; a second one with the same name replaces the first.
    #[must_use]
    pub fn with(mut self, name: ParticipantName, endpoint: Arc<dyn Endpoint>) -> Self {
        self.0.insert(name, Entry { endpoint, reserved: false });
        self
    }

    /// Adds one that only this process may name: the gRPC services refuse it. For a participant whose branches mean something
    /// only beside others, as an order does beside its stock.
    #[must_use]
    pub fn with_reserved(mut self, name: ParticipantName, endpoint: Arc<dyn Endpoint>) -> Self {
        self.0.insert(name, Entry { endpoint, reserved: true });
        self
    }

    /// Finds one.
    #[must_use]
    pub fn get(&self, name: &ParticipantName) -> Option<&Arc<dyn Endpoint>> {
        self.0.get(name).map(|entry| &entry.endpoint)
    }

    /// Whether only this process may name it.
    #[must_use]
    pub fn is_reserved(&self, name: &ParticipantName) -> bool {
        self.0.get(name).is_some_and(|entry| entry.reserved)
    }

    /// What was sent to each of those that are reached by messages.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<ParticipantName, EndpointStats> {
        self.0.iter().filter_map(|(name, entry)| Some((name.clone(), entry.endpoint.stats()?))).collect()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &ParticipantName> {
        self.0.keys()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests;

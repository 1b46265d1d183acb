//! A participant that speaks gRPC: the way of one call, which is sent alone when nothing else is under way, and merged with
//! others when something is. Called by the driver through [`Endpoint`].

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tcc_types::{CancelCall, ConfirmCall, SettleAnswer, TryAnswer, TryCall};
use tcc_wire::{Answer, Operation};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::transport::{Channel, Endpoint as Address};

use super::{
    Endpoint, EndpointConfig, EndpointStats, Terms, Unknown,
    merge::{Fate, Merger, Queued},
    no_turn,
    peer::Peer,
    places::Places,
};

/// A participant that speaks `tcc.v1.Participant`.
///
/// Operations that are asked for while others are under way are merged into batches, without a timer. Whether the participant
/// takes batches is found out by sending one.
#[derive(Debug)]
pub struct GrpcEndpoint {
    peer: Arc<Peer>,
    config: EndpointConfig,
    places: Arc<Places>,
    /// Begun by the first call that is not alone: an endpoint may be made before there is work, or a runtime, for it.
    merging: OnceLock<Merging>,
}

/// What gathers calls into batches. It and all batches under way end when this is dropped.
#[derive(Debug)]
struct Merging {
    queue: mpsc::Sender<Queued>,
    _task: AbortOnDropHandle<()>,
}

impl GrpcEndpoint {
    /// Connects when it is first called, and again whenever the connection is lost. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is none, or a limit is out of its range: the problem, as a sentence. Not retryable.
    pub fn new(config: &EndpointConfig) -> Result<Self, String> {
        Self::over(config, |address| address.connect_lazy())
    }

    /// As [`Self::new`], over connections of the caller's making.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn over(config: &EndpointConfig, connect: impl FnOnce(&Address) -> Channel) -> Result<Self, String> {
        config.check()?;
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        let address = tcc_service::address(&config.endpoint, connect_timeout, Duration::from_millis(config.keepalive_ms))
            .map_err(|problem| format!("endpoint {problem}"))?;
        Ok(Self {
            peer: Arc::new(Peer::new(connect(&address), config)),
            config: config.clone(),
            places: Places::new(config.calls_in_flight_max),
            merging: OnceLock::new(),
        })
    }

    /// Neither the wait for a place nor that for a message counts as time without an answer: the participant knows of neither.
    async fn ask(&self, operation: Operation, terms: Terms) -> Result<Answer, Unknown> {
        let turn = timeout(terms.turn_within, self.places.take(operation.op())).await;
        let place = turn.map_err(|_| no_turn(terms.turn_within))?;
        if terms.is_withdrawn() {
            return Err(Unknown("it was withdrawn before it left".to_owned()));
        }
        if place.is_only || self.peer.is_plain() {
            return terms.answer(self.peer.alone(&operation)).await;
        }
        let (reply, fate) = oneshot::channel();
        let traceparent = tcc_service::telemetry::traceparent();
        let queued = Queued { operation, terms: terms.clone(), traceparent, reply };
        if let Err(mpsc::error::SendError(queued)) = self.merging().queue.send(queued).await {
            return terms.answer(self.peer.alone(&queued.operation)).await;
        }
        match fate.await {
            Ok(Fate::Answered(answer)) => answer,
            Ok(Fate::Alone { operation, turn }) => {
                let answer = terms.answer(self.peer.alone(&operation)).await;
                drop(turn);
                answer
            }
            Err(_) => Err(Unknown("it was withdrawn, or its batch was given up".to_owned())),
        }
    }

    fn merging(&self) -> &Merging {
        self.merging.get_or_init(|| {
            let (queue, receiver) = mpsc::channel(self.config.calls_in_flight_max);
            let merger = Merger::new(Arc::clone(&self.peer), receiver, &self.config);
            Merging { queue, _task: AbortOnDropHandle::new(TaskTracker::new().spawn(merger.run())) }
        })
    }

    /// How many operations are in the queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.merging.get().map_or(0, |merging| merging.queue.max_capacity() - merging.queue.capacity())
    }

    #[cfg(test)]
    pub(super) fn queue(&self) -> mpsc::Sender<Queued> {
        self.merging().queue.clone()
    }

    #[cfg(test)]
    pub(super) fn is_plain(&self) -> bool {
        self.peer.is_plain()
    }

    async fn settle(&self, operation: Operation) -> Result<SettleAnswer, Unknown> {
        match self.ask(operation, Terms::default()).await? {
            Answer::Settled(answer) => Ok(answer),
            Answer::Tried(_) => Err(Unknown("the answer is another operation's".to_owned())),
        }
    }
}

#[async_trait]
impl Endpoint for GrpcEndpoint {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        match self.ask(Operation::Try(call), Terms::default()).await? {
            Answer::Tried(answer) => Ok(answer),
            Answer::Settled(_) => Err(Unknown("the answer is another operation's".to_owned())),
        }
    }

    async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        self.settle(Operation::Confirm(call)).await
    }

    async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        self.settle(Operation::Cancel(call)).await
    }

    async fn call(&self, operation: Operation, terms: Terms) -> Result<Answer, Unknown> {
        self.ask(operation, terms).await
    }

    fn stats(&self) -> Option<EndpointStats> {
        Some(self.peer.stats())
    }
}

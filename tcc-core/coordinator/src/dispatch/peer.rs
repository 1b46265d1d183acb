//! One participant over gRPC: its channel, whether it takes batches, and what was sent to it. Waits for nobody's turn: that is
//! `grpc`'s and `merge`'s.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tcc_proto::tcc::v1::{BatchRequest, BatchResponse, TryResponse, participant_client::ParticipantClient};
use tcc_types::SettleAnswer;
use tcc_wire::{Answer, Malformed, Operation};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::{EndpointConfig, EndpointStats, Unknown};

/// A participant, and what is known of it.
#[derive(Debug)]
pub(super) struct Peer {
    client: ParticipantClient<Channel>,
    endpoint: String,
    /// How long a message keeps those behind it waiting.
    pub(super) patience: Duration,
    plain_recheck: Duration,
    made_at: Instant,
    /// Milliseconds after `made_at` until which it is sent no batch.
    plain_until_ms: AtomicU64,
    messages: AtomicU64,
    operations: AtomicU64,
}

impl Peer {
    pub(super) fn new(channel: Channel, config: &EndpointConfig) -> Self {
        Self {
            client: ParticipantClient::new(channel),
            endpoint: config.endpoint.clone(),
            patience: Duration::from_millis(config.batch_patience_ms),
            plain_recheck: Duration::from_millis(config.plain_recheck_ms),
            made_at: Instant::now(),
            plain_until_ms: AtomicU64::new(if config.batch_max == 1 { u64::MAX } else { 0 }),
            messages: AtomicU64::new(0),
            operations: AtomicU64::new(0),
        }
    }

    pub(super) fn stats(&self) -> EndpointStats {
        EndpointStats { messages: self.messages.load(Ordering::Relaxed), operations: self.operations.load(Ordering::Relaxed) }
    }

    /// Whether it is to be sent no batch now.
    pub(super) fn is_plain(&self) -> bool {
        match self.plain_until_ms.load(Ordering::Relaxed) {
            0 => false,
            until_ms => self.made_at.elapsed().as_millis() < u128::from(until_ms),
        }
    }

    /// It has said that it takes no batches.
    pub(super) fn note_plain(&self) {
        let until = self.made_at.elapsed() + self.plain_recheck;
        self.plain_until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        tracing::info!(endpoint = self.endpoint, "the participant takes no batches: its operations go one by one");
    }

    /// Sends one operation by its own call.
    pub(super) async fn alone(&self, operation: &Operation) -> Result<Answer, Unknown> {
        self.count(1);
        let mut client = self.client.clone();
        match operation {
            Operation::Try(call) => tried(client.r#try(traced(tcc_wire::try_to_proto(call))).await),
            Operation::Confirm(call) => {
                settled(client.confirm(traced(tcc_wire::confirm_to_proto(call))).await, tcc_wire::confirmed_from_proto)
            }
            Operation::Cancel(call) => {
                settled(client.cancel(traced(tcc_wire::cancel_to_proto(call))).await, tcc_wire::cancelled_from_proto)
            }
        }
    }

    /// Sends many in one message.
    pub(super) async fn batch(&self, request: BatchRequest) -> Result<Streaming<BatchResponse>, Status> {
        self.count(request.operations.len() as u64);
        self.client.clone().batch(request).await.map(Response::into_inner)
    }

    fn count(&self, operations: u64) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.operations.fetch_add(operations, Ordering::Relaxed);
    }
}

fn tried(response: Result<Response<TryResponse>, Status>) -> Result<Answer, Unknown> {
    answered(response, tcc_wire::tried_from_proto).map(Answer::Tried)
}

fn settled<R>(
    response: Result<Response<R>, Status>,
    read: fn(R) -> Result<SettleAnswer, Malformed>,
) -> Result<Answer, Unknown> {
    answered(response, read).map(Answer::Settled)
}

fn answered<R, A>(response: Result<Response<R>, Status>, read: fn(R) -> Result<A, Malformed>) -> Result<A, Unknown> {
    let response = response.map_err(|status| unknown(&status))?.into_inner();
    read(response).map_err(|malformed| Unknown(malformed.to_string()))
}

/// A request that carries the caller's trace.
fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    tcc_service::telemetry::inject_trace(request.metadata_mut());
    request
}

/// Every error status means the same: nobody knows.
pub(super) fn unknown(status: &Status) -> Unknown {
    Unknown(format!("{:?}: {}", status.code(), status.message()))
}

//! The gRPC adapter: convert, call, convert. Outcomes are OK responses; every status here means *unknown*.

use std::{collections::HashSet, pin::Pin, task::Poll, time::Duration};

use futures::{
    Stream, StreamExt,
    stream::{FuturesUnordered, poll_fn},
};
use prost::Message;
use tcc_proto::tcc::v1::{
    BatchOperation, BatchRequest, BatchResponse, BatchResult, CancelRequest, CancelResponse, ConfirmRequest, ConfirmResponse,
    TryRequest, TryResponse,
    batch_operation::Operation as Sent,
    participant_server::{self, ParticipantServer},
};
use tcc_service::telemetry;
use tcc_types::Invalid;
use tcc_wire::{Answer, BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, Operation};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::{Engine, Participant, Store, Unknown};

/// The domain of this API's errors.
const DOMAIN: &str = "tcc.v1";
/// A hint for callers without a backoff of their own.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// What a message may have beside its payload.
const ENVELOPE_BYTES_MAX: usize = 65_536;
/// A payload over its limit should still arrive, so that it can be refused for good instead of being unknown for ever. Every
/// batch should, too.
const MESSAGE_BYTES_MIN: usize = BATCH_BYTES_MAX;
/// A response of a batch takes no further result after so many bytes. Far below [`BATCH_BYTES_MAX`], as its last result may be
/// as large as an output.
const RESPONSE_BYTES: usize = 1_024 * 1_024;

/// A participant as a gRPC service.
///
/// A request whose ids or instants break the contract gets INVALID_ARGUMENT with the field, and nothing is done; to a
/// coordinator that is *unknown*, like every status, but a coordinator never sends one.
pub struct ParticipantService<P: Participant> {
    engine: Engine<P>,
}

/// The gRPC service of a participant on its store, in one line. Keep an [`Engine`] and call [`Engine::service`] instead where
/// the end of the process has to wait for operations under way.
#[must_use]
pub fn service<P: Participant>(participant: P, store: Store<P::Db>) -> ParticipantServer<ParticipantService<P>> {
    Engine::new(participant, store).service()
}

impl<P: Participant> ParticipantService<P> {
    /// Over an engine: for those who stand before it themselves. Everybody else takes [`Engine::service`].
    #[must_use]
    pub const fn new(engine: Engine<P>) -> Self {
        Self { engine }
    }
}

impl<P: Participant> Engine<P> {
    /// The gRPC service of this participant.
    #[must_use]
    pub fn service(&self) -> ParticipantServer<ParticipantService<P>> {
        let payload_bytes_max = usize::try_from(self.store().options().payload_bytes_max).unwrap_or(usize::MAX);
        let message_bytes_max = payload_bytes_max.saturating_add(ENVELOPE_BYTES_MAX).max(MESSAGE_BYTES_MIN);
        ParticipantServer::new(ParticipantService::new(self.clone())).max_decoding_message_size(message_bytes_max)
    }
}

#[tonic::async_trait]
impl<P: Participant> participant_server::Participant for ParticipantService<P> {
    async fn r#try(&self, request: Request<TryRequest>) -> Result<Response<TryResponse>, Status> {
        let call = tcc_wire::try_from_proto(request.into_inner()).map_err(bad_request)?;
        let answer = self.engine.try_branch(call).await.map_err(unknown)?;
        Ok(Response::new(tcc_wire::try_response(&answer)))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        let call = tcc_wire::confirm_from_proto(request.get_ref()).map_err(bad_request)?;
        let answer = self.engine.confirm(call).await.map_err(unknown)?;
        Ok(Response::new(tcc_wire::confirm_response(answer)))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let call = tcc_wire::cancel_from_proto(request.get_ref()).map_err(bad_request)?;
        let answer = self.engine.cancel(call).await.map_err(unknown)?;
        Ok(Response::new(tcc_wire::cancel_response(answer)))
    }

    type BatchStream = Pin<Box<dyn Stream<Item = Result<BatchResponse, Status>> + Send>>;

    async fn batch(&self, request: Request<BatchRequest>) -> Result<Response<Self::BatchStream>, Status> {
        let operations = request.into_inner().operations;
        check_batch(&operations).map_err(bad_request)?;
        // One that says nothing at all has no name to be answered under.
        let named = operations.into_iter().filter_map(|one| Some((one.operation?, one.traceparent)));
        let running = named.map(|(sent, traceparent)| {
            let span = telemetry::operation_span(&traceparent);
            run(self.engine.clone(), sent).instrument(span)
        });
        Ok(Response::new(Box::pin(as_they_end(running.collect()))))
    }
}

/// What must hold of a batch as a whole.
fn check_batch(operations: &[BatchOperation]) -> Result<(), Invalid> {
    if operations.len() > BATCH_OPERATIONS_MAX {
        let problem = format_args!("must be at most {BATCH_OPERATIONS_MAX} (batch_operations_max)");
        return Err(Invalid::new("operations", problem));
    }
    let mut branches = HashSet::with_capacity(operations.len());
    for (index, sent) in operations.iter().enumerate().filter_map(|(index, one)| Some((index, one.operation.as_ref()?))) {
        let (gid, branch_id, _) = tcc_wire::operation_name(sent);
        if !branches.insert((gid, branch_id)) {
            return Err(Invalid::new(format!("operations[{index}]"), "is the second one of its branch"));
        }
    }
    Ok(())
}

/// One operation of a batch. Nothing that happens to it concerns its neighbours.
async fn run<P: Participant>(engine: Engine<P>, sent: Sent) -> BatchResult {
    let (gid, branch_id, op) = tcc_wire::operation_name(&sent);
    let (gid, branch_id) = (gid.to_owned(), branch_id.to_owned());
    let outcome = match tcc_wire::operation_from_proto(sent) {
        Ok(operation) => answer(&engine, operation).await.map_err(|unknown| unknown.to_string()),
        Err(invalid) => Err(invalid.to_string()),
    };
    tcc_wire::result_to_proto(gid, branch_id, op, outcome)
}

async fn answer<P: Participant>(engine: &Engine<P>, operation: Operation) -> Result<Answer, Unknown> {
    match operation {
        Operation::Try(call) => engine.try_branch(call).await.map(Answer::Tried),
        Operation::Confirm(call) => engine.confirm(call).await.map(Answer::Settled),
        Operation::Cancel(call) => engine.cancel(call).await.map(Answer::Settled),
    }
}

/// Whatever has ended goes into one response, without waiting for more. Dropped, it leaves what was begun to run to its end.
fn as_they_end<F>(mut running: FuturesUnordered<F>) -> impl Stream<Item = Result<BatchResponse, Status>> + Send
where
    F: Future<Output = BatchResult> + Send,
{
    poll_fn(move |context| {
        let (mut results, mut bytes) = (Vec::new(), 0);
        while bytes < RESPONSE_BYTES {
            match running.poll_next_unpin(context) {
                Poll::Ready(Some(result)) => {
                    bytes += result.encoded_len();
                    results.push(result);
                }
                Poll::Ready(None) if results.is_empty() => return Poll::Ready(None),
                Poll::Pending if results.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(BatchResponse { results })))
    })
}

fn bad_request(invalid: Invalid) -> Status {
    tcc_wire::status::invalid(DOMAIN, &[invalid])
}

fn unknown(unknown: Unknown) -> Status {
    match unknown {
        Unknown::Overloaded { limit_name, limit } => tcc_wire::status::exhausted(DOMAIN, limit_name, limit.into(), RETRY_AFTER),
        Unknown::ShuttingDown | Unknown::TooSlow { .. } | Unknown::Panicked | Unknown::Failed => tcc_wire::status::unavailable(
            DOMAIN,
            &format!("the outcome is unknown: {unknown}; send the same again"),
            RETRY_AFTER,
        ),
    }
}

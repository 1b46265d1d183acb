//! The gRPC adapter: convert, call, convert. Outcomes are OK responses; every status here means *unknown*.

use std::time::Duration;

use tcc_proto::tcc::v1::{
    CancelRequest, CancelResponse, ConfirmRequest, ConfirmResponse, TryRequest, TryResponse,
    participant_server::{self, ParticipantServer},
};
use tcc_types::Invalid;
use tonic::{Request, Response, Status};

use crate::{Engine, Participant, Store, Unknown};

/// The domain of this API's errors.
const DOMAIN: &str = "tcc.v1";
/// A hint for callers without a backoff of their own.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// What a message may have beside its payload.
const ENVELOPE_BYTES_MAX: usize = 65_536;
/// A payload over its limit should still arrive, so that it can be refused for good instead of being unknown for ever.
const MESSAGE_BYTES_MIN: usize = 4 * 1_024 * 1_024;

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

impl<P: Participant> Engine<P> {
    /// The gRPC service of this participant.
    #[must_use]
    pub fn service(&self) -> ParticipantServer<ParticipantService<P>> {
        let payload_bytes_max = usize::try_from(self.store().options().payload_bytes_max).unwrap_or(usize::MAX);
        let message_bytes_max = payload_bytes_max.saturating_add(ENVELOPE_BYTES_MAX).max(MESSAGE_BYTES_MIN);
        ParticipantServer::new(ParticipantService { engine: self.clone() }).max_decoding_message_size(message_bytes_max)
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

//! Standard health checking (`grpc.health.v1`) over one switch for the whole server.
//!
//! Written here, over tonic-health's messages, so that flipping the switch takes effect at once and watchers' streams end when
//! the server stops instead of holding it open.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::watch;
use tokio_stream::{Stream, wrappers::WatchStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    NotReady,
    Stopping,
}

impl State {
    fn response(self, known: bool) -> HealthCheckResponse {
        let status = match self {
            _ if !known => ServingStatus::ServiceUnknown,
            Self::Ready => ServingStatus::Serving,
            Self::NotReady | Self::Stopping => ServingStatus::NotServing,
        };
        HealthCheckResponse { status: status.into() }
    }
}

/// Says what health checks answer for every service of a [`Server`](crate::Server): SERVING unless told otherwise.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<State>>);

impl Readiness {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::Ready)))
    }

    /// From now on, health checks answer SERVING (`true`) or NOT_SERVING (`false`). Once the server stops it is NOT_SERVING
    /// for good.
    pub fn set_ready(&self, ready: bool) {
        let wanted = if ready { State::Ready } else { State::NotReady };
        self.0.send_if_modified(|state| {
            let changes = *state != State::Stopping && *state != wanted;
            if changes {
                *state = wanted;
            }
            changes
        });
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(State::Stopping);
    }
}

/// The health service of one server.
pub(crate) struct HealthService {
    state: Readiness,
    names: Vec<&'static str>,
}

impl HealthService {
    /// For these service names, and `""`: the server as a whole.
    pub(crate) fn new(state: Readiness, names: Vec<&'static str>) -> Self {
        Self { state, names }
    }

    fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.names.contains(&name)
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("this server has no such service"));
        }
        let state = *self.state.0.borrow();
        Ok(Response::new(state.response(true)))
    }

    type WatchStream = HealthStream;

    // Of an unknown service the protocol wants SERVICE_UNKNOWN on an open stream, not an error.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let states = WatchStream::new(self.state.0.subscribe());
        Ok(Response::new(HealthStream { states, known, last: None, ended: false }))
    }
}

/// The answers to one watcher: each change once, and the end when the server stops.
pub(crate) struct HealthStream {
    states: WatchStream<State>,
    known: bool,
    last: Option<HealthCheckResponse>,
    ended: bool,
}

impl Stream for HealthStream {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let polled = Pin::new(&mut self.states).poll_next(cx);
            let Poll::Ready(state) = polled else { return Poll::Pending };
            let Some(state) = state else { return Poll::Ready(None) };
            self.ended = state == State::Stopping;
            let response = state.response(self.known);
            if self.last.as_ref() != Some(&response) {
                self.last = Some(response);
                return Poll::Ready(Some(Ok(response)));
            }
        }
    }
}

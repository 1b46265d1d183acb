//! How branches are reached: participants by name, over gRPC or in process.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use tcc_proto::tcc::v1::participant_client::ParticipantClient;
use tcc_types::{CancelCall, ConfirmCall, ParticipantName, SettleAnswer, TryAnswer, TryCall};
use tokio::sync::Semaphore;
use tonic::{Request, Status, transport::Channel};

/// No answer, or one that does not follow the contract: the operation may or may not have run. The text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

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

/// Where a participant is and how it is called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Its address (`http://inventory.internal:50061`).
    pub endpoint: String,
    /// Calls to it at the same time; more wait their turn.
    #[serde(default = "calls_in_flight_max")]
    pub calls_in_flight_max: usize,
    /// How long connecting may take.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

const fn calls_in_flight_max() -> usize {
    1_024
}

const fn connect_timeout_ms() -> u64 {
    1_000
}

/// A participant that speaks `tcc.v1.Participant`.
#[derive(Debug)]
pub struct GrpcEndpoint {
    client: ParticipantClient<Channel>,
    places: Semaphore,
}

impl GrpcEndpoint {
    /// Connects when it is first called, and again whenever the connection is lost.
    ///
    /// # Errors
    /// The address is none, or a limit is zero: the problem, as a sentence. Not retryable.
    pub fn new(config: &EndpointConfig) -> Result<Self, String> {
        if config.calls_in_flight_max == 0 || config.calls_in_flight_max > Semaphore::MAX_PERMITS {
            return Err("calls_in_flight_max must be at least 1".to_owned());
        }
        let endpoint = Channel::from_shared(config.endpoint.clone())
            .map_err(|error| format!("endpoint {:?} is not a URL: {error}", config.endpoint))?;
        if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) {
            return Err(format!("endpoint {:?} must be http://HOST:PORT", config.endpoint));
        }
        let channel = endpoint
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self { client: ParticipantClient::new(channel), places: Semaphore::new(config.calls_in_flight_max) })
    }

    async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Unknown> {
        self.places.acquire().await.map_err(|_| Unknown("the endpoint was closed".to_owned()))
    }
}

/// A request that carries the caller's trace.
fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    tcc_service::telemetry::inject_trace(request.metadata_mut());
    request
}

/// Every error status means the same: nobody knows.
fn unknown(status: &Status) -> Unknown {
    Unknown(format!("{:?}: {}", status.code(), status.message()))
}

#[async_trait]
impl Endpoint for GrpcEndpoint {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        let _place = self.place().await?;
        let response = self.client.clone().r#try(traced(tcc_wire::try_to_proto(&call))).await;
        let response = response.map_err(|status| unknown(&status))?.into_inner();
        tcc_wire::tried_from_proto(response).map_err(|malformed| Unknown(malformed.to_string()))
    }

    async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        let _place = self.place().await?;
        let response = self.client.clone().confirm(traced(tcc_wire::confirm_to_proto(&call))).await;
        let response = response.map_err(|status| unknown(&status))?.into_inner();
        tcc_wire::confirmed_from_proto(response).map_err(|malformed| Unknown(malformed.to_string()))
    }

    async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        let _place = self.place().await?;
        let response = self.client.clone().cancel(traced(tcc_wire::cancel_to_proto(&call))).await;
        let response = response.map_err(|status| unknown(&status))?.into_inner();
        tcc_wire::cancelled_from_proto(response).map_err(|malformed| Unknown(malformed.to_string()))
    }
}

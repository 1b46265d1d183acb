//! Asks coordinators over gRPC: `tcc.v1.Coordinator/GetOutcome` at any of a coordinator's gateways.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tcc_proto::tcc::v1::coordinator_client::CoordinatorClient;
use tcc_types::{Invalid, LogName, Outcome, OutcomeQuery, Timestamp};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::{OutcomeSource, Unanswered};

/// Most gateways of one coordinator.
const ENDPOINTS_MAX: usize = 16;
/// After so many refused questions about one branch each, the rest is put off too.
const REFUSED_MAX: usize = 8;
/// Connecting takes no longer than this, so that a gateway that is gone costs little.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection is asked so often whether it still stands; a gateway that vanished without a word is noticed by that.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// Where the gateways of one coordinator are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Their addresses (`http://gateway.internal:50051`), 1 to 16. Any of them knows the answer; if one does not give it, the
    /// next is asked.
    pub endpoints: Vec<String>,
    /// How long one of them may take to answer. 1 to 60,000.
    #[serde(default = "ask_timeout_ms")]
    pub ask_timeout_ms: u64,
}

const fn ask_timeout_ms() -> u64 {
    5_000
}

impl CoordinatorConfig {
    /// At these addresses, with the default of everything else.
    #[must_use]
    pub fn at(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect(), ask_timeout_ms: ask_timeout_ms() }
    }
}

/// Coordinators that are reached over gRPC.
#[derive(Debug)]
pub struct GrpcOutcomes(BTreeMap<LogName, Gateways>);

/// The gateways of one coordinator.
#[derive(Debug)]
struct Gateways {
    clients: Vec<CoordinatorClient<Channel>>,
    ask_timeout: Duration,
    /// Which of them answered last: it is asked first.
    answered: AtomicUsize,
}

impl GrpcOutcomes {
    /// One coordinator, by the name of its log, at these addresses. Connects when it is first asked; needs a tokio runtime.
    ///
    /// # Errors
    /// The first of them that is not well-formed, by name. Not retryable.
    pub fn at(log_name: &str, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, Invalid> {
        let gateways =
            Gateways::new(&CoordinatorConfig::at(endpoints), &Endpoint::connect_lazy).map_err(|mut bad| bad.swap_remove(0))?;
        Ok(Self(BTreeMap::from([(LogName::new(log_name)?, gateways)])))
    }

    /// Connects to each gateway when it is first asked, and again whenever the connection is lost. Needs a tokio runtime.
    ///
    /// # Errors
    /// Every setting that does not fit, by name (`coordinators.main.endpoints[0]`). Not retryable.
    pub fn new(coordinators: &BTreeMap<LogName, CoordinatorConfig>) -> Result<Self, Vec<Invalid>> {
        Self::over(coordinators, Endpoint::connect_lazy)
    }

    /// As [`Self::new`], over connections of the caller's making.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn over(
        coordinators: &BTreeMap<LogName, CoordinatorConfig>,
        connect: impl Fn(&Endpoint) -> Channel,
    ) -> Result<Self, Vec<Invalid>> {
        let (mut known, mut bad) = (BTreeMap::new(), Vec::new());
        for (name, config) in coordinators {
            match Gateways::new(config, &connect) {
                Ok(gateways) => drop(known.insert(name.clone(), gateways)),
                Err(problems) => bad.extend(problems.into_iter().map(|bad| bad.within(&format!("coordinators.{name}")))),
            }
        }
        if bad.is_empty() { Ok(Self(known)) } else { Err(bad) }
    }
}

impl Gateways {
    fn new(config: &CoordinatorConfig, connect: &impl Fn(&Endpoint) -> Channel) -> Result<Self, Vec<Invalid>> {
        let (mut clients, mut bad) = (Vec::new(), Vec::new());
        if !(1..=ENDPOINTS_MAX).contains(&config.endpoints.len()) {
            bad.push(Invalid::new("endpoints", format_args!("must be 1 to {ENDPOINTS_MAX} addresses")));
        }
        if !(1..=60_000).contains(&config.ask_timeout_ms) {
            bad.push(Invalid::new("ask_timeout_ms", format_args!("must be 1 to 60000, and is {}", config.ask_timeout_ms)));
        }
        for (index, endpoint) in config.endpoints.iter().enumerate() {
            match tcc_service::address(endpoint, CONNECT_TIMEOUT, KEEPALIVE) {
                Ok(address) => clients.push(CoordinatorClient::new(connect(&address))),
                Err(problem) => bad.push(Invalid::new(format!("endpoints[{index}]"), problem)),
            }
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(Self { clients, ask_timeout: Duration::from_millis(config.ask_timeout_ms), answered: AtomicUsize::new(0) })
    }

    /// Asks the gateway that answered last, and then the others in turn.
    async fn ask(&self, coordinator: &LogName, queries: &[OutcomeQuery]) -> Result<Vec<Outcome>, Refusal> {
        let first = self.answered.load(Ordering::Relaxed);
        let mut refusal = Refusal { too_many: false, text: "there is no gateway".to_owned() };
        for nth in 0..self.clients.len() {
            let index = (first + nth) % self.clients.len();
            match self.ask_one(&self.clients[index], coordinator, queries).await {
                Ok(outcomes) => {
                    self.answered.store(index, Ordering::Relaxed);
                    return Ok(outcomes);
                }
                // All gateways of a coordinator should have the same limits, but while they are changed they have not.
                Err(next) => refusal = Refusal { too_many: refusal.too_many || next.too_many, text: next.text },
            }
        }
        Err(refusal)
    }

    async fn ask_one(
        &self,
        client: &CoordinatorClient<Channel>,
        coordinator: &LogName,
        queries: &[OutcomeQuery],
    ) -> Result<Vec<Outcome>, Refusal> {
        let mut client = client.clone();
        let asked = client.get_outcome(tcc_wire::outcome_request(coordinator, queries));
        match tokio::time::timeout(self.ask_timeout, asked).await {
            Ok(Ok(response)) => tcc_wire::outcomes_from_proto(queries, response.into_inner())
                .map_err(|malformed| Refusal { too_many: false, text: malformed.to_string() }),
            Ok(Err(status)) => Err(Refusal {
                too_many: status.code() == Code::InvalidArgument,
                text: format!("{:?}: {}", status.code(), status.message()),
            }),
            Err(_) => {
                let ask_timeout_ms = self.ask_timeout.as_millis();
                Err(Refusal { too_many: false, text: format!("no answer within ask_timeout_ms ({ask_timeout_ms})") })
            }
        }
    }
}

struct Refusal {
    /// The coordinator may take fewer queries at once than were sent.
    too_many: bool,
    text: String,
}

impl OutcomeSource for GrpcOutcomes {
    async fn outcomes(&self, coordinator: &LogName, queries: &[OutcomeQuery]) -> Result<Vec<Outcome>, Unanswered> {
        let gateways = self.0.get(coordinator).ok_or(Unanswered::NoSource)?;
        let (mut outcomes, mut size) = (Vec::with_capacity(queries.len()), queries.len());
        let (mut answered, mut refused) = (0, 0);
        while outcomes.len() < queries.len() {
            let rest = &queries[outcomes.len()..];
            let some = &rest[..size.min(rest.len())];
            match gateways.ask(coordinator, some).await {
                Ok(answers) => {
                    answered += answers.len();
                    outcomes.extend(answers);
                }
                // Its `outcome_queries_max` is its own business: fewer at a time.
                Err(refusal) if refusal.too_many && some.len() > 1 => size = some.len() / 2,
                // This one alone: the others have their outcomes, and it is asked about another time.
                Err(refusal) if refusal.too_many => {
                    let (branch, problem) = (&some[0].key, refusal.text);
                    tracing::warn!(%coordinator, %branch, problem, "the coordinator refuses a question about this branch");
                    refused += 1;
                    let later = if refused < REFUSED_MAX { 1 } else { rest.len() };
                    outcomes.extend(std::iter::repeat_n(Outcome::AskAgain { at: Timestamp::from_micros(0) }, later));
                    size = queries.len();
                }
                Err(refusal) => return Err(Unanswered::NoAnswer(refusal.text)),
            }
        }
        if answered > 0 || queries.is_empty() {
            return Ok(outcomes);
        }
        Err(Unanswered::NoAnswer("it refuses every question".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(coordinators: &[(&str, CoordinatorConfig)]) -> Vec<String> {
        let named = coordinators.iter().map(|(name, config)| (LogName::new(*name).unwrap(), config.clone())).collect();
        GrpcOutcomes::new(&named).map_or_else(|bad| bad.into_iter().map(|bad| bad.field).collect(), |_| Vec::new())
    }

    #[tokio::test]
    async fn a_wrong_setting_is_named_with_its_coordinator() {
        let good = CoordinatorConfig::at(["http://127.0.0.1:50051", "http://gateway.internal:50051"]);
        assert_eq!(fields(&[("main", good.clone())]), [""; 0]);
        let bad = CoordinatorConfig::at(["http://127.0.0.1:50051", "127.0.0.1:50051", "https://a:1", "ftp://a", "", "http://"]);
        assert_eq!(
            fields(&[("main", bad), ("other", good.clone())]),
            [1, 2, 3, 4, 5].map(|index| format!("coordinators.main.endpoints[{index}]"))
        );
        assert_eq!(fields(&[("other", CoordinatorConfig::at([""; 0]))]), ["coordinators.other.endpoints"]);
        assert_eq!(fields(&[("o", CoordinatorConfig { ask_timeout_ms: 0, ..good })]), ["coordinators.o.ask_timeout_ms"]);
    }
}

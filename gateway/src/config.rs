//! Everything that can be configured, with its default; checked as a whole before anything is opened.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Deserializer};
use tcc_coordinator::{EndpointConfig, GrpcEndpoint, Registry};
use tcc_database::without_secrets;
use tcc_log::LogOptions;
use tcc_participant::DatabaseKind;
use tcc_service::telemetry::Telemetry;
use tcc_types::{Invalid, ParticipantName};

use crate::plan::{COUPON, INVENTORY, ORDER};

/// Longest [`Config::drain_ms`].
const DRAIN_MS_MAX: u64 = 600_000;

/// The configuration of the gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The transaction log.
    pub log: LogOptions,
    /// Where orders are kept.
    pub orders: OrdersConfig,
    /// Limits and times of transactions.
    pub coordinator: tcc_coordinator::Config,
    /// Who can take part in transactions, by name. `inventory` and `coupon` are there with their defaults unless they are named;
    /// `order` is the gateway itself.
    #[serde(deserialize_with = "beside_the_shipped")]
    pub participants: BTreeMap<ParticipantName, EndpointConfig>,
    /// How long calls and transactions under way may go on after the gateway was told to stop.
    pub drain_ms: u64,
    /// Logs.
    pub telemetry: Telemetry,
}

/// Where and how orders are kept.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrdersConfig {
    /// Their database; the scheme chooses which: `sqlite://data/orders.db`, `postgres://user:password@host/database`,
    /// `mysql://user:password@host/database`. On a server it may be that of the transaction log.
    pub database_url: String,
    /// Limits of the orders' own branches.
    pub participant: tcc_participant::Options,
}

/// The URL without what may be secret: without user, password and parameters.
impl fmt::Debug for OrdersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database_url, participant } = self;
        f.debug_struct("OrdersConfig")
            .field("database_url", &without_secrets(database_url))
            .field("participant", participant)
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50_051).into(),
            log: LogOptions::default(),
            orders: OrdersConfig::default(),
            coordinator: tcc_coordinator::Config::default(),
            participants: shipped(),
            drain_ms: 10_000,
            telemetry: Telemetry::default(),
        }
    }
}

impl Default for OrdersConfig {
    fn default() -> Self {
        Self { database_url: "sqlite://data/orders.db".to_owned(), participant: tcc_participant::Options::default() }
    }
}

impl Config {
    /// Checks every setting, alone and against each other, but for the endpoints; see [`Self::endpoints`].
    ///
    /// # Errors
    /// Every setting that does not fit, by name.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut bad = Vec::new();
        let log = DatabaseKind::of_url(&self.log.database_url).map_err(|bad| bad.within("log"));
        let orders = DatabaseKind::of_url(&self.orders.database_url).map_err(|bad| bad.within("orders"));
        if matches!((&log, &orders), (Ok(DatabaseKind::Postgres | DatabaseKind::Mysql), Ok(DatabaseKind::Sqlite))) {
            let problem = "must be on a server too: any gateway on this transaction log has to reach every order";
            bad.push(Invalid::new("orders.database_url", problem));
        }
        let both_are_files = matches!((&log, &orders), (Ok(DatabaseKind::Sqlite), Ok(DatabaseKind::Sqlite)));
        bad.extend(log.err());
        bad.extend(orders.err());
        if self.orders.participant.upkeep.sweep_batch_max as usize > self.coordinator.outcome_queries_max {
            let problem = "must not exceed coordinator.outcome_queries_max";
            bad.push(Invalid::new("orders.participant.upkeep.sweep_batch_max", problem));
        }
        if both_are_files && file_of(&self.log.database_url) == file_of(&self.orders.database_url) {
            let problem = "must not be that of the transaction log, which has its file for itself";
            bad.push(Invalid::new("orders.database_url", problem));
        }
        bad.extend(self.orders.participant.validate().err().map(|error| error.within("orders.participant")));
        bad.extend(self.coordinator.validate().err().into_iter().flatten());
        if self.participants.keys().any(|name| name.as_str() == ORDER) {
            bad.push(Invalid::new(format!("participants.{ORDER}"), "is the gateway itself: use another name"));
        }
        if self.drain_ms > DRAIN_MS_MAX {
            bad.push(Invalid::new("drain_ms", format_args!("must be at most {DRAIN_MS_MAX}")));
        }
        if bad.is_empty() { Ok(()) } else { Err(bad) }
    }

    /// The participants as the coordinator calls them; each connects when it is first called. Needs a tokio runtime.
    ///
    /// # Errors
    /// Every participant whose settings do not fit, by name.
    pub fn endpoints(&self) -> Result<Registry, Vec<Invalid>> {
        let (mut registry, mut bad) = (Registry::default(), Vec::new());
        for (name, config) in &self.participants {
            match GrpcEndpoint::new(config) {
                Ok(endpoint) => registry = registry.with(name.clone(), Arc::new(endpoint)),
                Err(problem) => bad.push(Invalid::new(format!("participants.{name}"), problem)),
            }
        }
        if bad.is_empty() { Ok(registry) } else { Err(bad) }
    }
}

fn file_of(url: &str) -> &str {
    let path = url.split_once(':').map_or(url, |(_, path)| path);
    let path = path.strip_prefix("//").unwrap_or(path);
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// The participants that orders need, where the shipped servers listen by default.
fn shipped() -> BTreeMap<ParticipantName, EndpointConfig> {
    let at = |name: &str, port: u16| {
        let endpoint = EndpointConfig::at(format!("http://127.0.0.1:{port}"));
        // Both names are well-formed; a test of this file says so.
        ParticipantName::new(name).ok().map(|name| (name, endpoint))
    };
    [at(INVENTORY, 50_061), at(COUPON, 50_062)].into_iter().flatten().collect()
}

/// Whoever adds a participant of their own keeps those that orders need.
fn beside_the_shipped<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<ParticipantName, EndpointConfig>, D::Error> {
    let mut participants = shipped();
    participants.extend(BTreeMap::deserialize(deserializer)?);
    Ok(participants)
}

#[cfg(test)]
mod tests;

//! Everything that can be configured, with its default.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use tcc_database::without_secrets;
use tcc_participant::CoordinatorConfig;
use tcc_service::telemetry::Telemetry;
use tcc_types::LogName;

/// The configuration of the inventory server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its database; the scheme chooses which: `sqlite://data/inventory.db`, `postgres://user:password@host/inventory` or
    /// `mysql://user:password@host/inventory` (MySQL or MariaDB). A server's database must exist; its tables are made.
    pub database_url: String,
    /// How long calls under way may go on after the server was told to stop.
    pub drain_ms: u64,
    /// AddStock and SetStockBuckets calls at once; one more is refused at once with RESOURCE_EXHAUSTED. At least 1.
    pub admin_calls_in_flight_max: u32,
    /// Logs.
    pub telemetry: Telemetry,
    /// Limits of the participant.
    pub participant: tcc_participant::Options,
    /// Where the gateways are that know what became of a transaction, by the name of their log. `main` is where a gateway
    /// listens by default. Without any, reservations of a coordinator that is lost stay.
    pub coordinators: BTreeMap<LogName, CoordinatorConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50_061).into(),
            database_url: "sqlite://data/inventory.db".to_owned(),
            drain_ms: 10_000,
            admin_calls_in_flight_max: 64,
            telemetry: Telemetry::default(),
            participant: tcc_participant::Options::default(),
            coordinators: shipped(),
        }
    }
}

/// The URL without what may be secret: without user, password and parameters.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, database_url, drain_ms, admin_calls_in_flight_max, telemetry, participant, coordinators } = self;
        f.debug_struct("Config")
            .field("listen", listen)
            .field("database_url", &without_secrets(database_url))
            .field("drain_ms", drain_ms)
            .field("admin_calls_in_flight_max", admin_calls_in_flight_max)
            .field("telemetry", telemetry)
            .field("participant", participant)
            .field("coordinators", coordinators)
            .finish()
    }
}

/// The gateway as it is shipped.
fn shipped() -> BTreeMap<LogName, CoordinatorConfig> {
    // The name is well-formed; a test of this file says so.
    LogName::new("main").ok().map(|name| (name, CoordinatorConfig::at(["http://127.0.0.1:50051"]))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let config = Config { database_url: "postgres://tcc:secret@db/x?password=secret".to_owned(), ..Config::default() };
        let shown = format!("{config:?}");
        assert!(!shown.contains("secret") && shown.contains("postgres://db/x"), "{shown}");
    }

    #[tokio::test]
    async fn the_shipped_gateway_is_asked_unless_another_is_configured() {
        let coordinators = Config::default().coordinators;
        let main = LogName::new("main").unwrap();
        assert_eq!(coordinators.get(&main).unwrap().endpoints, ["http://127.0.0.1:50051"]);
        assert!(tcc_participant::GrpcOutcomes::new(&coordinators).is_ok());
    }
}

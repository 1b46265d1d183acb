//! Everything that can be configured, with its default.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use tcc_service::telemetry::Telemetry;

/// The configuration of the coupon server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its database; the scheme chooses which: `sqlite://data/coupon.db`.
    pub database_url: String,
    /// How long calls under way may go on after the server was told to stop.
    pub drain_ms: u64,
    /// IssueCoupon calls at once; one more is refused at once with RESOURCE_EXHAUSTED. At least 1.
    pub admin_calls_in_flight_max: u32,
    /// Logs.
    pub telemetry: Telemetry,
    /// Limits of the participant.
    pub participant: tcc_participant::Options,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50_062).into(),
            database_url: "sqlite://data/coupon.db".to_owned(),
            drain_ms: 10_000,
            admin_calls_in_flight_max: 64,
            telemetry: Telemetry::default(),
            participant: tcc_participant::Options::default(),
        }
    }
}

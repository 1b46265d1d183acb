//! Where a participant is and how it is called: every setting with its range. Opens nothing; read by whoever wires a
//! coordinator.

use serde::Deserialize;
use tcc_wire::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX};
use tokio::sync::Semaphore;

/// Where a participant is and how it is called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Its address (`http://inventory.internal:50061`).
    pub endpoint: String,
    /// Calls to it at the same time; more wait their turn, Confirm and Cancel before Try.
    #[serde(default = "calls_in_flight_max")]
    pub calls_in_flight_max: usize,
    /// How long connecting may take. 1 to 60,000.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// A connection on which nothing has come for so long is asked whether it is alive, and given up when as long again nothing comes:
    /// one whose other end is gone without a word would otherwise swallow every call. 100 to 600,000.
    #[serde(default = "keepalive_ms")]
    pub keepalive_ms: u64,
    /// Most operations in one message. With 1 every operation goes alone. 1 to 1,024.
    #[serde(default = "batch_max")]
    pub batch_max: usize,
    /// Most bytes of the operations in one message; a larger operation goes alone. 1,024 to 4 MiB.
    #[serde(default = "batch_bytes_max")]
    pub batch_bytes_max: usize,
    /// Messages of merged operations that may wait for their first answer; what comes meanwhile is merged into the next one. 1 to
    /// 1,024.
    #[serde(default = "batches_in_flight_max")]
    pub batches_in_flight_max: usize,
    /// How long a message is waited for in that way, so that a slow operation does not hold back those behind it. 1 to 60,000.
    #[serde(default = "batch_patience_ms")]
    pub batch_patience_ms: u64,
    /// How long a participant that takes no batches is left alone with them before it is asked again. 1 to 86,400,000.
    #[serde(default = "plain_recheck_ms")]
    pub plain_recheck_ms: u64,
}

const fn calls_in_flight_max() -> usize {
    1_024
}

const fn connect_timeout_ms() -> u64 {
    1_000
}

const fn keepalive_ms() -> u64 {
    3_000
}

const fn batch_max() -> usize {
    256
}

const fn batch_bytes_max() -> usize {
    1_048_576
}

const fn batches_in_flight_max() -> usize {
    2
}

const fn batch_patience_ms() -> u64 {
    50
}

const fn plain_recheck_ms() -> u64 {
    60_000
}

impl EndpointConfig {
    /// A participant at this address, everything else as it is by default.
    #[must_use]
    pub fn at(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            calls_in_flight_max: calls_in_flight_max(),
            connect_timeout_ms: connect_timeout_ms(),
            keepalive_ms: keepalive_ms(),
            batch_max: batch_max(),
            batch_bytes_max: batch_bytes_max(),
            batches_in_flight_max: batches_in_flight_max(),
            batch_patience_ms: batch_patience_ms(),
            plain_recheck_ms: plain_recheck_ms(),
        }
    }

    /// The limits; the address is checked where it is used.
    pub(super) fn check(&self) -> Result<(), String> {
        in_range("calls_in_flight_max", self.calls_in_flight_max as u64, 1, Semaphore::MAX_PERMITS as u64)?;
        in_range("connect_timeout_ms", self.connect_timeout_ms, 1, 60_000)?;
        in_range("keepalive_ms", self.keepalive_ms, 100, 600_000)?;
        in_range("batch_max", self.batch_max as u64, 1, BATCH_OPERATIONS_MAX as u64)?;
        in_range("batch_bytes_max", self.batch_bytes_max as u64, 1_024, BATCH_BYTES_MAX as u64)?;
        in_range("batches_in_flight_max", self.batches_in_flight_max as u64, 1, 1_024)?;
        in_range("batch_patience_ms", self.batch_patience_ms, 1, 60_000)?;
        in_range("plain_recheck_ms", self.plain_recheck_ms, 1, 86_400_000)
    }
}

fn in_range(name: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(format!("{name} must be {min} to {max}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_out_of_range_is_named() {
        assert_eq!(EndpointConfig::at("http://x:1").check(), Ok(()));
        let with = |change: fn(&mut EndpointConfig)| {
            let mut config = EndpointConfig::at("http://x:1");
            change(&mut config);
            config.check().unwrap_err()
        };
        let named = [
            ("calls_in_flight_max", with(|config| config.calls_in_flight_max = 0)),
            ("connect_timeout_ms", with(|config| config.connect_timeout_ms = 0)),
            ("keepalive_ms", with(|config| config.keepalive_ms = 99)),
            ("batch_max", with(|config| config.batch_max = 1_025)),
            ("batch_bytes_max", with(|config| config.batch_bytes_max = 4 * 1_048_576 + 1)),
            ("batches_in_flight_max", with(|config| config.batches_in_flight_max = 0)),
            ("batch_patience_ms", with(|config| config.batch_patience_ms = 0)),
            ("plain_recheck_ms", with(|config| config.plain_recheck_ms = 0)),
        ];
        for (name, problem) in named {
            assert!(problem.starts_with(&format!("{name} must be ")), "{problem}");
        }
    }
}

//! Every limit of the SDK: its name, its unit, its default and its range.

use std::{ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};
use tcc_types::Invalid;

use crate::UpkeepOptions;

/// How a participant may use its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Operations at once, waiting ones included; one more is refused at once with RESOURCE_EXHAUSTED. 2 to 1,000,000.
    pub operations_in_flight_max: u32,
    /// How many of them may be Tries; one more is refused in the same way. The rest is kept free for Confirm and Cancel, so it
    /// must be less than `operations_in_flight_max`. 1 to 999,999.
    pub tries_in_flight_max: u32,
    /// Bytes of a Try's payload with its type URL; a larger one is refused for good. The same bounds an output. 1 to
    /// 64 MiB.
    pub payload_bytes_max: u32,
    /// How long a local transaction may take. One that takes longer is answered *unknown* at this limit and is rolled back; a
    /// statement that is running inside SQLite then is not interrupted but ends first, and until it has, operations behind it
    /// wait. It must be far shorter than the time for which rows of ended branches are kept. 1 to 60,000.
    pub transaction_ms_max: u64,
    /// How long an operation may wait for its connection. 1 to 60,000.
    pub connection_wait_ms_max: u64,
    /// How long the database may wait for another's lock, each time; MySQL counts whole seconds, rounded up. 1 to 60,000.
    pub lock_wait_ms_max: u64,
    /// How often one operation runs its whole local transaction when the database asks for that (busy, locked, deadlock,
    /// serialization failure). 1 to 100.
    pub attempts_max: u32,
    /// Operations in one local transaction. 1 to 1,024.
    pub batch_max: u32,
    /// Bytes of payloads after which a local transaction takes no further operation. 1 to 64 MiB.
    pub batch_bytes_max: u32,
    /// Local transactions of many operations at once, on a database server; SQLite always has one, and no
    /// server more than `write_connections_max`. 1 to 1,024.
    pub batches_in_flight_max: u32,
    /// Connections for writing; SQLite always has one. 1 to 1,024.
    pub write_connections_max: u32,
    /// Connections for reading beside those for writing. 1 to 256.
    pub read_connections_max: u32,
    /// When it asks about reservations that nobody settles, and when it deletes what has ended.
    pub upkeep: UpkeepOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            operations_in_flight_max: 8_192,
            tries_in_flight_max: 6_144,
            payload_bytes_max: 1_048_576,
            transaction_ms_max: 10_000,
            connection_wait_ms_max: 10_000,
            lock_wait_ms_max: 2_000,
            attempts_max: 5,
            batch_max: 256,
            batch_bytes_max: 4 * 1_024 * 1_024,
            batches_in_flight_max: 2,
            write_connections_max: 16,
            read_connections_max: 4,
            upkeep: UpkeepOptions::default(),
        }
    }
}

impl Options {
    /// Checks every limit's range.
    ///
    /// # Errors
    /// The first one that is out of its range, by name.
    pub fn validate(&self) -> Result<(), Invalid> {
        check("operations_in_flight_max", self.operations_in_flight_max.into(), 2..=1_000_000)?;
        check("tries_in_flight_max", self.tries_in_flight_max.into(), 1..=999_999)?;
        if self.tries_in_flight_max >= self.operations_in_flight_max {
            let problem = "must be less than operations_in_flight_max, so that Confirm and Cancel always find room";
            return Err(Invalid::new("tries_in_flight_max", problem));
        }
        check("payload_bytes_max", self.payload_bytes_max.into(), 1..=67_108_864)?;
        check("transaction_ms_max", self.transaction_ms_max, 1..=60_000)?;
        check("connection_wait_ms_max", self.connection_wait_ms_max, 1..=60_000)?;
        check("lock_wait_ms_max", self.lock_wait_ms_max, 1..=60_000)?;
        check("attempts_max", self.attempts_max.into(), 1..=100)?;
        check("batch_max", self.batch_max.into(), 1..=1_024)?;
        check("batch_bytes_max", self.batch_bytes_max.into(), 1..=67_108_864)?;
        check("batches_in_flight_max", self.batches_in_flight_max.into(), 1..=1_024)?;
        check("write_connections_max", self.write_connections_max.into(), 1..=1_024)?;
        check("read_connections_max", self.read_connections_max.into(), 1..=256)?;
        self.upkeep.validate().map_err(|bad| bad.within("upkeep"))?;
        let operation_ms_max = self.transaction_ms_max + self.connection_wait_ms_max;
        if self.upkeep.retention_ms < 10 * operation_ms_max {
            let problem = format_args!(
                "must be at least 10 x (transaction_ms_max + connection_wait_ms_max), which is {}",
                10 * operation_ms_max
            );
            return Err(Invalid::new("upkeep.retention_ms", problem));
        }
        Ok(())
    }

    pub(crate) const fn transaction_max(&self) -> Duration {
        Duration::from_millis(self.transaction_ms_max)
    }

    pub(crate) const fn connection_wait_max(&self) -> Duration {
        Duration::from_millis(self.connection_wait_ms_max)
    }

    pub(crate) const fn lock_wait_max(&self) -> Duration {
        Duration::from_millis(self.lock_wait_ms_max)
    }
}

pub(crate) fn check(field: &str, value: u64, range: RangeInclusive<u64>) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(field, format_args!("must be {} to {}, and is {value}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(Options::default().validate(), Ok(()));
    }

    #[test]
    fn a_limit_out_of_its_range_is_named() {
        let options = Options { transaction_ms_max: 0, ..Options::default() };
        assert_eq!(options.validate().map_err(|invalid| invalid.field), Err("transaction_ms_max".to_owned()));
        let options = Options { operations_in_flight_max: 6_144, ..Options::default() };
        assert_eq!(options.validate().map_err(|invalid| invalid.field), Err("tries_in_flight_max".to_owned()));
        let options = Options { attempts_max: 101, ..Options::default() };
        assert_eq!(options.validate().map_err(|invalid| invalid.field), Err("attempts_max".to_owned()));
    }

    #[test]
    fn limits_of_the_upkeep_are_checked_alone_and_against_the_others() {
        let field = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.validate().err().map(|invalid| invalid.field)
        };
        for (wanted, change) in [
            ("upkeep.sweep_interval_ms", (|options| options.upkeep.sweep_interval_ms = 9) as fn(&mut Options)),
            ("upkeep.sweep_batch_max", |options| options.upkeep.sweep_batch_max = 0),
            ("upkeep.sweep_in_flight_max", |options| options.upkeep.sweep_in_flight_max = 0),
            ("upkeep.sweep_backoff_ms_max", |options| options.upkeep.sweep_backoff_ms_max = 4_999),
            ("upkeep.ask_again_ms", |options| options.upkeep.ask_again_ms = 0),
            ("upkeep.ask_again_ms_max", |options| options.upkeep.ask_again_ms_max = 59_999),
            ("upkeep.forgotten_probe_ms", |options| options.upkeep.forgotten_probe_ms = 999),
            ("upkeep.retention_ms", |options| options.upkeep.retention_ms = 59_999),
            ("upkeep.retention_interval_ms", |options| options.upkeep.retention_interval_ms = 0),
            ("upkeep.retention_batch_max", |options| options.upkeep.retention_batch_max = 1_025),
            // 10 x (10 s + 10 s), by default.
            ("upkeep.retention_ms", |options| options.upkeep.retention_ms = 199_999),
        ] {
            assert_eq!(field(change).as_deref(), Some(wanted));
        }
        assert_eq!(field(|options| options.upkeep.retention_ms = 200_000), None);
    }
}

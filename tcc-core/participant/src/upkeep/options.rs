//! Every limit of the sweeper and of retention: its name, its unit, its default and its range.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tcc_types::Invalid;

use crate::options::check;

/// When a participant asks about reservations that nobody settles, and when it deletes what has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpkeepOptions {
    /// Longest pause between two sweeps for reservations past their `ask_after`; each pause is random, from nothing to this, so
    /// that several instances do not ask in step. 10 to 3,600,000.
    pub sweep_interval_ms: u64,
    /// Rows in one batch of a sweep, and most queries in one question. A coordinator that takes fewer
    /// (`outcome_queries_max`) is asked again with fewer. 1 to 1,024.
    pub sweep_batch_max: u32,
    /// Rows that a sweep confirms or cancels at the same time; never more than half of `operations_in_flight_max`. 1 to 1,024.
    pub sweep_in_flight_max: u32,
    /// Longest pause before a coordinator that does not answer is asked again; it doubles from `sweep_interval_ms` up to this.
    /// `sweep_interval_ms` to 3,600,000.
    pub sweep_backoff_ms_max: u64,
    /// When a row is asked about again whose coordinator nobody knows, or that its coordinator does not know as its own. 1,000
    /// to 86,400,000.
    pub ask_again_ms: u64,
    /// Longest time for which a coordinator that is still deciding can put a row off. `ask_again_ms` to 2,592,000,000.
    pub ask_again_ms_max: u64,
    /// When a row is asked about again of which its coordinator has forgotten the transaction; an operator has to look at it.
    /// 1,000 to 2,592,000,000.
    pub forgotten_probe_ms: u64,
    /// How long rows of ended branches are kept after their last change and after their `not_after`. At least ten times
    /// `transaction_ms_max` and `connection_wait_ms_max` together, so that no operation under way can outlive the row that
    /// forbids it. 60,000 to 315,360,000,000.
    pub retention_ms: u64,
    /// Longest pause between two walks over rows that may be deleted; each pause is random. After a long walk it is longer. 100
    /// to 86,400,000.
    pub retention_interval_ms: u64,
    /// Rows that one step of a walk looks at, asks about and deletes in one transaction. 1 to 1,024.
    pub retention_batch_max: u32,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            sweep_interval_ms: 5_000,
            sweep_batch_max: 256,
            sweep_in_flight_max: 32,
            sweep_backoff_ms_max: 30_000,
            ask_again_ms: 60_000,
            ask_again_ms_max: 86_400_000,
            forgotten_probe_ms: 3_600_000,
            retention_ms: 7 * 86_400_000,
            retention_interval_ms: 60_000,
            retention_batch_max: 256,
        }
    }
}

impl UpkeepOptions {
    /// Checks every limit's range, and those that depend on each other.
    ///
    /// # Errors
    /// The first one that does not fit, by name.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        const DAY_MS: u64 = 86_400_000;
        check("sweep_interval_ms", self.sweep_interval_ms, 10..=3_600_000)?;
        check("sweep_batch_max", self.sweep_batch_max.into(), 1..=1_024)?;
        check("sweep_in_flight_max", self.sweep_in_flight_max.into(), 1..=1_024)?;
        check("sweep_backoff_ms_max", self.sweep_backoff_ms_max, self.sweep_interval_ms..=3_600_000)?;
        check("ask_again_ms", self.ask_again_ms, 1_000..=DAY_MS)?;
        check("ask_again_ms_max", self.ask_again_ms_max, self.ask_again_ms..=30 * DAY_MS)?;
        check("forgotten_probe_ms", self.forgotten_probe_ms, 1_000..=30 * DAY_MS)?;
        check("retention_ms", self.retention_ms, 60_000..=3_650 * DAY_MS)?;
        check("retention_interval_ms", self.retention_interval_ms, 100..=DAY_MS)?;
        check("retention_batch_max", self.retention_batch_max.into(), 1..=1_024)
    }

    pub(crate) const fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }

    pub(crate) const fn retention_interval(&self) -> Duration {
        Duration::from_millis(self.retention_interval_ms)
    }

    pub(crate) const fn retention(&self) -> Duration {
        Duration::from_millis(self.retention_ms)
    }
}

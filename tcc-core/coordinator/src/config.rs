//! Every limit and every time of the coordinator, with its name, unit and default.

use std::time::Duration;

use serde::Deserialize;
use tcc_machine::Policy;
use tcc_types::Invalid;

/// The coordinator's settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Branches that one transaction may have.
    pub branches_max: u32,
    /// Bytes of one branch's payload, type URL included.
    pub payload_bytes_max: usize,
    /// Bytes of all payloads of one request; a branch that is enlisted is a request of its own.
    pub request_bytes_max: usize,
    /// Transactions that drivers work on at the same time; more wait their turn, or are refused.
    pub transactions_in_flight_max: usize,
    /// Requests that wait for their turn; more are refused at once.
    pub admission_queue_max: usize,
    /// How long a request may wait for its turn, and never longer than a quarter of `lease_ms`. While the next in turn has waited
    /// half of it, new ones are refused at once.
    pub admission_wait_ms: u64,
    /// Undecided transactions that wait for a request and are kept in memory; more wait in the log.
    pub idle_drivers_max: usize,
    /// How long a transaction that waits for a request is kept in memory.
    pub idle_driver_ms: u64,
    /// Until when an unanswered Try is repeated, if the initiator does not say.
    pub try_for_ms: u64,
    /// The most that an initiator may ask for.
    pub try_for_ms_max: u64,
    /// Until when a hold waits for its decision, if the initiator does not say.
    pub hold_for_ms: u64,
    /// The most that an initiator may ask for, also for Begin.
    pub hold_for_ms_max: u64,
    /// Until when a begun transaction stays undecided, if the initiator does not say.
    pub begin_for_ms: u64,
    /// How far clocks may be apart: added to `try_until` to make `not_after`, and allowed to gids from the future.
    pub clock_allowance_ms: u64,
    /// How long after `decide_by` a participant may ask for the outcome of a row that is still tried.
    pub ask_grace_ms: u64,
    /// How long one call to a participant may take, from when it leaves, before its outcome counts as unknown.
    pub call_timeout_ms: u64,
    /// Longest delay before the first repetition of a call.
    pub retry_base_ms: u64,
    /// Longest delay before any repetition of a call.
    pub retry_cap_ms: u64,
    /// Failed attempts of a branch's second phase after which its transaction waits in the log instead of in memory.
    pub park_after_attempts: u32,
    /// Failed attempts of its second phase after which a branch is listed as stuck.
    pub stuck_after_attempts: u32,
    /// Time after the decision after which a branch that still fails is listed as stuck.
    pub stuck_after_ms: u64,
    /// Longest delay before a stuck branch is tried again.
    pub stuck_probe_ms: u64,
    /// How often recovery looks for transactions that are due.
    pub recovery_interval_ms: u64,
    /// Transactions that recovery takes up at once.
    pub recovery_batch_max: u32,
    /// Transactions without a stuck branch that recovery drives at the same time, beside those in flight.
    pub recovery_in_flight_max: usize,
    /// Transactions with a stuck branch that recovery drives at the same time, beside the others: however many are stuck, they keep
    /// nothing else waiting.
    pub recovery_stuck_max: usize,
    /// How long a transaction is its driver's before recovery, here or in another gateway, may claim it. Drivers prolong it three
    /// times within that time, so this and `recovery_interval_ms` say how soon a dead gateway's work is taken up.
    pub lease_ms: u64,
    /// How often the log is probed: where it is a server of its own, and wherever a write has failed.
    pub probe_interval_ms: u64,
    /// How often finished transactions are looked for that are older than `retention_ms`.
    pub retention_interval_ms: u64,
    /// The pause between two batches of deletions.
    pub retention_pause_ms: u64,
    /// How long finished transactions are kept at least. Gids older than half of it are refused.
    pub retention_ms: u64,
    /// Transactions, branches or records on a page, if the caller does not say.
    pub page_size: u32,
    /// The most that a caller may ask for.
    pub page_size_max: u32,
    /// Queries in one GetOutcome.
    pub outcome_queries_max: usize,
    /// Streams that watch transactions at the same time.
    pub watches_max: usize,
    /// How often a watched transaction that no driver here has is read from the log.
    pub watch_interval_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            branches_max: 64,
            payload_bytes_max: 64 * 1024,
            request_bytes_max: 4 * 1024 * 1024,
            transactions_in_flight_max: 4_096,
            admission_queue_max: 4_096,
            admission_wait_ms: 500,
            idle_drivers_max: 4_096,
            idle_driver_ms: 2_000,
            try_for_ms: 10_000,
            try_for_ms_max: 60_000,
            hold_for_ms: 15 * 60_000,
            hold_for_ms_max: 24 * 3_600_000,
            begin_for_ms: 60_000,
            clock_allowance_ms: 5_000,
            ask_grace_ms: 30_000,
            call_timeout_ms: 3_000,
            retry_base_ms: 50,
            retry_cap_ms: 5_000,
            park_after_attempts: 5,
            stuck_after_attempts: 10,
            stuck_after_ms: 60_000,
            stuck_probe_ms: 15_000,
            recovery_interval_ms: 500,
            recovery_batch_max: 256,
            recovery_in_flight_max: 1_024,
            recovery_stuck_max: 256,
            lease_ms: 3_000,
            probe_interval_ms: 1_000,
            retention_interval_ms: 60_000,
            retention_pause_ms: 20,
            retention_ms: 7 * 24 * 3_600_000,
            page_size: 50,
            page_size_max: 500,
            outcome_queries_max: 256,
            watches_max: 1_024,
            watch_interval_ms: 250,
        }
    }
}

impl Config {
    /// Checks the settings, alone and against each other.
    ///
    /// # Errors
    /// Every setting that does not fit. Not retryable.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut bad = Vec::new();
        let mut require = |fits: bool, field: &str, problem: &str| {
            if !fits {
                bad.push(Invalid::new(format!("coordinator.{field}"), problem));
            }
        };
        require((1..=1_024).contains(&self.branches_max), "branches_max", "must be 1 to 1,024");
        require((1..=1_048_576).contains(&self.payload_bytes_max), "payload_bytes_max", "must be 1 to 1,048,576");
        let fits = (self.payload_bytes_max..=67_108_864).contains(&self.request_bytes_max);
        require(fits, "request_bytes_max", "must be payload_bytes_max to 67,108,864");
        require(self.transactions_in_flight_max > 0, "transactions_in_flight_max", "must be at least 1");
        require(self.recovery_in_flight_max > 0, "recovery_in_flight_max", "must be at least 1");
        require(self.recovery_stuck_max > 0, "recovery_stuck_max", "must be at least 1");
        require(self.recovery_batch_max > 0, "recovery_batch_max", "must be at least 1");
        require(self.recovery_interval_ms > 0, "recovery_interval_ms", "must be at least 1");
        require(self.call_timeout_ms > 0, "call_timeout_ms", "must be at least 1");
        require(self.try_for_ms > 0, "try_for_ms", "must be at least 1");
        require(self.try_for_ms <= self.try_for_ms_max, "try_for_ms", "must not exceed try_for_ms_max");
        require(self.hold_for_ms <= self.hold_for_ms_max, "hold_for_ms", "must not exceed hold_for_ms_max");
        require(self.begin_for_ms > 0, "begin_for_ms", "must be at least 1");
        require(self.begin_for_ms <= self.hold_for_ms_max, "begin_for_ms", "must not exceed hold_for_ms_max");
        require(self.try_for_ms <= self.hold_for_ms, "hold_for_ms", "must not be below try_for_ms");
        require(self.retry_base_ms > 0, "retry_base_ms", "must be at least 1");
        require(self.retry_base_ms <= self.retry_cap_ms, "retry_cap_ms", "must not be below retry_base_ms");
        require(self.park_after_attempts > 0, "park_after_attempts", "must be at least 1");
        require(self.stuck_after_attempts > 0, "stuck_after_attempts", "must be at least 1");
        let in_order = self.park_after_attempts <= self.stuck_after_attempts;
        require(in_order, "stuck_after_attempts", "must not be below park_after_attempts");
        require(self.stuck_probe_ms >= self.retry_cap_ms, "stuck_probe_ms", "must not be below retry_cap_ms");
        require(self.lease_ms > self.recovery_interval_ms, "lease_ms", "must be longer than recovery_interval_ms");
        require(self.probe_interval_ms > 0, "probe_interval_ms", "must be at least 1");
        require(self.retention_interval_ms > 0, "retention_interval_ms", "must be at least 1");
        require((1..=self.page_size_max).contains(&self.page_size), "page_size", "must be 1 to page_size_max");
        require((1..=10_000).contains(&self.page_size_max), "page_size_max", "must be 1 to 10,000");
        require((1..=4_096).contains(&self.outcome_queries_max), "outcome_queries_max", "must be 1 to 4,096");
        require(self.watch_interval_ms > 0, "watch_interval_ms", "must be at least 1");
        // A gid may be half the retention old when it is begun, and must still be known when its last deadline has passed.
        let longest_ms = self.hold_for_ms_max.saturating_add(self.clock_allowance_ms).saturating_add(self.ask_grace_ms);
        let fits = self.retention_ms / 2 > longest_ms;
        require(fits, "retention_ms", "half of it must exceed hold_for_ms_max + clock_allowance_ms + ask_grace_ms");
        if bad.is_empty() { Ok(()) } else { Err(bad) }
    }

    /// The machine's part of it.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            retry_base: Duration::from_millis(self.retry_base_ms),
            retry_cap: Duration::from_millis(self.retry_cap_ms),
            park_after_attempts: self.park_after_attempts,
            stuck_after_attempts: self.stuck_after_attempts,
            stuck_after: Duration::from_millis(self.stuck_after_ms),
            stuck_probe: Duration::from_millis(self.stuck_probe_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn a_request_carries_one_payload_at_least_and_64_mib_at_most() {
        let with = |payload_bytes_max, request_bytes_max| {
            let config = Config { payload_bytes_max, request_bytes_max, ..Config::default() };
            config.validate().map_err(|bad| bad.into_iter().map(|bad| bad.field).collect::<Vec<_>>())
        };
        assert_eq!((with(100, 100), with(100, 67_108_864)), (Ok(()), Ok(())));
        for bad in [with(100, 99), with(100, 67_108_865)] {
            assert_eq!(bad, Err(vec!["coordinator.request_bytes_max".to_owned()]));
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_named() {
        let config = Config { try_for_ms: 70_000, retention_ms: 1_000, page_size: 0, ..Config::default() };
        let fields: Vec<_> = config.validate().unwrap_err().into_iter().map(|bad| bad.field).collect();
        assert_eq!(fields, ["coordinator.try_for_ms", "coordinator.page_size", "coordinator.retention_ms"]);
    }
}

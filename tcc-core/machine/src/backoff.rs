//! How often and how long to try: capped exponential backoff. The jitter is the driver's, since it is random.

use std::time::Duration;

/// The limits by which a transaction's calls are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Longest delay before the first repetition.
    pub retry_base: Duration,
    /// Longest delay before any repetition.
    pub retry_cap: Duration,
    /// After this many failed attempts of a branch's second phase its transaction leaves memory until it is due again.
    pub park_after_attempts: u32,
    /// After this many failed attempts of its second phase a branch is stuck.
    pub stuck_after_attempts: u32,
    /// Longest delay before a stuck branch is tried again.
    pub stuck_probe: Duration,
    /// This long after the decision a branch that still fails is stuck, whatever its attempts.
    pub stuck_after: Duration,
}

impl Policy {
    /// The longest delay before the attempt that follows `failed` failed ones. The driver picks evenly between zero and this.
    #[must_use]
    pub fn delay_max(&self, failed: u32) -> Duration {
        let Some(exponent) = failed.checked_sub(1) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(exponent).unwrap_or(u32::MAX);
        self.retry_base.saturating_mul(factor).min(self.retry_cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_cap() {
        let policy = Policy {
            retry_base: Duration::from_millis(50),
            retry_cap: Duration::from_secs(1),
            park_after_attempts: 5,
            stuck_after_attempts: 10,
            stuck_probe: Duration::from_secs(15),
            stuck_after: Duration::from_secs(60),
        };
        let delays: Vec<_> = [0, 1, 2, 3, 5, 6, 40, u32::MAX].map(|failed| policy.delay_max(failed).as_millis()).into();
        assert_eq!(delays, [0, 50, 100, 200, 800, 1_000, 1_000, 1_000]);
    }
}

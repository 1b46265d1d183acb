//! Randomness as something that is handed in; a simulation brings a seeded one.

use std::time::Duration;

/// Where random bits come from.
pub trait Entropy: Send + Sync + 'static {
    /// Sixty-four random bits.
    fn next_u64(&self) -> u64;

    /// A random duration of at most `max`, evenly spread: full jitter.
    fn jitter(&self, max: Duration) -> Duration {
        let max_micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        // The widening product maps 64 random bits onto 0..=max without the bias of a remainder.
        let scaled = (u128::from(self.next_u64()) * (u128::from(max_micros) + 1)) >> 64;
        Duration::from_micros(u64::try_from(scaled).unwrap_or(max_micros))
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl Entropy for Fixed {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn jitter_reaches_both_ends_and_never_passes_them() {
        let max = Duration::from_millis(5);
        assert_eq!(Fixed(0).jitter(max), Duration::ZERO);
        assert_eq!(Fixed(u64::MAX).jitter(max), max);
        assert_eq!(Fixed(u64::MAX).jitter(Duration::ZERO), Duration::ZERO);
    }
}

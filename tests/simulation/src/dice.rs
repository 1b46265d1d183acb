//! Everything that is random in a simulation, from its seed alone. Each user has dice of its own, so that what one of them throws changes
//! nothing for the others.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::RangeInclusive,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use tcc_types::Entropy;

/// Seeded randomness.
#[derive(Debug)]
pub struct Dice(Mutex<SmallRng>);

impl Dice {
    /// The dice of `user` under this seed.
    #[must_use]
    pub fn new(seed: u64, user: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, user).hash(&mut hasher);
        Self(Mutex::new(SmallRng::seed_from_u64(hasher.finish())))
    }

    fn with<T>(&self, throw: impl FnOnce(&mut SmallRng) -> T) -> T {
        throw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// True `per_mille` times in a thousand.
    pub fn happens(&self, per_mille: u32) -> bool {
        self.with(|rng| rng.random_range(0..1_000) < per_mille)
    }

    /// Within the range.
    pub fn number(&self, range: RangeInclusive<u64>) -> u64 {
        self.with(|rng| rng.random_range(range))
    }

    /// Of something so long; it must not be empty.
    pub fn index(&self, length: usize) -> usize {
        self.with(|rng| rng.random_range(0..length))
    }

    /// So many milliseconds.
    pub fn millis(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }

    /// One of them; there must be one.
    pub fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[self.index(all.len())]
    }
}

impl Entropy for Dice {
    fn next_u64(&self) -> u64 {
        self.with(Rng::next_u64)
    }
}

//! An estimate of a database's clock, compared with it at every write. Never reads the machine's wall clock, which may be
//! another.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use tcc_types::{Clock, Timestamp};

/// A database's clock as this process knows it. It never runs backwards; where the database's does, it stands still.
#[derive(Debug)]
pub(crate) struct ServerClock {
    base: Instant,
    /// From `base` to the database's clock, in microseconds; `None` before the first comparison.
    offset: Mutex<Option<i64>>,
    /// The latest instant that was told.
    told: AtomicI64,
}

impl ServerClock {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), offset: Mutex::new(None), told: AtomicI64::new(0) }
    }

    /// The database said `server` at some moment between `sent` and `received`. Returns that, or what was told last if that is
    /// later: what is written must not seem older than what its writer knew before.
    pub(crate) fn compare(&self, sent: Instant, received: Instant, server: Timestamp) -> Timestamp {
        let server = server.as_micros();
        // The true offset is between these; the longer the round trip, the less it proves.
        let (lowest, highest) = (server - self.since_base(received), server - self.since_base(sent));
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        *offset = Some(match *offset {
            Some(offset) => offset.clamp(lowest, highest),
            None => lowest + (highest - lowest) / 2,
        });
        drop(offset);
        self.tell(server)
    }

    fn since_base(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.base).as_micros()).unwrap_or(i64::MAX)
    }

    fn tell(&self, micros: i64) -> Timestamp {
        Timestamp::from_micros(self.told.fetch_max(micros, Ordering::Relaxed).max(micros))
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default();
        self.tell(offset.saturating_add(self.since_base(Instant::now())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn the_middle_of_the_first_round_trip_is_taken_for_the_databases_moment() {
        let clock = ServerClock::new();
        let received = clock.base + Duration::from_millis(10);
        assert_eq!(clock.compare(clock.base, received, at(HOUR)), at(HOUR));
        assert_eq!(*clock.offset.lock().unwrap(), Some(HOUR - 5_000));
    }

    #[test]
    fn a_slow_round_trip_does_not_spoil_what_a_fast_one_showed() {
        let clock = ServerClock::new();
        clock.compare(clock.base, clock.base, at(HOUR));
        clock.compare(clock.base, clock.base + Duration::from_secs(9), at(HOUR + 1_000_000));
        assert_eq!(*clock.offset.lock().unwrap(), Some(HOUR));
        // But what it proves to be wrong is put right.
        clock.compare(clock.base, clock.base + Duration::from_secs(1), at(HOUR + 3_000_000));
        assert_eq!(*clock.offset.lock().unwrap(), Some(HOUR + 2_000_000));
    }

    #[test]
    fn it_never_runs_backwards_and_nothing_is_written_as_older_than_what_was_told() {
        let clock = ServerClock::new();
        clock.compare(clock.base, clock.base, at(2 * HOUR));
        let told = clock.now();
        let sent = Instant::now();
        let written = clock.compare(sent, sent, at(HOUR));
        assert!(written >= told, "{written} {told}");
        assert!(clock.now() >= written);
        // It stands still until the database's clock has caught up.
        let sent = Instant::now();
        assert_eq!(clock.compare(sent, sent, at(3 * HOUR)), at(3 * HOUR));
        assert!(clock.now() >= at(3 * HOUR));
    }
}

//! The one timer of a driver: it is moved only when what it waits for changes, since moving it costs more than most events.

use std::{pin::Pin, time::Duration};

use tcc_types::Timestamp;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long it sleeps at most before it compares the clocks again: the log's may have been set forward.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What it waits for.
#[derive(Default)]
pub(super) struct Alarm {
    wake_at: Option<Timestamp>,
    idle_until: Option<Instant>,
    /// When the machine is to be woken, by this process's clock.
    wake: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why it rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rang {
    /// The machine wants to be woken, or it is time to compare the clocks: woken too early, it does nothing.
    Wake,
    /// It was idle for long enough.
    Idle,
}

impl Alarm {
    /// Sets it to the machine's time, by the log's clock, and to the end of the idle time.
    pub(super) fn set(&mut self, wake_at: Option<Timestamp>, idle_until: Option<Instant>, now: impl FnOnce() -> Timestamp) {
        if wake_at == self.wake_at && idle_until == self.idle_until {
            return;
        }
        if wake_at != self.wake_at {
            self.wake = wake_at.map(|at| Instant::now() + now().until(at).min(SLEEP_MAX));
        }
        (self.wake_at, self.idle_until) = (wake_at, idle_until);
        let next = [self.wake, idle_until].into_iter().flatten().min();
        match (next, &mut self.timer) {
            (Some(next), Some(timer)) => timer.as_mut().reset(next),
            (Some(next), timer @ None) => *timer = Some(Box::pin(sleep_until(next))),
            (None, timer) => *timer = None,
        }
    }

    /// Waits for it; forever if it is not set. Cancel-safe.
    pub(super) async fn rings(&mut self) -> Rang {
        match &mut self.timer {
            Some(timer) => timer.as_mut().await,
            None => std::future::pending().await,
        }
        let now = Instant::now();
        let rang = match self.idle_until {
            Some(until) if until <= now => Rang::Idle,
            Some(_) | None => Rang::Wake,
        };
        // What is not due yet by the log's clock is set anew.
        *self = Self::default();
        rang
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn at(millis: u64) -> Option<Timestamp> {
        Some(NOW.plus(Duration::from_millis(millis)))
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_whatever_comes_first() {
        let began = Instant::now();
        let mut alarm = Alarm::default();
        assert!(alarm.rings().now_or_never().is_none());
        alarm.set(at(20), Some(began + Duration::from_millis(30)), || NOW);
        assert_eq!(alarm.rings().await, Rang::Wake);
        assert_eq!(began.elapsed(), Duration::from_millis(20));
        alarm.set(at(50), Some(began + Duration::from_millis(30)), || NOW.plus(began.elapsed()));
        assert_eq!(alarm.rings().await, Rang::Idle);
        assert_eq!(began.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_moved_in_both_directions_and_taken_away() {
        let began = Instant::now();
        let mut alarm = Alarm::default();
        alarm.set(at(10), None, || NOW);
        alarm.set(at(40), None, || NOW);
        alarm.set(at(20), None, || NOW);
        assert_eq!(alarm.rings().await, Rang::Wake);
        assert_eq!(began.elapsed(), Duration::from_millis(20));
        alarm.set(at(10), None, || NOW);
        alarm.set(None, None, || NOW);
        assert!(alarm.rings().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_due_by_the_logs_clock_is_waited_for_again() {
        let began = Instant::now();
        let mut alarm = Alarm::default();
        alarm.set(at(10), None, || NOW);
        assert_eq!(alarm.rings().await, Rang::Wake);
        // The log's clock stood still for half of the time.
        alarm.set(at(10), None, || NOW.plus(Duration::from_millis(5)));
        assert_eq!(alarm.rings().await, Rang::Wake);
        assert_eq!(began.elapsed(), Duration::from_millis(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_forward_is_noticed() {
        let began = Instant::now();
        let mut alarm = Alarm::default();
        alarm.set(at(60_000), None, || NOW);
        assert_eq!(alarm.rings().await, Rang::Wake);
        alarm.set(at(60_000), None, || NOW.plus(Duration::from_millis(60_000)));
        assert_eq!(alarm.rings().await, Rang::Wake);
        assert!(began.elapsed() <= SLEEP_MAX, "{:?}", began.elapsed());
    }
}

//! So many at once, and the others wait their turn for a bounded time: a burst is smoothed, and an overload keeps its throughput
//! while what would wait too long is refused at once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// The way in.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    queue_max: usize,
    wait_max: Duration,
}

#[derive(Debug)]
struct State {
    /// None is free while somebody waits.
    free: usize,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    ticket: oneshot::Sender<Ticket>,
}

/// A place; it goes to the next in turn when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket(Option<Arc<Gate>>);

/// Nobody was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl Gate {
    pub(super) fn new(places: usize, queue_max: usize, wait_max: Duration) -> Arc<Self> {
        let state = Mutex::new(State { free: places, waiting: VecDeque::new() });
        Arc::new(Self { state, queue_max, wait_max })
    }

    /// Waits for a place, in the order of asking. Cancel-safe: a dropped call gives its turn up.
    pub(super) async fn enter(self: &Arc<Self>) -> Result<Ticket, Refused> {
        let turn = match self.ask()? {
            Ok(ticket) => return Ok(ticket),
            Err(turn) => turn,
        };
        match timeout(self.wait_max, turn).await {
            Ok(Ok(ticket)) => Ok(ticket),
            // Too late; or the gate is gone, and with it everything behind it.
            Err(_) | Ok(Err(_)) => Err(Refused),
        }
    }

    /// A place, or where it will arrive.
    fn ask(self: &Arc<Self>) -> Result<Result<Ticket, oneshot::Receiver<Ticket>>, Refused> {
        let mut state = self.state();
        if state.free > 0 {
            state.free -= 1;
            return Ok(Ok(Ticket(Some(Arc::clone(self)))));
        }
        while state.waiting.front().is_some_and(|first| first.ticket.is_closed()) {
            state.waiting.pop_front();
        }
        if state.waiting.len() >= self.queue_max {
            // Those who left from the middle of it take nobody's place.
            state.waiting.retain(|waiter| !waiter.ticket.is_closed());
        }
        // Whoever comes now will wait about as long as the one whose turn is next has waited, and no longer than half the time:
        // the other half is for a pace that slackens, so that hardly anybody waits in vain.
        let slow = state.waiting.front().is_some_and(|first| first.since.elapsed() > self.wait_max / 2);
        if slow || state.waiting.len() >= self.queue_max {
            return Err(Refused);
        }
        let (ticket, turn) = oneshot::channel();
        state.waiting.push_back(Waiter { since: Instant::now(), ticket });
        Ok(Err(turn))
    }

    /// Gives a place to the next in turn who still waits.
    fn leave(self: Arc<Self>) {
        let mut ticket = Ticket(Some(Arc::clone(&self)));
        loop {
            let next = {
                let mut state = self.state();
                let next = state.waiting.pop_front();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else {
                ticket.0 = None;
                return;
            };
            match next.ticket.send(ticket) {
                Ok(()) => return,
                Err(back) => ticket = back,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No critical section can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    const WAIT: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_come_in_by_turns() {
        let gate = Gate::new(1, 10, WAIT);
        let first = gate.enter().await.unwrap();
        let (mut second, mut third) = (Box::pin(gate.enter()), Box::pin(gate.enter()));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "the third overtook the second");
        let second = second.await.unwrap();
        assert!(third.as_mut().now_or_never().is_none(), "two have the only place");
        drop(second);
        assert!(third.await.is_ok());
        assert_eq!(gate.state().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_lost_neither_by_who_leaves_the_queue_nor_by_who_leaves_with_it() {
        let gate = Gate::new(1, 10, WAIT);
        let first = gate.enter().await.unwrap();
        let (mut gone, mut going, mut last) = (Box::pin(gate.enter()), Box::pin(gate.enter()), Box::pin(gate.enter()));
        for one in [&mut gone, &mut going, &mut last] {
            assert!(one.as_mut().now_or_never().is_none());
        }
        drop(gone);
        drop(first);
        // It has got the place by now, and does not know it.
        drop(going);
        assert!(last.await.is_ok());
        assert_eq!(gate.state().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused() {
        let gate = Gate::new(1, 10, WAIT);
        let _first = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.err(), Some(Refused));
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_refused_at_once() {
        let gate = Gate::new(1, 10, WAIT);
        let _first = gate.enter().await.unwrap();
        let mut second = Box::pin(gate.enter());
        assert!(second.as_mut().now_or_never().is_none());
        advance(WAIT / 2).await;
        assert!(gate.enter().now_or_never().is_none(), "refused too early");
        advance(Duration::from_millis(1)).await;
        assert_eq!(gate.enter().now_or_never().map(|entered| entered.err()), Some(Some(Refused)));
        drop(second);
        // Nobody waits any more, so that nobody is slow.
        assert!(gate.enter().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_the_queue_takes_no_place_in_it() {
        let gate = Gate::new(1, 2, WAIT);
        let _first = gate.enter().await.unwrap();
        let (mut second, mut third) = (Box::pin(gate.enter()), Box::pin(gate.enter()));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(third);
        assert!(gate.enter().now_or_never().is_none(), "refused although there is room");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait() {
        let gate = Gate::new(1, 1, WAIT);
        let _first = gate.enter().await.unwrap();
        let mut second = Box::pin(gate.enter());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(gate.enter().now_or_never().map(|entered| entered.err()), Some(Some(Refused)));
    }
}

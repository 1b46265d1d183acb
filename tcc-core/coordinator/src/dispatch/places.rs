//! The places of calls to one participant: so many at once, and those that wait stand in two lines, phase two before phase one.
//! Bounds no time: a call that waits has not left, and whoever makes it knows how long it is worth waiting. Used by `grpc`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tcc_types::Op;
use tokio::sync::oneshot;

/// All places of one participant.
#[derive(Debug)]
pub(super) struct Places {
    lines: Mutex<Lines>,
    max: usize,
}

/// No place is free while anybody waits. As long as all drivers' branches, since each call is one branch's.
#[derive(Debug)]
struct Lines {
    free: usize,
    settles: VecDeque<oneshot::Sender<Place>>,
    tries: VecDeque<oneshot::Sender<Place>>,
}

/// A place; it goes to the next in line when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Option<Arc<Places>>,
    /// Every other place was free when this one was taken.
    pub(super) is_only: bool,
}

impl Lines {
    fn of(&mut self, op: Op) -> &mut VecDeque<oneshot::Sender<Place>> {
        match op {
            Op::Try => &mut self.tries,
            Op::Confirm | Op::Cancel => &mut self.settles,
        }
    }

    /// Whoever settles goes before everybody who tries: it ends what has begun, and frees what others wait for. Tries do not
    /// starve for that: there are only so many transactions to settle.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        self.settles.pop_front().or_else(|| self.tries.pop_front())
    }
}

impl Places {
    pub(super) fn new(max: usize) -> Arc<Self> {
        let lines = Mutex::new(Lines { free: max, settles: VecDeque::new(), tries: VecDeque::new() });
        Arc::new(Self { lines, max })
    }

    /// Waits for a place. Cancel-safe: a dropped call gives its turn up.
    pub(super) async fn take(self: &Arc<Self>, op: Op) -> Place {
        match self.ask(op) {
            Ok(place) => place,
            // A line lives as long as its places: nobody in it is forgotten.
            Err(turn) => turn.await.unwrap_or_else(|_| self.place(false)),
        }
    }

    /// A place, or where it will arrive.
    fn ask(self: &Arc<Self>, op: Op) -> Result<Place, oneshot::Receiver<Place>> {
        let mut lines = self.lines();
        if lines.free > 0 {
            lines.free -= 1;
            return Ok(self.place(lines.free + 1 == self.max));
        }
        let line = lines.of(op);
        while line.front().is_some_and(oneshot::Sender::is_closed) {
            line.pop_front();
        }
        let (sender, turn) = oneshot::channel();
        line.push_back(sender);
        Err(turn)
    }

    fn place(self: &Arc<Self>, is_only: bool) -> Place {
        Place { places: Some(Arc::clone(self)), is_only }
    }

    /// Gives a place to the next in line who still waits.
    fn leave(self: Arc<Self>) {
        let mut place = self.place(self.max == 1);
        loop {
            let next = {
                let mut lines = self.lines();
                let next = lines.next();
                if next.is_none() {
                    lines.free += 1;
                }
                next
            };
            let Some(next) = next else {
                place.places = None;
                return;
            };
            match next.send(place) {
                Ok(()) => return,
                Err(back) => place = back,
            }
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // No critical section can panic half-way.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.lines().free
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            places.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn phase_two_goes_before_phase_one_and_each_in_its_order() {
        let places = Places::new(1);
        let mut held = places.take(Op::Try).await;
        let asked = [Op::Try, Op::Try, Op::Confirm, Op::Try, Op::Cancel];
        let mut waiting: Vec<_> = asked.into_iter().map(|op| Box::pin(places.take(op))).collect();
        assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        let mut order = VecDeque::from([2, 4, 0, 1, 3]);
        while let Some(next) = order.pop_front() {
            drop(held);
            for later in &order {
                assert!(waiting[*later].as_mut().now_or_never().is_none(), "{later} overtook {next}");
            }
            held = waiting[next].as_mut().now_or_never().unwrap();
        }
        drop(held);
        assert_eq!(places.free(), 1);
    }

    #[tokio::test]
    async fn a_place_is_lost_neither_by_who_leaves_the_line_nor_by_who_leaves_with_it() {
        let places = Places::new(1);
        let held = places.take(Op::Try).await;
        let (mut gone, mut going, mut last) =
            (Box::pin(places.take(Op::Confirm)), Box::pin(places.take(Op::Confirm)), pin!(places.take(Op::Try)));
        for one in [&mut gone, &mut going] {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(last.as_mut().now_or_never().is_none());
        drop(gone);
        drop(held);
        // It has got the place by now, and does not know it.
        drop(going);
        drop(last.await);
        assert_eq!(places.free(), 1);
    }

    #[tokio::test]
    async fn who_comes_to_an_idle_participant_knows_it() {
        let places = Places::new(2);
        let first = places.take(Op::Try).await;
        let second = places.take(Op::Try).await;
        assert!(first.is_only && !second.is_only);
        let mut third = pin!(places.take(Op::Confirm));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(!third.await.is_only, "the second is still there");
    }
}

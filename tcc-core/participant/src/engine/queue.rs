//! What waits to be run, in order: operations of one branch never run side by side, and never overtake each other. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use tcc_types::BranchKey;

/// Most branches that are remembered for having failed alone; beyond it the one that failed longest ago is forgotten, and may fail a
/// batch once more.
const ALONE_MAX: usize = 4_096;

/// Something that waits.
pub(super) trait Waiting {
    /// For which branch.
    fn key(&self) -> &BranchKey;
    /// How much it brings to a batch.
    fn size_bytes(&self) -> usize;
    /// Nobody waits for its answer any more, so it need not run.
    fn is_abandoned(&self) -> bool;
}

/// The queue. Its owner bounds how much is in it.
#[derive(Debug)]
pub(super) struct Queue<W> {
    /// What may run, none of it for a branch of another.
    ready: VecDeque<W>,
    /// The same, of branches that run alone.
    ready_alone: VecDeque<W>,
    /// What waits behind an operation of the same branch, which is ready or runs.
    behind: HashMap<BranchKey, VecDeque<W>>,
    alone: Alone,
    alone_is_next: bool,
}

/// Branches whose operations failed by themselves: they run alone, so that they do not fail others.
#[derive(Debug, Default)]
struct Alone {
    keys: HashSet<BranchKey>,
    in_order: VecDeque<BranchKey>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            ready_alone: VecDeque::new(),
            behind: HashMap::new(),
            alone: Alone::default(),
            alone_is_next: false,
        }
    }
}

impl<W: Waiting> Queue<W> {
    /// Puts it in.
    pub(super) fn push(&mut self, waiting: W) {
        if let Some(behind) = self.behind.get_mut(waiting.key()) {
            behind.push_back(waiting);
            return;
        }
        self.behind.insert(waiting.key().clone(), VecDeque::new());
        self.make_ready(waiting);
    }

    fn make_ready(&mut self, waiting: W) {
        if self.alone.keys.contains(waiting.key()) {
            self.ready_alone.push_back(waiting);
        } else {
            self.ready.push_back(waiting);
        }
    }

    /// True if nothing may run now.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.ready_alone.is_empty()
    }

    /// Takes out what runs next: up to `limit` operations, but none after the one that reaches `bytes`; or one that runs alone; those
    /// in turn, if there are both. What is taken must be given back by [`Queue::done`]. Empty if there is nothing.
    pub(super) fn take(&mut self, limit: usize, bytes: usize) -> Vec<W> {
        let mut taken = Vec::new();
        // What was abandoned may have made way for something else.
        while taken.is_empty() && !self.is_empty() {
            let alone = !self.ready_alone.is_empty() && (self.alone_is_next || self.ready.is_empty());
            self.alone_is_next = !alone;
            if alone {
                self.take_from(|queue| queue.ready_alone.pop_front(), 1, bytes, &mut taken);
            } else {
                self.take_from(|queue| queue.ready.pop_front(), limit, bytes, &mut taken);
            }
        }
        taken
    }

    fn take_from(&mut self, mut pop: impl FnMut(&mut Self) -> Option<W>, limit: usize, bytes: usize, taken: &mut Vec<W>) {
        let mut size_bytes = 0;
        while taken.len() < limit && size_bytes < bytes {
            let Some(waiting) = pop(self) else { return };
            if waiting.is_abandoned() {
                self.done(waiting.key());
            } else {
                size_bytes += waiting.size_bytes();
                taken.push(waiting);
            }
        }
    }

    /// An operation of this branch has ended: the next one may run.
    pub(super) fn done(&mut self, key: &BranchKey) {
        let Some(behind) = self.behind.get_mut(key) else { return };
        match behind.pop_front() {
            Some(next) => self.make_ready(next),
            None => {
                self.behind.remove(key);
            }
        }
    }

    /// This branch's operations need not run alone any more.
    pub(super) fn run_together(&mut self, key: &BranchKey) {
        if self.alone.keys.remove(key) {
            // Hardly ever: only what failed before is in there.
            self.alone.in_order.retain(|other| other != key);
        }
    }

    /// From now on this branch's operations run alone.
    pub(super) fn run_alone(&mut self, key: &BranchKey) {
        if !self.alone.keys.insert(key.clone()) {
            return;
        }
        self.alone.in_order.push_back(key.clone());
        if self.alone.in_order.len() > ALONE_MAX
            && let Some(oldest) = self.alone.in_order.pop_front()
        {
            self.alone.keys.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use tcc_types::{BranchId, Gid, SystemEntropy, Timestamp};

    use super::*;

    const BYTES: usize = 1_000;

    #[derive(Clone, Debug, PartialEq)]
    struct Op {
        key: BranchKey,
        number: u32,
        abandoned: bool,
    }

    impl Waiting for Op {
        fn key(&self) -> &BranchKey {
            &self.key
        }

        fn size_bytes(&self) -> usize {
            10
        }

        fn is_abandoned(&self) -> bool {
            self.abandoned
        }
    }

    fn keys(count: usize) -> Vec<BranchKey> {
        let key = |_| BranchKey { gid: Gid::mint(Timestamp::EPOCH, &SystemEntropy), branch: BranchId::new("b").unwrap() };
        (0..count).map(key).collect()
    }

    fn op(key: &BranchKey, number: u32) -> Op {
        Op { key: key.clone(), number, abandoned: false }
    }

    fn numbers(taken: &[Op]) -> Vec<u32> {
        taken.iter().map(|op| op.number).collect()
    }

    #[test]
    fn a_batch_is_what_waits_in_its_order_up_to_the_limit() {
        let (keys, mut queue) = (keys(3), Queue::default());
        (0..3).for_each(|number| queue.push(op(&keys[number as usize], number)));
        assert_eq!(numbers(&queue.take(2, BYTES)), [0, 1]);
        assert_eq!(numbers(&queue.take(2, BYTES)), [2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_batch_ends_with_what_reaches_its_bytes() {
        let (keys, mut queue) = (keys(5), Queue::default());
        (0..5).for_each(|number| queue.push(op(&keys[number as usize], number)));
        assert_eq!(numbers(&queue.take(9, 25)), [0, 1, 2]);
        assert_eq!(numbers(&queue.take(9, 1)), [3]);
    }

    #[test]
    fn operations_of_one_branch_run_one_after_the_other_in_their_order() {
        let (keys, mut queue) = (keys(2), Queue::default());
        for (key, number) in [(0, 0), (0, 1), (1, 2), (0, 3)] {
            queue.push(op(&keys[key], number));
        }
        assert_eq!(numbers(&queue.take(9, BYTES)), [0, 2]);
        assert!(queue.take(9, BYTES).is_empty());
        queue.done(&keys[0]);
        assert_eq!(numbers(&queue.take(9, BYTES)), [1]);
        queue.done(&keys[1]);
        assert!(queue.take(9, BYTES).is_empty());
        queue.done(&keys[0]);
        assert_eq!(numbers(&queue.take(9, BYTES)), [3]);
        queue.done(&keys[0]);
        assert!(queue.behind.is_empty(), "what has ended is not kept");
    }

    #[test]
    fn what_failed_alone_runs_alone_and_in_turn_with_the_others() {
        let (keys, mut queue) = (keys(5), Queue::default());
        queue.run_alone(&keys[0]);
        queue.run_alone(&keys[1]);
        (0..5).for_each(|number| queue.push(op(&keys[number as usize], number)));
        let batches: Vec<_> = (0..4).map(|_| numbers(&queue.take(2, BYTES))).collect();
        assert_eq!(batches, [vec![2, 3], vec![0], vec![4], vec![1]]);
    }

    #[test]
    fn what_succeeds_again_runs_with_others_again() {
        let (keys, mut queue) = (keys(2), Queue::default());
        queue.run_alone(&keys[0]);
        queue.run_together(&keys[0]);
        (0..2).for_each(|number| queue.push(op(&keys[number as usize], number)));
        assert_eq!(numbers(&queue.take(9, BYTES)), [0, 1]);
        assert!(queue.alone.in_order.is_empty());
    }

    #[test]
    fn what_nobody_waits_for_does_not_run_and_does_not_hold_up_what_is_behind_it() {
        let (keys, mut queue) = (keys(2), Queue::default());
        queue.push(Op { abandoned: true, ..op(&keys[0], 0) });
        queue.push(op(&keys[0], 1));
        queue.push(op(&keys[1], 2));
        assert_eq!(numbers(&queue.take(9, BYTES)), [2, 1]);
    }

    #[test]
    fn what_is_behind_something_abandoned_runs_also_if_it_runs_alone() {
        let (keys, mut queue) = (keys(1), Queue::default());
        queue.push(Op { abandoned: true, ..op(&keys[0], 0) });
        queue.push(op(&keys[0], 1));
        queue.run_alone(&keys[0]);
        assert_eq!(numbers(&queue.take(9, BYTES)), [1]);
    }

    #[test]
    fn only_so_many_are_remembered_as_failing_alone() {
        let (keys, mut queue) = (keys(ALONE_MAX + 1), Queue::<Op>::default());
        keys.iter().for_each(|key| queue.run_alone(key));
        assert_eq!((queue.alone.keys.len(), queue.alone.in_order.len()), (ALONE_MAX, ALONE_MAX));
        assert!(!queue.alone.keys.contains(&keys[0]));
    }
}

//! What disagreed at a first look, until it is clear whether it stands. Pure: time comes in with each look.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use tcc_types::Gid;

use crate::Finding;

/// The transactions that are to be looked at again, with what was found and since when it stands.
#[derive(Clone, Debug)]
pub struct Candidates {
    grace: Duration,
    max: usize,
    since: BTreeMap<Gid, HashMap<Finding, Duration>>,
    /// What stands, of transactions of which something else is still looked at.
    standing: BTreeMap<Gid, HashSet<Finding>>,
    left_out: u64,
    gone: u64,
}

impl Candidates {
    /// None yet; at most `max` transactions, each of whose findings must stand for `grace`.
    #[must_use]
    pub const fn new(grace: Duration, max: usize) -> Self {
        Self { grace, max, since: BTreeMap::new(), standing: BTreeMap::new(), left_out: 0, gone: 0 }
    }

    /// Takes what a first look at a transaction has found, `at` so long after the start.
    pub fn add(&mut self, gid: Gid, at: Duration, found: Vec<Finding>) {
        if found.is_empty() {
            return;
        }
        if self.since.len() < self.max {
            self.since.insert(gid, found.into_iter().map(|finding| (finding, at)).collect());
        } else {
            self.left_out += 1;
        }
    }

    /// Which are to be looked at again, the oldest first.
    #[must_use]
    pub fn gids(&self) -> Vec<Gid> {
        self.since.keys().copied().collect()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// How many transactions were not taken, since there were `max`.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many findings were gone at a later look, or had changed: work in flight.
    #[must_use]
    pub const fn gone(&self) -> u64 {
        self.gone
    }

    /// What became of a transaction at another look, `at` so long after the start: what has stood unchanged over the grace is
    /// returned, once; what is gone is forgotten; what is new stands from now on.
    pub fn look(&mut self, gid: Gid, at: Duration, found: Vec<Finding>) -> Vec<Finding> {
        let mut before = self.since.remove(&gid).unwrap_or_default();
        let mut told = self.standing.remove(&gid).unwrap_or_default();
        let (mut standing, mut open) = (Vec::new(), HashMap::new());
        for finding in found {
            if told.contains(&finding) {
                continue;
            }
            match before.remove(&finding) {
                Some(since) if at.saturating_sub(since) >= self.grace => standing.push(finding),
                Some(since) => drop(open.insert(finding, since)),
                None => drop(open.insert(finding, at)),
            }
        }
        self.gone += before.len() as u64;
        if !open.is_empty() {
            self.since.insert(gid, open);
            told.extend(standing.iter().cloned());
            if !told.is_empty() {
                self.standing.insert(gid, told);
            }
        }
        standing
    }

    /// Gives up on what is left: it has changed at every look.
    #[must_use]
    pub fn end(self) -> u64 {
        self.gone + self.since.values().map(|found| found.len() as u64).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use tcc_types::Timestamp;

    use super::*;
    use crate::Rule;

    const GRACE: Duration = Duration::from_secs(10);

    fn gid() -> Gid {
        Gid::first_of(Timestamp::from_millis(1_790_000_000_000))
    }

    fn finding(says: &str) -> Finding {
        Finding::new(Rule::Orphan).of(gid()).says(says)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn with(found: Vec<Finding>) -> Candidates {
        let mut candidates = Candidates::new(GRACE, 10);
        candidates.add(gid(), at(0), found);
        candidates
    }

    #[test]
    fn what_stands_over_the_grace_is_found_once() {
        let mut candidates = with(vec![finding("a")]);
        assert!(candidates.look(gid(), at(9), vec![finding("a")]).is_empty());
        assert_eq!(candidates.look(gid(), at(10), vec![finding("a")]), [finding("a")]);
        assert!(candidates.is_empty());
        assert_eq!(candidates.end(), 0);
    }

    #[test]
    fn what_stands_is_found_once_though_another_finding_of_its_transaction_changes() {
        let mut candidates = with(vec![finding("a"), finding("b")]);
        assert_eq!(candidates.look(gid(), at(10), vec![finding("a"), finding("c")]), [finding("a")]);
        assert!(candidates.look(gid(), at(20), vec![finding("a"), finding("d")]).is_empty());
        assert_eq!(candidates.look(gid(), at(30), vec![finding("a"), finding("d")]), [finding("d")]);
        assert!(candidates.is_empty());
    }

    #[test]
    fn what_is_gone_at_the_second_look_was_work_in_flight() {
        let mut candidates = with(vec![finding("a")]);
        assert!(candidates.look(gid(), at(10), Vec::new()).is_empty());
        assert!(candidates.is_empty());
        assert_eq!(candidates.gone(), 1);
    }

    #[test]
    fn what_has_changed_has_its_grace_anew() {
        let mut candidates = with(vec![finding("a")]);
        assert!(candidates.look(gid(), at(10), vec![finding("b")]).is_empty());
        assert_eq!(candidates.gids(), [gid()]);
        assert!(candidates.look(gid(), at(19), vec![finding("b")]).is_empty());
        assert_eq!(candidates.look(gid(), at(20), vec![finding("b")]), [finding("b")]);
    }

    #[test]
    fn what_changes_at_every_look_is_never_found() {
        let mut candidates = with(vec![finding("a")]);
        for (seconds, says) in [(10, "b"), (20, "c"), (30, "a")] {
            assert!(candidates.look(gid(), at(seconds), vec![finding(says)]).is_empty());
        }
        assert_eq!(candidates.end(), 4);
    }

    #[test]
    fn without_a_grace_a_second_look_is_still_needed() {
        let mut candidates = Candidates::new(Duration::ZERO, 10);
        candidates.add(gid(), at(5), vec![finding("a")]);
        assert_eq!(candidates.look(gid(), at(5), vec![finding("a")]), [finding("a")]);
    }

    #[test]
    fn more_than_the_limit_are_counted() {
        let mut candidates = Candidates::new(GRACE, 1);
        candidates.add(gid(), at(0), vec![finding("a")]);
        let other = Gid::first_of(Timestamp::from_millis(1_790_000_000_001));
        candidates.add(other, at(0), vec![finding("a")]);
        assert_eq!((candidates.gids(), candidates.left_out()), (vec![gid()], 1));
    }
}

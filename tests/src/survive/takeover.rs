//! How long a dead gateway's transactions waited for another owner. Pure: it is shown the log again and again.

use std::{collections::BTreeMap, time::Duration};

/// One unfinished transaction as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) gid: Vec<u8>,
    /// The number of the gateway's run that drives it.
    pub(crate) owner: i64,
    /// It has a lease: it is driven, and does not wait for a request or a later attempt.
    pub(crate) leased: bool,
}

/// What waits for another owner, and what waited how long.
#[derive(Debug, Default)]
pub(crate) struct Takeovers {
    waiting: BTreeMap<Vec<u8>, Waiting>,
    took: Vec<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    owner: i64,
    since: Duration,
}

impl Takeovers {
    /// The gateway whose number is `owner` was killed at `at`; `open` was read after it was gone.
    pub(crate) fn killed(&mut self, owner: i64, at: Duration, open: &[Open]) {
        let orphans = open.iter().filter(|one| one.owner == owner && one.leased);
        self.waiting.extend(orphans.map(|one| (one.gid.clone(), Waiting { owner, since: at })));
    }

    /// The log has these unfinished transactions at `at`: whatever is no longer the dead one's was taken over, or has ended.
    pub(crate) fn seen(&mut self, at: Duration, open: &[Open]) {
        let owners: BTreeMap<&[u8], i64> = open.iter().map(|one| (one.gid.as_slice(), one.owner)).collect();
        let took = &mut self.took;
        self.waiting.retain(|gid, waiting| {
            let still = owners.get(gid.as_slice()) == Some(&waiting.owner);
            if !still {
                took.push(at.saturating_sub(waiting.since));
            }
            still
        });
    }

    /// How many still wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How long each that waits no more waited.
    pub(crate) fn took(&self) -> &[Duration] {
        &self.took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: i64 = 7;
    const OTHER: i64 = 8;

    fn open(gid: u8, owner: i64) -> Open {
        Open { gid: vec![gid], owner, leased: true }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_transaction_waits_until_its_owner_changes_or_it_has_ended() {
        let mut takeovers = Takeovers::default();
        takeovers.killed(DEAD, at(100), &[open(1, DEAD), open(2, DEAD), open(3, OTHER)]);
        takeovers.seen(at(150), &[open(1, DEAD), open(2, DEAD)]);
        assert_eq!((takeovers.waiting(), takeovers.took()), (2, [].as_slice()));
        takeovers.seen(at(400), &[open(1, OTHER), open(2, DEAD)]);
        takeovers.seen(at(900), &[open(1, OTHER)]);
        assert_eq!((takeovers.waiting(), takeovers.took()), (0, [at(300), at(800)].as_slice()));
    }

    #[test]
    fn what_is_not_driven_waits_for_nobody() {
        let mut takeovers = Takeovers::default();
        takeovers.killed(DEAD, at(0), &[Open { leased: false, ..open(1, DEAD) }]);
        assert_eq!(takeovers.waiting(), 0);
    }

    #[test]
    fn a_transaction_can_be_orphaned_twice() {
        let mut takeovers = Takeovers::default();
        takeovers.killed(DEAD, at(0), &[open(1, DEAD)]);
        takeovers.seen(at(50), &[open(1, OTHER)]);
        takeovers.killed(OTHER, at(60), &[open(1, OTHER)]);
        takeovers.seen(at(90), &[]);
        assert_eq!(takeovers.took(), [at(50), at(30)]);
    }
}

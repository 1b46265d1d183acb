//! What breaks when, from a seed alone. Pure.
//!
//! Faults come in *lanes*: within a lane one is over before the next begins, and lanes know nothing of each other. Each process has a
//! lane, the database server one, and the links are dealt out to some.

use std::{fmt, time::Duration};

use tcc_simulation::Dice;

use crate::harness::{Harm, Links, Party, Store, Traffic, Way};

/// Nothing breaks before, and nothing is still broken so long before the end.
const CALM: Duration = Duration::from_secs(2);
/// Links that may be harmed at the same time.
const LINK_LANES: usize = 3;
/// What one way of a slow link takes.
const SLOW_MS: std::ops::RangeInclusive<u64> = 20..=400;

/// Something that breaks, and is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL; started again later.
    Kill(Party),
    /// SIGSTOP; SIGCONT later, with everything that it held and believed.
    Stop(Party),
    /// What a process writes to files fails.
    FullDisk(Party),
    /// SIGKILL of the database server and all its backends; started again later.
    KillDatabase,
    /// What the database server writes to files fails, and it may end of that.
    FullDatabaseDisk,
    /// Something between two parties, by the number of their link.
    Link(usize, Disturbance),
}

/// What can become of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disturbance {
    /// Connections are cut, and none can be made.
    Cut,
    /// Nothing arrives any more, and in the end the connections are cut: what was under way is lost.
    Drop,
    /// Nothing arrives; then everything does.
    Delay,
    /// Requests do not arrive; then they do.
    RequestsStall,
    /// Answers do not arrive; then they do.
    AnswersStall,
    /// Everything takes so many milliseconds longer.
    Slow(u64),
    /// A commit is cut off before it arrives.
    LosesCommit,
    /// A commit happens, and nobody is told.
    LosesCommitAnswer,
    /// A request arrives, and its answer does not.
    LosesAnswer,
    /// Half of a request arrives.
    CutsRequest,
    /// Half of an answer arrives.
    CutsAnswer,
    /// A connection goes silent for good, and nobody is told.
    Swallows,
}

impl Disturbance {
    const ANYWHERE: [Self; 9] = [
        Self::Cut,
        Self::Drop,
        Self::Delay,
        Self::RequestsStall,
        Self::AnswersStall,
        Self::LosesAnswer,
        Self::CutsRequest,
        Self::CutsAnswer,
        Self::Swallows,
    ];

    /// What becomes of everything on the link.
    pub(crate) const fn traffic(self) -> Traffic {
        match self {
            Self::Cut => Traffic::Cut,
            Self::Drop | Self::Delay => Traffic::Stalls,
            Self::RequestsStall => Traffic::StallsOneWay(Way::Request),
            Self::AnswersStall => Traffic::StallsOneWay(Way::Answer),
            Self::Slow(millis) => Traffic::Slow(Duration::from_millis(millis)),
            Self::LosesCommit
            | Self::LosesCommitAnswer
            | Self::LosesAnswer
            | Self::CutsRequest
            | Self::CutsAnswer
            | Self::Swallows => Traffic::Flows,
        }
    }

    /// What is done once, if it is that.
    pub(crate) const fn harm(self) -> Option<Harm> {
        match self {
            Self::Cut | Self::Drop | Self::Delay | Self::RequestsStall | Self::AnswersStall | Self::Slow(_) => None,
            Self::LosesCommit => Some(Harm::LosesCommit),
            Self::LosesCommitAnswer => Some(Harm::LosesCommitAnswer),
            Self::LosesAnswer => Some(Harm::LosesAnswer),
            Self::CutsRequest => Some(Harm::CutsHalfway(Way::Request)),
            Self::CutsAnswer => Some(Harm::CutsHalfway(Way::Answer)),
            Self::Swallows => Some(Harm::Swallows),
        }
    }
}

impl Fault {
    /// What it is counted as.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill -9",
            Self::Stop(_) => "SIGSTOP",
            Self::FullDisk(_) => "full disk",
            Self::KillDatabase => "kill -9 of the database",
            Self::FullDatabaseDisk => "full disk of the database",
            Self::Link(_, disturbance) => match disturbance {
                Disturbance::Cut => "link cut",
                Disturbance::Drop => "link drops everything",
                Disturbance::Delay => "link stalls, then delivers",
                Disturbance::RequestsStall => "requests stall",
                Disturbance::AnswersStall => "answers stall",
                Disturbance::Slow(_) => "link slow",
                Disturbance::LosesCommit => "commit lost",
                Disturbance::LosesCommitAnswer => "answer to a commit lost",
                Disturbance::LosesAnswer => "answer lost",
                Disturbance::CutsRequest => "request cut half way",
                Disturbance::CutsAnswer => "answer cut half way",
                Disturbance::Swallows => "connection goes silent",
            },
        }
    }
}

/// A fault, when it begins, and for how long it lasts before it is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?} for {:?}", self.fault, self.at, self.lasts)
    }
}

/// All lanes, each in the order of time.
pub(crate) fn plan(seed: u64, store: Store, gateways: usize, length: Duration) -> Vec<Vec<Planned>> {
    let mut lanes = Vec::new();
    for party in Party::processes(gateways) {
        lanes.push(lane(&Dice::new(seed, &party.to_string()), length, 4_000..=14_000, |dice| of_process(dice, party, store)));
    }
    if store.kind().is_some() {
        lanes.push(lane(&Dice::new(seed, "database"), length, 12_000..=28_000, of_database));
    }
    let pairs = Links::pairs(store, gateways);
    for number in 0..LINK_LANES {
        let own: Vec<usize> = (0..pairs.len()).filter(|link| link % LINK_LANES == number).collect();
        lanes.push(lane(&Dice::new(seed, &format!("links {number}")), length, 500..=4_000, |dice| {
            let link = dice.one_of(&own);
            of_link(dice, link, pairs[link].1)
        }));
    }
    lanes
}

fn lane(
    dice: &Dice,
    length: Duration,
    gap_ms: std::ops::RangeInclusive<u64>,
    next: impl Fn(&Dice) -> (Fault, Duration),
) -> Vec<Planned> {
    let mut lane = Vec::new();
    let mut at = CALM + dice.millis(0..=*gap_ms.start());
    loop {
        let (fault, lasts) = next(dice);
        if at + lasts + CALM > length {
            return lane;
        }
        lane.push(Planned { at, lasts, fault });
        at += lasts + dice.millis(gap_ms.clone());
    }
}

fn of_process(dice: &Dice, party: Party, store: Store) -> (Fault, Duration) {
    let disks = match store {
        Store::Sqlite => 200,
        // What they write is the database server's.
        Store::Postgres | Store::Mysql => 0,
    };
    if dice.happens(disks) {
        return (Fault::FullDisk(party), dice.millis(500..=4_000));
    }
    if dice.happens(300) {
        // A gateway past its lease, so that others have taken up what it believes to be its own.
        let lasts = if matches!(party, Party::Gateway(_)) { 3_500..=7_000 } else { 1_000..=5_000 };
        return (Fault::Stop(party), dice.millis(lasts));
    }
    (Fault::Kill(party), dice.millis(100..=2_000))
}

fn of_database(dice: &Dice) -> (Fault, Duration) {
    if dice.happens(200) {
        return (Fault::FullDatabaseDisk, dice.millis(300..=2_000));
    }
    (Fault::KillDatabase, dice.millis(100..=2_500))
}

fn of_link(dice: &Dice, link: usize, to: Party) -> (Fault, Duration) {
    let of_commits = [Disturbance::LosesCommit, Disturbance::LosesCommitAnswer];
    let disturbance = match to {
        Party::Database(_) if dice.happens(500) => dice.one_of(&of_commits),
        _ if dice.happens(150) => Disturbance::Slow(dice.number(SLOW_MS)),
        _ => dice.one_of(&Disturbance::ANYWHERE),
    };
    (Fault::Link(link, disturbance), dice.millis(200..=4_000))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const LENGTH: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_decides_everything_and_another_seed_otherwise() {
        for store in Store::ALL {
            assert_eq!(plan(7, store, 1, LENGTH), plan(7, store, 1, LENGTH));
            assert_ne!(plan(7, store, 1, LENGTH), plan(8, store, 1, LENGTH));
        }
    }

    #[test]
    fn within_a_lane_one_fault_is_over_before_the_next_and_no_two_lanes_touch_the_same() {
        let mut touched: BTreeMap<String, usize> = BTreeMap::new();
        for (number, lane) in plan(1, Store::Postgres, 3, LENGTH).iter().enumerate() {
            for pair in lane.windows(2) {
                assert!(pair[0].at + pair[0].lasts < pair[1].at, "{} and {}", pair[0], pair[1]);
            }
            assert!(lane.iter().all(|one| one.at >= CALM && one.at + one.lasts + CALM <= LENGTH));
            for one in lane {
                let what = match one.fault {
                    Fault::Kill(party) | Fault::Stop(party) | Fault::FullDisk(party) => party.to_string(),
                    Fault::KillDatabase | Fault::FullDatabaseDisk => "database".to_owned(),
                    Fault::Link(link, _) => format!("link {link}"),
                };
                assert_eq!(*touched.entry(what).or_insert(number), number, "{one}");
            }
        }
        assert_eq!(touched.len(), 5 + 1 + Links::pairs(Store::Postgres, 3).len(), "something is never touched: {touched:?}");
    }

    #[test]
    fn ten_minutes_have_every_kind_of_fault_that_the_store_can_have() {
        let kinds = |store, gateways| -> BTreeSet<&str> {
            plan(1, store, gateways, LENGTH).iter().flatten().map(|one| one.fault.kind()).collect()
        };
        let server = kinds(Store::Postgres, 3);
        assert_eq!(server, kinds(Store::Mysql, 3));
        assert!(server.len() == 16 && !server.contains("full disk"), "{server:?}");
        let file = kinds(Store::Sqlite, 1);
        assert!(file.len() == 13 && file.contains("full disk"), "{file:?}");
    }
}

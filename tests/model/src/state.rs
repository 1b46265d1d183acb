//! Everything that there is at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use tcc_barrier::Answer;
use tcc_types::{BranchRowStatus, Decision, Op, Timestamp};

use crate::{driver::Driver, log::Record, mark::Mark, participant::Participant};

/// A branch, by its place in the configuration: transaction, and branch of it.
pub(crate) type Place = (usize, usize);

/// A message to a participant. It may arrive at any time, any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    pub(crate) at: Place,
    pub(crate) op: Op,
    /// Of a Try and a Cancel.
    pub(crate) not_after: Timestamp,
    /// Of a Try.
    pub(crate) ask_after: Timestamp,
    /// Who waits for the answer; `None`: nobody any more.
    pub(crate) from: Option<Sender>,
}

/// A call of a driver that is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Sender {
    pub(crate) gateway: usize,
    pub(crate) serial: u32,
}

/// An answer on its way to a driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reply {
    pub(crate) branch: usize,
    pub(crate) serial: u32,
    pub(crate) answer: Answer,
}

/// A row that retention was told may go, as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Condemned {
    pub(crate) at: Place,
    pub(crate) status: BranchRowStatus,
    pub(crate) changed_at: Timestamp,
}

/// How often something has happened that happens only so often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Spent {
    pub(crate) crashes: u8,
    pub(crate) takeovers: u8,
    pub(crate) unanswered: u8,
    pub(crate) lost_commits: u8,
    pub(crate) lost_begins: u8,
    pub(crate) lost_rows: u8,
    pub(crate) orders: u8,
    /// Of each transaction.
    pub(crate) submits: Vec<u8>,
    pub(crate) confirms: Vec<u8>,
    pub(crate) cancels: Vec<u8>,
    pub(crate) enlists: Vec<u8>,
}

/// What is true of a transaction for ever, whatever becomes of its row in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fate {
    pub(crate) decision: Option<Decision>,
    /// Confirm was decided although a branch had never reserved.
    pub(crate) unfounded: bool,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The log database's clock.
    pub(crate) now: Timestamp,
    /// The log's row of each transaction.
    pub(crate) log: Vec<Option<Record>>,
    pub(crate) fates: Vec<Fate>,
    /// Of each gateway, by transaction.
    pub(crate) gateways: Vec<BTreeMap<usize, Arc<Driver>>>,
    pub(crate) network: BTreeSet<Request>,
    /// Questions about unknown gids whose cancelled record is about to be written.
    pub(crate) in_doubt: BTreeSet<Place>,
    pub(crate) condemned: BTreeSet<Condemned>,
    pub(crate) participants: Vec<Arc<Participant>>,
    /// What contradicts a decision, if anything does.
    pub(crate) broken: Option<String>,
    /// An answer that its participant's row did not bear out.
    pub(crate) untrue: Option<Answer>,
    pub(crate) spent: Spent,
    /// The transactions may change places: they are alike.
    pub(crate) alike: bool,
    /// What the last step showed; no part of the state.
    pub(crate) marks: Marks,
}

impl State {
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.marks.0 |= 1 << mark as u32;
    }

    /// Somebody was told this decision.
    pub(crate) fn tell(&mut self, tx: usize, told: Decision) {
        if self.fates[tx].decision != Some(told) {
            self.broken.get_or_insert_with(|| format!("{told:?} of transaction {tx} was told, and is not decided"));
        }
    }
}

/// A set of [`Mark`]s that two states do not differ by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks(pub(crate) u64);

impl PartialEq for Marks {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Marks {}

impl Hash for Marks {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

//! Everything that there is at one moment.

use std::collections::{BTreeMap, BTreeSet};

use tcc_barrier::Answer;
use tcc_types::{Decision, Op, Timestamp};

use crate::{driver::Driver, log::Record, participant::Participant};

/// A message to a participant. It may arrive at any time, any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    pub(crate) tx: usize,
    pub(crate) branch: usize,
    pub(crate) op: Op,
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

/// How often something has happened that happens only so often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Spent {
    pub(crate) crashes: u8,
    pub(crate) takeovers: u8,
    pub(crate) unanswered: u8,
    pub(crate) lost_commits: u8,
    /// Of each transaction.
    pub(crate) submits: Vec<u8>,
    pub(crate) confirms: Vec<u8>,
    pub(crate) cancels: Vec<u8>,
}

/// One state of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The database's clock: of the log, and of participants.
    pub(crate) now: Timestamp,
    /// The log's row of each transaction.
    pub(crate) log: Vec<Option<Record>>,
    /// Of each gateway, by transaction.
    pub(crate) gateways: Vec<BTreeMap<usize, Driver>>,
    pub(crate) network: BTreeSet<Request>,
    pub(crate) participants: Vec<Participant>,
    /// What anybody was ever told that a transaction's decision is.
    pub(crate) told: Vec<BTreeSet<Told>>,
    /// What the log contradicted, if it did.
    pub(crate) broken: Option<String>,
    /// An answer that its participant's row did not bear out.
    pub(crate) untrue: Option<Answer>,
    pub(crate) spent: Spent,
}

/// A decision in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Told {
    Confirm,
    Cancel,
}

impl From<Decision> for Told {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Confirm => Self::Confirm,
            Decision::Cancel => Self::Cancel,
        }
    }
}

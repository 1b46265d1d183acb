//! A driver: the machine that ships, and what is left to do of what it asked for. As the coordinator's driver, it sends calls at once,
//! and hears of nothing else while it waits for the log.

use std::collections::VecDeque;

use tcc_machine::{Choice, Machine, Parking};
use tcc_types::Timestamp;

use crate::state::Reply;

/// A write that the machine or a request asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Decide(Choice),
    Finish,
    Park(Parking),
    /// Of a branch, by its place in the configuration.
    Enlist(usize),
}

/// One transaction's driver in one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Driver {
    pub(crate) machine: Machine,
    /// When its transaction was begun: its deadlines follow from it.
    pub(crate) begun_at: Timestamp,
    /// Which branch of the configuration each of the machine's is.
    pub(crate) branches: Vec<usize>,
    pub(crate) writes: VecDeque<Write>,
    /// On their way, in the order of branches.
    pub(crate) replies: Vec<Reply>,
    /// The call of each branch of the configuration that waits for its answer.
    pub(crate) waiting: Vec<Option<u32>>,
}

impl Driver {
    /// `places`: how many branches the configuration has.
    pub(crate) fn new(machine: Machine, begun_at: Timestamp, branches: Vec<usize>, places: usize) -> Self {
        Self { machine, begun_at, branches, writes: VecDeque::new(), replies: Vec::new(), waiting: vec![None; places] }
    }

    /// It takes events.
    pub(crate) fn listens(&self) -> bool {
        self.writes.is_empty()
    }

    /// What its machine calls a branch of the configuration.
    pub(crate) fn index_of(&self, branch: usize) -> Option<usize> {
        self.branches.iter().position(|known| *known == branch)
    }
}

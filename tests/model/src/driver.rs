//! A driver: the machine that ships, and what is left to do of what it asked for. As the coordinator's driver, it sends calls at once,
//! and hears of nothing else while it waits for the log.

use std::collections::VecDeque;

use tcc_machine::{Choice, Machine, Parking};

use crate::state::Reply;

/// A write that the machine asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Decide(Choice),
    Finish,
    Park(Parking),
}

/// One transaction's driver in one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Driver {
    pub(crate) machine: Machine,
    pub(crate) writes: VecDeque<Write>,
    /// On their way, in the order of arrival at the network.
    pub(crate) replies: Vec<Reply>,
    /// The call of each branch that waits for its answer.
    pub(crate) waiting: Vec<Option<u32>>,
}

impl Driver {
    pub(crate) fn new(machine: Machine, branches: usize) -> Self {
        Self { machine, writes: VecDeque::new(), replies: Vec::new(), waiting: vec![None; branches] }
    }

    /// It takes events.
    pub(crate) fn listens(&self) -> bool {
        self.writes.is_empty()
    }
}

//! What can happen.

use tcc_types::Decision;

use crate::state::Request;

/// One thing that happens, to one transaction at one gateway unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A Submit arrives. Not `answered`: Begun is written, and nobody here knows of it.
    Submit { tx: usize, gateway: usize, answered: bool },
    /// The initiator asks for a decision.
    Ask { tx: usize, gateway: usize, decision: Decision },
    /// The gateway takes it up from the log.
    TakeUp { tx: usize, gateway: usize },
    /// The driver's next write is committed in the log. Not `heard`: the driver does not know, and will repeat it.
    Write { tx: usize, gateway: usize, heard: bool },
    /// A request arrives at its participant.
    Arrive(Request),
    /// An answer arrives at the driver, by its place among those that are under way.
    Answer { tx: usize, gateway: usize, reply: usize },
    /// The driver gives up waiting for an answer.
    GiveUp { tx: usize, gateway: usize, branch: usize },
    /// The driver's alarm.
    Wake { tx: usize, gateway: usize },
    /// A gateway loses all that it had in memory.
    Crash { gateway: usize },
    /// Time passes.
    Tick,
}

//! What can happen.

use tcc_types::Decision;

use crate::state::{Condemned, Place, Request};

/// What an operator orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Probe,
    TryAnew,
    MarkSettled,
}

/// One thing that happens, to one transaction at one gateway unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A Submit or Begin arrives. Not `answered`: Begun is written, and nobody here knows of it.
    Submit { tx: usize, gateway: usize, answered: bool },
    /// An Enlist arrives.
    Enlist { tx: usize, gateway: usize, branch: usize },
    /// The initiator asks for a decision.
    Ask { tx: usize, gateway: usize, decision: Decision },
    /// The gateway takes it up from the log.
    TakeUp { tx: usize, gateway: usize },
    /// The driver looks at the log.
    Look { tx: usize, gateway: usize },
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
    /// A participant's sweeper asks about a reservation; any gateway reads the log and answers.
    Sweep(Place),
    /// The cancelled record for a question about an unknown gid is written, and answered by what stands.
    WriteCancelled(Place),
    /// A participant's retention looks at a row, and deletes it, or asks about it.
    Retire(Place),
    /// A row that may go is deleted, if it is as it was.
    Delete(Condemned),
    /// The log deletes a transaction that has ended.
    DeleteRecord { tx: usize },
    /// The log loses a transaction that is not decided.
    LoseBegin { tx: usize },
    /// A participant loses a reservation.
    LoseRow(Place),
    /// An operator acts on a stuck branch.
    Order { at: Place, gateway: usize, order: Order },
}

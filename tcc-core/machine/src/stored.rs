//! How a transaction is run and how far its branches are: the part of its state that is stored.

use tcc_types::{Decision, Timestamp};

use crate::CancelCause;

/// In which order branches are tried. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TryOrder {
    /// All at once.
    Parallel = 1,
    /// One after the other.
    Sequential = 2,
}

/// What brings the decision about once every branch has voted yes. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Decides {
    /// The last yes.
    AtVotes = 1,
    /// A request: a hold.
    OnRequest = 2,
    /// A request, and branches may be enlisted until then.
    OnRequestOpen = 3,
}

/// The wanted decision with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Confirm, if the transaction has exactly this many branches: the yes votes that the decider holds.
    Confirm {
        /// Held yes votes; at least one.
        votes: u32,
    },
    /// Cancel, because of this.
    Cancel {
        /// Why.
        cause: CancelCause,
    },
}

impl Choice {
    /// The decision it would make.
    #[must_use]
    pub fn decision(&self) -> Decision {
        match self {
            Self::Confirm { .. } => Decision::Confirm,
            Self::Cancel { .. } => Decision::Cancel,
        }
    }
}

/// How far a branch's second phase is known to be; written only when a driver parks the transaction or an operator acts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BranchProgress {
    /// The participant acknowledged, or an operator settled it.
    pub settled: Option<Settled>,
    /// Attempts so far.
    pub attempts: u32,
    /// Why an operator should look.
    pub stuck: Option<Stuck>,
}

/// How a branch came to its end. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Settled {
    /// The participant acknowledged the operation, or it was refused there durably.
    Acknowledged = 1,
    /// An operator settled it outside of the system.
    Outside = 2,
}

/// Why a branch is stuck.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stuck {
    /// What keeps it.
    pub kind: StuckKind,
    /// Since when.
    pub since: Timestamp,
    /// For people: the last error or violation; at most [`Stuck::DETAIL_LENGTH_MAX`] bytes.
    pub detail: String,
}

impl Stuck {
    /// Longest detail, in bytes.
    pub const DETAIL_LENGTH_MAX: usize = 512;
}

/// What keeps a stuck branch. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StuckKind {
    /// No answer, or errors.
    Unreachable = 1,
    /// Its participant is not configured here.
    UnknownParticipant = 2,
    /// Confirm found no row.
    NoReservation = 3,
    /// The row has the other outcome.
    OtherOutcome = 4,
}

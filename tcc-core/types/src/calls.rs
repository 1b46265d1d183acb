//! The three calls as the coordinator makes them and the participant takes them, free of any wire format.

use crate::{BranchKey, LogName, Payload, Timestamp};

/// Reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TryCall {
    /// Which branch.
    pub key: BranchKey,
    /// The business request.
    pub payload: Payload,
    /// Where there is no row, a Try that runs after this instant is refused as late.
    pub not_after: Timestamp,
    /// After this instant a row that is still tried asks the coordinator.
    pub ask_after: Timestamp,
    /// Whom to ask.
    pub coordinator: LogName,
}

/// Spend the reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmCall {
    /// Which branch.
    pub key: BranchKey,
}

/// Release the reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelCall {
    /// Which branch.
    pub key: BranchKey,
    /// The same instant that its Try carries; an empty rollback stores it.
    pub not_after: Timestamp,
}

//! What a participant is told about a row of its own (DESIGN: GetOutcome).

use tcc_types::{BranchKey, BranchRowStatus, Timestamp};

/// A participant's question about one of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeQuery {
    /// Which branch.
    pub key: BranchKey,
    /// The row's status.
    pub row_status: BranchRowStatus,
    /// The row's `not_after`.
    pub not_after: Timestamp,
}

/// What became of the branch's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Confirm it.
    Confirmed,
    /// Cancel it; durable before it is answered.
    Cancelled,
    /// Not decided yet.
    AskAgain {
        /// Not before this.
        at: Timestamp,
    },
    /// Ended and acknowledged: a terminal row may be deleted.
    Finished,
    /// Unknown and older than the retention.
    Forgotten,
    /// Another coordinator's row.
    NotMine,
}

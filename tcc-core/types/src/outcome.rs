//! What operations answer, and the statuses of transactions and branch rows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{BranchKey, Payload, Timestamp};

/// One of the three operations of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Reserve.
    #[doc(alias = "phase 1")]
    Try,
    /// Spend the reservation.
    #[doc(alias = "phase 2")]
    Confirm,
    /// Release the reservation.
    #[doc(alias = "phase 2")]
    Cancel,
}

/// The durable, final choice about a transaction; the commit point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// Every branch is confirmed.
    Confirm,
    /// Every branch is cancelled.
    Cancel,
}

impl Decision {
    /// The operation that carries it out.
    #[must_use]
    pub const fn op(self) -> Op {
        match self {
            Self::Confirm => Op::Confirm,
            Self::Cancel => Op::Cancel,
        }
    }
}

/// Where a transaction is. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum TxStatus {
    /// Not decided.
    Trying = 1,
    /// Confirm is decided.
    Confirming = 2,
    /// Every branch has confirmed.
    Confirmed = 3,
    /// Cancel is decided.
    Cancelling = 4,
    /// Every branch has cancelled.
    Cancelled = 5,
}

impl TxStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Trying, Self::Confirming, Self::Confirmed, Self::Cancelling, Self::Cancelled];

    /// The decision that stands; `None` while there is none.
    #[must_use]
    pub const fn decision(self) -> Option<Decision> {
        match self {
            Self::Trying => None,
            Self::Confirming | Self::Confirmed => Some(Decision::Confirm),
            Self::Cancelling | Self::Cancelled => Some(Decision::Cancel),
        }
    }

    /// Nothing is left to do.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Trying | Self::Confirming | Self::Cancelling => false,
            Self::Confirmed | Self::Cancelled => true,
        }
    }

    /// From its stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// Its stored number.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }
}

/// Where a branch's row at its participant is. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum BranchRowStatus {
    /// Reserved; neither spent nor released.
    Tried = 1,
    /// The business said no; nothing was reserved.
    Refused = 2,
    /// Spent.
    Confirmed = 3,
    /// Released, or cancelled before anything was reserved.
    Cancelled = 4,
}

impl BranchRowStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tried, Self::Refused, Self::Confirmed, Self::Cancelled];

    /// From its stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// Its stored number.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }
}

/// Which kind of "no" a Try got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalReason {
    /// The business said no, durably: the branch has a row `refused` and needs no Cancel.
    Business,
    /// It came after `not_after` and there was no row.
    Late,
    /// Its Cancel came first.
    #[doc(alias = "hanging")]
    #[doc(alias = "dangling")]
    Suspended,
}

/// A participant's "no": a value, never an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refusal {
    /// Which kind.
    pub reason: RefusalReason,
    /// Stable and machine-readable, UPPER_SNAKE_CASE, at most [`Refusal::CODE_LENGTH_MAX`] bytes.
    pub code: String,
    /// For people, at most [`Refusal::MESSAGE_LENGTH_MAX`] bytes.
    pub message: String,
}

impl Refusal {
    /// Longest code, in bytes.
    pub const CODE_LENGTH_MAX: usize = 64;
    /// Longest message, in bytes; a longer one is cut.
    pub const MESSAGE_LENGTH_MAX: usize = 512;

    /// A business "no". Code and message are cut to their limits.
    #[must_use]
    pub fn business(code: impl Into<String>, message: impl fmt::Display) -> Self {
        let code = cut(code.into(), Self::CODE_LENGTH_MAX);
        Self { reason: RefusalReason::Business, code, message: cut(message.to_string(), Self::MESSAGE_LENGTH_MAX) }
    }

    /// The Try came after `not_after`.
    #[must_use]
    pub fn late() -> Self {
        let message = "the Try arrived after its not_after".to_owned();
        Self { reason: RefusalReason::Late, code: "LATE".to_owned(), message }
    }

    /// The Try came after its Cancel.
    #[must_use]
    pub fn suspended() -> Self {
        let message = "the branch was cancelled before its Try arrived".to_owned();
        Self { reason: RefusalReason::Suspended, code: "SUSPENDED".to_owned(), message }
    }
}

/// Cuts a text to at most `length_max` bytes, at a character's edge.
fn cut(mut text: String, length_max: usize) -> String {
    if text.len() > length_max {
        text.truncate(text.floor_char_boundary(length_max));
    }
    text
}

/// What an operation contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ViolationKind {
    /// A Try under a known branch with another type, other bytes or another coordinator.
    DifferentPayload,
    /// A Confirm, and there is no row.
    NoReservation,
    /// A Confirm of a refused or cancelled branch, or a Cancel of a confirmed one.
    OtherOutcome,
}

/// An operation that the branch's row forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Violation {
    /// What it contradicts.
    pub kind: ViolationKind,
    /// The row's status at that time; `None`: there is no row.
    pub row_status: Option<BranchRowStatus>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ViolationKind::DifferentPayload => "another request under the same branch",
            ViolationKind::NoReservation => "no reservation to confirm",
            ViolationKind::OtherOutcome => "the branch has another outcome",
        };
        match self.row_status {
            Some(status) => write!(f, "{what} (row is {status:?})"),
            None => write!(f, "{what} (no row)"),
        }
    }
}

/// What became of a Try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TryAnswer {
    /// Yes, now or by an earlier delivery; with what the initiator may want to know of it.
    Reserved(Option<Payload>),
    /// No.
    Refused(Refusal),
    /// The request contradicts the branch's row.
    Violation(Violation),
}

/// What became of a Confirm or a Cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettleAnswer {
    /// The effect stands, now or by an earlier delivery.
    Done,
    /// The row forbids it.
    Violation(Violation),
}

/// A participant's question about one of its rows (GetOutcome).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeQuery {
    /// Which branch.
    pub key: BranchKey,
    /// The row's status.
    pub row_status: BranchRowStatus,
    /// The row's `not_after`.
    pub not_after: Timestamp,
}

/// What became of the branch's transaction, as the coordinator tells its participant.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_read_back() {
        for status in TxStatus::ALL {
            assert_eq!(TxStatus::from_code(status.code()), Some(status));
        }
        for status in BranchRowStatus::ALL {
            assert_eq!(BranchRowStatus::from_code(status.code()), Some(status));
        }
        assert_eq!(TxStatus::from_code(0), None);
        assert_eq!(BranchRowStatus::from_code(9), None);
    }

    #[test]
    fn long_refusals_are_cut_between_characters() {
        let refusal = Refusal::business("X".repeat(100), "ü".repeat(300));
        assert_eq!(refusal.code.len(), Refusal::CODE_LENGTH_MAX);
        assert_eq!(refusal.message.len(), Refusal::MESSAGE_LENGTH_MAX);
    }
}

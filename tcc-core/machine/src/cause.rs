//! Why Cancel was decided. Stored with the decision.

use serde::{Deserialize, Serialize};
use tcc_types::{BranchId, Initiator, ParticipantName, Refusal, Violation};

/// Why Cancel was decided. Its serialised form is stored: variants and fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CancelCause {
    /// A branch refused.
    Refused {
        /// Which.
        branch: BranchId,
        /// Whose.
        participant: ParticipantName,
        /// Why.
        refusal: Refusal,
    },
    /// A branch's Try was a violation.
    Violated {
        /// Which.
        branch: BranchId,
        /// Whose.
        participant: ParticipantName,
        /// What.
        violation: Violation,
    },
    /// `try_until` or `decide_by` passed.
    TimedOut,
    /// Somebody asked for it.
    Requested {
        /// Who.
        by: Initiator,
    },
}

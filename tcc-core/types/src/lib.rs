//! The words of the framework: ids, time, payloads, outcomes and how bad input is named.
//!
//! Pure: no async, no I/O, no database, no gRPC. Everything above speaks in these types; generated protobuf types stop at the
//! adapters.

mod calls;
mod entropy;
mod ids;
mod invalid;
mod outcome;
mod payload;
mod time;

pub use calls::{CancelCall, ConfirmCall, TryCall};
pub use entropy::{Entropy, SystemEntropy};
pub use ids::{BranchId, BranchKey, Gid, IdempotencyKey, Initiator, LogName, ParticipantName, check_name};
pub use invalid::Invalid;
pub use outcome::{
    BranchRowStatus, Decision, Op, Outcome, OutcomeQuery, Refusal, RefusalReason, SettleAnswer, TryAnswer, TxStatus, Violation,
    ViolationKind,
};
pub use payload::{Fingerprint, FingerprintBuilder, Payload};
pub use time::{Clock, SystemClock, Timestamp};

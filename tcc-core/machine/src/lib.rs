//! The transaction as a pure state machine: no async, no clock, no randomness, no I/O.
//!
//! Events go in with the current time, effects come out: *make this durable*, *send this call*. What may only happen after a
//! write is durable is emitted when the event that reports that write comes in, never before. Only the coordinator's driver
//! executes effects; a model checker and a simulation can do the same.

mod backoff;
mod cause;
mod event;
mod machine;
mod outcome;
mod stored;
mod transition;

pub use backoff::Policy;
pub use cause::CancelCause;
pub use event::{BranchView, Call, Effect, Event, Parking, Plan, PlannedBranch, Resumed, Vote};
pub use machine::Machine;
pub use outcome::{Stored, UnfitGid, UnknownGid, check_gid_age, outcome_of, outcome_of_unknown};
pub use stored::{BranchProgress, Choice, Decides, Settled, Stuck, StuckKind, TryOrder};
pub use transition::{Change, IllegalTransition, transition};

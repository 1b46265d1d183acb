//! The transaction as a pure state machine: no async, no clock, no randomness, no I/O.

mod cause;

pub use cause::CancelCause;

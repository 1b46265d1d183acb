//! The coordinator through its handle, on a real log, alone and several at once.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and its tasks end with it")]

mod flows;
mod recovery;
mod several;
mod support;
mod waits;

//! What every server of the system has in common: the gRPC [`Server`], its [`config`], its [`telemetry`] and its end
//! ([`shutdown`]). Knows nothing of transactions, participants or orders.

mod accept;
pub mod config;
mod cut;
mod health;
mod panics;
mod server;
pub mod shutdown;
pub mod telemetry;

pub use health::Readiness;
pub use server::{Error, Server};

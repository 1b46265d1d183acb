//! What every server of the system has in common: the gRPC [`Server`], its [`config`], its [`telemetry`], its end
//! ([`shutdown`]), and the [`address`] of another. Knows nothing of transactions, participants or orders.

mod accept;
mod address;
pub mod config;
mod cut;
mod health;
mod panics;
mod server;
pub mod shutdown;
pub mod telemetry;

pub use address::address;
pub use health::Readiness;
pub use server::{Error, Server};

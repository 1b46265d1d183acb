//! The coordinator: takes transactions in, decides them, and carries every decision out.
//!
//! Requests go to [`Coordinator`], which validates them, makes them durable in the transaction log, and hands each to a
//! *driver*: the only loop that executes what the state machine asks for. Recovery feeds the same drivers from the log.
//! Participants are reached through [`Endpoint`], by name; the gRPC services over it are in [`service`].

mod admission;
mod begun;
mod config;
mod coordinator;
mod core;
mod dispatch;
mod driver;
mod error;
pub mod failpoint;
mod leases;
mod operator;
mod outcome;
mod readiness;
mod reads;
mod recovery;
mod request;
mod retention;
pub mod service;
mod table;
mod validate;
mod view;
mod watch;

pub use config::Config;
pub use coordinator::Coordinator;
pub use dispatch::{Endpoint, EndpointConfig, EndpointStats, GrpcEndpoint, Registry, Terms, Unknown};
pub use error::Error;
pub use request::{Begin, Page, Submit, Wait, Warrant};
pub use tcc_log::{
    AuditAction, AuditRecord, BranchProgress, ListFilter, NewBranch, Settled, Stuck, StuckBranch, StuckKind, TryOrder,
};
pub use tcc_machine::{CancelCause, Vote};
pub use tcc_types::{Outcome, OutcomeQuery};
pub use tcc_wire::{Answer, Operation};
pub use view::{BranchView, EnlistAnswer, TxView};

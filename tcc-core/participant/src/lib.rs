//! The participant SDK: write [`Participant`]'s three handlers, get a gRPC participant that keeps the contract.
//!
//! The SDK opens a local transaction for the operations that are waiting, keeps the branches' rows (the barrier) in it, calls the
//! handlers in the same transaction, commits, and only then answers. Repeated, late, reordered and concurrent deliveries never reach a handler:
//! each handler's effect happens at most once for a branch, and `on_confirm` and `on_cancel` never both.
//!
//! - [`Store`] is the opened database, with the SDK's table `tcc_branches` beside the user's own.
//! - [`Engine`] runs operations; callers in the same process use it directly.
//! - [`BatchParticipant`] adds a handler that does the business of many operations in a few statements.
//! - [`service`] makes the gRPC service in one line.
//! - [`status_of_sql`] is what an API of the user's own on the same database answers when that fails.
//! - [`within`] is for callers that own the transaction themselves.
//!
//! - [`Upkeep`] asks about reservations that nobody settles, and deletes rows of branches that have ended.
//!
//! Of the coordinator the SDK knows one question, behind [`OutcomeSource`]: what became of a transaction.

mod batch;
mod database;
mod engine;
mod grpc;
#[cfg(feature = "memory")]
pub mod memory;
mod mysql;
mod options;
mod outcomes;
mod participant;
mod pools;
mod postgres;
mod retrying;
mod rows;
mod sqlite;
mod status;
mod store;
mod upkeep;
pub mod within;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use batch::{Batch, BatchParticipant};
pub use database::{Barrier, BranchRow, Database, DatabaseKind, InDoubt, OldRow};
pub use engine::{Engine, Unknown};
pub use grpc::{ParticipantService, service};
pub use options::Options;
pub use outcomes::{CoordinatorConfig, GrpcOutcomes, OutcomeSource, Unanswered};
pub use participant::{BranchContext, ConnectionOf, HandlerError, Participant, Result, Tried};
pub use status::status_of_sql;
pub use store::{OpenError, Store};
pub use tcc_database::lease::{Place, Transaction};
pub use upkeep::{Upkeep, UpkeepOptions};

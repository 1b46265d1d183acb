//! The transaction log: the coordinator's durable state behind one trait, with one backend per database.
//!
//! The log decides nothing. It makes writes durable, compares and sets, and tells what stands.

mod codes;
pub mod conformance;
mod error;
mod record;
mod sqlite;
mod txlog;

pub use error::Error;
pub use record::{
    AuditAction, AuditRecord, Begun, BranchProgress, BranchRecord, Choice, Decide, Decided, Decides, Enlisted, ListFilter,
    MarkedSettled, NewAudit, NewBranch, NewTransaction, Park, Settled, Stuck, StuckBranch, StuckKind, TryOrder, TxRecord,
};
pub use sqlite::{SqliteLog, SqliteLogOptions, SqliteLogStats};
pub use txlog::TxLog;

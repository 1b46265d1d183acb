//! The transaction log: the coordinator's durable state behind one trait, with one backend per database.
//!
//! The log decides nothing. It makes writes durable, compares and sets, and tells what stands.

mod clock;
mod codes;
pub mod conformance;
mod error;
mod fault;
mod log;
#[cfg(feature = "memory")]
mod memory;
mod mysql;
mod options;
mod postgres;

mod readers;
mod reads;
mod record;
mod rows;
mod sqlite;
mod txlog;
mod writer;

use std::sync::Arc;

pub use error::Error;
pub use log::{DatabaseLog, LogStats};
#[cfg(feature = "memory")]
pub use memory::{Change, LogTables};
pub use options::LogOptions;
pub use record::{
    AuditAction, AuditRecord, Begun, BranchProgress, BranchRecord, Choice, Decide, Decided, Decides, Deleted, Due, Enlisted,
    ListFilter, MarkedSettled, NewAudit, NewBranch, NewTransaction, Owner, Park, RENEW_MAX, Settled, Stuck, StuckBranch,
    StuckKind, TryOrder, TxRecord,
};
use tcc_types::Clock;
pub use txlog::TxLog;

/// Opens the log that the options' `database_url` names.
///
/// # Errors
/// Those of [`DatabaseLog::open`].
pub async fn open(options: LogOptions, clock: Arc<dyn Clock>) -> Result<Arc<dyn TxLog>, Error> {
    Ok(Arc::new(DatabaseLog::open(options, clock).await?))
}

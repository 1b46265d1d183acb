//! The reconciler: reads the databases of a running system and tells what disagrees: the log's transactions with the participants'
//! branch rows, and frozen columns with the tried rows. It never writes and never locks; what is wrong is for an operator.
//!
//! The comparison is pure ([`compare`], and one function for each kind of books), reading is thin ([`Database`]), and
//! [`Reconciler`] puts them together. Used by the command `tcc-reconcile`, and by the test cluster as its oracle.
//!
//! # Why two looks are enough
//!
//! The databases are read one after the other, so what one look puts together may never have stood side by side. But statuses only
//! move forward: a transaction that is in one status at two looks, and a row that is in one status at the same two looks, were in
//! these statuses at one and the same moment in between. So a disagreement that two looks show unchanged is one, and work in flight
//! is none, however the reads were interleaved. The same holds for what is absent: transactions and rows are made once, and deleted
//! long after they have ended. The grace between the looks is for what is read late: a replica that lags, a row
//! that is about to be settled.

pub mod books;
mod cases;
mod compare;
mod config;
mod database;
mod error;
mod finding;
mod looks;
mod reconciler;
mod report;
mod sides;

pub use cases::{Case, LogBranch, Row, Transaction};
pub use compare::{Side, Terms, compare};
pub use config::{Config, ENV_PREFIX, Named, Url};
pub use database::{AnyRow, Database, Value};
pub use error::Error;
pub use finding::{Finding, Rule, Severity};
pub use looks::Candidates;
pub use reconciler::{Progress, Reconciler};
pub use report::{Counts, Outcome, Report};

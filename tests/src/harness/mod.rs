//! Real processes on this machine: start, kill, bring back, call, and check.

mod books;
mod child;
mod clients;
mod cluster;
mod config;
mod ledger;
pub mod role;

pub use books::{Scope, broken_rules};
pub use child::{Child, Exited};
pub use clients::{RETRIES_MAX, order_with_retry, repeat};
pub use cluster::Cluster;
pub use config::{ClusterConfig, Folder, LOG_NAME, Ports, Role};
pub use ledger::{BranchRow, CouponRow, Ledger, LogBranch, OrderRow, RowStatus, StockRow};

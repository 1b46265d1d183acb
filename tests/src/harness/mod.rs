//! Real processes on this machine: start, kill, bring back, call, and check.

mod books;
mod child;
mod clients;
mod cluster;
mod config;
mod databases;
mod ledger;
mod links;
mod party;
mod proxy;
mod reader;
mod reconcile;
pub mod role;

pub use books::{Scope, broken_rules};
pub use child::{Child, Exited};
pub use clients::{Gateways, RETRIES_MAX, order_at_any, order_with_retry, repeat};
pub use cluster::Cluster;
pub use config::{ClusterConfig, Folder, LOG_NAME, Owner, Ports, Role, ServerChoice, Store};
pub use databases::store_of_url;
pub use ledger::{BranchRow, CouponRow, Ledger, LogBranch, OrderRow, RowStatus, StockRow};
pub use links::{Link, Links};
pub use party::Party;
pub use proxy::{Harm, Proxy, Traffic, Way};

pub(crate) use databases::Databases;
pub(crate) use reader::{AnyRow, Snapshot};

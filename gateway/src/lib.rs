//! The gateway: orders, the coordinator and its operators' API in one server. An order is one of its own transaction's branches,
//! and the gateway keeps it. Knows participants by name only.
//!
//! One way down: [`OrderApi`] checks and converts, [`Orders`] makes the plan of branches and asks the coordinator, whose driver
//! reaches [`OrderBranch`] in this process and everybody else over gRPC. [`run`] is the whole server.

mod api;
mod books;
mod branch;
mod config;
mod databases;
mod error;
mod gateway;
mod order;
mod orders;
mod outcomes;
mod placed;
mod plan;
mod request;
mod serve;
mod wire;

#[cfg(feature = "memory")]
pub mod memory;

pub use api::OrderApi;
pub use books::OrderBooks;
pub use branch::{InProcess, OrderBranch, OrderDatabase, OrderStore, Placing, SettleError, place, settle};
pub use config::{Config, OrdersConfig};
pub use databases::{Books, OrderRows};
pub use error::Error;
pub use gateway::Gateway;
pub use order::{Order, OrderRow, OrderStatus, Refused, RowStatus};
pub use orders::Orders;
pub use placed::{Draft, LINES_MAX, Line, Placed, QUANTITY_MAX};
pub use plan::{COUPON, INVENTORY, ORDER, STOCK_BRANCH, plan};
pub use serve::run;

/// Environment variables of the shipped server start with this: `TCC_GATEWAY__LISTEN`.
pub const ENV_PREFIX: &str = "TCC_GATEWAY";

//! The stock as its keeper sees it: deliveries come in, and every SKU can be read. What the gRPC API is made from, whatever the
//! database.

use std::future::Future;

use tcc_types::Timestamp;

use crate::Line;

/// One SKU. Always: `available + frozen + sold = initial`, and none is negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Its id.
    pub sku: String,
    /// All pieces ever added.
    pub initial: i64,
    /// Free to be ordered.
    pub available: i64,
    /// Reserved by orders that are not decided yet.
    pub frozen: i64,
    /// Spent by confirmed orders.
    pub sold: i64,
    /// Last change, by the database's clock.
    pub updated_at: Timestamp,
}

/// A delivery of goods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its own id; what makes a repeated report the same delivery.
    pub id: String,
    /// What came.
    pub line: Line,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is counted, now or by an earlier report.
    Counted(Stock),
    /// Its id belongs to a delivery of something else; nothing changed.
    OtherContent,
    /// With it the SKU would have had more than [`STOCK_MAX`](crate::STOCK_MAX) pieces; nothing changed.
    TooMuch,
}

/// The books of one database.
pub trait StockBooks: Send + Sync + 'static {
    /// Counts a delivery, once. Idempotent; cancel-safe: a dropped call happens wholly or not at all.
    ///
    /// # Errors
    /// The database's; the delivery may be counted or not: report it again.
    fn receive(&self, receipt: &Receipt) -> impl Future<Output = Result<Received, sqlx::Error>> + Send;

    /// Reads one SKU.
    ///
    /// # Errors
    /// The database's.
    fn get(&self, sku: &str) -> impl Future<Output = Result<Option<Stock>, sqlx::Error>> + Send;

    /// Reads up to `limit` SKUs in SKU order, those after `after` if given.
    ///
    /// # Errors
    /// The database's.
    fn list(&self, after: Option<&str>, limit: u32) -> impl Future<Output = Result<Vec<Stock>, sqlx::Error>> + Send;
}

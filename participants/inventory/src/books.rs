//! The stock as its keeper sees it: deliveries come in, and every SKU can be read. What the gRPC API is made from, whatever the
//! database.

use std::future::Future;

use tcc_types::{Invalid, Timestamp, check_name};

use crate::{BUCKETS_MAX, Line};

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
    /// Over how many buckets the free ones are spread; what is above are sums over all of them.
    pub buckets: u8,
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

/// Over how many buckets to spread a SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    sku: String,
    buckets: u8,
}

impl Spread {
    /// Checks and makes it.
    ///
    /// # Errors
    /// Every field that is wrong: `sku`, `buckets`.
    pub fn new(sku: impl Into<String>, buckets: u32) -> Result<Self, Vec<Invalid>> {
        let sku = sku.into();
        let mut bad: Vec<Invalid> = check_name("sku", &sku).err().into_iter().collect();
        match u8::try_from(buckets) {
            Ok(buckets @ 1..=BUCKETS_MAX) if bad.is_empty() => return Ok(Self { sku, buckets }),
            Ok(1..=BUCKETS_MAX) => {}
            Ok(_) | Err(_) => bad.push(Invalid::new("buckets", format_args!("must be 1 to {BUCKETS_MAX}"))),
        }
        Err(bad)
    }

    /// Which SKU.
    #[must_use]
    pub fn sku(&self) -> &str {
        &self.sku
    }

    /// 1 to [`BUCKETS_MAX`].
    #[must_use]
    pub const fn buckets(&self) -> u8 {
        self.buckets
    }
}

/// The books of one database.
pub trait StockBooks: Send + Sync + 'static {
    /// Counts a delivery, once. Idempotent; cancel-safe: a dropped call happens wholly or not at all.
    ///
    /// # Errors
    /// The database's; the delivery may be counted or not: report it again.
    fn receive(&self, receipt: &Receipt) -> impl Future<Output = Result<Received, sqlx::Error>> + Send;

    /// Sets over how many buckets a SKU's free stock is spread, and spreads it evenly; `None`: there is no such SKU. What is reserved
    /// or sold stays where it is, and orders go on meanwhile. Idempotent; cancel-safe: a dropped call happens wholly or not at all.
    ///
    /// # Errors
    /// The database's; it may be done or not: ask again.
    fn spread(&self, spread: &Spread) -> impl Future<Output = Result<Option<Stock>, sqlx::Error>> + Send;

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

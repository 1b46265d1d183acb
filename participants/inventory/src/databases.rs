//! Stock in each database: the statements, and nothing that decides. The same meaning in all of them; the files beside this one
//! differ where their SQL does.
//!
//! Whoever changes several rows of one transaction changes them in SKU order, and a delivery its receipt before its stock, so
//! that no two transactions wait for each other.

mod mysql;
mod postgres;
mod sqlite;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use tcc_participant::{Database, Store};
use tcc_types::Timestamp;

use crate::Stock;

/// The stock rows inside a local transaction that somebody else owns.
pub struct StockRows<'c, D: Database>(pub &'c mut D::Connection);

/// The books of one database.
#[derive(Clone, Debug)]
pub struct Books<D: Database> {
    store: Store<D>,
}

impl<D: Database> Books<D> {
    /// Over a database that has the tables of `tcc_migrations::inventory`.
    #[must_use]
    pub const fn new(store: Store<D>) -> Self {
        Self { store }
    }
}

impl<'r, R: Row> FromRow<'r, R> for Stock
where
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sku: row.try_get("sku")?,
            initial: row.try_get("initial")?,
            available: row.try_get("available")?,
            frozen: row.try_get("frozen")?,
            sold: row.try_get("sold")?,
            updated_at: Timestamp::from_micros(row.try_get("updated_at")?),
        })
    }
}

//! Stock in each database: the statements, and nothing that decides. The same meaning in all of them; the files beside this one
//! differ where their SQL does.
//!
//! Whoever changes several rows of one transaction changes them in SKU order, and a delivery its receipt before its stock, so
//! that no two transactions wait for each other.

mod mysql;
mod postgres;
mod sqlite;

use std::collections::HashMap;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use tcc_participant::{Database, Store};
use tcc_types::Timestamp;

use crate::{Change, Levels, Stock};

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

/// The levels of the changes' SKUs, in their order, from rows of (SKU, available, frozen).
fn in_order(changes: &[Change<'_>], rows: Vec<(String, i64, i64)>) -> Vec<Option<Levels>> {
    let levels: HashMap<String, Levels> =
        rows.into_iter().map(|(sku, available, frozen)| (sku, Levels { available, frozen })).collect();
    changes.iter().map(|change| levels.get(change.sku).copied()).collect()
}

fn all_fit(changes: &[Change<'_>], levels: &[Option<Levels>]) -> bool {
    changes.iter().zip(levels).all(|(change, levels)| levels.is_some_and(|levels| change.fits(levels)))
}

/// The rows are there and locked, so this never fails but where the database does not do what it should.
fn all_changed(changes: &[Change<'_>], rows: u64) -> Result<(), sqlx::Error> {
    let wanted = changes.iter().filter(|change| change.is_any()).count();
    if u64::try_from(wanted).is_ok_and(|wanted| wanted == rows) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
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

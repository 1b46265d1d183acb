//! Stock in each database: the statements, and nothing that decides. The same meaning in all of them; the files beside this one
//! differ where their SQL does.
//!
//! Whoever changes several rows of one transaction changes them in the order of SKU and bucket, and a delivery its receipt before its
//! stock, so that no two transactions wait for each other. A SKU's rows are made under the lock of its first one, and never deleted.

mod keeping;
#[cfg(feature = "memory")]
mod memory;
mod mysql;
mod postgres;
mod sqlite;

use std::collections::HashMap;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use tcc_participant::{Database, Store};
use tcc_types::Timestamp;

use crate::{Change, Levels, Place, Stock};

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

/// A row as it is read: SKU, bucket, available, frozen, [`Levels::buckets`], [`Levels::made`].
type Read = (String, i32, i64, i64, i32, i32);

/// The levels of the places, in their order.
fn in_order<'a>(places: impl Iterator<Item = Place<'a>>, rows: Vec<Read>) -> Result<Vec<Option<Levels>>, sqlx::Error> {
    let mut levels = HashMap::with_capacity(rows.len());
    for (sku, bucket, available, frozen, buckets, made) in &rows {
        let (buckets, made) = (small(*buckets)?, small(*made)?);
        let place = Place { sku: sku.as_str(), bucket: small(*bucket)? };
        levels.insert(place, Levels { available: *available, frozen: *frozen, buckets, made });
    }
    Ok(places.map(|place| levels.get(&place).copied()).collect())
}

/// A number of buckets, or of one: the table's checks keep it small.
fn small<N>(number: N) -> Result<u8, sqlx::Error>
where
    u8: TryFrom<N, Error: std::error::Error + Send + Sync + 'static>,
{
    u8::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
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
    i32: Decode<'r, R::Database> + Type<R::Database>,
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
            buckets: small(row.try_get::<i32, _>("buckets")?)?,
        })
    }
}

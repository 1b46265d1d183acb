//! Coupons in each database: the statements, and nothing that decides. The same meaning in all of them; the files beside this one
//! differ where their SQL does.

#[cfg(feature = "memory")]
mod memory;
mod mysql;
mod postgres;
mod sqlite;

use std::collections::HashMap;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use tcc_participant::{Database, Store};
use tcc_types::{Gid, Invalid, Timestamp};

use crate::{Change, Coupon, CouponState, Held, NewCoupon, Seen};

/// The coupon rows inside a local transaction that somebody else owns.
pub struct CouponRows<'c, D: Database>(pub &'c mut D::Connection);

/// The coupons of one database.
#[derive(Clone, Debug)]
pub struct Books<D: Database> {
    store: Store<D>,
}

impl<D: Database> Books<D> {
    /// Over a database that has the tables of `tcc_migrations::coupon`.
    #[must_use]
    pub const fn new(store: Store<D>) -> Self {
        Self { store }
    }
}

impl<'r, R: Row> FromRow<'r, R> for Coupon
where
    &'static str: ColumnIndex<R>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let gid = gid(row.try_get("gid")?)?;
        let issued = NewCoupon {
            coupon_id: row.try_get("coupon_id")?,
            user_id: row.try_get("user_id")?,
            discount_minor: row.try_get("discount_minor")?,
            expires_at: Timestamp::from_micros(row.try_get("expires_at")?),
        };
        Ok(Self { issued, state: state(row.try_get("state")?)?, gid })
    }
}

impl<'r, R: Row> FromRow<'r, R> for Seen
where
    &'static str: ColumnIndex<R>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self { user_id: row.try_get("user_id")?, state: state(row.try_get("state")?)?, expired: row.try_get("expired")? })
    }
}

/// A held coupon, under its id.
struct HeldRow(String, Held);

impl<'r, R: Row> FromRow<'r, R> for HeldRow
where
    &'static str: ColumnIndex<R>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let (gid, discount_minor) = (gid(row.try_get("gid")?)?, row.try_get("discount_minor")?);
        Ok(Self(row.try_get("coupon_id")?, Held { seen: Seen::from_row(row)?, gid, discount_minor }))
    }
}

/// The held coupons in the order of the question.
fn in_order(coupon_ids: &[&str], rows: Vec<HeldRow>) -> Vec<Option<Held>> {
    let mut held: HashMap<String, Held> = rows.into_iter().map(|HeldRow(id, held)| (id, held)).collect();
    coupon_ids.iter().map(|id| held.remove(*id)).collect()
}

/// The rows are there and locked, so this never fails but where the database does not do what it should.
fn all_changed(changes: &[Change<'_>], rows: u64) -> Result<(), sqlx::Error> {
    if u64::try_from(changes.len()).is_ok_and(|wanted| wanted == rows) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

fn gid(text: Option<String>) -> Result<Option<Gid>, sqlx::Error> {
    text.map(|gid| gid.parse()).transpose().map_err(|bad: Invalid| decode_error("gid", bad))
}

fn state(code: i16) -> Result<CouponState, sqlx::Error> {
    let unknown = || decode_error("state", format!("{code} is no state of a coupon"));
    CouponState::from_code(code.into()).ok_or_else(unknown)
}

fn decode_error(column: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: source.into() }
}

//! Orders in each database: the statements, and nothing that decides. The same meaning in all of them; the files beside this one
//! differ where their SQL does.

#[cfg(feature = "memory")]
mod memory;
mod mysql;
mod postgres;
mod sqlite;

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use tcc_participant::{Database, Store};
use tcc_types::{Decision, Gid, Invalid};

use crate::{Draft, Line, OrderRow, Placed, RowStatus};

/// The order rows inside a local transaction that somebody else owns.
pub struct OrderRows<'c, D: Database>(pub &'c mut D::Connection);

/// The orders of one database.
#[derive(Clone, Debug)]
pub struct Books<D: Database> {
    store: Store<D>,
}

impl<D: Database> Books<D> {
    /// Over a database that has the tables of `tcc_migrations::orders`.
    #[must_use]
    pub const fn new(store: Store<D>) -> Self {
        Self { store }
    }
}

/// The status of a row whose transaction is decided.
const fn settled(decision: Decision) -> RowStatus {
    match decision {
        Decision::Confirm => RowStatus::Confirmed,
        Decision::Cancel => RowStatus::Cancelled,
    }
}

/// The lines as they are stored: `[["sku", quantity], ...]`.
fn lines_to_text(placed: &Placed) -> Result<String, sqlx::Error> {
    let lines: Vec<_> = placed.lines().iter().map(|line| (&line.sku, line.quantity)).collect();
    json(&lines)
}

fn json(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Which of the orders are among the ids that a statement says it inserted.
fn inserted_among(orders: &[(Gid, &Placed)], inserted: &[String]) -> Result<Vec<bool>, sqlx::Error> {
    let parsed = inserted.iter().map(|id| id.parse().map_err(|bad: Invalid| sqlx::Error::Decode(bad.to_string().into())));
    let inserted: HashSet<Gid> = parsed.collect::<Result<_, _>>()?;
    Ok(orders.iter().map(|(id, _)| inserted.contains(id)).collect())
}

/// How many rows a statement changed.
fn changed(rows: u64) -> Result<usize, sqlx::Error> {
    usize::try_from(rows).map_err(|error| sqlx::Error::Decode(error.into()))
}

impl<'r, R: Row> FromRow<'r, R> for OrderRow
where
    &'static str: ColumnIndex<R>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let corrupt = |what: String| sqlx::Error::Decode(what.into());
        let id: Gid = row.try_get::<&str, _>("order_id")?.parse().map_err(|bad: Invalid| corrupt(bad.to_string()))?;
        let lines: Vec<(String, i64)> =
            serde_json::from_str(row.try_get("lines")?).map_err(|bad| corrupt(format!("order {id}: lines: {bad}")))?;
        let draft = Draft {
            order_key: row.try_get("order_key")?,
            initiator: row.try_get("initiator")?,
            user_id: row.try_get("user_id")?,
            lines: lines.into_iter().map(|(sku, quantity)| Line { sku, quantity }).collect(),
            coupon_id: row.try_get::<Option<String>, _>("coupon_id")?.unwrap_or_default(),
            hold: row.try_get("hold")?,
        };
        let placed = Placed::new(draft).map_err(|bad| {
            let problems: Vec<_> = bad.iter().map(ToString::to_string).collect();
            corrupt(format!("order {id}: {}", problems.join("; ")))
        })?;
        let status: i16 = row.try_get("status")?;
        let status = RowStatus::from_code(status.into()).ok_or_else(|| corrupt(format!("order {id}: status")))?;
        Ok(Self { id, placed, status, held: row.try_get("held")? })
    }
}

//! Orders on SQLite: the statements, and nothing that decides.

use sqlx::{FromRow, QueryBuilder, Row, Sqlite, SqliteConnection, migrate::Migrator, sqlite::SqliteRow};
use tcc_participant::Store;
use tcc_types::{Decision, Gid};

use crate::{Draft, Line, OrderBooks, OrderDatabase, OrderRow, OrderStore, Placed, RowStatus};

/// The order rows inside a local transaction that somebody else owns.
pub struct SqliteOrders<'c>(pub &'c mut SqliteConnection);

impl OrderStore for SqliteOrders<'_> {
    type Error = sqlx::Error;

    async fn insert(&mut self, id: Gid, placed: &Placed) -> Result<bool, sqlx::Error> {
        let lines: Vec<_> = placed.lines().iter().map(|line| (&line.sku, line.quantity)).collect();
        let lines = serde_json::to_string(&lines).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let inserted = sqlx::query(
            "INSERT INTO orders (order_id, order_key, initiator, user_id, lines, coupon_id, hold, status) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (order_id) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(placed.order_key().as_str())
        .bind(placed.initiator().as_str())
        .bind(placed.user_id())
        .bind(lines)
        .bind(placed.coupon_id())
        .bind(placed.hold())
        .bind(RowStatus::Tried.code())
        .execute(&mut *self.0)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn settle(&mut self, id: Gid, decision: Decision) -> Result<bool, sqlx::Error> {
        let status = match decision {
            Decision::Confirm => RowStatus::Confirmed,
            Decision::Cancel => RowStatus::Cancelled,
        };
        let settled = sqlx::query("UPDATE orders SET status = ?2 WHERE order_id = ?1 AND status = 1")
            .bind(id.to_string())
            .bind(status.code())
            .execute(&mut *self.0)
            .await?;
        Ok(settled.rows_affected() == 1)
    }
}

/// The orders of one SQLite database.
#[derive(Clone, Debug)]
pub struct SqliteOrderBooks {
    store: Store<Sqlite>,
}

impl SqliteOrderBooks {
    /// Over a database that has the tables of `tcc_migrations::orders`.
    #[must_use]
    pub fn new(store: Store<Sqlite>) -> Self {
        Self { store }
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT order_id, order_key, initiator, user_id, lines, coupon_id, hold, held, status FROM orders ", $rest)
    };
}

impl OrderBooks for SqliteOrderBooks {
    async fn get(&self, id: Gid) -> Result<Option<OrderRow>, sqlx::Error> {
        let read = sqlx::query_as(select!("WHERE order_id = ?1")).bind(id.to_string());
        read.fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, user_id: Option<&str>, before: Option<Gid>, limit: u32) -> Result<Vec<OrderRow>, sqlx::Error> {
        let mut text = QueryBuilder::<Sqlite>::new(select!("WHERE TRUE"));
        if let Some(user_id) = user_id {
            text.push(" AND user_id = ").push_bind(user_id);
        }
        if let Some(before) = before {
            text.push(" AND order_id < ").push_bind(before.to_string());
        }
        text.push(" ORDER BY order_id DESC LIMIT ").push_bind(i64::from(limit));
        text.build_query_as().fetch_all(self.store.read_pool()).await
    }

    async fn mark_held(&self, id: Gid) -> Result<(), sqlx::Error> {
        // Looking first spares repeated requests the commit.
        let marked = "SELECT 1 FROM orders WHERE order_id = ?1 AND hold = 1 AND held = 0 AND status = 1";
        if sqlx::query(marked).bind(id.to_string()).fetch_optional(self.store.read_pool()).await?.is_none() {
            return Ok(());
        }
        let mut transaction = self.store.begin().await?;
        sqlx::query("UPDATE orders SET held = 1 WHERE order_id = ?1 AND hold = 1 AND status = 1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

impl<'r> FromRow<'r, SqliteRow> for OrderRow {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        let corrupt = |what: String| sqlx::Error::Decode(what.into());
        let id: Gid =
            row.try_get::<&str, _>("order_id")?.parse().map_err(|bad: tcc_types::Invalid| corrupt(bad.to_string()))?;
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
        let status = RowStatus::from_code(row.try_get("status")?).ok_or_else(|| corrupt(format!("order {id}: status")))?;
        Ok(Self { id, placed, status, held: row.try_get("held")? })
    }
}

impl OrderDatabase for Sqlite {
    type Orders<'c> = SqliteOrders<'c>;
    type Books = SqliteOrderBooks;

    fn migrator() -> Migrator {
        tcc_migrations::orders::sqlite()
    }

    fn orders(connection: &mut SqliteConnection) -> SqliteOrders<'_> {
        SqliteOrders(connection)
    }

    fn books(store: Store<Self>) -> SqliteOrderBooks {
        SqliteOrderBooks::new(store)
    }
}

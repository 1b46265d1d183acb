//! Orders on SQLite, where one connection writes.

#[cfg(test)]
mod tests;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, migrate::Migrator};
use tcc_participant::Store;
use tcc_types::{Decision, Gid};

use super::{Books, OrderRows, changed, inserted_among, json, lines_to_text, settled};
use crate::{OrderBooks, OrderDatabase, OrderRow, OrderStore, Placed, RowStatus};

/// Which rows it inserted, it returns.
const INSERT_ALL: &str = "INSERT INTO orders (order_id, order_key, initiator, user_id, lines, coupon_id, hold, status) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, ?2 FROM json_each(?1) \
     WHERE TRUE ON CONFLICT (order_id) DO NOTHING RETURNING order_id";

const SETTLE_ALL: &str = "UPDATE orders SET status = v.status \
     FROM (SELECT value ->> 0 AS order_id, value ->> 1 AS status FROM json_each(?1)) AS v \
     WHERE orders.order_id = v.order_id AND orders.status = 1";

impl OrderStore for OrderRows<'_, Sqlite> {
    type Error = sqlx::Error;

    async fn insert(&mut self, id: Gid, placed: &Placed) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO orders (order_id, order_key, initiator, user_id, lines, coupon_id, hold, status) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (order_id) DO NOTHING",
        )
        .bind(id.to_string())
        .bind(placed.order_key().as_str())
        .bind(placed.initiator().as_str())
        .bind(placed.user_id())
        .bind(lines_to_text(placed)?)
        .bind(placed.coupon_id())
        .bind(placed.hold())
        .bind(RowStatus::Tried.code())
        .execute(&mut *self.0)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn settle(&mut self, id: Gid, decision: Decision) -> Result<bool, sqlx::Error> {
        let settled = sqlx::query("UPDATE orders SET status = ?2 WHERE order_id = ?1 AND status = 1")
            .bind(id.to_string())
            .bind(settled(decision).code())
            .execute(&mut *self.0)
            .await?;
        Ok(settled.rows_affected() == 1)
    }

    async fn insert_all(&mut self, orders: &[(Gid, &Placed)]) -> Result<Vec<bool>, sqlx::Error> {
        let mut rows = Vec::with_capacity(orders.len());
        for (id, placed) in orders {
            let (order_key, initiator) = (placed.order_key().as_str(), placed.initiator().as_str());
            let lines = lines_to_text(placed)?;
            rows.push((id.to_string(), order_key, initiator, placed.user_id(), lines, placed.coupon_id(), placed.hold()));
        }
        let inserted: Vec<String> =
            sqlx::query_scalar(INSERT_ALL).bind(json(&rows)?).bind(RowStatus::Tried.code()).fetch_all(&mut *self.0).await?;
        inserted_among(orders, &inserted)
    }

    async fn settle_all(&mut self, settles: &[(Gid, Decision)]) -> Result<usize, sqlx::Error> {
        let rows: Vec<_> = settles.iter().map(|(id, decision)| (id.to_string(), settled(*decision).code())).collect();
        let done = sqlx::query(SETTLE_ALL).bind(json(&rows)?).execute(&mut *self.0).await?;
        changed(done.rows_affected())
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT order_id, order_key, initiator, user_id, lines, coupon_id, hold, held, status FROM orders ", $rest)
    };
}

impl Books<Sqlite> {
    async fn mark_held_once(&self, id: Gid) -> Result<(), sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        sqlx::query("UPDATE orders SET held = 1 WHERE order_id = ?1 AND hold = 1 AND status = 1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

impl OrderBooks for Books<Sqlite> {
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
        self.store.retrying(|| self.mark_held_once(id)).await
    }
}

impl OrderDatabase for Sqlite {
    type Orders<'c> = OrderRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::orders::sqlite()
    }

    fn orders(connection: &mut SqliteConnection) -> OrderRows<'_, Self> {
        OrderRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

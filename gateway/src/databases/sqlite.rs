//! Orders on SQLite, where one connection writes.

#[cfg(test)]
mod tests;

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, migrate::Migrator};
use tcc_database::{sqlite::lists::ManyRows, sqlite_given};
use tcc_participant::Store;
use tcc_types::{Decision, Gid};

use super::{Books, OrderRows, changed, inserted_among, lines_to_text, settled};
use crate::{OrderBooks, OrderDatabase, OrderRow, OrderStore, Placed, RowStatus};

/// Which rows it inserted, it returns. The value before the list is the status.
const INSERT_ALL: ManyRows = ManyRows {
    head: "INSERT OR FAIL INTO orders (status, order_id, order_key, initiator, user_id, lines, coupon_id, hold) \
           SELECT ?, * FROM (VALUES ",
    width: 7,
    tail: ") WHERE column1 IS NOT NULL ON CONFLICT (order_id) DO NOTHING RETURNING order_id",
};

/// The plus sign keeps the planner from taking the status for a reason to go through the orders.
const SETTLE_ALL: ManyRows = ManyRows {
    head: "UPDATE OR FAIL orders SET status = v.column2 FROM (VALUES ",
    width: 2,
    tail: concat!(") AS v WHERE ", sqlite_given!(), " AND orders.order_id = v.column1 AND +orders.status = 1"),
};

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
            rows.push((id.to_string(), *placed, lines_to_text(placed)?));
        }
        let inserted = INSERT_ALL
            .fetch(self.0, &[RowStatus::Tried.code()], &rows, |values, (id, placed, lines)| {
                values
                    .put(id.as_str())
                    .put(placed.order_key().as_str())
                    .put(placed.initiator().as_str())
                    .put(placed.user_id())
                    .put(lines.as_str())
                    .put(placed.coupon_id())
                    .put(placed.hold());
            })
            .await?;
        let inserted = inserted.iter().map(|row| row.try_get("order_id")).collect::<Result<Vec<String>, _>>()?;
        inserted_among(orders, &inserted)
    }

    async fn settle_all(&mut self, settles: &[(Gid, Decision)]) -> Result<usize, sqlx::Error> {
        let done = SETTLE_ALL
            .execute(self.0, &[], settles, |values, (id, decision)| {
                values.put(id.to_string()).put(settled(*decision).code());
            })
            .await?;
        changed(done)
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

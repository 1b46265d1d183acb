//! Orders on MySQL and MariaDB. The client counts the rows that an update found, not those that it changed: the guards are in the
//! `WHERE`, so that both are the same.

use sqlx::{MySql, MySqlConnection, QueryBuilder, migrate::Migrator};
use tcc_participant::Store;
use tcc_types::{Decision, Gid};

use super::{Books, OrderRows, lines_to_text, settled};
use crate::{OrderBooks, OrderDatabase, OrderRow, OrderStore, Placed, RowStatus};

impl OrderStore for OrderRows<'_, MySql> {
    type Error = sqlx::Error;

    async fn insert(&mut self, id: Gid, placed: &Placed) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO orders (order_id, order_key, initiator, user_id, `lines`, coupon_id, hold, status) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
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
        .await;
        match inserted {
            Ok(_) => Ok(true),
            // The branch's row lets one Try of an order in, so this never comes from a race but from a row that was put there
            // beside the framework. Only the statement was undone, and the transaction goes on to store the refusal.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn settle(&mut self, id: Gid, decision: Decision) -> Result<bool, sqlx::Error> {
        let settled = sqlx::query("UPDATE orders SET status = ? WHERE order_id = ? AND status = 1")
            .bind(settled(decision).code())
            .bind(id.to_string())
            .execute(&mut *self.0)
            .await?;
        Ok(settled.rows_affected() == 1)
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT order_id, order_key, initiator, user_id, `lines`, coupon_id, hold, held, status FROM orders ", $rest)
    };
}

impl Books<MySql> {
    async fn mark_held_once(&self, id: Gid) -> Result<(), sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        sqlx::query("UPDATE orders SET held = 1 WHERE order_id = ? AND hold = 1 AND status = 1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

impl OrderBooks for Books<MySql> {
    async fn get(&self, id: Gid) -> Result<Option<OrderRow>, sqlx::Error> {
        let read = sqlx::query_as(select!("WHERE order_id = ?")).bind(id.to_string());
        read.fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, user_id: Option<&str>, before: Option<Gid>, limit: u32) -> Result<Vec<OrderRow>, sqlx::Error> {
        let mut text = QueryBuilder::<MySql>::new(select!("WHERE TRUE"));
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
        let marked = "SELECT 1 FROM orders WHERE order_id = ? AND hold = 1 AND held = 0 AND status = 1";
        if sqlx::query(marked).bind(id.to_string()).fetch_optional(self.store.read_pool()).await?.is_none() {
            return Ok(());
        }
        self.store.retrying(|| self.mark_held_once(id)).await
    }
}

impl OrderDatabase for MySql {
    type Orders<'c> = OrderRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::orders::mysql()
    }

    fn orders(connection: &mut MySqlConnection) -> OrderRows<'_, Self> {
        OrderRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

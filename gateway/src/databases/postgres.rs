//! Orders on PostgreSQL.

#[cfg(test)]
mod tests;

use sqlx::{PgConnection, Postgres, QueryBuilder, migrate::Migrator};
use tcc_participant::Store;
use tcc_types::{Decision, Gid};

use super::{Books, OrderRows, changed, inserted_among, lines_to_text, settled};
use crate::{OrderBooks, OrderDatabase, OrderRow, OrderStore, Placed, RowStatus};

/// Which rows it inserted, it returns.
const INSERT_ALL: &str = "INSERT INTO orders (order_id, order_key, initiator, user_id, lines, coupon_id, hold, status) \
     SELECT v.*, $8::smallint FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[]) \
     AS v ON CONFLICT (order_id) DO NOTHING RETURNING order_id";

/// Each order is looked up by its id. Written as a plain join on both columns, the planner would walk through all orders for those of
/// status 1 for as long as it takes the table for small: it may plan when there is hardly an order, and keep the plan.
const SETTLE_ALL: &str = "UPDATE orders AS o SET status = v.status \
     FROM unnest($1::text[], $2::bigint[]) AS v(order_id, status) \
     WHERE o.order_id = ANY(ARRAY[v.order_id]) AND o.status + 0 = 1";

impl OrderStore for OrderRows<'_, Postgres> {
    type Error = sqlx::Error;

    async fn insert(&mut self, id: Gid, placed: &Placed) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO orders (order_id, order_key, initiator, user_id, lines, coupon_id, hold, status) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (order_id) DO NOTHING",
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
        let settled = sqlx::query("UPDATE orders SET status = $2 WHERE order_id = $1 AND status = 1")
            .bind(id.to_string())
            .bind(settled(decision).code())
            .execute(&mut *self.0)
            .await?;
        Ok(settled.rows_affected() == 1)
    }

    async fn insert_all(&mut self, orders: &[(Gid, &Placed)]) -> Result<Vec<bool>, sqlx::Error> {
        let lines = orders.iter().map(|(_, placed)| lines_to_text(placed)).collect::<Result<Vec<_>, _>>()?;
        let inserted: Vec<String> = sqlx::query_scalar(INSERT_ALL)
            .bind(column(orders, |(id, _)| id.to_string()))
            .bind(column(orders, |(_, placed)| placed.order_key().as_str()))
            .bind(column(orders, |(_, placed)| placed.initiator().as_str()))
            .bind(column(orders, |(_, placed)| placed.user_id()))
            .bind(lines)
            .bind(column(orders, |(_, placed)| placed.coupon_id()))
            .bind(column(orders, |(_, placed)| placed.hold()))
            .bind(RowStatus::Tried.code())
            .fetch_all(&mut *self.0)
            .await?;
        inserted_among(orders, &inserted)
    }

    async fn settle_all(&mut self, settles: &[(Gid, Decision)]) -> Result<usize, sqlx::Error> {
        let done = sqlx::query(SETTLE_ALL)
            .bind(column(settles, |(id, _)| id.to_string()))
            .bind(column(settles, |(_, decision)| settled(*decision).code()))
            .execute(&mut *self.0)
            .await?;
        changed(done.rows_affected())
    }
}

/// One column of a list, as it is bound to `unnest`.
fn column<'a, T, V>(items: &'a [T], of: impl Fn(&'a T) -> V) -> Vec<V> {
    items.iter().map(of).collect()
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT order_id, order_key, initiator, user_id, lines, coupon_id, hold, held, status FROM orders ", $rest)
    };
}

impl Books<Postgres> {
    async fn mark_held_once(&self, id: Gid) -> Result<(), sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        sqlx::query("UPDATE orders SET held = TRUE WHERE order_id = $1 AND hold AND status = 1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

impl OrderBooks for Books<Postgres> {
    async fn get(&self, id: Gid) -> Result<Option<OrderRow>, sqlx::Error> {
        let read = sqlx::query_as(select!("WHERE order_id = $1")).bind(id.to_string());
        read.fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, user_id: Option<&str>, before: Option<Gid>, limit: u32) -> Result<Vec<OrderRow>, sqlx::Error> {
        let mut text = QueryBuilder::<Postgres>::new(select!("WHERE TRUE"));
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
        let marked = "SELECT 1 FROM orders WHERE order_id = $1 AND hold AND NOT held AND status = 1";
        if sqlx::query(marked).bind(id.to_string()).fetch_optional(self.store.read_pool()).await?.is_none() {
            return Ok(());
        }
        self.store.retrying(|| self.mark_held_once(id)).await
    }
}

impl OrderDatabase for Postgres {
    type Orders<'c> = OrderRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::orders::postgres()
    }

    fn orders(connection: &mut PgConnection) -> OrderRows<'_, Self> {
        OrderRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

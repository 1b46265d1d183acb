//! Stock on PostgreSQL, under READ COMMITTED: a guarded update that waited for another transaction checks its guard again.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use sqlx::{PgConnection, Postgres, migrate::Migrator};
use tcc_database::postgres_now;
use tcc_participant::Store;

use super::{Books, StockRows, all_changed, all_fit, in_order};
use crate::{Change, Changed, Line, Receipt, Received, STOCK_MAX, Stock, StockBooks, StockDatabase, StockStore};

/// Locks rows in SKU order.
macro_rules! lock {
    ($how:literal) => {
        concat!(
            "SELECT s.sku, s.available, s.frozen FROM unnest($1::text[]) AS v(sku) JOIN stock AS s ON s.sku = ANY(ARRAY[v.sku]) ",
            "ORDER BY s.sku FOR UPDATE OF s",
            $how
        )
    };
}
const LOCK: &str = lock!("");
const LOCK_AT_ONCE: &str = lock!(" NOWAIT");

/// Makes those changes that fit, and returns what their rows had before. It takes the rows in the order of the list, or in that of
/// the index, which is the same.
const APPLY_FITTING: &str = concat!(
    "UPDATE stock AS s SET available = s.available + v.available, frozen = s.frozen - v.available - v.sold, ",
    "sold = s.sold + v.sold, updated_at = ",
    postgres_now!(),
    " FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS v(sku, available, sold, settled) ",
    "WHERE s.sku = ANY(ARRAY[v.sku]) AND s.available + v.available >= 0 AND s.frozen >= v.settled ",
    "RETURNING s.sku, s.available - v.available, s.frozen + v.available + v.sold"
);

/// Changes rows that are locked. The array of one leaves the planner nothing to hash, to sort or to walk along: it looks each SKU up
/// by its key, in the order of the list.
const APPLY: &str = concat!(
    "UPDATE stock AS s SET available = s.available + v.available, frozen = s.frozen - v.available - v.sold, ",
    "sold = s.sold + v.sold, updated_at = ",
    postgres_now!(),
    " FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS v(sku, available, sold) WHERE s.sku = ANY(ARRAY[v.sku])"
);

impl StockRows<'_, Postgres> {
    /// One guarded update of one row; whether it changed.
    async fn change(&mut self, statement: &'static str, line: &Line) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(statement).bind(line.quantity()).bind(line.sku()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }
}

impl StockRows<'_, Postgres> {
    /// Makes all changes in one statement, which spares locking the rows first; or takes back what it made.
    async fn apply_fitting(&mut self, changes: &[Change<'_>]) -> Result<Changed, sqlx::Error> {
        let mut rows: Vec<(String, i64, i64)> = sqlx::query_as(APPLY_FITTING)
            .bind(column(changes, |change| change.sku))
            .bind(column(changes, |change| change.available))
            .bind(column(changes, |change| change.sold))
            .bind(column(changes, |change| change.settled))
            .fetch_all(&mut *self.0)
            .await?;
        if rows.len() == changes.len() {
            return Ok(Changed::All);
        }
        let made: HashSet<&str> = rows.iter().map(|(sku, ..)| sku.as_str()).collect();
        let (made, others): (Vec<_>, Vec<_>) = changes.iter().partition(|change| made.contains(change.sku));
        if !made.is_empty() {
            self.apply(&made.into_iter().copied().map(Change::undone).collect::<Vec<_>>()).await?;
        }
        // These come out of order: who waited for one could wait for somebody that waits for the rows above. Where one is taken the
        // whole transaction runs anew.
        let others: Vec<_> = others.iter().map(|change| change.sku).collect();
        rows.extend(sqlx::query_as(LOCK_AT_ONCE).bind(others).fetch_all(&mut *self.0).await?);
        Ok(Changed::Nothing(in_order(changes, rows)))
    }
}

impl StockStore for StockRows<'_, Postgres> {
    type Error = sqlx::Error;

    async fn freeze(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET available = available - $1, frozen = frozen + $1, updated_at = ",
                postgres_now!(),
                " WHERE sku = $2 AND available >= $1"
            ),
            line,
        )
        .await
    }

    async fn spend(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - $1, sold = sold + $1, updated_at = ",
                postgres_now!(),
                " WHERE sku = $2 AND frozen >= $1"
            ),
            line,
        )
        .await
    }

    async fn release(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - $1, available = available + $1, updated_at = ",
                postgres_now!(),
                " WHERE sku = $2 AND frozen >= $1"
            ),
            line,
        )
        .await
    }

    async fn knows(&mut self, sku: &str) -> Result<bool, sqlx::Error> {
        let found = sqlx::query("SELECT 1 FROM stock WHERE sku = $1").bind(sku).fetch_optional(&mut *self.0).await?;
        Ok(found.is_some())
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], likely: bool) -> Result<Changed, sqlx::Error> {
        if likely && changes.iter().all(Change::is_any) {
            return self.apply_fitting(changes).await;
        }
        let rows = sqlx::query_as(LOCK).bind(column(changes, |change| change.sku)).fetch_all(&mut *self.0).await?;
        let levels = in_order(changes, rows);
        if !all_fit(changes, &levels) {
            return Ok(Changed::Nothing(levels));
        }
        let changes: Vec<_> = changes.iter().copied().filter(Change::is_any).collect();
        if !changes.is_empty() {
            self.apply(&changes).await?;
        }
        Ok(Changed::All)
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), sqlx::Error> {
        let changed = sqlx::query(APPLY)
            .bind(column(changes, |change| change.sku))
            .bind(column(changes, |change| change.available))
            .bind(column(changes, |change| change.sold))
            .execute(&mut *self.0)
            .await?;
        all_changed(changes, changed.rows_affected())
    }
}

/// One column of a list, as it is bound to `unnest`.
fn column<'a, V>(changes: &[Change<'a>], of: impl Fn(&Change<'a>) -> V) -> Vec<V> {
    changes.iter().map(of).collect()
}

impl Books<Postgres> {
    async fn receive_once(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        let Receipt { id, line } = receipt;
        let mut transaction = self.store.begin().await?;
        // Waits for another report of the same id that has not committed yet.
        let noted = sqlx::query(concat!(
            "INSERT INTO stock_receipts (receipt_id, sku, quantity, received_at) VALUES ($1, $2, $3, ",
            postgres_now!(),
            ") ON CONFLICT (receipt_id) DO NOTHING",
        ))
        .bind(id)
        .bind(line.sku())
        .bind(line.quantity())
        .execute(&mut *transaction)
        .await?;
        if noted.rows_affected() == 0 {
            let known = known_receipt(&mut transaction, receipt).await?;
            transaction.rollback().await?;
            return Ok(known);
        }
        let stock: Option<Stock> = sqlx::query_as(concat!(
            "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES ($1, $2, $2, 0, 0, ",
            postgres_now!(),
            ") ON CONFLICT (sku) DO UPDATE SET initial = stock.initial + $2, available = stock.available + $2, updated_at = ",
            postgres_now!(),
            " WHERE stock.initial <= $3 - $2 RETURNING sku, initial, available, frozen, sold, updated_at",
        ))
        .bind(line.sku())
        .bind(line.quantity())
        .bind(STOCK_MAX)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(stock) = stock else {
            transaction.rollback().await?;
            return Ok(Received::TooMuch);
        };
        transaction.commit().await?;
        Ok(Received::Counted(stock))
    }
}

/// What an id that is there already was for.
async fn known_receipt(conn: &mut PgConnection, receipt: &Receipt) -> Result<Received, sqlx::Error> {
    let Receipt { id, line } = receipt;
    let known = "SELECT 1 FROM stock_receipts WHERE receipt_id = $1 AND sku = $2 AND quantity = $3";
    let known = sqlx::query(known).bind(id).bind(line.sku()).bind(line.quantity());
    if known.fetch_optional(&mut *conn).await?.is_none() {
        return Ok(Received::OtherContent);
    }
    let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku = $1";
    Ok(Received::Counted(sqlx::query_as(select).bind(line.sku()).fetch_one(&mut *conn).await?))
}

impl StockBooks for Books<Postgres> {
    async fn receive(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        self.store.retrying(|| self.receive_once(receipt)).await
    }

    async fn get(&self, sku: &str) -> Result<Option<Stock>, sqlx::Error> {
        let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku = $1";
        sqlx::query_as(select).bind(sku).fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Stock>, sqlx::Error> {
        // No sku is empty, so every one comes after "".
        let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku > $1 ORDER BY sku LIMIT $2";
        let read = sqlx::query_as(select).bind(after.unwrap_or_default()).bind(i64::from(limit));
        read.fetch_all(self.store.read_pool()).await
    }
}

impl StockDatabase for Postgres {
    type Stock<'c> = StockRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::inventory::postgres()
    }

    fn stock(connection: &mut PgConnection) -> StockRows<'_, Self> {
        StockRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

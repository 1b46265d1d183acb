//! Stock on SQLite, where one connection writes and nothing changes between two statements of a transaction.

#[cfg(test)]
mod tests;

use serde::Serialize;
use sqlx::{Sqlite, SqliteConnection, migrate::Migrator};
use tcc_database::sqlite_now;
use tcc_participant::Store;

use super::{Books, StockRows, all_changed, all_fit, in_order};
use crate::{Change, Changed, Line, Receipt, Received, STOCK_MAX, Stock, StockBooks, StockDatabase, StockStore};

/// Reads rows, which only this transaction can change. `CROSS JOIN` is SQLite's word for this order of the loops.
const READ: &str = "SELECT s.sku, s.available, s.frozen FROM json_each(?1) AS v CROSS JOIN stock AS s ON s.sku = v.value";

/// Changes rows that are there.
const APPLY: &str = concat!(
    "UPDATE stock SET available = stock.available + v.available, frozen = stock.frozen - v.available - v.sold, ",
    "sold = stock.sold + v.sold, updated_at = ",
    sqlite_now!(),
    " FROM (SELECT value ->> 0 AS sku, value ->> 1 AS available, value ->> 2 AS sold FROM json_each(?1)) AS v ",
    "WHERE stock.sku = v.sku"
);

impl StockRows<'_, Sqlite> {
    /// One guarded update of one row; whether it changed.
    async fn change(&mut self, statement: &'static str, line: &Line) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(statement).bind(line.quantity()).bind(line.sku()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }
}

impl StockStore for StockRows<'_, Sqlite> {
    type Error = sqlx::Error;

    async fn freeze(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET available = available - ?1, frozen = frozen + ?1, updated_at = ",
                sqlite_now!(),
                " WHERE sku = ?2 AND available >= ?1"
            ),
            line,
        )
        .await
    }

    async fn spend(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?1, sold = sold + ?1, updated_at = ",
                sqlite_now!(),
                " WHERE sku = ?2 AND frozen >= ?1"
            ),
            line,
        )
        .await
    }

    async fn release(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?1, available = available + ?1, updated_at = ",
                sqlite_now!(),
                " WHERE sku = ?2 AND frozen >= ?1"
            ),
            line,
        )
        .await
    }

    async fn knows(&mut self, sku: &str) -> Result<bool, sqlx::Error> {
        let found = sqlx::query("SELECT 1 FROM stock WHERE sku = ?1").bind(sku).fetch_optional(&mut *self.0).await?;
        Ok(found.is_some())
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], _likely: bool) -> Result<Changed, sqlx::Error> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(READ).bind(sku_list(changes)?).fetch_all(&mut *self.0).await?;
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
        let changed = sqlx::query(APPLY).bind(change_list(changes)?).execute(&mut *self.0).await?;
        all_changed(changes, changed.rows_affected())
    }
}

/// `["sku", ...]`: a list is bound as one text, so that there is one prepared statement however long it is.
fn sku_list(changes: &[Change<'_>]) -> Result<String, sqlx::Error> {
    json(&changes.iter().map(|change| change.sku).collect::<Vec<_>>())
}

/// `[["sku", available, sold], ...]`
fn change_list(changes: &[Change<'_>]) -> Result<String, sqlx::Error> {
    json(&changes.iter().map(|change| (change.sku, change.available, change.sold)).collect::<Vec<_>>())
}

fn json(list: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(list).map_err(|error| sqlx::Error::Encode(error.into()))
}

impl Books<Sqlite> {
    async fn receive_once(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        let Receipt { id, line } = receipt;
        let mut transaction = self.store.begin().await?;
        let noted = sqlx::query(concat!(
            "INSERT INTO stock_receipts (receipt_id, sku, quantity, received_at) VALUES (?1, ?2, ?3, ",
            sqlite_now!(),
            ") ON CONFLICT (receipt_id) DO NOTHING",
        ))
        .bind(id)
        .bind(line.sku())
        .bind(line.quantity())
        .execute(&mut *transaction)
        .await?;
        if noted.rows_affected() == 0 {
            let known = "SELECT 1 FROM stock_receipts WHERE receipt_id = ?1 AND sku = ?2 AND quantity = ?3";
            let known = sqlx::query(known).bind(id).bind(line.sku()).bind(line.quantity());
            if known.fetch_optional(&mut *transaction).await?.is_none() {
                return Ok(Received::OtherContent);
            }
            let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku = ?1";
            return Ok(Received::Counted(sqlx::query_as(select).bind(line.sku()).fetch_one(&mut *transaction).await?));
        }
        let stock: Option<Stock> = sqlx::query_as(concat!(
            "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES (?1, ?2, ?2, 0, 0, ",
            sqlite_now!(),
            ") ON CONFLICT (sku) DO UPDATE SET initial = initial + ?2, available = available + ?2, ",
            "updated_at = excluded.updated_at WHERE initial <= ?3 - ?2 ",
            "RETURNING sku, initial, available, frozen, sold, updated_at",
        ))
        .bind(line.sku())
        .bind(line.quantity())
        .bind(STOCK_MAX)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(stock) = stock else { return Ok(Received::TooMuch) };
        transaction.commit().await?;
        Ok(Received::Counted(stock))
    }
}

impl StockBooks for Books<Sqlite> {
    async fn receive(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        self.store.retrying(|| self.receive_once(receipt)).await
    }

    async fn get(&self, sku: &str) -> Result<Option<Stock>, sqlx::Error> {
        let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku = ?1";
        sqlx::query_as(select).bind(sku).fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Stock>, sqlx::Error> {
        // No sku is empty, so every one comes after "".
        let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku > ?1 ORDER BY sku LIMIT ?2";
        sqlx::query_as(select).bind(after.unwrap_or_default()).bind(limit).fetch_all(self.store.read_pool()).await
    }
}

impl StockDatabase for Sqlite {
    type Stock<'c> = StockRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::inventory::sqlite()
    }

    fn stock(connection: &mut SqliteConnection) -> StockRows<'_, Self> {
        StockRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

//! Stock on MySQL and MariaDB, under READ COMMITTED. The client counts the rows that an update found, not those that it changed:
//! the guards are in the `WHERE`, so that both are the same.

#[cfg(test)]
mod tests;

use serde::Serialize;
use sqlx::{MySql, MySqlConnection, migrate::Migrator};
use tcc_database::{mysql::lists::lists, mysql_list, mysql_now};
use tcc_participant::Store;
use tcc_types::{Entropy, SystemEntropy};

use super::{Books, StockRows, all_changed, all_fit, in_order};
use crate::{Change, Changed, Line, Receipt, Received, STOCK_MAX, Stock, StockBooks, StockDatabase, StockStore};

/// The row `s` of each SKU of a list, in the list's order and never in another way.
macro_rules! stock_of_list {
    () => {
        " STRAIGHT_JOIN stock AS s FORCE INDEX (PRIMARY) ON s.sku = v.sku "
    };
}

/// Locks rows in the order of the list.
const LOCK: &str = concat!("SELECT s.sku, s.available, s.frozen FROM ", mysql_list!(sku id), stock_of_list!(), "FOR UPDATE");

/// Changes rows that are locked.
const APPLY: &str = concat!(
    "UPDATE ",
    mysql_list!(sku id, available int, sold int),
    stock_of_list!(),
    "SET s.available = s.available + v.available, s.frozen = s.frozen - v.available - v.sold, s.sold = s.sold + v.sold, ",
    "s.updated_at = ",
    mysql_now!()
);

/// A row of a list.
#[derive(Serialize)]
struct Item<'a> {
    sku: &'a str,
    available: i64,
    sold: i64,
}

fn change_lists(changes: &[Change<'_>]) -> Result<Vec<String>, sqlx::Error> {
    let items = changes.iter().map(|change| Item { sku: change.sku, available: change.available, sold: change.sold });
    lists(items).map_err(|error| sqlx::Error::Encode(error.into()))
}

impl StockRows<'_, MySql> {
    /// One guarded update of one row; whether it changed.
    async fn change(&mut self, statement: &'static str, line: &Line) -> Result<bool, sqlx::Error> {
        let quantity = line.quantity();
        let update = sqlx::query(statement).bind(quantity).bind(quantity).bind(line.sku()).bind(quantity);
        Ok(update.execute(&mut *self.0).await?.rows_affected() == 1)
    }
}

impl StockStore for StockRows<'_, MySql> {
    type Error = sqlx::Error;

    async fn freeze(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET available = available - ?, frozen = frozen + ?, updated_at = ",
                mysql_now!(),
                " WHERE sku = ? AND available >= ?"
            ),
            line,
        )
        .await
    }

    async fn spend(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?, sold = sold + ?, updated_at = ",
                mysql_now!(),
                " WHERE sku = ? AND frozen >= ?"
            ),
            line,
        )
        .await
    }

    async fn release(&mut self, line: &Line) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?, available = available + ?, updated_at = ",
                mysql_now!(),
                " WHERE sku = ? AND frozen >= ?"
            ),
            line,
        )
        .await
    }

    async fn knows(&mut self, sku: &str) -> Result<bool, sqlx::Error> {
        let found = sqlx::query("SELECT 1 FROM stock WHERE sku = ?").bind(sku).fetch_optional(&mut *self.0).await?;
        Ok(found.is_some())
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], _likely: bool) -> Result<Changed, sqlx::Error> {
        let mut rows: Vec<(String, i64, i64)> = Vec::with_capacity(changes.len());
        // The same list as for the change; what LOCK does not need of it, it does not read.
        for list in change_lists(changes)? {
            rows.extend(sqlx::query_as(LOCK).bind(list).fetch_all(&mut *self.0).await?);
        }
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
        let mut changed = 0;
        for list in change_lists(changes)? {
            changed += sqlx::query(APPLY).bind(list).execute(&mut *self.0).await?.rows_affected();
        }
        all_changed(changes, changed)
    }
}

impl Books<MySql> {
    async fn receive_once(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        let line = &receipt.line;
        let mut transaction = self.store.begin().await?;
        if !note(&mut transaction, receipt).await? {
            let known = known_receipt(&mut transaction, receipt).await?;
            transaction.rollback().await?;
            return Ok(known);
        }
        // First the row, then what came: an update within an insert would not say whether its guard held.
        sqlx::query(concat!(
            "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES (?, 0, 0, 0, 0, ",
            mysql_now!(),
            ") ON DUPLICATE KEY UPDATE sku = sku",
        ))
        .bind(line.sku())
        .execute(&mut *transaction)
        .await?;
        let added = sqlx::query(concat!(
            "UPDATE stock SET initial = initial + ?, available = available + ?, updated_at = ",
            mysql_now!(),
            " WHERE sku = ? AND initial <= ?",
        ))
        .bind(line.quantity())
        .bind(line.quantity())
        .bind(line.sku())
        .bind(STOCK_MAX - line.quantity())
        .execute(&mut *transaction)
        .await?;
        if added.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(Received::TooMuch);
        }
        let stock = stock_of(&mut transaction, line.sku()).await?;
        transaction.commit().await?;
        Ok(Received::Counted(stock))
    }
}

/// Inserts the receipt; whether it was not there yet. Waits for another report of the same id that has not committed yet.
async fn note(conn: &mut MySqlConnection, receipt: &Receipt) -> Result<bool, sqlx::Error> {
    let Receipt { id, line } = receipt;
    let attempt = SystemEntropy.next_u64().cast_signed();
    sqlx::query(concat!(
        "INSERT INTO stock_receipts (receipt_id, sku, quantity, attempt, received_at) VALUES (?, ?, ?, ?, ",
        mysql_now!(),
        ") ON DUPLICATE KEY UPDATE receipt_id = receipt_id",
    ))
    .bind(id)
    .bind(line.sku())
    .bind(line.quantity())
    .bind(attempt)
    .execute(&mut *conn)
    .await?;
    let stored: i64 =
        sqlx::query_scalar("SELECT attempt FROM stock_receipts WHERE receipt_id = ?").bind(id).fetch_one(conn).await?;
    Ok(stored == attempt)
}

/// What an id that is there already was for.
async fn known_receipt(conn: &mut MySqlConnection, receipt: &Receipt) -> Result<Received, sqlx::Error> {
    let Receipt { id, line } = receipt;
    let known = "SELECT 1 FROM stock_receipts WHERE receipt_id = ? AND sku = ? AND quantity = ?";
    let known = sqlx::query(known).bind(id).bind(line.sku()).bind(line.quantity());
    if known.fetch_optional(&mut *conn).await?.is_none() {
        return Ok(Received::OtherContent);
    }
    Ok(Received::Counted(stock_of(conn, line.sku()).await?))
}

async fn stock_of(conn: &mut MySqlConnection, sku: &str) -> Result<Stock, sqlx::Error> {
    let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku = ?";
    sqlx::query_as(select).bind(sku).fetch_one(conn).await
}

impl StockBooks for Books<MySql> {
    async fn receive(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        self.store.retrying(|| self.receive_once(receipt)).await
    }

    async fn get(&self, sku: &str) -> Result<Option<Stock>, sqlx::Error> {
        let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku = ?";
        sqlx::query_as(select).bind(sku).fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Stock>, sqlx::Error> {
        // No sku is empty, so every one comes after "".
        let select = "SELECT sku, initial, available, frozen, sold, updated_at FROM stock WHERE sku > ? ORDER BY sku LIMIT ?";
        let read = sqlx::query_as(select).bind(after.unwrap_or_default()).bind(i64::from(limit));
        read.fetch_all(self.store.read_pool()).await
    }
}

impl StockDatabase for MySql {
    type Stock<'c> = StockRows<'c, Self>;
    type Books = Books<Self>;

    fn migrator() -> Migrator {
        tcc_migrations::inventory::mysql()
    }

    fn stock(connection: &mut MySqlConnection) -> StockRows<'_, Self> {
        StockRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

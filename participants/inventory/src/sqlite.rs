//! Stock on SQLite: the statements, and nothing that decides.

use sqlx::{FromRow, Row, Sqlite, SqliteConnection, migrate::Migrator, sqlite::SqliteRow};
use tcc_migrations::sqlite_now;
use tcc_participant::Store;
use tcc_types::Timestamp;

use crate::{Line, Receipt, Received, STOCK_MAX, Stock, StockBooks, StockDatabase, StockStore};

/// The stock rows inside a local transaction that somebody else owns.
pub struct SqliteStock<'c>(pub &'c mut SqliteConnection);

impl SqliteStock<'_> {
    /// One guarded update of one row; whether it changed.
    async fn change(&mut self, statement: &'static str, line: &Line) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(statement).bind(line.quantity()).bind(line.sku()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
    }
}

impl StockStore for SqliteStock<'_> {
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
}

/// The books of one SQLite database.
#[derive(Clone, Debug)]
pub struct SqliteBooks {
    store: Store<Sqlite>,
}

impl SqliteBooks {
    /// Over a database that has the tables of `tcc_migrations::inventory`.
    #[must_use]
    pub fn new(store: Store<Sqlite>) -> Self {
        Self { store }
    }
}

impl StockBooks for SqliteBooks {
    async fn receive(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
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

impl<'r> FromRow<'r, SqliteRow> for Stock {
    fn from_row(row: &'r SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sku: row.try_get("sku")?,
            initial: row.try_get("initial")?,
            available: row.try_get("available")?,
            frozen: row.try_get("frozen")?,
            sold: row.try_get("sold")?,
            updated_at: Timestamp::from_micros(row.try_get("updated_at")?),
        })
    }
}

impl StockDatabase for Sqlite {
    type Stock<'c> = SqliteStock<'c>;
    type Books = SqliteBooks;

    fn migrator() -> Migrator {
        tcc_migrations::inventory::sqlite()
    }

    fn stock(connection: &mut SqliteConnection) -> SqliteStock<'_> {
        SqliteStock(connection)
    }

    fn books(store: Store<Self>) -> SqliteBooks {
        SqliteBooks::new(store)
    }
}

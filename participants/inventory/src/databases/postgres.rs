//! Stock on PostgreSQL, under READ COMMITTED: a guarded update that waited for another transaction checks its guard again.

use sqlx::{PgConnection, Postgres, migrate::Migrator};
use tcc_database::postgres_now;
use tcc_participant::Store;

use super::{Books, StockRows};
use crate::{Line, Receipt, Received, STOCK_MAX, Stock, StockBooks, StockDatabase, StockStore};

impl StockRows<'_, Postgres> {
    /// One guarded update of one row; whether it changed.
    async fn change(&mut self, statement: &'static str, line: &Line) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(statement).bind(line.quantity()).bind(line.sku()).execute(&mut *self.0).await?;
        Ok(done.rows_affected() == 1)
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

//! Stock on SQLite, where one connection writes and nothing changes between two statements of a transaction.

#[cfg(test)]
mod tests;

use sqlx::{FromRow, Sqlite, SqliteConnection, migrate::Migrator};
use tcc_database::{
    sqlite::lists::{ManyRows, ROWS_MAX},
    sqlite_given, sqlite_now,
};
use tcc_participant::Store;

use super::{
    Books, Read, StockRows, all_changed, all_fit, in_order,
    keeping::{deliver, keeping, respread},
    small,
};
use crate::{
    Change, Changed, Levels, Place, Receipt, Received, STOCK_MAX, Share, Spread, Stock, StockBooks, StockDatabase, StockStore,
};

/// Reads rows, which only this transaction can change. `CROSS JOIN` is SQLite's word for this order of the loops.
const READ: ManyRows = ManyRows {
    head: "SELECT s.sku, s.bucket, s.available, s.frozen, s.buckets, s.buckets_made FROM (VALUES ",
    width: 2,
    tail: concat!(") AS v CROSS JOIN stock AS s ON s.sku = v.column1 AND s.bucket = v.column2 WHERE ", sqlite_given!()),
};

/// What a row of a list `v` of (SKU, available, sold, bucket) does to its row.
macro_rules! set {
    () => {
        concat!(
            "UPDATE OR FAIL stock SET available = stock.available + v.column2, frozen = stock.frozen - v.column2 - v.column3, ",
            "sold = stock.sold + v.column3, updated_at = ",
            sqlite_now!()
        )
    };
}

/// Changes rows that are there.
const APPLY: ManyRows = ManyRows {
    head: concat!(set!(), " FROM (VALUES "),
    width: 4,
    tail: concat!(") AS v WHERE ", sqlite_given!(), " AND stock.sku = v.column1 AND stock.bucket = v.column4"),
};

/// Changes rows if all of them are there and every change fits: [`Change::fits`]. The fifth column is what is settled.
const APPLY_IF_ALL_FIT: ManyRows = ManyRows {
    head: "WITH v AS (VALUES ",
    width: 5,
    tail: concat!(
        ") ",
        set!(),
        " FROM v WHERE ",
        sqlite_given!(),
        " AND stock.sku = v.column1 AND stock.bucket = v.column4 AND NOT EXISTS (SELECT 1 FROM v ",
        "LEFT JOIN stock AS s ON s.sku = v.column1 AND s.bucket = v.column4 WHERE ",
        sqlite_given!(),
        " AND (s.available + v.column2 >= 0 AND s.frozen >= v.column5) IS NOT TRUE)"
    ),
};

/// A SKU over all of its rows.
macro_rules! sums {
    () => {
        concat!(
            "SELECT sku, sum(initial) AS initial, sum(available) AS available, sum(frozen) AS frozen, sum(sold) AS sold, ",
            "max(updated_at) AS updated_at, max(buckets) AS buckets FROM stock "
        )
    };
}
const SUMS: &str = concat!(sums!(), "WHERE sku = ?1 GROUP BY sku");

keeping! {
    Sqlite,
    first: "SELECT 1 FROM stock WHERE sku = ?1 AND bucket = 0",
    all: "SELECT bucket, initial, available, buckets, buckets_made FROM stock WHERE sku = ?1 ORDER BY bucket",
    make: concat!(
        "INSERT INTO stock (sku, bucket, buckets, buckets_made, initial, available, frozen, sold, updated_at) ",
        "VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, ",
        sqlite_now!(),
        ")"
    ),
    add: concat!(
        "UPDATE stock SET initial = initial + ?1, available = available + ?2, buckets = ?3, buckets_made = ?4, updated_at = ",
        sqlite_now!(),
        " WHERE sku = ?5 AND bucket = ?6"
    ),
    sums: SUMS
}

impl StockRows<'_, Sqlite> {
    /// One guarded update of one row; the SKU's number of buckets if it changed.
    async fn change(&mut self, statement: &'static str, share: Share<'_>) -> Result<Option<u8>, sqlx::Error> {
        let update = sqlx::query_scalar(statement).bind(share.quantity).bind(share.sku).bind(share.bucket);
        update.fetch_optional(&mut *self.0).await?.map(small::<i32>).transpose()
    }
}

impl StockStore for StockRows<'_, Sqlite> {
    type Error = sqlx::Error;

    async fn freeze(&mut self, share: Share<'_>) -> Result<Option<u8>, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET available = available - ?1, frozen = frozen + ?1, updated_at = ",
                sqlite_now!(),
                " WHERE sku = ?2 AND bucket = ?3 AND available >= ?1 RETURNING buckets"
            ),
            share,
        )
        .await
    }

    async fn spend(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?1, sold = sold + ?1, updated_at = ",
                sqlite_now!(),
                " WHERE sku = ?2 AND bucket = ?3 AND frozen >= ?1 RETURNING buckets"
            ),
            share,
        )
        .await
        .map(|changed| changed.is_some())
    }

    async fn release(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?1, available = available + ?1, updated_at = ",
                sqlite_now!(),
                " WHERE sku = ?2 AND bucket = ?3 AND frozen >= ?1 RETURNING buckets"
            ),
            share,
        )
        .await
        .map(|changed| changed.is_some())
    }

    async fn look(&mut self, sku: &str) -> Result<Option<Levels>, sqlx::Error> {
        Ok(self.lock(&[Place { sku, bucket: 0 }], false).await?.pop().flatten())
    }

    /// Nobody else writes, so there is nothing to lock.
    async fn lock(&mut self, places: &[Place<'_>], _at_once: bool) -> Result<Vec<Option<Levels>>, sqlx::Error> {
        let rows = READ
            .fetch(self.0, &[], places, |values, place| {
                values.put(place.sku).put(place.bucket);
            })
            .await?;
        in_order(places.iter().copied(), rows.iter().map(Read::from_row).collect::<Result<_, _>>()?)
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], likely: bool) -> Result<Changed, sqlx::Error> {
        // A longer list is several statements, and one could change its rows where another does not.
        if likely && changes.len() <= ROWS_MAX && changes.iter().all(Change::is_any) {
            let made = APPLY_IF_ALL_FIT
                .execute(self.0, &[], changes, |values, change| {
                    values.put(change.sku).put(change.available).put(change.sold).put(change.bucket).put(change.settled);
                })
                .await?;
            if made > 0 {
                return all_changed(changes, made).map(|()| Changed::All(Vec::new()));
            }
        }
        let places: Vec<_> = changes.iter().map(Change::place).collect();
        let levels = self.lock(&places, false).await?;
        if !all_fit(changes, &levels) {
            return Ok(Changed::Nothing(levels));
        }
        let changes: Vec<_> = changes.iter().copied().filter(Change::is_any).collect();
        if !changes.is_empty() {
            self.apply(&changes).await?;
        }
        Ok(Changed::All(levels))
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), sqlx::Error> {
        let made = APPLY
            .execute(self.0, &[], changes, |values, change| {
                values.put(change.sku).put(change.available).put(change.sold).put(change.bucket);
            })
            .await?;
        all_changed(changes, made)
    }
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
            return Ok(Received::Counted(sqlx::query_as(SUMS).bind(line.sku()).fetch_one(&mut *transaction).await?));
        }
        // In one statement where the SKU is new or has one row.
        let mut stock: Option<Stock> = sqlx::query_as(concat!(
            "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES (?1, ?2, ?2, 0, 0, ",
            sqlite_now!(),
            ") ON CONFLICT (sku, bucket) DO UPDATE SET initial = initial + ?2, available = available + ?2, ",
            "updated_at = excluded.updated_at WHERE buckets_made = 1 AND initial <= ?3 - ?2 ",
            "RETURNING sku, initial, available, frozen, sold, updated_at, buckets",
        ))
        .bind(line.sku())
        .bind(line.quantity())
        .bind(STOCK_MAX)
        .fetch_optional(&mut *transaction)
        .await?;
        if stock.is_none() {
            stock = deliver::<Sqlite>(&mut transaction, line).await?;
        }
        let Some(stock) = stock else { return Ok(Received::TooMuch) };
        transaction.commit().await?;
        Ok(Received::Counted(stock))
    }

    async fn spread_once(&self, spread: &Spread) -> Result<Option<Stock>, sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        let stock = respread::<Sqlite>(&mut transaction, spread).await?;
        transaction.commit().await?;
        Ok(stock)
    }
}

impl StockBooks for Books<Sqlite> {
    async fn receive(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        self.store.retrying(|| self.receive_once(receipt)).await
    }

    async fn spread(&self, spread: &Spread) -> Result<Option<Stock>, sqlx::Error> {
        self.store.retrying(|| self.spread_once(spread)).await
    }

    async fn get(&self, sku: &str) -> Result<Option<Stock>, sqlx::Error> {
        sqlx::query_as(SUMS).bind(sku).fetch_optional(self.store.read_pool()).await
    }

    async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Stock>, sqlx::Error> {
        // No sku is empty, so every one comes after "".
        let select = concat!(sums!(), "WHERE sku > ?1 GROUP BY sku ORDER BY sku LIMIT ?2");
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

//! Stock on MySQL and MariaDB, under READ COMMITTED. The client counts the rows that an update found, not those that it changed:
//! the guards are in the `WHERE`, so that both are the same.

#[cfg(test)]
mod tests;

use sqlx::{MySql, MySqlConnection, migrate::Migrator, raw_sql};
use tcc_database::{mysql::lists::lists, mysql_list, mysql_now};
use tcc_participant::Store;
use tcc_types::{Entropy, SystemEntropy};

use super::{
    Books, Read, StockRows, all_changed, all_fit, in_order,
    keeping::{Keeping, deliver, keeping, respread},
    small,
};
use crate::{
    Change, Changed, Levels, Place, Receipt, Received, STOCK_MAX, Share, Spread, Stock, StockBooks, StockDatabase, StockStore,
};

/// The row `s` of each place of a list, in the list's order and never in another way.
macro_rules! stock_of_list {
    () => {
        " STRAIGHT_JOIN stock AS s FORCE INDEX (PRIMARY) ON s.sku = v.sku AND s.bucket = v.bucket "
    };
}

/// Locks rows in the order of the list.
macro_rules! lock {
    ($how:literal) => {
        concat!(
            "SELECT s.sku, s.bucket, s.available, s.frozen, s.buckets, s.buckets_made FROM ",
            mysql_list!(sku id, bucket int),
            stock_of_list!(),
            "FOR UPDATE",
            $how
        )
    };
}
const LOCK: &str = lock!("");
const LOCK_AT_ONCE: &str = lock!(" NOWAIT");

/// Changes rows that are locked.
const APPLY: &str = concat!(
    "UPDATE ",
    mysql_list!(sku id, bucket int, available int, sold int),
    stock_of_list!(),
    "SET s.available = s.available + v.available, s.frozen = s.frozen - v.available - v.sold, s.sold = s.sold + v.sold, ",
    "s.updated_at = ",
    mysql_now!()
);

/// Makes those changes that fit. Gives 1 to `LAST_INSERT_ID` where a SKU has more rows than one, and nothing where none has.
const APPLY_FITTING: &str = concat!(
    "UPDATE ",
    mysql_list!(sku id, bucket int, available int, sold int, settled int),
    stock_of_list!(),
    "SET s.updated_at = ",
    mysql_now!(),
    " + IF(s.buckets_made > 1, LAST_INSERT_ID(1) - 1, 0), ",
    "s.available = s.available + v.available, s.frozen = s.frozen - v.available - v.sold, s.sold = s.sold + v.sold ",
    "WHERE s.available + v.available >= 0 AND s.frozen >= v.settled"
);

/// A SKU over all of its rows.
macro_rules! sums {
    () => {
        concat!(
            "SELECT sku, CAST(SUM(initial) AS SIGNED) AS initial, CAST(SUM(available) AS SIGNED) AS available, ",
            "CAST(SUM(frozen) AS SIGNED) AS frozen, CAST(SUM(sold) AS SIGNED) AS sold, MAX(updated_at) AS updated_at, ",
            "MAX(buckets) AS buckets FROM stock "
        )
    };
}
const SUMS: &str = concat!(sums!(), "WHERE sku = ? GROUP BY sku");

keeping! {
    MySql,
    first: "SELECT 1 FROM stock WHERE sku = ? AND bucket = 0 FOR UPDATE",
    all: "SELECT bucket, initial, available, buckets, buckets_made FROM stock WHERE sku = ? ORDER BY bucket FOR UPDATE",
    make: concat!(
        "INSERT INTO stock (sku, bucket, buckets, buckets_made, initial, available, frozen, sold, updated_at) ",
        "VALUES (?, ?, ?, ?, 0, 0, 0, 0, ",
        mysql_now!(),
        ")"
    ),
    add: concat!(
        "UPDATE stock SET initial = initial + ?, available = available + ?, buckets = ?, buckets_made = ?, updated_at = ",
        mysql_now!(),
        " WHERE sku = ? AND bucket = ?"
    ),
    sums: SUMS
}

/// For each statement that changes rows: none minds values that come after its columns.
fn change_lists(changes: &[Change<'_>]) -> Result<Vec<String>, sqlx::Error> {
    let row = |&Change { sku, bucket, available, sold, settled }| (sku, bucket, available, sold, settled);
    lists(changes.iter().map(row)).map_err(|error| sqlx::Error::Encode(error.into()))
}

impl StockRows<'_, MySql> {
    /// One guarded update of one row; the SKU's number of buckets if it changed. What an update gives to `LAST_INSERT_ID` it returns:
    /// there is no other way to read with it.
    async fn change(&mut self, statement: &'static str, share: Share<'_>) -> Result<Option<u8>, sqlx::Error> {
        let Share { sku, bucket, quantity } = share;
        let update = sqlx::query(statement).bind(quantity).bind(quantity).bind(sku).bind(i32::from(bucket)).bind(quantity);
        let done = update.execute(&mut *self.0).await?;
        if done.rows_affected() == 0 { Ok(None) } else { small(done.last_insert_id()).map(Some) }
    }

    /// Makes all changes in one statement, which spares locking the rows first; or takes back what it made.
    async fn apply_fitting(&mut self, changes: &[Change<'_>]) -> Result<Changed, sqlx::Error> {
        // Not one of sqlx's: after a deadlock it would roll back to what is gone, and give the connection up.
        raw_sql("SAVEPOINT inventory_fitting").execute(&mut *self.0).await?;
        let (mut made, mut is_split) = (0, false);
        for list in change_lists(changes)? {
            let done = sqlx::query(APPLY_FITTING).bind(list).execute(&mut *self.0).await?;
            made += done.rows_affected();
            is_split |= done.last_insert_id() != 0;
        }
        let all = usize::try_from(made) == Ok(changes.len());
        if all && !is_split {
            return Ok(Changed::All(Vec::new()));
        }
        if !all {
            raw_sql("ROLLBACK TO SAVEPOINT inventory_fitting").execute(&mut *self.0).await?;
        }
        // What was changed stays locked. The others come out of order: who waited for one could wait for somebody that waits for these.
        // Where one is taken the whole transaction runs anew.
        let rows = self.locked(LOCK_AT_ONCE, changes.iter().map(Change::place)).await?;
        let levels = in_order(changes.iter().map(Change::place), rows)?;
        if !all {
            return Ok(Changed::Nothing(levels));
        }
        let before = |(change, after): (&Change<'_>, Option<Levels>)| {
            after.map(|after| Levels {
                available: after.available - change.available,
                frozen: after.frozen + change.available + change.sold,
                ..after
            })
        };
        Ok(Changed::All(changes.iter().zip(levels).map(before).collect()))
    }

    async fn locked<'a>(
        &mut self,
        statement: &'static str,
        places: impl Iterator<Item = Place<'a>>,
    ) -> Result<Vec<Read>, sqlx::Error> {
        let places = places.map(|Place { sku, bucket }| (sku, bucket));
        let mut rows = Vec::new();
        for list in lists(places).map_err(|error| sqlx::Error::Encode(error.into()))? {
            rows.extend(sqlx::query_as(statement).bind(list).fetch_all(&mut *self.0).await?);
        }
        Ok(rows)
    }
}

impl StockStore for StockRows<'_, MySql> {
    type Error = sqlx::Error;

    async fn freeze(&mut self, share: Share<'_>) -> Result<Option<u8>, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET available = available - ?, frozen = frozen + ?, buckets = LAST_INSERT_ID(buckets), updated_at = ",
                mysql_now!(),
                " WHERE sku = ? AND bucket = ? AND available >= ?"
            ),
            share,
        )
        .await
    }

    async fn spend(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?, sold = sold + ?, updated_at = ",
                mysql_now!(),
                " WHERE sku = ? AND bucket = ? AND frozen >= ?"
            ),
            share,
        )
        .await
        .map(|changed| changed.is_some())
    }

    async fn release(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - ?, available = available + ?, updated_at = ",
                mysql_now!(),
                " WHERE sku = ? AND bucket = ? AND frozen >= ?"
            ),
            share,
        )
        .await
        .map(|changed| changed.is_some())
    }

    async fn look(&mut self, sku: &str) -> Result<Option<Levels>, sqlx::Error> {
        let select = "SELECT sku, bucket, available, frozen, buckets, buckets_made FROM stock WHERE sku = ? AND bucket = 0";
        let row = sqlx::query_as(select).bind(sku).fetch_all(&mut *self.0).await?;
        Ok(in_order([Place { sku, bucket: 0 }].into_iter(), row)?.pop().flatten())
    }

    async fn lock(&mut self, places: &[Place<'_>], at_once: bool) -> Result<Vec<Option<Levels>>, sqlx::Error> {
        let rows = self.locked(if at_once { LOCK_AT_ONCE } else { LOCK }, places.iter().copied()).await?;
        in_order(places.iter().copied(), rows)
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], likely: bool) -> Result<Changed, sqlx::Error> {
        if likely && changes.iter().all(Change::is_any) {
            return self.apply_fitting(changes).await;
        }
        let rows = self.locked(LOCK, changes.iter().map(Change::place)).await?;
        let levels = in_order(changes.iter().map(Change::place), rows)?;
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
            " WHERE sku = ? AND bucket = 0 AND buckets_made = 1 AND initial <= ?",
        ))
        .bind(line.quantity())
        .bind(line.quantity())
        .bind(line.sku())
        .bind(STOCK_MAX - line.quantity())
        .execute(&mut *transaction)
        .await?;
        // That was all where the SKU has one row.
        let stock = match added.rows_affected() {
            0 => deliver::<MySql>(&mut transaction, line).await?,
            _ => MySql::sums(&mut transaction, line.sku()).await?,
        };
        let Some(stock) = stock else {
            transaction.rollback().await?;
            return Ok(Received::TooMuch);
        };
        transaction.commit().await?;
        Ok(Received::Counted(stock))
    }

    async fn spread_once(&self, spread: &Spread) -> Result<Option<Stock>, sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        let stock = respread::<MySql>(&mut transaction, spread).await?;
        transaction.commit().await?;
        Ok(stock)
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
    Ok(Received::Counted(sqlx::query_as(SUMS).bind(line.sku()).fetch_one(conn).await?))
}

impl StockBooks for Books<MySql> {
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
        let select = concat!(sums!(), "WHERE sku > ? GROUP BY sku ORDER BY sku LIMIT ?");
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

//! Stock on PostgreSQL, under READ COMMITTED: a guarded update that waited for another transaction checks its guard again.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use sqlx::{PgConnection, Postgres, migrate::Migrator};
use tcc_database::postgres_now;
use tcc_participant::Store;

use super::{
    Books, Read, StockRows, all_changed, all_fit, in_order,
    keeping::{deliver, keeping, respread},
    small,
};
use crate::{
    Change, Changed, Levels, Place, Receipt, Received, STOCK_MAX, Share, Spread, Stock, StockBooks, StockDatabase, StockStore,
};

/// The row of each place of a list. The array of one and the range of one leave the planner nothing to hash, to sort or to walk along:
/// it looks each row up by its whole key, in the order of the list. (Of two arrays it may take the second one for a filter.)
macro_rules! at {
    () => {
        "s.sku = ANY(ARRAY[v.sku]) AND s.bucket BETWEEN v.bucket AND v.bucket"
    };
}

/// Locks rows in the order of their keys.
macro_rules! lock {
    ($how:literal) => {
        concat!(
            "SELECT s.sku, s.bucket, s.available, s.frozen, s.buckets, s.buckets_made ",
            "FROM unnest($1::text[], $2::integer[]) AS v(sku, bucket) JOIN stock AS s ON ",
            at!(),
            " ORDER BY s.sku, s.bucket FOR UPDATE OF s",
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
    " FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[]) ",
    "AS v(sku, bucket, available, sold, settled) WHERE ",
    at!(),
    " AND s.available + v.available >= 0 AND s.frozen >= v.settled RETURNING ",
    "s.sku, s.bucket, s.available - v.available, s.frozen + v.available + v.sold, s.buckets, s.buckets_made"
);

/// Changes rows that are locked.
const APPLY: &str = concat!(
    "UPDATE stock AS s SET available = s.available + v.available, frozen = s.frozen - v.available - v.sold, ",
    "sold = s.sold + v.sold, updated_at = ",
    postgres_now!(),
    " FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS v(sku, bucket, available, sold) WHERE ",
    at!()
);

/// A SKU over all of its rows.
macro_rules! sums {
    () => {
        concat!(
            "SELECT sku, sum(initial)::bigint AS initial, sum(available)::bigint AS available, sum(frozen)::bigint AS frozen, ",
            "sum(sold)::bigint AS sold, max(updated_at) AS updated_at, max(buckets) AS buckets FROM stock "
        )
    };
}
const SUMS: &str = concat!(sums!(), "WHERE sku = $1 GROUP BY sku");

keeping! {
    Postgres,
    first: "SELECT 1 FROM stock WHERE sku = $1 AND bucket = 0 FOR UPDATE",
    all: "SELECT bucket, initial, available, buckets, buckets_made FROM stock WHERE sku = $1 ORDER BY bucket FOR UPDATE",
    make: concat!(
        "INSERT INTO stock (sku, bucket, buckets, buckets_made, initial, available, frozen, sold, updated_at) ",
        "VALUES ($1, $2, $3, $4, 0, 0, 0, 0, ",
        postgres_now!(),
        ")"
    ),
    add: concat!(
        "UPDATE stock SET initial = initial + $1, available = available + $2, buckets = $3, buckets_made = $4, updated_at = ",
        postgres_now!(),
        " WHERE sku = $5 AND bucket = $6"
    ),
    sums: SUMS
}

impl StockRows<'_, Postgres> {
    /// One guarded update of one row; the SKU's number of buckets if it changed.
    async fn change(&mut self, statement: &'static str, share: Share<'_>) -> Result<Option<u8>, sqlx::Error> {
        let update = sqlx::query_scalar(statement).bind(share.quantity).bind(share.sku).bind(i32::from(share.bucket));
        update.fetch_optional(&mut *self.0).await?.map(small::<i32>).transpose()
    }
}

impl StockRows<'_, Postgres> {
    /// Makes all changes in one statement, which spares locking the rows first; or takes back what it made.
    async fn apply_fitting(&mut self, changes: &[Change<'_>]) -> Result<Changed, sqlx::Error> {
        let mut rows: Vec<Read> = sqlx::query_as(APPLY_FITTING)
            .bind(column(changes, |change| change.sku))
            .bind(column(changes, |change| i32::from(change.bucket)))
            .bind(column(changes, |change| change.available))
            .bind(column(changes, |change| change.sold))
            .bind(column(changes, |change| change.settled))
            .fetch_all(&mut *self.0)
            .await?;
        if rows.len() == changes.len() {
            return in_order(changes.iter().map(Change::place), rows).map(Changed::All);
        }
        let made: HashSet<(&str, i32)> = rows.iter().map(|(sku, bucket, ..)| (sku.as_str(), *bucket)).collect();
        let (made, others): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| made.contains(&(change.sku, change.bucket.into())));
        if !made.is_empty() {
            self.apply(&made.into_iter().copied().map(Change::undone).collect::<Vec<_>>()).await?;
        }
        // These come out of order: who waited for one could wait for somebody that waits for the rows above. Where one is taken the
        // whole transaction runs anew.
        rows.extend(self.locked(LOCK_AT_ONCE, others.into_iter().map(Change::place)).await?);
        in_order(changes.iter().map(Change::place), rows).map(Changed::Nothing)
    }

    async fn locked<'a>(
        &mut self,
        statement: &'static str,
        places: impl Iterator<Item = Place<'a>>,
    ) -> Result<Vec<Read>, sqlx::Error> {
        let (skus, buckets): (Vec<_>, Vec<_>) = places.map(|place| (place.sku, i32::from(place.bucket))).unzip();
        sqlx::query_as(statement).bind(skus).bind(buckets).fetch_all(&mut *self.0).await
    }
}

impl StockStore for StockRows<'_, Postgres> {
    type Error = sqlx::Error;

    async fn freeze(&mut self, share: Share<'_>) -> Result<Option<u8>, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET available = available - $1, frozen = frozen + $1, updated_at = ",
                postgres_now!(),
                " WHERE sku = $2 AND bucket = $3 AND available >= $1 RETURNING buckets"
            ),
            share,
        )
        .await
    }

    async fn spend(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - $1, sold = sold + $1, updated_at = ",
                postgres_now!(),
                " WHERE sku = $2 AND bucket = $3 AND frozen >= $1 RETURNING buckets"
            ),
            share,
        )
        .await
        .map(|changed| changed.is_some())
    }

    async fn release(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.change(
            concat!(
                "UPDATE stock SET frozen = frozen - $1, available = available + $1, updated_at = ",
                postgres_now!(),
                " WHERE sku = $2 AND bucket = $3 AND frozen >= $1 RETURNING buckets"
            ),
            share,
        )
        .await
        .map(|changed| changed.is_some())
    }

    async fn look(&mut self, sku: &str) -> Result<Option<Levels>, sqlx::Error> {
        let select = "SELECT sku, bucket, available, frozen, buckets, buckets_made FROM stock WHERE sku = $1 AND bucket = 0";
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
        let changed = sqlx::query(APPLY)
            .bind(column(changes, |change| change.sku))
            .bind(column(changes, |change| i32::from(change.bucket)))
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
        // In one statement where the SKU is new or has one row.
        let mut stock: Option<Stock> = sqlx::query_as(concat!(
            "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES ($1, $2, $2, 0, 0, ",
            postgres_now!(),
            ") ON CONFLICT (sku, bucket) DO UPDATE SET initial = stock.initial + $2, available = stock.available + $2, updated_at = ",
            postgres_now!(),
            " WHERE stock.buckets_made = 1 AND stock.initial <= $3 - $2 ",
            "RETURNING sku, initial, available, frozen, sold, updated_at, buckets",
        ))
        .bind(line.sku())
        .bind(line.quantity())
        .bind(STOCK_MAX)
        .fetch_optional(&mut *transaction)
        .await?;
        if stock.is_none() {
            stock = deliver::<Postgres>(&mut transaction, line).await?;
        }
        let Some(stock) = stock else {
            transaction.rollback().await?;
            return Ok(Received::TooMuch);
        };
        transaction.commit().await?;
        Ok(Received::Counted(stock))
    }

    async fn spread_once(&self, spread: &Spread) -> Result<Option<Stock>, sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        let stock = respread::<Postgres>(&mut transaction, spread).await?;
        transaction.commit().await?;
        Ok(stock)
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
    Ok(Received::Counted(sqlx::query_as(SUMS).bind(line.sku()).fetch_one(&mut *conn).await?))
}

impl StockBooks for Books<Postgres> {
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
        let select = concat!(sums!(), "WHERE sku > $1 GROUP BY sku ORDER BY sku LIMIT $2");
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

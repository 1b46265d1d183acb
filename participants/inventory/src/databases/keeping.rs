//! What the keeper does to a SKU's rows, the same on every database: all of them locked, the first one first, so that nobody makes
//! another one meanwhile. Called by the books.

use tcc_participant::Database;

use crate::{
    Line, STOCK_MAX, Spread, Stock,
    buckets::{poured, spread},
};

/// A row: bucket, initial, available, [`Levels::buckets`](crate::Levels::buckets) and [`Levels::made`](crate::Levels::made).
pub(super) type Bucket = (i32, i64, i64, i32, i32);

/// The statements, in a transaction.
pub(super) trait Keeping: Database {
    /// Locks a SKU's first row; whether there is one.
    fn lock_first(conn: &mut Self::Connection, sku: &str) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Locks all of a SKU's rows, in order.
    fn lock_all(conn: &mut Self::Connection, sku: &str) -> impl Future<Output = Result<Vec<Bucket>, sqlx::Error>> + Send;

    /// Makes an empty row.
    fn make(conn: &mut Self::Connection, sku: &str, bucket: &Bucket) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Adds free pieces, which may be negative, and writes the numbers of buckets.
    fn add(
        conn: &mut Self::Connection,
        sku: &str,
        bucket: &Bucket,
        pieces: i64,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Reads the SKU.
    fn sums(conn: &mut Self::Connection, sku: &str) -> impl Future<Output = Result<Option<Stock>, sqlx::Error>> + Send;
}

/// Counts a delivery of a SKU that is there; `None`: it would have too many.
pub(super) async fn deliver<D: Keeping>(conn: &mut D::Connection, line: &Line) -> Result<Option<Stock>, sqlx::Error> {
    D::lock_first(conn, line.sku()).await?;
    let rows = D::lock_all(conn, line.sku()).await?;
    if rows.iter().map(|(_, initial, ..)| initial).sum::<i64>() > STOCK_MAX - line.quantity() {
        return Ok(None);
    }
    let in_use: Vec<_> = rows.into_iter().filter(|(bucket, _, _, buckets, _)| bucket < buckets).collect();
    let available: Vec<_> = in_use.iter().map(|(_, _, available, ..)| *available).collect();
    for (bucket, pieces) in in_use.iter().zip(poured(&available, line.quantity())) {
        if pieces > 0 {
            D::add(conn, line.sku(), bucket, pieces).await?;
        }
    }
    D::sums(conn, line.sku()).await
}

/// Sets the number of buckets and spreads what is free over them; `None`: there is no such SKU.
pub(super) async fn respread<D: Keeping>(conn: &mut D::Connection, wanted: &Spread) -> Result<Option<Stock>, sqlx::Error> {
    let (sku, buckets) = (wanted.sku(), wanted.buckets());
    if !D::lock_first(conn, sku).await? {
        return Ok(None);
    }
    let mut rows = D::lock_all(conn, sku).await?;
    let made = u8::try_from(rows.len()).unwrap_or(u8::MAX).max(buckets);
    for bucket in rows.len()..usize::from(made) {
        let bucket = i32::try_from(bucket).unwrap_or(i32::MAX);
        let row = (bucket, 0, 0, buckets.into(), made.into());
        D::make(conn, sku, &row).await?;
        rows.push(row);
    }
    let free = rows.iter().map(|(_, _, available, ..)| available).sum();
    for ((bucket, initial, available, ..), target) in rows.into_iter().zip(spread(free, buckets, made)) {
        let row = (bucket, initial, available, buckets.into(), made.into());
        D::add(conn, sku, &row, target - available).await?;
    }
    D::sums(conn, sku).await
}

/// [`Keeping`] in a database's dialect: the statements' texts, each with its values in order.
macro_rules! keeping {
    (
        $database:ty,
        first: $first:expr,
        all: $all:expr,
        make: $make:expr,
        add: $add:expr,
        sums: $sums:expr
    ) => {
        impl $crate::databases::keeping::Keeping for $database {
            async fn lock_first(conn: &mut Self::Connection, sku: &str) -> Result<bool, sqlx::Error> {
                Ok(sqlx::query($first).bind(sku).fetch_optional(conn).await?.is_some())
            }

            async fn lock_all(
                conn: &mut Self::Connection,
                sku: &str,
            ) -> Result<Vec<$crate::databases::keeping::Bucket>, sqlx::Error> {
                sqlx::query_as($all).bind(sku).fetch_all(conn).await
            }

            async fn make(
                conn: &mut Self::Connection,
                sku: &str,
                bucket: &$crate::databases::keeping::Bucket,
            ) -> Result<(), sqlx::Error> {
                let (bucket, _, _, buckets, made) = *bucket;
                sqlx::query($make).bind(sku).bind(bucket).bind(buckets).bind(made).execute(conn).await.map(drop)
            }

            async fn add(
                conn: &mut Self::Connection,
                sku: &str,
                bucket: &$crate::databases::keeping::Bucket,
                pieces: i64,
            ) -> Result<(), sqlx::Error> {
                let (bucket, _, _, buckets, made) = *bucket;
                let add = sqlx::query($add).bind(pieces).bind(pieces).bind(buckets).bind(made).bind(sku).bind(bucket);
                add.execute(conn).await.map(drop)
            }

            async fn sums(conn: &mut Self::Connection, sku: &str) -> Result<Option<$crate::Stock>, sqlx::Error> {
                sqlx::query_as($sums).bind(sku).fetch_optional(conn).await
            }
        }
    };
}
pub(super) use keeping;

//! Stock in memory, where one transaction writes at a time: nothing changes between two statements of it.

use sqlx::migrate::Migrator;
use tcc_participant::{
    Store,
    memory::{MemoryConnection, MemoryDatabase},
};

use super::{
    Books, StockRows, all_fit,
    keeping::{Bucket, Keeping, deliver, respread},
    small,
};
use crate::{
    Change, Changed, Levels, Place, Receipt, Received, Share, Spread, Stock, StockBooks, StockDatabase, StockStore,
    memory::{StockRow, StockTables},
};

type Db = MemoryDatabase<StockTables>;
type Conn = MemoryConnection<StockTables>;

impl Keeping for Db {
    async fn lock_first(conn: &mut Conn, sku: &str) -> Result<bool, sqlx::Error> {
        conn.read(|tables, _| tables.stock.sku(sku).is_some()).await
    }

    async fn lock_all(conn: &mut Conn, sku: &str) -> Result<Vec<Bucket>, sqlx::Error> {
        conn.read(|tables, _| {
            let Some(rows) = tables.stock.sku(sku) else { return Vec::new() };
            let made = i32::try_from(rows.rows.len()).unwrap_or(i32::MAX);
            let bucket = |(bucket, row): (i32, &StockRow)| (bucket, row.initial, row.available, rows.buckets.into(), made);
            (0..made).zip(&rows.rows).map(bucket).collect()
        })
        .await
    }

    async fn make(conn: &mut Conn, sku: &str, _: &Bucket) -> Result<(), sqlx::Error> {
        let is_made = conn.write(|tables, now| Ok(tables.stock.make(sku, now)?)).await?;
        if is_made { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
    }

    async fn add(conn: &mut Conn, sku: &str, bucket: &Bucket, pieces: i64) -> Result<(), sqlx::Error> {
        let (bucket, _, _, buckets, _) = *bucket;
        let (place, buckets) = (Place { sku, bucket: small(bucket)? }, small(buckets)?);
        conn.write(|tables, now| Ok(tables.stock.fill(place, pieces, buckets, now)?)).await
    }

    async fn sums(conn: &mut Conn, sku: &str) -> Result<Option<Stock>, sqlx::Error> {
        conn.read(|tables, _| tables.stock.stock(sku)).await
    }
}

impl StockStore for StockRows<'_, Db> {
    type Error = sqlx::Error;

    async fn freeze(&mut self, share: Share<'_>) -> Result<Option<u8>, sqlx::Error> {
        self.0.write(|tables, now| Ok(tables.stock.freeze(share, now)?)).await
    }

    async fn spend(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.0.write(|tables, now| Ok(tables.stock.spend(share, now)?)).await
    }

    async fn release(&mut self, share: Share<'_>) -> Result<bool, sqlx::Error> {
        self.0.write(|tables, now| Ok(tables.stock.release(share, now)?)).await
    }

    async fn look(&mut self, sku: &str) -> Result<Option<Levels>, sqlx::Error> {
        self.0.read(|tables, _| tables.stock.levels(Place { sku, bucket: 0 })).await
    }

    /// Nobody else writes, so there is nothing to lock.
    async fn lock(&mut self, places: &[Place<'_>], _at_once: bool) -> Result<Vec<Option<Levels>>, sqlx::Error> {
        self.0.read(|tables, _| places.iter().map(|place| tables.stock.levels(*place)).collect()).await
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], _likely: bool) -> Result<Changed, sqlx::Error> {
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
        self.0
            .write(|tables, now| {
                for change in changes {
                    if !tables.stock.apply(*change, now)? {
                        return Err(sqlx::Error::RowNotFound);
                    }
                }
                Ok(())
            })
            .await
    }
}

impl Books<Db> {
    async fn receive_once(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        let Receipt { id, line } = receipt;
        let mut transaction = self.store.begin().await?;
        if !transaction.write(|tables, now| Ok(tables.stock.note(id, line, now))).await? {
            let known = |tables: &StockTables| {
                let is_known = tables.stock.noted(id) == Some(line);
                is_known.then(|| tables.stock.stock(line.sku())).flatten()
            };
            let known = transaction.read(|tables, _| known(tables)).await?;
            // What is told was written by another: a commit that comes after it makes that durable too.
            transaction.commit().await?;
            return Ok(known.map_or(Received::OtherContent, Received::Counted));
        }
        // In one statement where the SKU is new or has one row.
        let mut stock = transaction.write(|tables, now| Ok(tables.stock.deliver_to_one(line, now)?)).await?;
        if stock.is_none() {
            stock = deliver::<Db>(&mut transaction, line).await?;
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
        let stock = respread::<Db>(&mut transaction, spread).await?;
        transaction.commit().await?;
        Ok(stock)
    }

    async fn read<R>(&self, read: impl FnOnce(&StockTables) -> R + Send) -> Result<R, sqlx::Error> {
        self.store.read_pool().acquire().await?.read(|tables, _| read(tables)).await
    }
}

impl StockBooks for Books<Db> {
    async fn receive(&self, receipt: &Receipt) -> Result<Received, sqlx::Error> {
        self.store.retrying(|| self.receive_once(receipt)).await
    }

    async fn spread(&self, spread: &Spread) -> Result<Option<Stock>, sqlx::Error> {
        self.store.retrying(|| self.spread_once(spread)).await
    }

    async fn get(&self, sku: &str) -> Result<Option<Stock>, sqlx::Error> {
        self.read(|tables| tables.stock.stock(sku)).await
    }

    async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Stock>, sqlx::Error> {
        // No sku is empty, so every one comes after "".
        let after = after.unwrap_or_default();
        self.read(|tables| {
            let skus = tables.stock.skus().map(|(sku, _)| sku).skip_while(|sku| *sku <= after);
            skus.filter_map(|sku| tables.stock.stock(sku)).take(limit as usize).collect()
        })
        .await
    }
}

impl StockDatabase for Db {
    type Stock<'c> = StockRows<'c, Self>;
    type Books = Books<Self>;

    /// Its tables are there from the beginning.
    fn migrator() -> Migrator {
        Migrator::with_migrations(Vec::new())
    }

    fn stock(connection: &mut Conn) -> StockRows<'_, Self> {
        StockRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

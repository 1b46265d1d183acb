//! The connections with which a log on a server is read.

use std::time::Duration;

use sqlx::{Database, Execute, Executor, Pool};
use tcc_database::lease::{Lease, Place};
use tokio::{sync::Semaphore, time::timeout};

use crate::{Error, LogOptions, fault::Fault};

/// How long a listing may take: it may walk a long way, and nobody's transaction waits for it.
pub(crate) const fn listing_max(options: &LogOptions) -> Duration {
    Duration::from_millis(options.write_timeout_ms.saturating_mul(4))
}

/// A pool of readers. What somebody else waits for (drivers, participants) always finds connections that no listing holds.
pub(crate) struct Connections<D: Database> {
    pool: Pool<D>,
    read_max: Duration,
    listing_max: Duration,
    /// Half of the connections, at least one.
    listings: Semaphore,
}

impl<D: Database> Connections<D> {
    pub(crate) fn new(pool: Pool<D>, options: &LogOptions) -> Self {
        let listings = (options.read_connections_max / 2).max(1) as usize;
        Self {
            pool,
            read_max: Duration::from_millis(options.write_timeout_ms),
            listing_max: listing_max(options),
            listings: Semaphore::new(listings.min(Semaphore::MAX_PERMITS)),
        }
    }

    /// One of them.
    pub(crate) async fn lease(&self) -> Result<Lease<D>, sqlx::Error> {
        Lease::take(&self.pool, Place::Server).await
    }

    /// A read that somebody waits for.
    pub(crate) async fn within<T>(&self, reading: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let late = |_| Fault::Other(Error::Unavailable("no answer within `write_timeout_ms`".to_owned()));
        timeout(self.read_max, reading).await.map_err(late)?
    }

    /// All rows of a listing.
    pub(crate) async fn listing<'q, Q>(&self, listing: Q) -> Result<Vec<D::Row>, Fault>
    where
        Q: Execute<'q, D> + 'q,
        for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
    {
        let listing = async {
            // It is never closed.
            let _one = self.listings.acquire().await.ok();
            let mut lease = self.lease().await?;
            let rows = (&mut *lease).fetch_all(listing).await?;
            lease.give_back();
            Ok(rows)
        };
        let late = |_| Fault::Other(Error::Unavailable("the listing took longer than 4 x `write_timeout_ms`".to_owned()));
        timeout(self.listing_max, listing).await.map_err(late)?
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

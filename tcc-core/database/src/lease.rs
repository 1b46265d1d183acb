//! Connections of a pool whose server may vanish without a word: nothing waits for such a connection for longer than a limit, and
//! it does not come back to the pool. The driver itself waits until TCP gives up, which takes a quarter of an hour.
//!
//! A [`Lease`] is a pooled connection for one piece of work. It goes back only when the work says that its last statement has
//! ended; dropped before that, in the middle of whatever it was sending or being sent, it is closed.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{
    Connection, Database, Pool, SqlSafeStr,
    pool::{PoolConnection, PoolOptions},
};
use sqlx_core::transaction::TransactionManager;
use tokio::{runtime::Handle, time::timeout};

/// A connection that was used less long ago is taken to be alive: testing it would cost a round trip for each use.
pub(crate) const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How long a test may take. One that does not answer is replaced while its user still waits.
pub(crate) const TEST_MAX: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Set where somebody limits the time of the release already.
    static IS_LIMITED: ();
}

/// The tests of a server's connections: before they are used, if they were idle, and after. The second test is for those who use
/// the pool itself; a [`Lease`] needs none.
#[must_use]
pub fn tested<D: Database>(options: PoolOptions<D>) -> PoolOptions<D> {
    options
        .test_before_acquire(false)
        .before_acquire(|conn: &mut D::Connection, of| {
            let idle_for = of.idle_for;
            Box::pin(async move { if idle_for > TRUSTED_FOR { answers(conn).await } else { Ok(true) } })
        })
        .after_release(|conn: &mut D::Connection, _| {
            let is_limited = IS_LIMITED.try_with(|()| ()).is_ok();
            Box::pin(async move { if is_limited { Ok(true) } else { answers(conn).await } })
        })
}

/// An error, not `false`, where it does not: the pool would take leave of it, and wait for that.
async fn answers(conn: &mut impl Connection) -> Result<bool, sqlx::Error> {
    within(TEST_MAX, "the connection does not answer", conn.ping()).await.map(|()| true)
}

/// Runs something that may get no answer.
///
/// # Errors
/// Its own, or that it took too long, in these words.
pub async fn within<T>(
    limit: Duration,
    too_late: &'static str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(limit, work).await {
        Ok(ended) => ended,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, too_late))),
    }
}

/// Where a pool's database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this process: it always answers, and its connections go back to the pool in any case.
    Here,
    /// On the network.
    Server,
}

/// A pooled connection for one piece of work.
#[derive(Debug)]
pub struct Lease<D: Database> {
    /// There until it is given back.
    conn: Option<PoolConnection<D>>,
    place: Place,
}

impl<D: Database> Lease<D> {
    /// Waits for a connection, for as long as the pool's options say.
    ///
    /// # Errors
    /// None came free in time, or none could be opened.
    pub async fn take(pool: &Pool<D>, place: Place) -> Result<Self, sqlx::Error> {
        Ok(Self { conn: Some(pool.acquire().await?), place })
    }

    /// The work has ended, and every statement of it: others may use the connection.
    pub fn give_back(mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        // Without a runtime it is dropped, as a pool does then.
        if let (Place::Server, Ok(runtime)) = (self.place, Handle::try_current()) {
            // The driver tests it, and sends what is queued. Dropped in that, it is closed without any farewell. Closing the
            // pool waits for this.
            runtime.spawn(IS_LIMITED.scope((), timeout(TEST_MAX, conn.return_to_pool())));
        }
    }
}

impl<D: Database> Drop for Lease<D> {
    fn drop(&mut self) {
        match (self.conn.take(), self.place) {
            // What was sent may still be answered, to whoever would use it next; and a test would not tell.
            (Some(conn), Place::Server) => drop(conn.detach()),
            (Some(_), Place::Here) | (None, _) => {}
        }
    }
}

const GIVEN_BACK: &str = "a lease has its connection until it is given back, which consumes it";

impl<D: Database> Deref for Lease<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.conn.as_ref().expect(GIVEN_BACK)
    }
}

impl<D: Database> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.conn.as_mut().expect(GIVEN_BACK)
    }
}

/// A transaction on a leased connection. Dropped, it rolls back: on a server by closing its connection, since it may have been
/// dropped in the middle of a statement.
#[derive(Debug)]
pub struct Transaction<D: Database> {
    /// There until it has ended.
    lease: Option<Lease<D>>,
}

impl<D: Database> Transaction<D> {
    /// Begins one with this statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(lease: Lease<D>, statement: &'static str) -> Result<Self, sqlx::Error> {
        let mut begun = Self { lease: Some(lease) };
        D::TransactionManager::begin(&mut begun, Some(statement.into_sql_str())).await?;
        Ok(begun)
    }

    /// Commits it.
    ///
    /// # Errors
    /// The database's. Unless that sent it, the transaction may be committed or not.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        D::TransactionManager::commit(&mut self).await?;
        self.end();
        Ok(())
    }

    /// Rolls it back.
    ///
    /// # Errors
    /// The database's; it is rolled back in any case.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        D::TransactionManager::rollback(&mut self).await?;
        self.end();
        Ok(())
    }

    /// Lets it be rolled back while nobody waits, where its last statement has ended: its connection is used again.
    pub fn leave(mut self) {
        D::TransactionManager::start_rollback(&mut self);
        self.end();
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl<D: Database> Drop for Transaction<D> {
    fn drop(&mut self) {
        if self.lease.as_ref().is_some_and(|lease| lease.place == Place::Here) {
            D::TransactionManager::start_rollback(self);
        }
    }
}

const ENDED: &str = "a transaction has its lease until its end, which consumes it";

impl<D: Database> Deref for Transaction<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.lease.as_ref().expect(ENDED)
    }
}

impl<D: Database> DerefMut for Transaction<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.lease.as_mut().expect(ENDED)
    }
}

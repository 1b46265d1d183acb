//! A database in memory behind sqlx's traits: its connections, their transactions, and pools of them, so that what is written over
//! sqlx's databases runs on it unchanged. It takes no SQL: whoever keeps tables in it reads and writes them as values. Used by the
//! implementations of the owners' own traits, and by simulations.

use std::{
    convert::Infallible,
    fmt::{self, Display, Formatter},
    marker::PhantomData,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use log::LevelFilter;
use sqlx::{ConnectOptions, Connection, Pool, SqlStr, pool::PoolOptions};
use sqlx_core::{Url, error::BoxDynError, transaction::TransactionManager};
use tcc_types::{Clock, Timestamp};
use tokio::time::Instant;

use super::{Memory, MemoryError, Session, Tables, Weather, nothing::Nothing};
use crate::lease::{TEST_MAX, TRUSTED_FOR, within};

/// A database whose tables are one value in memory, as a kind of database.
#[derive(Debug)]
pub struct MemoryDatabase<T>(PhantomData<fn() -> T>);

impl<T: Tables> sqlx::Database for MemoryDatabase<T> {
    type Connection = MemoryConnection<T>;
    type TransactionManager = MemoryTransactions<T>;
    type Row = Nothing<T>;
    type QueryResult = ();
    type Column = Nothing<T>;
    type TypeInfo = NoType;
    type Value = Nothing<T>;
    type ValueRef<'r> = Nothing<T>;
    type Arguments = NoArguments<T>;
    type ArgumentBuffer = ();
    type Statement = Nothing<T>;

    const NAME: &'static str = "memory";
    const URL_SCHEMES: &'static [&'static str] = &[];
}

/// The type of a value: there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoType(Infallible);

impl Display for NoType {
    fn fmt(&self, _: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl sqlx::TypeInfo for NoType {
    fn is_null(&self) -> bool {
        match self.0 {}
    }

    fn name(&self) -> &str {
        match self.0 {}
    }
}

/// What is bound to a statement: nothing can be.
#[derive(Debug)]
pub struct NoArguments<T>(PhantomData<fn() -> T>);

impl<T> Default for NoArguments<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Tables> sqlx::Arguments for NoArguments<T> {
    type Database = MemoryDatabase<T>;

    fn reserve(&mut self, _: usize, _: usize) {}

    fn add<'t, V>(&mut self, _: V) -> Result<(), BoxDynError>
    where
        V: sqlx::Encode<'t, Self::Database> + sqlx::Type<Self::Database>,
    {
        Err("a database in memory takes no SQL, and so no arguments".into())
    }

    fn len(&self) -> usize {
        0
    }
}

/// How to connect, and whose clock the database goes by.
pub struct MemoryOptions<T> {
    database: Memory<T>,
    weather: Arc<dyn Weather>,
    clock: Arc<dyn Clock>,
    connect_max: Duration,
}

impl<T> Clone for MemoryOptions<T> {
    fn clone(&self) -> Self {
        let Self { database, weather, clock, connect_max } = self;
        Self { database: database.clone(), weather: Arc::clone(weather), clock: Arc::clone(clock), connect_max: *connect_max }
    }
}

impl<T> fmt::Debug for MemoryOptions<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOptions")
            .field("database", &self.database)
            .field("weather", &self.weather)
            .finish_non_exhaustive()
    }
}

impl<T: Tables> MemoryOptions<T> {
    /// How long connecting may take by default.
    const CONNECT_MAX: Duration = Duration::from_secs(5);

    /// To this database, through this weather, with a clock of its own.
    pub fn new(database: Memory<T>, weather: Arc<dyn Weather>, clock: Arc<dyn Clock>) -> Self {
        Self { database, weather, clock, connect_max: Self::CONNECT_MAX }
    }

    /// A pool that connects when it is asked to, keeps what it has for as long as it works, and has no task of its own.
    /// `wait_max`: how long whoever wants a connection waits for one.
    pub fn pool(mut self, connections_max: u32, wait_max: Duration) -> Pool<MemoryDatabase<T>> {
        // The pool's own limit for connecting goes by the machine's clock. This one always comes first, and goes by tokio's.
        self.connect_max = wait_max / 2;
        PoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(wait_max)
            // Also by the machine's clock.
            .acquire_slow_level(LevelFilter::Off)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // As of servers, but again by tokio's clock.
            .before_acquire(|conn: &mut MemoryConnection<T>, _| {
                Box::pin(async move {
                    if conn.used_at.elapsed() > TRUSTED_FOR {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(self)
    }
}

impl<T: Tables> FromStr for MemoryOptions<T> {
    type Err = sqlx::Error;

    fn from_str(_: &str) -> Result<Self, sqlx::Error> {
        Err(sqlx::Error::Configuration("a database in memory has no URL".into()))
    }
}

impl<T: Tables> ConnectOptions for MemoryOptions<T> {
    type Connection = MemoryConnection<T>;

    fn from_url(url: &Url) -> Result<Self, sqlx::Error> {
        url.as_str().parse()
    }

    async fn connect(&self) -> Result<MemoryConnection<T>, sqlx::Error> {
        let connecting = self.database.connect(Arc::clone(&self.weather));
        let session = within(self.connect_max, "the database does not let itself be connected to", connecting).await?;
        Ok(MemoryConnection { session, clock: Arc::clone(&self.clock), used_at: Instant::now() })
    }

    /// There are none.
    fn log_statements(self, _: LevelFilter) -> Self {
        self
    }

    /// There are none.
    fn log_slow_statements(self, _: LevelFilter, _: Duration) -> Self {
        self
    }
}

/// A connection. What its statements are is up to the caller: each reads or changes the tables at one instant, by the database's clock.
pub struct MemoryConnection<T> {
    session: Session<T>,
    clock: Arc<dyn Clock>,
    used_at: Instant,
}

impl<T> fmt::Debug for MemoryConnection<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConnection").field("session", &self.session).finish_non_exhaustive()
    }
}

impl<T: Tables> MemoryConnection<T> {
    /// Runs a statement in the open transaction: it is given the tables, and what the clock says then. If it fails, all that is left
    /// is to roll back, to the last savepoint at least.
    ///
    /// # Errors
    /// There is no transaction, or it is broken; what the weather or the statement says.
    pub async fn write<R>(
        &mut self,
        statement: impl FnOnce(&mut T, Timestamp) -> Result<R, sqlx::Error>,
    ) -> Result<R, sqlx::Error> {
        let Self { session, clock, .. } = self;
        session.write(|tables| statement(tables, clock.now())).await
    }

    /// Reads: what its own transaction sees, or, without one, what is committed; and what the clock says then.
    ///
    /// # Errors
    /// The transaction is broken; what the weather says.
    pub async fn read<R>(&mut self, read: impl FnOnce(&T, Timestamp) -> R) -> Result<R, sqlx::Error> {
        let Self { session, clock, .. } = self;
        session.read(|tables| read(tables, clock.now())).await
    }

    fn depth(&self) -> usize {
        usize::from(self.session.is_in_transaction()) + self.session.savepoints()
    }
}

impl<T: Tables> Connection for MemoryConnection<T> {
    type Database = MemoryDatabase<T>;
    type Options = MemoryOptions<T>;

    async fn close(self) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn close_hard(self) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), sqlx::Error> {
        let answered = within(TEST_MAX, "the connection does not answer", self.session.ping()).await;
        self.used_at = Instant::now();
        answered
    }

    async fn begin(&mut self) -> Result<sqlx::Transaction<'_, Self::Database>, sqlx::Error> {
        sqlx::Transaction::begin(self, None).await
    }

    fn shrink_buffers(&mut self) {}

    async fn flush(&mut self) -> Result<(), sqlx::Error> {
        Ok(())
    }

    fn should_flush(&self) -> bool {
        false
    }
}

/// Transactions, and savepoints in them.
#[derive(Debug)]
pub struct MemoryTransactions<T>(PhantomData<fn() -> T>);

impl<T: Tables> TransactionManager for MemoryTransactions<T> {
    type Database = MemoryDatabase<T>;

    /// The text of a statement to begin with says nothing here: there is one way.
    async fn begin(conn: &mut MemoryConnection<T>, statement: Option<SqlStr>) -> Result<(), sqlx::Error> {
        match (conn.depth(), statement) {
            (0, _) => conn.session.begin().await,
            (_, None) => conn.session.save().await,
            (_, Some(_)) => Err(sqlx::Error::InvalidSavePointStatement),
        }
    }

    async fn commit(conn: &mut MemoryConnection<T>) -> Result<(), sqlx::Error> {
        match conn.depth() {
            0 => Err(MemoryError::Misuse.into()),
            1 => conn.session.commit().await,
            _ => conn.session.release().await,
        }
    }

    async fn rollback(conn: &mut MemoryConnection<T>) -> Result<(), sqlx::Error> {
        conn.session.roll_back();
        Ok(())
    }

    fn start_rollback(conn: &mut MemoryConnection<T>) {
        conn.session.roll_back();
    }

    fn get_transaction_depth(conn: &MemoryConnection<T>) -> usize {
        conn.depth()
    }
}

#[cfg(test)]
mod tests;

//! The opened database: one pool for writing, one for reading, and the limits it was opened with.

use sqlx::{Pool, migrate::Migrator};
use tcc_database::lease::{self, Lease, Place, Transaction};
use tcc_types::{BranchKey, Gid, Invalid, Timestamp};

use crate::{BranchRow, Database, InDoubt, OldRow, Options};

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL or an option is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Its folder cannot be made.
    #[error("cannot make the folder of the database: {0}")]
    Folder(#[source] std::io::Error),
    /// It cannot be reached or set up.
    #[error("cannot open the database: {0}")]
    Database(#[from] sqlx::Error),
    /// Its tables cannot be brought up to date.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// Reads on a connection of its own. One whose reading failed, or was dropped, is not used again.
macro_rules! read {
    ($store:expr, |$conn:ident| $reading:expr) => {{
        let mut lease = Lease::take(&$store.read, D::PLACE).await?;
        let $conn = &mut *lease;
        let read = $store.limited($reading).await?;
        lease.give_back();
        Ok(read)
    }};
}

/// An opened database with the SDK's tables in it. A handle: clones share the pools.
#[derive(Debug)]
pub struct Store<D: Database> {
    write: Pool<D>,
    read: Pool<D>,
    options: Options,
}

impl<D: Database> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self { write: self.write.clone(), read: self.read.clone(), options: self.options.clone() }
    }
}

impl<D: Database> Store<D> {
    /// Opens the database and runs the SDK's migrations; the user's own come after, with [`Store::migrate`].
    ///
    /// # Errors
    /// The URL names another database, an option is out of its range, or the database does not open.
    pub async fn open(url: &str, options: &Options) -> Result<Self, OpenError> {
        options.validate()?;
        let (write, read) = D::open(url, options).await?;
        Ok(Self { write, read, options: options.clone() })
    }

    /// Of pools that are there.
    #[cfg(feature = "memory")]
    pub(crate) fn of_pools(write: Pool<D>, read: Pool<D>, options: &Options) -> Self {
        Self { write, read, options: options.clone() }
    }

    /// Applies the user's own migrations, one process at a time. On MySQL each must be idempotent: the database commits within
    /// them, so one that was interrupted runs again.
    ///
    /// # Errors
    /// The database failed, or has other migrations than these.
    pub async fn migrate(&self, migrator: Migrator) -> Result<(), OpenError> {
        Ok(D::migrate(&self.write, migrator).await?)
    }

    /// Begins a local transaction for the user's own writes. Operations queue behind it: keep it short. Unless it is committed or
    /// rolled back, a server's connection is closed with it.
    ///
    /// # Errors
    /// No connection came free in time, or the database failed or did not answer.
    pub async fn begin(&self) -> Result<Transaction<D>, sqlx::Error> {
        // Waiting for the connection is no part of the transaction, and has its own limit.
        let lease = Lease::take(&self.write, D::PLACE).await?;
        self.limited(Transaction::begin(lease, D::BEGIN)).await
    }

    /// A server may be gone without a word; SQLite waits for locks only, and has a limit for that.
    async fn limited<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        match D::PLACE {
            Place::Here => work.await,
            Place::Server => lease::within(self.options.transaction_max(), "no answer within `transaction_ms_max`", work).await,
        }
    }

    /// For writing; on SQLite it has one connection, which is handed out in the order of asking. Who uses it limits the time of
    /// each use.
    #[must_use]
    pub const fn write_pool(&self) -> &Pool<D> {
        &self.write
    }

    /// For reading only; it never waits for writers on SQLite. Who uses it limits the time of each use.
    #[must_use]
    pub const fn read_pool(&self) -> &Pool<D> {
        &self.read
    }

    /// The limits it was opened with.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The same database under other limits; those of its pools stay as they are.
    #[cfg(feature = "conformance")]
    pub(crate) fn with_options(&self, options: Options) -> Self {
        Self { options, ..self.clone() }
    }

    /// Reads a branch's row.
    ///
    /// # Errors
    /// The database failed.
    pub async fn branch_row(&self, key: &BranchKey) -> Result<Option<BranchRow>, sqlx::Error> {
        read!(self, |conn| D::branch_row(conn, key))
    }

    /// How many branches hold a reservation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn count_tried(&self) -> Result<u64, sqlx::Error> {
        read!(self, |conn| D::count_tried(conn))
    }

    /// The database's clock.
    ///
    /// # Errors
    /// The database failed.
    pub async fn now(&self) -> Result<Timestamp, sqlx::Error> {
        read!(self, |conn| D::now(conn))
    }

    /// The tried rows that should ask their coordinator now, the longest overdue first, at most `limit`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tried_due(&self, limit: u32) -> Result<Vec<InDoubt>, sqlx::Error> {
        read!(self, |conn| D::tried_due(conn, limit))
    }

    /// Lets a tried row ask at another time, in a transaction of its own. See [`Database::postpone`].
    ///
    /// # Errors
    /// The database failed.
    pub async fn postpone(&self, key: &BranchKey, ask_after: Timestamp, forgotten: bool) -> Result<bool, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let postponed = D::postpone(&mut transaction, key, ask_after, forgotten).await?;
        transaction.commit().await?;
        Ok(postponed)
    }

    /// One step of a walk over old rows. See [`Database::ended_page`].
    ///
    /// # Errors
    /// The database failed.
    pub async fn ended_page(
        &self,
        after: Option<&BranchKey>,
        minted_before: Gid,
        limit: u32,
    ) -> Result<Vec<OldRow>, sqlx::Error> {
        read!(self, |conn| D::ended_page(conn, after, minted_before, limit))
    }

    /// Deletes these rows in one transaction, each only if it is as it was read, and returns how many it deleted. They must be
    /// in the order of their keys, as [`Store::ended_page`] gives them, so that two who delete the same wait for each other in
    /// turn.
    ///
    /// # Errors
    /// The database failed; nothing is deleted, or the commit got no answer.
    pub async fn delete_ended(&self, rows: &[OldRow]) -> Result<u64, sqlx::Error> {
        let mut transaction = self.begin().await?;
        let mut deleted = 0;
        for row in rows {
            deleted += u64::from(D::delete_ended(&mut transaction, row).await?);
        }
        transaction.commit().await?;
        Ok(deleted)
    }

    /// The reservations of which the coordinator says that it has forgotten the transaction: for operators. In the order of
    /// their keys, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forgotten(&self, after: Option<&BranchKey>, limit: u32) -> Result<Vec<BranchRow>, sqlx::Error> {
        read!(self, |conn| D::forgotten(conn, after, limit))
    }

    /// Closes both pools once their connections are back.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

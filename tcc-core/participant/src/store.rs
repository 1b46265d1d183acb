//! The opened database: one pool for writing, one for reading, and the limits it was opened with.

use sqlx::{Pool, Transaction};
use tcc_types::{BranchKey, Invalid};

use crate::{BranchRow, Database, Options};

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
    /// Opens the database and runs the SDK's migrations; the user's own come after, on [`Store::write_pool`].
    ///
    /// # Errors
    /// The URL names another database, an option is out of its range, or the database does not open.
    pub async fn open(url: &str, options: &Options) -> Result<Self, OpenError> {
        options.validate()?;
        let (write, read) = D::open(url, options).await?;
        Ok(Self { write, read, options: options.clone() })
    }

    /// Begins a local transaction for the user's own writes. Operations queue behind it: keep it short.
    ///
    /// # Errors
    /// No connection came free in time, or the database failed.
    pub async fn begin(&self) -> Result<Transaction<'static, D>, sqlx::Error> {
        D::begin(&self.write).await
    }

    /// For writing; on SQLite it has one connection, which is handed out in the order of asking.
    #[must_use]
    pub const fn write_pool(&self) -> &Pool<D> {
        &self.write
    }

    /// For reading only; it never waits for writers on SQLite.
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
        D::branch_row(&self.read, key).await
    }

    /// How many branches hold a reservation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn count_tried(&self) -> Result<u64, sqlx::Error> {
        D::count_tried(&self.read).await
    }

    /// Closes both pools once their connections are back.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

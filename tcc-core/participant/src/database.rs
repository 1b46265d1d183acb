//! What the SDK needs of a database: opening it, its transactions, and the barrier's statements. No rules here: those are in
//! `tcc-barrier`.

use std::future::ready;

use bytes::Bytes;
use sqlx::{
    Pool,
    error::DatabaseError,
    migrate::{MigrateError, Migrator},
};
use tcc_barrier::{BarrierStore, Kept, Look};
use tcc_database::lease::Place;
use tcc_types::{BranchKey, BranchRowStatus, CancelCall, Decision, Gid, Invalid, LogName, Refusal, Timestamp, TryCall};

use crate::{OpenError, Options};

/// A database that a participant can live in: sqlx's, with the barrier's statements in its dialect.
///
/// The barrier's calls mean what [`BarrierStore`] says of the calls with their names; an implementation passes the cases of the
/// feature `conformance`.
pub trait Database: sqlx::Database + Sized {
    /// Where it is.
    const PLACE: Place;

    /// Begins a transaction that may write, and in which each statement sees what was committed before it.
    const BEGIN: &'static str;

    /// Opens the database, runs the SDK's migrations, and returns the pool for writing and the one for reading.
    fn open(url: &str, options: &Options) -> impl Future<Output = Result<(Pool<Self>, Pool<Self>), OpenError>> + Send;

    /// Applies migrations, one process at a time.
    fn migrate(write: &Pool<Self>, migrator: Migrator) -> impl Future<Output = Result<(), MigrateError>> + Send;

    /// True if the same transaction may succeed when it runs again from its beginning, at once.
    fn is_retryable(error: &dyn DatabaseError) -> bool;

    /// Whether [`Database::insert_foreseen`] keeps what is foreseen.
    const FORESEES: bool = false;

    /// As [`Database::insert_tried`]; with [`Database::FORESEES`] each row that it inserts also has, from the beginning, what its
    /// Try is foreseen to reserve and to answer. What turns out otherwise is written by [`Database::keep_reserved`] or
    /// [`Database::keep_refusals`], as ever.
    fn insert_foreseen(
        conn: &mut Self::Connection,
        calls: &[&TryCall],
        foreseen: &[Option<Kept<'_>>],
    ) -> impl Future<Output = Result<Vec<bool>, sqlx::Error>> + Send {
        let _ = foreseen;
        Self::insert_tried(conn, calls)
    }

    /// See [`BarrierStore::insert_tried`].
    fn insert_tried(
        conn: &mut Self::Connection,
        calls: &[&TryCall],
    ) -> impl Future<Output = Result<Vec<bool>, sqlx::Error>> + Send;

    /// See [`BarrierStore::settle_tried`].
    fn settle_tried(
        conn: &mut Self::Connection,
        settles: &[(&BranchKey, Decision)],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, sqlx::Error>> + Send;

    /// See [`BarrierStore::insert_cancelled`].
    fn insert_cancelled(
        conn: &mut Self::Connection,
        calls: &[&CancelCall],
    ) -> impl Future<Output = Result<Vec<bool>, sqlx::Error>> + Send;

    /// See [`BarrierStore::look`]. What it finds others wrote, and a database may show that before it is durable everywhere (on the
    /// disk, on a standby). There it also locks the rows in a way that is a write, so that what is told of them is told by a commit
    /// that comes after theirs.
    fn look(conn: &mut Self::Connection, keys: &[&BranchKey]) -> impl Future<Output = Result<Look, sqlx::Error>> + Send;

    /// Before the first write of some operations: what [`Database::check_same`] is to know their transaction by.
    fn enter(conn: &mut Self::Connection) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        let _ = conn;
        ready(Ok(()))
    }

    /// Fails if the database has ended the transaction that [`Database::enter`] saw, or will not commit it, and `COMMIT` would not say
    /// so: the handler ignored an error.
    fn check_same(conn: &mut Self::Connection) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// See [`BarrierStore::keep_reserved`].
    fn keep_reserved(conn: &mut Self::Connection, kept: &[Kept<'_>]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// See [`BarrierStore::keep_refusals`].
    fn keep_refusals(
        conn: &mut Self::Connection,
        refused: &[(&BranchKey, &Refusal)],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Reads a branch's row for people.
    fn branch_row(
        conn: &mut Self::Connection,
        key: &BranchKey,
    ) -> impl Future<Output = Result<Option<BranchRow>, sqlx::Error>> + Send;

    /// How many rows are still tried. Does not scan history.
    fn count_tried(conn: &mut Self::Connection) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// The database's clock.
    fn now(conn: &mut Self::Connection) -> impl Future<Output = Result<Timestamp, sqlx::Error>> + Send;

    /// The tried rows whose `ask_after` has passed by the database's clock, the longest overdue first, at most `limit`. Does not
    /// scan history.
    fn tried_due(conn: &mut Self::Connection, limit: u32) -> impl Future<Output = Result<Vec<InDoubt>, sqlx::Error>> + Send;

    /// Lets a tried row ask at another time; `forgotten` also keeps when the coordinator first said that it knows nothing of it.
    /// False where no row is tried.
    fn postpone(
        conn: &mut Self::Connection,
        key: &BranchKey,
        ask_after: Timestamp,
        forgotten: bool,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// The rows of any status whose gid is below `minted_before`, in the order of their keys, those after `after`, at most
    /// `limit`: one step of a walk along the primary key.
    fn ended_page(
        conn: &mut Self::Connection,
        after: Option<&BranchKey>,
        minted_before: Gid,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<OldRow>, sqlx::Error>> + Send;

    /// Deletes exactly this row: only if its status is terminal, and neither that nor its last change is another than was read.
    /// True if it did.
    fn delete_ended(conn: &mut Self::Connection, row: &OldRow) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// The tried rows that the coordinator has forgotten, in the order of their keys, those after `after`, at most `limit`.
    fn forgotten(
        conn: &mut Self::Connection,
        after: Option<&BranchKey>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<BranchRow>, sqlx::Error>> + Send;
}

/// Which of the databases a URL names, for a server that is configured by its URL alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatabaseKind {
    /// `sqlite:`
    Sqlite,
    /// `postgres:` or `postgresql:`
    Postgres,
    /// `mysql:` or `mariadb:`
    Mysql,
}

impl DatabaseKind {
    /// By the URL's scheme; the rest is checked when it is opened.
    ///
    /// # Errors
    /// It has another scheme. Nothing of the URL is repeated, since it may have a password in it.
    pub fn of_url(url: &str) -> Result<Self, Invalid> {
        match url.split_once(':').map_or("", |(scheme, _)| scheme) {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "mysql" | "mariadb" => Ok(Self::Mysql),
            _ => Err(Invalid::new("database_url", "must begin with `sqlite:`, `postgres:` or `mysql:`")),
        }
    }
}

/// A row that is still tried though it should have been settled: what to ask its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InDoubt {
    /// Which.
    pub key: BranchKey,
    /// Whom to ask.
    pub coordinator: LogName,
    /// Up to when a Try could insert it.
    pub not_after: Timestamp,
    /// Since when it asks.
    pub ask_after: Timestamp,
}

/// A row as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldRow {
    /// Which.
    pub key: BranchKey,
    /// Where it is.
    pub status: BranchRowStatus,
    /// Whom to ask about it; `None` after an empty rollback.
    pub coordinator: Option<LogName>,
    /// Up to when a Try could insert it.
    pub not_after: Timestamp,
    /// When its status last changed, by the database's clock.
    pub changed_at: Timestamp,
}

/// A branch's row as operators and tests read it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BranchRow {
    /// Which.
    pub key: BranchKey,
    /// Where it is.
    pub status: BranchRowStatus,
    /// It was cancelled before any Try ran.
    pub empty: bool,
    /// The type of what its Try asked.
    pub type_url: Option<String>,
    /// Whom to ask about it.
    pub coordinator: Option<LogName>,
    /// Why the business said no.
    pub refusal: Option<Refusal>,
    /// Up to when a Try could insert it.
    pub not_after: Timestamp,
    /// From when on it asks while it is tried.
    pub ask_after: Option<Timestamp>,
    /// When it was inserted, by the database's clock.
    pub created_at: Timestamp,
    /// When its status last changed, by the database's clock.
    pub changed_at: Timestamp,
    /// When its coordinator first said that it has forgotten the transaction, by the database's clock.
    pub forgotten_at: Option<Timestamp>,
}

/// The barrier's statements on a connection of the caller's, in a transaction of the caller's.
///
/// With [`tcc_barrier::steps`] this is the way in for a caller who has a transaction but no [`Participant`](crate::Participant).
pub struct Barrier<'c, D: Database> {
    conn: &'c mut D::Connection,
    /// In the order of their keys.
    foreseen: &'c [Kept<'c>],
}

impl<'c, D: Database> Barrier<'c, D> {
    /// On this connection, which must be in a transaction.
    pub const fn new(conn: &'c mut D::Connection) -> Self {
        Self { conn, foreseen: &[] }
    }

    /// As [`Barrier::new`], for a caller who can tell what some tries will reserve and answer if they are not refused: it is kept
    /// as their rows are inserted, if [`Database::FORESEES`]. In the order of the keys.
    pub(crate) const fn foreseeing(conn: &'c mut D::Connection, foreseen: &'c [Kept<'c>]) -> Self {
        Self { conn, foreseen }
    }
}

impl<D: Database> BarrierStore for Barrier<'_, D> {
    type Error = sqlx::Error;

    async fn insert_tried(&mut self, calls: &[&TryCall]) -> Result<Vec<bool>, sqlx::Error> {
        if self.foreseen.is_empty() {
            return D::insert_tried(self.conn, calls).await;
        }
        let foreseen = calls.iter().map(|call| {
            let place = self.foreseen.binary_search_by(|kept| kept.key.cmp(&call.key)).ok()?;
            Some(self.foreseen[place])
        });
        D::insert_foreseen(self.conn, calls, &foreseen.collect::<Vec<_>>()).await
    }

    fn settle_tried(
        &mut self,
        settles: &[(&BranchKey, Decision)],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, sqlx::Error>> + Send {
        D::settle_tried(self.conn, settles)
    }

    fn insert_cancelled(&mut self, calls: &[&CancelCall]) -> impl Future<Output = Result<Vec<bool>, sqlx::Error>> + Send {
        D::insert_cancelled(self.conn, calls)
    }

    fn look(&mut self, keys: &[&BranchKey]) -> impl Future<Output = Result<Look, sqlx::Error>> + Send {
        D::look(self.conn, keys)
    }

    fn keep_reserved(&mut self, kept: &[Kept<'_>]) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        D::keep_reserved(self.conn, kept)
    }

    fn keep_refusals(&mut self, refused: &[(&BranchKey, &Refusal)]) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        D::keep_refusals(self.conn, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_a_url_names_its_database_and_an_error_repeats_nothing_of_it() {
        for (url, kind) in [
            ("sqlite://data/a.db", DatabaseKind::Sqlite),
            ("postgres://u:secret@h/a", DatabaseKind::Postgres),
            ("postgresql://h/a", DatabaseKind::Postgres),
            ("mysql://h/a", DatabaseKind::Mysql),
            ("mariadb://h/a", DatabaseKind::Mysql),
        ] {
            assert_eq!(DatabaseKind::of_url(url), Ok(kind), "{url}");
        }
        for url in ["", "postgres", "oracle://u:secret@h/a", "POSTGRES://u:secret@h/a", " postgres://u:secret@h/a"] {
            let error = DatabaseKind::of_url(url).expect_err(url);
            assert_eq!(error.field, "database_url");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

//! The SDK on SQLite: one connection writes, in the order of asking and always under `BEGIN IMMEDIATE`, so nothing can change
//! between two statements of a transaction; others read beside it (WAL). Every commit is on disk before it is answered.
//!
//! `one` has the statements about one branch, `many` those about lists of them.

mod many;
mod one;

use std::path::Path;

use bytes::Bytes;
use sqlx::{
    Connection, Pool, Sqlite, SqliteConnection,
    error::DatabaseError,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use tcc_barrier::{Kept, Look};
use tcc_database::{lease::Place, sqlite::lists::ROWS_MAX, sqlite_now};
use tcc_types::{BranchKey, CancelCall, Decision, Gid, Invalid, Refusal, Timestamp, TryCall};

use crate::{
    BranchRow, Database, InDoubt, OldRow, OpenError, Options,
    rows::{branch_row, branch_row_of, columns, corrupt, in_doubt_of, old_row_of, walk_from},
};

/// How many statements stay prepared on the writing connection: those over lists have a text for each length, up to
/// [`ROWS_MAX`].
const STATEMENTS_MAX: usize = 256;

/// After how many pages in the write-ahead log they are copied into the database: 16 MiB. A page that is written again and again is
/// copied once.
const CHECKPOINT_PAGES: &str = "4000";

/// How much of the database the writing connection keeps in memory at most, in KiB as SQLite writes them: the pages that look-ups of
/// a long history go by.
const CACHE_SIZE: &str = "-65536";

columns!(SqliteRow, i64);

impl Database for Sqlite {
    const PLACE: Place = Place::Here;

    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    async fn open(url: &str, options: &Options) -> Result<(Pool<Self>, Pool<Self>), OpenError> {
        let connect = connect_options(url)?.busy_timeout(options.lock_wait_max());
        if let Some(folder) = connect.get_filename().parent().filter(|folder| *folder != Path::new("")) {
            tokio::fs::create_dir_all(folder).await.map_err(OpenError::Folder)?;
        }
        let pool =
            || SqlitePoolOptions::new().acquire_timeout(options.connection_wait_max()).idle_timeout(None).max_lifetime(None);
        let write = pool()
            .max_connections(1)
            // Pinging costs a thread hop for each operation, and the connection was pinged when it came back.
            .test_before_acquire(false)
            // SQLite ends a transaction by itself on some errors (disk full), and sqlx then counts one that is not there. Such
            // a connection could never begin again.
            .before_acquire(|conn, _| Box::pin(async move { Ok(!conn.is_in_transaction()) }))
            // What a statement returns must not wait in sqlx's thread to be taken.
            .connect_with(
                connect
                    .clone()
                    .row_buffer_size(ROWS_MAX + 1)
                    .statement_cache_capacity(STATEMENTS_MAX)
                    .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                    .pragma("cache_size", CACHE_SIZE),
            )
            .await?;
        Self::migrate(&write, tcc_migrations::participant::sqlite()).await?;
        let read =
            pool().max_connections(options.read_connections_max).connect_with(connect.pragma("query_only", "on")).await?;
        Ok((write, read))
    }

    async fn migrate(write: &Pool<Self>, migrator: Migrator) -> Result<(), MigrateError> {
        migrator.run(write).await
    }

    fn is_retryable(error: &dyn DatabaseError) -> bool {
        const BUSY: i32 = 5;
        const LOCKED: i32 = 6;
        let code = error.code().and_then(|code| code.parse::<i32>().ok());
        // The low byte is the primary result code; the rest only says more about it.
        code.is_some_and(|code| matches!(code & 0xff, BUSY | LOCKED))
    }

    async fn insert_tried(conn: &mut SqliteConnection, calls: &[&TryCall]) -> Result<Vec<bool>, sqlx::Error> {
        match calls {
            [call] => Ok(vec![one::insert_tried(conn, call).await?]),
            _ => many::insert_tried(conn, calls, &vec![None; calls.len()]).await,
        }
    }

    const FORESEES: bool = true;

    async fn insert_foreseen(
        conn: &mut SqliteConnection,
        calls: &[&TryCall],
        foreseen: &[Option<Kept<'_>>],
    ) -> Result<Vec<bool>, sqlx::Error> {
        many::insert_tried(conn, calls, foreseen).await
    }

    async fn settle_tried(
        conn: &mut SqliteConnection,
        settles: &[(&BranchKey, Decision)],
    ) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
        match settles {
            [(key, decision)] => Ok(vec![one::settle_tried(conn, key, *decision).await?]),
            _ => many::settle_tried(conn, settles).await,
        }
    }

    async fn insert_cancelled(conn: &mut SqliteConnection, calls: &[&CancelCall]) -> Result<Vec<bool>, sqlx::Error> {
        match calls {
            [call] => Ok(vec![one::insert_cancelled(conn, call).await?]),
            _ => many::insert_cancelled(conn, calls).await,
        }
    }

    async fn look(conn: &mut SqliteConnection, keys: &[&BranchKey]) -> Result<Look, sqlx::Error> {
        match keys {
            [key] => one::look(conn, key).await,
            _ => many::look(conn, keys).await,
        }
    }

    async fn check_same(_: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        // COMMIT fails where there is no transaction.
        Ok(())
    }

    async fn keep_reserved(conn: &mut SqliteConnection, kept: &[Kept<'_>]) -> Result<(), sqlx::Error> {
        match kept {
            [kept] => one::keep_reserved(conn, *kept).await,
            _ => many::keep_reserved(conn, kept).await,
        }
    }

    async fn keep_refusals(conn: &mut SqliteConnection, refused: &[(&BranchKey, &Refusal)]) -> Result<(), sqlx::Error> {
        match refused {
            [(key, refusal)] => one::keep_refusal(conn, key, refusal).await,
            _ => many::keep_refusals(conn, refused).await,
        }
    }

    async fn branch_row(conn: &mut SqliteConnection, key: &BranchKey) -> Result<Option<BranchRow>, sqlx::Error> {
        const SQL: &str = concat!("SELECT ", branch_row!("empty"), " FROM tcc_branches WHERE gid = ?1 AND branch_id = ?2");
        let found = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_optional(conn).await?;
        found.as_ref().map(branch_row_of).transpose()
    }

    async fn count_tried(conn: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tcc_branches WHERE status = 1").fetch_one(conn).await?;
        u64::try_from(count).map_err(corrupt)
    }

    async fn now(conn: &mut SqliteConnection) -> Result<Timestamp, sqlx::Error> {
        const SQL: &str = concat!("SELECT ", sqlite_now!());
        sqlx::query_scalar(SQL).fetch_one(conn).await.map(Timestamp::from_micros)
    }

    async fn tried_due(conn: &mut SqliteConnection, limit: u32) -> Result<Vec<InDoubt>, sqlx::Error> {
        const SQL: &str = concat!(
            "SELECT gid, branch_id, coordinator, not_after, ask_after FROM tcc_branches ",
            "WHERE status = 1 AND ask_after <= ",
            sqlite_now!(),
            " ORDER BY ask_after LIMIT ?1"
        );
        sqlx::query(SQL).bind(limit).fetch_all(conn).await?.iter().map(in_doubt_of).collect()
    }

    async fn postpone(
        conn: &mut SqliteConnection,
        key: &BranchKey,
        ask_after: Timestamp,
        forgotten: bool,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = concat!(
            "UPDATE tcc_branches SET ask_after = ?3, forgotten_at = CASE WHEN ?4 THEN COALESCE(forgotten_at, ",
            sqlite_now!(),
            ") ELSE forgotten_at END WHERE gid = ?1 AND branch_id = ?2 AND status = 1"
        );
        let postponed = sqlx::query(SQL)
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(ask_after.as_micros())
            .bind(forgotten)
            .execute(conn)
            .await?;
        Ok(postponed.rows_affected() == 1)
    }

    async fn ended_page(
        conn: &mut SqliteConnection,
        after: Option<&BranchKey>,
        minted_before: Gid,
        limit: u32,
    ) -> Result<Vec<OldRow>, sqlx::Error> {
        const SQL: &str = "SELECT gid, branch_id, status, coordinator, not_after, changed_at FROM tcc_branches \
             WHERE (gid, branch_id) > (?1, ?2) AND gid < ?3 ORDER BY gid, branch_id LIMIT ?4";
        let (gid, branch) = walk_from(after);
        let query = sqlx::query(SQL).bind(gid).bind(branch).bind(minted_before.to_string()).bind(limit);
        query.fetch_all(conn).await?.iter().map(old_row_of).collect()
    }

    async fn delete_ended(conn: &mut SqliteConnection, row: &OldRow) -> Result<bool, sqlx::Error> {
        const SQL: &str = "DELETE FROM tcc_branches WHERE gid = ?1 AND branch_id = ?2 AND status = ?3 AND changed_at = ?4 \
             AND status <> 1";
        let deleted = sqlx::query(SQL)
            .bind(row.key.gid.to_string())
            .bind(row.key.branch.as_str())
            .bind(row.status.code())
            .bind(row.changed_at.as_micros())
            .execute(conn)
            .await?;
        Ok(deleted.rows_affected() == 1)
    }

    async fn forgotten(
        conn: &mut SqliteConnection,
        after: Option<&BranchKey>,
        limit: u32,
    ) -> Result<Vec<BranchRow>, sqlx::Error> {
        const SQL: &str = concat!(
            "SELECT ",
            branch_row!("empty"),
            " FROM tcc_branches WHERE status = 1 AND forgotten_at IS NOT NULL AND (gid, branch_id) > (?1, ?2) ",
            "ORDER BY gid, branch_id LIMIT ?3"
        );
        let (gid, branch) = walk_from(after);
        sqlx::query(SQL).bind(gid).bind(branch).bind(limit).fetch_all(conn).await?.iter().map(branch_row_of).collect()
    }
}

fn connect_options(url: &str) -> Result<SqliteConnectOptions, Invalid> {
    let path = tcc_database::sqlite::path_of(url).map_err(|problem| Invalid::new("database_url", problem))?;
    Ok(SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true))
}

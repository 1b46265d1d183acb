//! Opening: the lock, the schema, whose log it is, then the connections.

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool, query, query_scalar,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tcc_database::sqlite::lists::ROWS_MAX;
use tcc_types::Clock;

use super::{
    Sqlite,
    lock::{FileLock, canonical},
    meaning_of,
    read::Readers,
};
use crate::{Error, LogOptions, fault::Fault, log::Opened};

/// Prepared texts that a connection keeps: each kind of statement in each length that a list has.
const STATEMENTS_MAX: usize = 256;

/// How much of the log the writing connection keeps in memory at most, in KiB as SQLite writes them: the pages that look-ups of a
/// long history go by.
const CACHE_SIZE: &str = "-65536";

/// Opens the file, making it and its folder if they are missing.
pub(crate) async fn open(options: &LogOptions, path: &Path, clock: Arc<dyn Clock>) -> Result<Opened<Sqlite>, Error> {
    let path = canonical(path)?;
    let lock = FileLock::take(&path)?;
    let connect = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_millis(options.busy_timeout_ms))
        .statement_cache_capacity(STATEMENTS_MAX)
        // What a statement returns must not wait in sqlx's thread to be taken.
        .row_buffer_size(ROWS_MAX + 1)
        .pragma("wal_autocheckpoint", options.checkpoint_pages.to_string());
    let writer = connect.clone().pragma("cache_size", CACHE_SIZE);
    let mut connection = writer.connect().await.map_err(plain)?;
    // Not `run`: of its future the compiler cannot tell that it may move between threads, and nobody could spawn what opens a log.
    let migrated = tcc_migrations::log::sqlite().run_direct(None, &mut connection, false).await;
    migrated.map_err(|error| Error::Unusable(format!("{}: the migrations failed: {error}", path.display())))?;
    identify(&mut connection, options).await?;
    // A file that has gone away meanwhile must not come back as an empty one.
    let (connect, writer) = (connect.create_if_missing(false), writer.create_if_missing(false));
    let reads = readers(&connect, options.read_connections_max);
    tracing::info!(path = %path.display(), name = %options.name, "the transaction log is open");
    let backend = Sqlite { connect: writer, clock: Arc::clone(&clock), _lock: lock };
    Ok(Opened {
        backend,
        connection: Some(connection),
        more: Vec::new(),
        reads: Arc::new(Readers(reads)),
        clock,
        shared: false,
    })
}

fn readers(connect: &SqliteConnectOptions, connections_max: u32) -> SqlitePool {
    // A reader that wrote would escape the writer's batches.
    SqlitePoolOptions::new().max_connections(connections_max).connect_lazy_with(connect.clone().pragma("query_only", "1"))
}

fn plain(error: sqlx::Error) -> Error {
    Fault::Sql(error).into_error(meaning_of)
}

/// Writes or checks whose log this is: participants would not find their transactions under another name.
async fn identify(connection: &mut SqliteConnection, options: &LogOptions) -> Result<(), Error> {
    query("INSERT INTO tcc_log_identity (only_row, name) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(options.name.as_str())
        .execute(&mut *connection)
        .await
        .map_err(plain)?;
    let stored: String = query_scalar("SELECT name FROM tcc_log_identity").fetch_one(connection).await.map_err(plain)?;
    options.check_name(&stored)
}

#[cfg(test)]
mod tests {
    use tcc_types::SystemClock;

    use super::*;

    async fn pragma(connection: &mut SqliteConnection, text: &'static str) -> String {
        let row = query(text).fetch_one(connection).await.unwrap();
        sqlx::Row::try_get::<i64, _>(&row, 0).map_or_else(|_| sqlx::Row::get(&row, 0), |number| number.to_string())
    }

    #[tokio::test]
    async fn every_connection_of_the_writer_syncs_each_commit_and_readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let Opened { backend, connection, .. } = open(&LogOptions::default(), &path, Arc::new(SystemClock)).await.unwrap();
        let mut connection = connection.unwrap();
        let mut again = backend.connect.connect().await.unwrap();
        for connection in [&mut connection, &mut again] {
            assert_eq!(pragma(connection, "PRAGMA journal_mode").await, "wal");
            assert_eq!(pragma(connection, "PRAGMA synchronous").await, "2", "2 is FULL");
            assert_eq!(pragma(connection, "PRAGMA wal_autocheckpoint").await, "4000");
        }
        let mut reader = readers(&backend.connect, 1).acquire().await.unwrap();
        let refused = query("DELETE FROM tcc_log_branches").execute(&mut *reader).await.unwrap_err();
        assert!(refused.to_string().contains("readonly"), "{refused}");
    }
}

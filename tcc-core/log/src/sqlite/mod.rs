//! The log on SQLite: one file, one process.
//!
//! Every commit is synced to the disk (`synchronous=FULL` in WAL mode) before anybody is answered.

mod apply;
mod load;
mod lock;
mod open;
mod read;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection, SqliteConnection, query, sqlite::SqliteConnectOptions};
use tcc_types::{Clock, Timestamp};

use self::lock::FileLock;
pub(crate) use self::open::open;
use crate::{
    fault::{Fault, Meaning},
    writer::{Backend, plan::Run},
};

/// How SQLite is written to.
pub(crate) struct Sqlite {
    connect: SqliteConnectOptions,
    clock: Arc<dyn Clock>,
    /// Held until the last write is done.
    _lock: FileLock,
}

#[async_trait]
impl Backend for Sqlite {
    type Connection = SqliteConnection;

    /// There is no network to lose an answer, and a statement that is given up goes on in its thread all the same. Waiting for
    /// locks has a limit of its own.
    fn write_timeout(&self) -> Option<Duration> {
        None
    }

    async fn connect(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        self.connect.connect().await
    }

    async fn begin(&mut self, connection: &mut SqliteConnection) -> Result<Timestamp, sqlx::Error> {
        query("BEGIN IMMEDIATE").execute(connection).await?;
        Ok(self.clock.now())
    }

    async fn apply(&mut self, connection: &mut SqliteConnection, run: &mut Run, now: Timestamp) -> Result<(), Fault> {
        apply::apply(connection, run, now).await
    }

    async fn commit(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        query("COMMIT").execute(connection).await.map(drop)
    }

    async fn roll_back(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        query("ROLLBACK").execute(connection).await.map(drop)
    }

    async fn disconnect(&mut self, connection: SqliteConnection) -> Result<(), sqlx::Error> {
        connection.close().await
    }

    fn meaning_of(error: &sqlx::Error) -> Meaning {
        meaning_of(error)
    }
}

fn meaning_of(error: &sqlx::Error) -> Meaning {
    Meaning::of_driver(error).unwrap_or_else(|| {
        let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
        match code {
            // The low byte is SQLite's primary code: a constraint, a mismatch, a damaged file, no database at all.
            Some(code) if matches!(code & 0xff, 11 | 19 | 20 | 26) => Meaning::Unusable,
            Some(_) | None => Meaning::Unavailable,
        }
    })
}

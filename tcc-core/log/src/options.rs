//! The log's configuration, checked before any file or connection is opened.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::{mysql::MySqlConnectOptions, postgres::PgConnectOptions};
use tcc_database::without_secrets;
use tcc_types::LogName;

use crate::Error;

/// How a log is kept. What its database has no use for is ignored.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// Which database: `sqlite://` and a file's path (the file and its folder are made if they are missing, and belong to one
    /// process at a time), or `postgres://` or `mysql://` (`mariadb://`) with user, password, host and database, which several
    /// processes may share.
    pub database_url: String,
    /// The name that participants keep in their rows. A database never changes it.
    pub name: LogName,
    /// Most writes that wait for the writer. At this limit, what begins a transaction or a branch is refused; everything else
    /// waits for room.
    pub write_queue_max: usize,
    /// Most writes in one commit.
    pub batch_max: usize,
    /// Payload bytes after which a commit takes no further write.
    pub batch_bytes_max: usize,
    /// PostgreSQL and MySQL: most commits at the same time, each on a connection of its own; what comes meanwhile goes with the next
    /// one. SQLite always has one. 1 to 64.
    pub batches_in_flight_max: usize,
    /// How long the end of a transaction may wait for other writes to be committed with, in milliseconds. Nobody waits for it
    /// but who asked to be told of the end; 0 commits it at once.
    pub finish_delay_ms: u64,
    /// Most connections for reading, beside those that write.
    pub read_connections_max: u32,
    /// SQLite only: how long a write waits for a lock that a foreign program holds on the file, in milliseconds.
    pub busy_timeout_ms: u64,
    /// SQLite only: pages in the write-ahead log after which a commit copies them into the database's file.
    pub checkpoint_pages: u32,
    /// PostgreSQL and MySQL: how long opening a connection may take, or waiting for one to read with, in milliseconds.
    pub connect_timeout_ms: u64,
    /// PostgreSQL and MySQL: how long a batch's statements may take, and after them its commit, in milliseconds. After that the
    /// connection is dropped, and what was being committed is unknown. So long may reading one transaction take, too, and four
    /// times as long a listing.
    pub write_timeout_ms: u64,
    /// PostgreSQL and MySQL: how long a statement waits for a row that another gateway is changing, in milliseconds (MySQL:
    /// rounded up to seconds).
    pub lock_wait_ms: u64,
}

/// The most that `batches_in_flight_max` may be.
const BATCHES_IN_FLIGHT_MAX: usize = 64;

/// The most that `finish_delay_ms` may be.
const FINISH_DELAY_MS_MAX: u64 = 1_000;

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            database_url: "sqlite://data/gateway-log.db".to_owned(),
            name: default_name(),
            write_queue_max: 8_192,
            batch_max: 512,
            batch_bytes_max: 8 * 1024 * 1024,
            batches_in_flight_max: 2,
            finish_delay_ms: 20,
            read_connections_max: 4,
            busy_timeout_ms: 5_000,
            checkpoint_pages: 4_000,
            connect_timeout_ms: 3_000,
            write_timeout_ms: 5_000,
            lock_wait_ms: 250,
        }
    }
}

fn default_name() -> LogName {
    // A constant; a test of this file builds it.
    LogName::new("main").expect("`main` is a well-formed name")
}

/// The URL without what may be secret: without password and parameters.
impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("database_url", &without_secrets(&self.database_url))
            .field("name", &self.name)
            .field("write_queue_max", &self.write_queue_max)
            .field("batch_max", &self.batch_max)
            .field("batch_bytes_max", &self.batch_bytes_max)
            .field("batches_in_flight_max", &self.batches_in_flight_max)
            .field("finish_delay_ms", &self.finish_delay_ms)
            .field("read_connections_max", &self.read_connections_max)
            .field("busy_timeout_ms", &self.busy_timeout_ms)
            .field("checkpoint_pages", &self.checkpoint_pages)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("write_timeout_ms", &self.write_timeout_ms)
            .field("lock_wait_ms", &self.lock_wait_ms)
            .finish()
    }
}

/// Which database a URL names.
pub(crate) enum Database {
    /// This file.
    Sqlite(PathBuf),
    /// There.
    Postgres(Box<PgConnectOptions>),
    /// There.
    Mysql(Box<MySqlConnectOptions>),
}

impl LogOptions {
    /// Which database it is, once every field has been found sound.
    pub(crate) fn checked(&self) -> Result<Database, Error> {
        self.check_limits()?;
        self.database().map_err(|problem| Error::Unusable(format!("database_url: {problem}")))
    }

    /// Refuses what is no sound limit.
    pub(crate) fn check_limits(&self) -> Result<(), Error> {
        let limits = [
            ("write_queue_max", self.write_queue_max as u64),
            ("batch_max", self.batch_max as u64),
            ("batch_bytes_max", self.batch_bytes_max as u64),
            ("batches_in_flight_max", self.batches_in_flight_max as u64),
            ("read_connections_max", u64::from(self.read_connections_max)),
            ("checkpoint_pages", u64::from(self.checkpoint_pages)),
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
            ("lock_wait_ms", self.lock_wait_ms),
        ];
        if let Some((field, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(Error::Unusable(format!("{field}: must be at least 1")));
        }
        if self.batches_in_flight_max > BATCHES_IN_FLIGHT_MAX {
            return Err(Error::Unusable(format!("batches_in_flight_max: must be at most {BATCHES_IN_FLIGHT_MAX}")));
        }
        // Beyond it leases would have to be prolonged for transactions that have ended.
        if self.finish_delay_ms > FINISH_DELAY_MS_MAX {
            return Err(Error::Unusable(format!("finish_delay_ms: must be at most {FINISH_DELAY_MS_MAX}")));
        }
        // What tokio's channel can hold; a larger one would panic.
        if self.write_queue_max > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(Error::Unusable("write_queue_max: is too large".to_owned()));
        }
        Ok(())
    }

    /// Refuses a database that keeps another log.
    pub(crate) fn check_name(&self, stored: &str) -> Result<(), Error> {
        if stored == self.name.as_str() {
            Ok(())
        } else {
            let asked = &self.name;
            Err(Error::Unusable(format!("name: this database is the transaction log `{stored}`, not `{asked}`")))
        }
    }

    fn database(&self) -> Result<Database, &'static str> {
        let url = self.database_url.as_str();
        match url.split(':').next().unwrap_or_default() {
            // In memory, a transaction log would forget its decisions.
            "sqlite" => tcc_database::sqlite::path_of(url).map(Database::Sqlite),
            "postgres" | "postgresql" => {
                tcc_database::postgres::options_of(url).map(|options| Database::Postgres(Box::new(options)))
            }
            "mysql" | "mariadb" => tcc_database::mysql::options_of(url).map(|options| Database::Mysql(Box::new(options))),
            _ => Err("must begin with `sqlite:`, `postgres:` or `mysql:`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> LogOptions {
        LogOptions { database_url: url.to_owned(), ..LogOptions::default() }
    }

    #[test]
    fn a_url_that_names_no_database_is_refused_by_its_name() {
        for url in [
            "",
            "oracle://u:secret@localhost/log",
            "postgres://u:secret@localhost",
            "mysql://u:secret@localhost",
            "sqlite::memory:",
            "sqlite://",
            "sqlite://x?immutable=1",
        ] {
            let problem = of(url).checked().err().map(|error| error.to_string()).expect(url);
            assert!(problem.starts_with("database_url:") && !problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_its_name() {
        let options = LogOptions { batch_max: 0, ..LogOptions::default() };
        assert!(options.checked().is_err_and(|error| error.to_string().starts_with("batch_max:")));
        assert!(LogOptions::default().checked().is_ok());
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://tcc:secret@db:5432/log",
            "postgres://tcc:se@cret@db:5432/log?sslmode=require",
            "postgres://db/log?user=tcc&password=secret",
            "postgres:tcc:secret@db",
        ] {
            let shown = format!("{:?}", of(url));
            assert!(!shown.contains("secret") && !shown.contains("cret@"), "{shown}");
            assert!(shown.contains("postgres"), "{shown}");
        }
    }
}

//! The SQLite log's configuration, checked before any file is touched.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tcc_types::LogName;

use crate::Error;

/// How a [`SqliteLog`](crate::SqliteLog) is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteLogOptions {
    /// `sqlite://` and a file's path; the file and its folder are made if they are missing. It belongs to one process at a time.
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
    /// Most connections for reading.
    pub read_connections_max: u32,
    /// How long a write waits for a lock that a foreign program holds on the file, in milliseconds.
    pub busy_timeout_ms: u64,
    /// Pages in the write-ahead log after which a commit copies them into the database's file.
    pub checkpoint_pages: u32,
}

impl Default for SqliteLogOptions {
    fn default() -> Self {
        Self {
            database_url: "sqlite://data/gateway-log.db".to_owned(),
            name: default_name(),
            write_queue_max: 8_192,
            batch_max: 512,
            batch_bytes_max: 8 * 1024 * 1024,
            read_connections_max: 4,
            busy_timeout_ms: 5_000,
            checkpoint_pages: 4_000,
        }
    }
}

fn default_name() -> LogName {
    // A constant; a test of this file builds it.
    LogName::new("main").expect("`main` is a well-formed name")
}

impl SqliteLogOptions {
    /// The database's file, once every field has been found sound.
    pub(super) fn checked_path(&self) -> Result<PathBuf, Error> {
        let limits = [
            ("write_queue_max", self.write_queue_max),
            ("batch_max", self.batch_max),
            ("batch_bytes_max", self.batch_bytes_max),
            ("read_connections_max", self.read_connections_max as usize),
            ("checkpoint_pages", self.checkpoint_pages as usize),
        ];
        if let Some((field, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(Error::Unusable(format!("{field}: must be at least 1")));
        }
        // What tokio's channel can hold; a larger one would panic.
        if self.write_queue_max > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(Error::Unusable("write_queue_max: is too large".to_owned()));
        }
        // In memory, a transaction log would forget its decisions.
        tcc_migrations::sqlite::path_of(&self.database_url)
            .map_err(|problem| Error::Unusable(format!("database_url: {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_names_no_file_is_refused_by_its_name() {
        for url in ["postgres://localhost/log", "sqlite::memory:", "sqlite://", "sqlite://x?immutable=1"] {
            let options = SqliteLogOptions { database_url: url.to_owned(), ..SqliteLogOptions::default() };
            assert!(options.checked_path().is_err_and(|error| error.to_string().starts_with("database_url:")), "{url}");
        }
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_its_name() {
        let options = SqliteLogOptions { batch_max: 0, ..SqliteLogOptions::default() };
        assert!(options.checked_path().is_err_and(|error| error.to_string().starts_with("batch_max:")));
        assert!(SqliteLogOptions::default().checked_path().is_ok());
    }
}

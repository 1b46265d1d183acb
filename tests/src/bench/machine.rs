//! Where it was measured: whatever a reader must know before comparing figures.

use std::{fs, path::Path, thread};

use serde::Serialize;
use sqlx::{Connection, MySqlConnection, PgConnection, Row, SqliteConnection};

use crate::harness::Store;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Of temporary files, where all databases are.
    pub(crate) filesystem: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let read = |file: &str| fs::read_to_string(file).map(|text| text.trim().to_owned());
        Self {
            cores: thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned()),
            filesystem: filesystem_of(&std::env::temp_dir(), &read("/proc/mounts").unwrap_or_default()),
        }
    }
}

/// The type of the filesystem whose mount point is the longest beginning of the path.
fn filesystem_of(path: &Path, mounts: &str) -> String {
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        words.next().zip(words.next()).map(|(point, kind)| (point.to_owned(), kind.to_owned()))
    };
    let held = mounts.lines().filter_map(mount).filter(|(point, _)| path.starts_with(point));
    held.max_by_key(|(point, _)| point.len()).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

/// The load average of the last minute; NaN: unknown.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// What a database server is started with on a machine like this one: memory for the tables, and logs that are not written over
/// after a few seconds of load. Nothing here makes a commit less durable.
pub(crate) fn server_settings(store: Store, more: &[(String, String)]) -> Vec<(String, String)> {
    let own: &[(&str, &str)] = match store {
        Store::Sqlite => return Vec::new(),
        Store::Postgres => &[("shared_buffers", "512MB"), ("max_wal_size", "4GB")],
        Store::Mysql => &[("innodb-buffer-pool-size", "512M"), ("innodb-log-file-size", "512M")],
    };
    let own = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    own.chain(more.iter().cloned()).collect()
}

/// The database's version, and how it syncs, by its own words.
///
/// # Errors
/// It cannot be asked.
pub(crate) async fn database(store: Store, url: &str) -> anyhow::Result<String> {
    Ok(match store {
        Store::Sqlite => {
            let mut file = SqliteConnection::connect("sqlite::memory:").await?;
            let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut file).await?;
            format!("SQLite {version}, WAL, synchronous=FULL")
        }
        Store::Postgres => {
            let mut server = PgConnection::connect(url).await?;
            let sql = "SELECT current_setting('server_version') || ', fsync=' || current_setting('fsync') || ', synchronous_commit=' \
                 || current_setting('synchronous_commit') || ', wal_sync_method=' || current_setting('wal_sync_method')";
            format!("PostgreSQL {}", sqlx::query_scalar::<_, String>(sql).fetch_one(&mut server).await?)
        }
        Store::Mysql => {
            let mut server = MySqlConnection::connect(url).await?;
            let sql = "SELECT CONCAT(VERSION(), ', innodb_flush_log_at_trx_commit=', @@innodb_flush_log_at_trx_commit, \
                 ', innodb_flush_method=', @@innodb_flush_method, ', innodb_doublewrite=', @@innodb_doublewrite)";
            sqlx::query(sql).fetch_one(&mut server).await?.try_get::<String, _>(0)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_point_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(filesystem_of(Path::new("/tmp/x"), mounts), "tmpfs");
        assert_eq!(filesystem_of(Path::new("/tmpfoo"), mounts), "ext4");
        assert_eq!(filesystem_of(Path::new("/x"), ""), "unknown");
    }
}

//! What the databases and their files were made to do: commits by the server's own count, fsyncs by the preload library's,
//! messages by the gateway's. What cannot be counted is `None`, never nought.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sqlx::{Connection, MySqlConnection, PgConnection};
use tcc_proto::tcc::v1::{GetStatsRequest, admin_client::AdminClient};
use tonic::{Code, transport::Channel};

use super::figures::Figures;
use crate::harness::{Cluster, Owner, Store};

/// Counts at one moment, each from an arbitrary beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) commits: Option<u64>,
    pub(crate) fsyncs: Option<u64>,
    pub(crate) messages: Option<u64>,
}

/// Where counts come from.
#[derive(Debug)]
pub(crate) struct Counters {
    commits: Commits,
    fsync_file: Option<PathBuf>,
    /// `None`: nothing goes over any network.
    gateway: Option<AdminClient<Channel>>,
}

#[derive(Debug)]
enum Commits {
    /// Each commit of SQLite with `synchronous=FULL` syncs its write-ahead log once, so those syncs are counted.
    SyncedLogs,
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Counters {
    pub(crate) async fn of_cluster(cluster: &Cluster, fsync_file: Option<&Path>) -> anyhow::Result<Self> {
        let counters = Self::new(cluster.databases().store(), cluster.database_url(Owner::Log), fsync_file).await?;
        Ok(Self { gateway: Some(cluster.admin()), ..counters })
    }

    /// `url` is any database of the server.
    pub(crate) async fn new(store: Store, url: &str, fsync_file: Option<&Path>) -> anyhow::Result<Self> {
        let commits = match store {
            Store::Sqlite => Commits::SyncedLogs,
            Store::Postgres => Commits::Postgres(PgConnection::connect(url).await?),
            Store::Mysql => {
                let mut server = MySqlConnection::connect(url).await?;
                // Off as the server starts.
                sqlx::raw_sql("SET GLOBAL innodb_monitor_enable = 'trx_rw_commits'").execute(&mut server).await?;
                Commits::Mysql(server)
            }
        };
        Ok(Self { commits, fsync_file: fsync_file.map(Path::to_owned), gateway: None })
    }

    pub(crate) async fn read(&mut self) -> anyhow::Result<Counts> {
        let synced = self.fsync_file.as_deref().map(read_fsyncs).transpose()?;
        let commits = match &mut self.commits {
            Commits::SyncedLogs => synced.map(|[_, logs]| logs),
            // Every transaction that writes takes one number; those that only read take none.
            Commits::Postgres(server) => {
                let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
                let number: i64 = sqlx::query_scalar(sql).fetch_one(server).await?;
                Some(u64::try_from(number)?)
            }
            // Of the storage engine: Handler_commit counts the statements within a transaction too, Com_commit no single ones.
            Commits::Mysql(server) => {
                let sql = "SELECT CAST(count AS SIGNED) FROM information_schema.innodb_metrics WHERE name = 'trx_rw_commits'";
                let number: i64 = sqlx::query_scalar(sql).fetch_one(server).await?;
                Some(u64::try_from(number)?)
            }
        };
        let messages = match &mut self.gateway {
            Some(gateway) => messages_of(gateway).await?,
            None => None,
        };
        Ok(Counts { commits, fsyncs: synced.map(|[all, _]| all), messages })
    }
}

/// Those that the gateway sent to its participants. An older build may not count them.
async fn messages_of(gateway: &mut AdminClient<Channel>) -> anyhow::Result<Option<u64>> {
    match gateway.get_stats(GetStatsRequest {}).await {
        Ok(stats) => Ok(Some(stats.into_inner().participants.iter().map(|one| one.messages).sum())),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// All fsyncs, and those of SQLite's write-ahead logs: what the preload library counts in the file that processes share.
fn read_fsyncs(file: &Path) -> anyhow::Result<[u64; 2]> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let count = |index: usize| -> anyhow::Result<u64> {
        let word = bytes.get(index * 8..index * 8 + 8).context("the fsync counters are cut off")?;
        Ok(u64::from_ne_bytes(word.try_into()?))
    };
    Ok([count(0)?, count(1)?])
}

impl Figures {
    /// The same, with what was counted between two moments divided by the orders that ended between them.
    pub(crate) fn with_counts(self, before: Counts, after: Counts, orders: u64) -> Self {
        let per_order = |before: Option<u64>, after: Option<u64>| {
            let (before, after) = (before?, after?);
            (orders > 0).then(|| after.saturating_sub(before) as f64 / orders as f64)
        };
        Self {
            commits_per_order: per_order(before.commits, after.commits),
            fsyncs_per_order: per_order(before.fsyncs, after.fsyncs),
            messages_per_order: per_order(before.messages, after.messages),
            ..self
        }
    }
}

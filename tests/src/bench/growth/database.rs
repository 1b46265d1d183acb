//! One connection to any of the databases, for statements in bulk. It knows no tables.

use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, SqliteConnection};
use tokio::time::{Instant, sleep};

use crate::{bench::floor::open_sqlite, harness::Store};

/// Sessions of processes that have ended are gone within this.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A connection.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Database {
    /// To fill it: what is lost if this machine stops is filled anew.
    pub(crate) async fn to_fill(store: Store, url: &str) -> anyhow::Result<Self> {
        let mut database = match store {
            Store::Sqlite => Self::Sqlite(open_sqlite(url).await?),
            Store::Postgres => Self::Postgres(PgConnection::connect(url).await?),
            Store::Mysql => Self::Mysql(MySqlConnection::connect(url).await?),
        };
        match store {
            Store::Sqlite => database.run("PRAGMA synchronous = OFF").await?,
            Store::Postgres => database.run("SET synchronous_commit = off").await?,
            Store::Mysql => database.run("SET SESSION sql_mode = 'STRICT_ALL_TABLES'").await?,
        }
        Ok(database)
    }

    pub(crate) async fn run(&mut self, sql: &str) -> anyhow::Result<()> {
        let ran = match self {
            Self::Sqlite(database) => database.execute(AssertSqlSafe(sql)).await.map(drop),
            Self::Postgres(database) => database.execute(AssertSqlSafe(sql)).await.map(drop),
            Self::Mysql(database) => database.execute(AssertSqlSafe(sql)).await.map(drop),
        };
        ran.with_context(|| format!("{} ...", sql.chars().take(80).collect::<String>()))
    }

    /// What a database does after a bulk of rows sooner or later, done now: not while something is measured. SQLite is not told how
    /// its tables are filled, since nobody tells it in a system that runs.
    pub(crate) async fn settle(mut self) -> anyhow::Result<()> {
        match &self {
            Self::Sqlite(_) => self.run("PRAGMA wal_checkpoint(TRUNCATE)").await?,
            Self::Postgres(_) => {
                for sql in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
                    self.run(sql).await?;
                }
            }
            Self::Mysql(_) => {}
        }
        match self {
            Self::Sqlite(database) => database.close().await?,
            Self::Postgres(database) => database.close().await?,
            Self::Mysql(database) => database.close().await?,
        }
        Ok(())
    }
}

/// Waits until nobody but the caller is connected to a PostgreSQL server: sessions tell what they counted when they end.
pub(crate) async fn alone_on_postgres(url: &str) -> anyhow::Result<()> {
    let mut server = PgConnection::connect(url).await?;
    let give_up = Instant::now() + GONE_WITHIN;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut server).await? > 0 {
        ensure!(Instant::now() < give_up, "sessions of processes that have ended are still there");
        sleep(POLL).await;
    }
    Ok(server.close().await?)
}

//! Reads rows of any of the three databases by the same statements, for the ledger.

use anyhow::Context;
use sqlx::{
    Connection, Executor, MySqlConnection, PgConnection, Row, SqliteConnection,
    mysql::MySqlRow,
    postgres::PgRow,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{Store, config::Owner, databases::Databases};

const SQLITE_BEGIN: &str = "BEGIN";
const POSTGRES_BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const MYSQL_BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT";

/// One snapshot of one database: every statement sees the same rows.
#[derive(Debug)]
pub(crate) enum Snapshot {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Snapshot {
    /// Connects and begins. It ends when it is dropped.
    pub(crate) async fn of(databases: &Databases, owner: Owner) -> anyhow::Result<Self> {
        let url = databases.url(owner);
        Self::begin(databases.store(), url).await.with_context(|| format!("cannot read the database of {}", owner.name()))
    }

    pub(crate) async fn begin(store: Store, url: &str) -> sqlx::Result<Self> {
        match store {
            Store::Sqlite => {
                let options: SqliteConnectOptions = url.parse()?;
                let mut connection = SqliteConnection::connect_with(&options.read_only(true)).await?;
                connection.execute(SQLITE_BEGIN).await?;
                Ok(Self::Sqlite(connection))
            }
            Store::Postgres => {
                let mut connection = PgConnection::connect(url).await?;
                connection.execute(POSTGRES_BEGIN).await?;
                Ok(Self::Postgres(connection))
            }
            Store::Mysql => {
                let mut connection = MySqlConnection::connect(url).await?;
                connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
                connection.execute(MYSQL_BEGIN).await?;
                Ok(Self::Mysql(connection))
            }
        }
    }

    /// Lets go of what it has seen: from here on it sees what is there now.
    pub(crate) async fn renew(&mut self) -> sqlx::Result<()> {
        for sql in ["ROLLBACK", self.beginning()] {
            match self {
                Self::Sqlite(database) => database.execute(sql).await.map(drop)?,
                Self::Postgres(database) => database.execute(sql).await.map(drop)?,
                Self::Mysql(database) => database.execute(sql).await.map(drop)?,
            }
        }
        Ok(())
    }

    const fn beginning(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => SQLITE_BEGIN,
            Self::Postgres(_) => POSTGRES_BEGIN,
            Self::Mysql(_) => MYSQL_BEGIN,
        }
    }

    /// All rows of a statement that all three understand.
    pub(crate) async fn all(&mut self, sql: &'static str) -> sqlx::Result<Vec<AnyRow>> {
        Ok(match self {
            Self::Sqlite(database) => database.fetch_all(sql).await?.into_iter().map(AnyRow::Sqlite).collect(),
            Self::Postgres(database) => database.fetch_all(sql).await?.into_iter().map(AnyRow::Postgres).collect(),
            Self::Mysql(database) => database.fetch_all(sql).await?.into_iter().map(AnyRow::Mysql).collect(),
        })
    }
}

/// A row. NULL is 0 or empty.
#[derive(Debug)]
pub(crate) enum AnyRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    Mysql(MySqlRow),
}

impl AnyRow {
    pub(crate) fn integer(&self, column: usize) -> sqlx::Result<i64> {
        let value: Option<i64> = match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Mysql(row) => row.try_get(column)?,
            // The only one of them that is strict about an integer's width.
            Self::Postgres(row) => {
                let narrow = || row.try_get::<Option<i16>, _>(column).map(|value| value.map(i64::from));
                row.try_get(column).or_else(|_| narrow())?
            }
        };
        Ok(value.unwrap_or_default())
    }

    pub(crate) fn text(&self, column: usize) -> sqlx::Result<String> {
        let value: Option<String> = match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
            Self::Mysql(row) => row.try_get(column)?,
        };
        Ok(value.unwrap_or_default())
    }

    pub(crate) fn bytes(&self, column: usize) -> sqlx::Result<Vec<u8>> {
        let value: Option<Vec<u8>> = match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
            Self::Mysql(row) => row.try_get(column)?,
        };
        Ok(value.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sqlx::{AssertSqlSafe, sqlite::SqliteJournalMode};

    use super::*;
    use crate::harness::ClusterConfig;

    async fn run(store: Store, url: &str, sql: &str) -> anyhow::Result<()> {
        match store {
            Store::Sqlite => {
                let options: SqliteConnectOptions = url.parse()?;
                let mut database =
                    SqliteConnection::connect_with(&options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal))
                        .await?;
                database.execute(AssertSqlSafe(sql)).await?;
            }
            Store::Postgres => {
                PgConnection::connect(url).await?.execute(AssertSqlSafe(sql)).await?;
            }
            Store::Mysql => {
                MySqlConnection::connect(url).await?.execute(AssertSqlSafe(sql)).await?;
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn every_kind_of_column_is_read_alike_and_as_of_one_moment() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        for store in Store::ALL {
            let config = ClusterConfig { store, ..ClusterConfig::temporary(PathBuf::new()) };
            let databases = Databases::open(&config, folder.path()).await?;
            let url = databases.url(Owner::Coupon);
            let (text, bytes, xyz) = match store {
                Store::Sqlite => ("TEXT", "BLOB", "x'78797a'"),
                Store::Postgres => ("TEXT", "BYTEA", "'xyz'"),
                Store::Mysql => ("VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin", "LONGBLOB", "'xyz'"),
            };
            let table = format!("CREATE TABLE kinds (wide BIGINT, narrow SMALLINT, words {text}, raw {bytes})");
            run(store, url, &table).await?;
            run(store, url, &format!("INSERT INTO kinds VALUES (-5000000000, 3, 'a-B', {xyz})")).await?;
            run(store, url, "INSERT INTO kinds VALUES (1, NULL, NULL, NULL)").await?;
            let mut snapshot = Snapshot::of(&databases, Owner::Coupon).await?;
            assert_eq!(snapshot.all("SELECT count(*) FROM kinds").await?[0].integer(0)?, 2, "{store}");
            run(store, url, "INSERT INTO kinds VALUES (2, 2, 'later', NULL)").await?;
            let rows = snapshot.all("SELECT wide, narrow, words, raw FROM kinds ORDER BY wide").await?;
            assert_eq!(rows.len(), 2, "{store}: a snapshot sees what was committed after it began");
            let kinds = |row: &AnyRow| anyhow::Ok((row.integer(0)?, row.integer(1)?, row.text(2)?));
            assert_eq!(kinds(&rows[0])?, (-5_000_000_000, 3, "a-B".to_owned()), "{store}");
            assert_eq!(kinds(&rows[1])?, (1, 0, String::new()), "{store}");
            assert!(rows[1].bytes(3)?.is_empty(), "{store}");
            assert_eq!(rows[0].bytes(3)?, b"xyz", "{store}");
        }
        Ok(())
    }
}

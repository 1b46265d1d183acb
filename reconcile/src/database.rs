//! Reads rows of any of the three databases by the same statements. It never writes: each session says so to its server.

use std::{fmt::Write, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Executor, MySqlConnection, PgConnection, Row as _, SqliteConnection,
    mysql::{MySqlArguments, MySqlRow},
    postgres::{PgArguments, PgRow},
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow},
};
use tcc_database::{mysql_now, postgres_now, sqlite_now};
use tcc_types::Timestamp;

use crate::Error;

/// Of a statement that the server itself ends, if whoever waits for it is gone.
const DAY_SECONDS: u64 = 86_400;

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A whole number.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// A connection to one database, for reading. Statements are written with `?` and understood by all three.
#[derive(Debug)]
pub struct Database {
    whose: String,
    connection: Connection,
    statement_timeout: Duration,
}

#[derive(Debug)]
enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    Mysql(MySqlConnection),
}

impl Database {
    /// Connects to the database that a URL names, with `sqlite:`, `postgres:` or `mysql:`. `whose` is for errors.
    ///
    /// # Errors
    /// The URL names no database, or the database does not answer.
    pub async fn open(whose: &str, url: &str, statement_timeout: Duration) -> Result<Self, Error> {
        let open = async {
            let connection = match url.split(':').next().unwrap_or_default() {
                "sqlite" => {
                    let path = tcc_database::sqlite::path_of(url).map_err(|problem| Error::config(whose, problem))?;
                    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(statement_timeout);
                    options.connect().await.map(Connection::Sqlite)
                }
                "postgres" | "postgresql" => {
                    let options = tcc_database::postgres::options_of(url).map_err(|problem| Error::config(whose, problem))?;
                    postgres(&options, statement_timeout).await.map(Connection::Postgres)
                }
                "mysql" | "mariadb" => {
                    let options = tcc_database::mysql::options_of(url).map_err(|problem| Error::config(whose, problem))?;
                    mysql(&options, statement_timeout).await.map(Connection::Mysql)
                }
                _ => return Err(Error::config(whose, "must begin with `sqlite:`, `postgres:` or `mysql:`")),
            };
            connection.map_err(|problem| Error::Database { whose: whose.to_owned(), problem })
        };
        let slow = || Error::Slow { whose: whose.to_owned(), limit: statement_timeout };
        let connection = tokio::time::timeout(statement_timeout, open).await.map_err(|_| slow())??;
        Ok(Self { whose: whose.to_owned(), connection, statement_timeout })
    }

    /// Whose it is, for errors.
    #[must_use]
    pub fn whose(&self) -> &str {
        &self.whose
    }

    /// From here to [`Database::end`] every statement sees the same rows. Keep it short: a server keeps old rows for it.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(&mut self) -> Result<(), Error> {
        self.run(match self.connection {
            Connection::Sqlite(_) => "BEGIN",
            Connection::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Connection::Mysql(_) => "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        })
        .await
    }

    /// Ends what [`Database::begin`] began.
    ///
    /// # Errors
    /// The database's.
    pub async fn end(&mut self) -> Result<(), Error> {
        self.run("ROLLBACK").await
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), Error> {
        let done = match &mut self.connection {
            Connection::Sqlite(connection) => connection.execute(sql).await.map(drop),
            Connection::Postgres(connection) => connection.execute(sql).await.map(drop),
            Connection::Mysql(connection) => connection.execute(sql).await.map(drop),
        };
        done.map_err(|problem| Error::Database { whose: self.whose.clone(), problem })
    }

    /// The database's clock.
    ///
    /// # Errors
    /// The database's.
    pub async fn now(&mut self) -> Result<Timestamp, Error> {
        let sql = match self.connection {
            Connection::Sqlite(_) => concat!("SELECT ", sqlite_now!()),
            Connection::Postgres(_) => concat!("SELECT ", postgres_now!()),
            Connection::Mysql(_) => concat!("SELECT ", mysql_now!()),
        };
        let row = self.one(sql, &[]).await?.ok_or_else(|| self.damaged("the clock does not answer"))?;
        Ok(Timestamp::from_micros(self.int(&row, 0)?))
    }

    /// All rows of a statement. The caller bounds them by a `LIMIT`.
    ///
    /// # Errors
    /// The database's.
    pub async fn all(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<AnyRow>, Error> {
        let read = async {
            match &mut self.connection {
                Connection::Sqlite(connection) => {
                    let query = values.iter().fold(sqlx::query(AssertSqlSafe(sql.to_owned())), bind_sqlite);
                    Ok(query.fetch_all(connection).await?.into_iter().map(AnyRow::Sqlite).collect())
                }
                Connection::Postgres(connection) => {
                    let query = values.iter().fold(sqlx::query(AssertSqlSafe(numbered(sql))), bind_postgres);
                    Ok(query.fetch_all(connection).await?.into_iter().map(AnyRow::Postgres).collect())
                }
                Connection::Mysql(connection) => {
                    let query = values.iter().fold(sqlx::query(AssertSqlSafe(sql.to_owned())), bind_mysql);
                    Ok(query.fetch_all(connection).await?.into_iter().map(AnyRow::Mysql).collect())
                }
            }
        };
        match tokio::time::timeout(self.statement_timeout, read).await {
            Ok(rows) => rows.map_err(|problem| Error::Database { whose: self.whose.clone(), problem }),
            Err(_) => Err(Error::Slow { whose: self.whose.clone(), limit: self.statement_timeout }),
        }
    }

    /// The first row of a statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn one(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Option<AnyRow>, Error> {
        Ok(self.all(sql, values).await?.into_iter().next())
    }

    /// A stored value that the system never writes.
    #[must_use]
    pub fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::Damaged { whose: self.whose.clone(), problem: problem.into() }
    }

    /// A number of a row.
    ///
    /// # Errors
    /// It is none.
    pub fn int(&self, row: &AnyRow, column: usize) -> Result<i64, Error> {
        self.maybe_int(row, column)?.ok_or_else(|| self.damaged("NULL where a number must be"))
    }

    /// A number of a row, or NULL.
    ///
    /// # Errors
    /// It is neither.
    pub fn maybe_int(&self, row: &AnyRow, column: usize) -> Result<Option<i64>, Error> {
        self.read(match row {
            AnyRow::Sqlite(row) => row.try_get(column),
            // The check that is left out wants an exact width; the decoder takes any.
            AnyRow::Postgres(row) => row.try_get_unchecked(column),
            AnyRow::Mysql(row) => row.try_get(column),
        })
    }

    /// A text of a row.
    ///
    /// # Errors
    /// It is none.
    pub fn text(&self, row: &AnyRow, column: usize) -> Result<String, Error> {
        self.maybe_text(row, column)?.ok_or_else(|| self.damaged("NULL where a text must be"))
    }

    /// A text of a row, or NULL.
    ///
    /// # Errors
    /// It is neither.
    pub fn maybe_text(&self, row: &AnyRow, column: usize) -> Result<Option<String>, Error> {
        self.read(match row {
            AnyRow::Sqlite(row) => row.try_get(column),
            AnyRow::Postgres(row) => row.try_get(column),
            AnyRow::Mysql(row) => row.try_get(column),
        })
    }

    /// Bytes of a row; NULL is none.
    ///
    /// # Errors
    /// It is neither.
    pub fn bytes(&self, row: &AnyRow, column: usize) -> Result<Vec<u8>, Error> {
        let value: Option<Vec<u8>> = self.read(match row {
            AnyRow::Sqlite(row) => row.try_get(column),
            AnyRow::Postgres(row) => row.try_get(column),
            AnyRow::Mysql(row) => row.try_get(column),
        })?;
        Ok(value.unwrap_or_default())
    }

    fn read<T>(&self, value: Result<T, sqlx::Error>) -> Result<T, Error> {
        value.map_err(|problem| self.damaged(problem.to_string()))
    }
}

/// A row; [`Database`] reads its values.
#[derive(Debug)]
pub enum AnyRow {
    /// SQLite's.
    Sqlite(SqliteRow),
    /// PostgreSQL's.
    Postgres(PgRow),
    /// MySQL's or MariaDB's.
    Mysql(MySqlRow),
}

async fn postgres(options: &sqlx::postgres::PgConnectOptions, limit: Duration) -> Result<PgConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    let limit_ms = limit.as_millis().min(i32::MAX as u128);
    let session = format!(
        "SET default_transaction_read_only = on; SET jit = off; SET statement_timeout = {limit_ms}; \
         SET idle_in_transaction_session_timeout = {limit_ms}"
    );
    sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut connection).await?;
    Ok(connection)
}

async fn mysql(options: &sqlx::mysql::MySqlConnectOptions, limit: Duration) -> Result<MySqlConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    let seconds = limit.as_secs().saturating_add(1).min(DAY_SECONDS);
    let session = format!(
        "{}; SET SESSION lock_wait_timeout = {seconds} /*M! , SESSION max_statement_time = {seconds} */; \
         SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        tcc_database::mysql::SESSION
    );
    sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut connection).await?;
    Ok(connection)
}

/// The statement with PostgreSQL's numbers in the place of `?`. No statement here has a question mark in a literal.
fn numbered(sql: &str) -> String {
    let mut pieces = sql.split('?');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for (index, piece) in pieces.enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "${}{piece}", index + 1);
    }
    text
}

macro_rules! bind {
    ($($name:ident: $database:ty, $arguments:ty;)+) => {$(
        fn $name<'q>(query: Query<'q, $database, $arguments>, value: &Value<'q>) -> Query<'q, $database, $arguments> {
            match *value {
                Value::Int(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
            }
        }
    )+};
}

bind! {
    bind_sqlite: sqlx::Sqlite, SqliteArguments;
    bind_postgres: sqlx::Postgres, PgArguments;
    bind_mysql: sqlx::MySql, MySqlArguments;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_numbered_for_postgresql() {
        assert_eq!(numbered("SELECT 1"), "SELECT 1");
        assert_eq!(numbered("a > ? AND (b = ?)"), "a > $1 AND (b = $2)");
    }

    #[tokio::test]
    async fn a_url_of_nothing_is_refused_and_not_repeated() {
        for url in ["", "oracle://u:secret@h/a", "postgres://u:secret@h", "sqlite::memory:", "sqlite:///nowhere/at/all.db"] {
            let error = Database::open("the log", url, Duration::from_secs(5)).await.expect_err(url).to_string();
            assert!(error.contains("the log") && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn it_reads_and_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut writer = options.connect().await.unwrap();
        writer
            .execute("CREATE TABLE t (a INTEGER, b TEXT, c BLOB); INSERT INTO t VALUES (7, 'x', x'01'), (NULL, NULL, NULL)")
            .await
            .unwrap();
        let url = format!("sqlite://{}", path.display());
        let mut database = Database::open("t", &url, Duration::from_secs(5)).await.unwrap();
        let rows =
            database.all("SELECT a, b, c FROM t WHERE a = ? OR a IS NULL ORDER BY a DESC", &[Value::Int(7)]).await.unwrap();
        let of = |row: &AnyRow| {
            (database.maybe_int(row, 0).unwrap(), database.maybe_text(row, 1).unwrap(), database.bytes(row, 2).unwrap())
        };
        assert_eq!(of(&rows[0]), (Some(7), Some("x".to_owned()), vec![1]));
        assert_eq!(of(&rows[1]), (None, None, Vec::new()));
        assert!(database.text(&rows[1], 1).is_err_and(|error| !error.is_retryable()));
        assert!(database.all("INSERT INTO t VALUES (1, 'y', NULL)", &[]).await.is_err());
        assert!(database.now().await.unwrap() > Timestamp::from_millis(1_500_000_000_000));
    }
}

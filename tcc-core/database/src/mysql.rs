//! What all MySQL and MariaDB databases have in common: how a URL names them, how a session must be set up, how their clock is
//! read, how migrations run on them, how a statement takes many rows.

pub mod inserts;
pub mod lists;

use std::str::FromStr;

use sqlx::{
    AssertSqlSafe, MySqlConnection,
    migrate::{MigrateError, Migrator},
    mysql::MySqlConnectOptions,
};

/// The clock of a MySQL database at a statement (not at its transaction's start), as an SQL expression: microseconds. Only in
/// sessions whose time zone is UTC ([`mysql::options_of`](crate::mysql::options_of) sets it): elsewhere an hour a year comes
/// twice. A literal, so that `concat!` can put it into a statement.
#[macro_export]
macro_rules! mysql_now {
    () => {
        "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"
    };
}

/// What a session must be, whatever the server's defaults are: each statement sees what was committed before it, and a value
/// that does not fit is an error.
pub const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
     SET SESSION autocommit = 1, \
     SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'";

/// How long one who starts may wait for another's migrations.
const MIGRATION_WAIT_SECONDS_MAX: i64 = 600;

/// The parameters of a URL that the driver knows.
const PARAMETERS: [&str; 13] = [
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "charset",
    "collation",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "socket",
    // Overruled: the clock is read in UTC.
    "timezone",
];
const UNKNOWN_PARAMETER: &str = "has an unknown parameter; known are ssl-mode, ssl-ca, ssl-cert, ssl-key, charset, collation, socket, statement-cache-capacity";

/// Where the database is that a `mysql:` or `mariadb:` URL names.
///
/// # Errors
/// What is wrong with the URL. Nothing of the URL is repeated, since it may have a password in it.
pub fn options_of(url: &str) -> Result<MySqlConnectOptions, &'static str> {
    if !url.starts_with("mysql:") && !url.starts_with("mariadb:") {
        return Err("must begin with `mysql:` (`mysql://user:password@host:3306/name`)");
    }
    crate::unknown_parameter(url, &PARAMETERS, UNKNOWN_PARAMETER)?;
    let options =
        MySqlConnectOptions::from_str(url).map_err(|_| "is no valid `mysql:` URL, or has a parameter out of its range")?;
    match options.get_database() {
        None | Some("") => Err("must name a database (`mysql://user:password@host:3306/name`)"),
        Some(_) => Ok(options
            .charset("utf8mb4")
            .timezone(Some("+00:00".to_owned()))
            .pipes_as_concat(false)
            .no_engine_substitution(false)),
    }
}

/// No limit for a statement, which only MariaDB has, and a long one for the locks of whole tables.
const UNLIMITED: &str = "SET SESSION lock_wait_timeout = 600 /*M! , SESSION max_statement_time = 0 */";

/// Applies migrations, one process at a time. Lifts the connection's time limits, and does not restore them: close it. Each
/// migration must be idempotent: the database commits within them, so one that was
/// interrupted runs again.
///
/// # Errors
/// The database failed, has other migrations than these, or is being migrated by another for too long.
pub async fn migrate(conn: &mut MySqlConnection, mut migrator: Migrator) -> Result<(), MigrateError> {
    // sqlx's own lock waits for a negative number of seconds, and to MariaDB that means not at all.
    migrator.set_locking(false);
    sqlx::raw_sql(SESSION).execute(&mut *conn).await?;
    sqlx::raw_sql(UNLIMITED).execute(&mut *conn).await?;
    let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(CONCAT('tcc_migrations.', SHA1(DATABASE())), ?)")
        .bind(MIGRATION_WAIT_SECONDS_MAX)
        .fetch_one(&mut *conn)
        .await?;
    if locked != Some(1) {
        let problem = "another process is migrating this database, and does not end".to_owned();
        return Err(MigrateError::Execute(sqlx::Error::Protocol(problem)));
    }
    // `run` takes no plain connection inside of a future that moves between threads.
    let mut migrated = migrator.run_direct(None, &mut *conn, false).await;
    if let Err(MigrateError::Dirty(version)) = migrated {
        let table = &migrator.table_name;
        let forget = AssertSqlSafe(format!("DELETE FROM {table} WHERE version = ? AND success = FALSE"));
        sqlx::query(forget).bind(version).execute(&mut *conn).await?;
        migrated = migrator.run_direct(None, &mut *conn, false).await;
    }
    sqlx::query("DO RELEASE_LOCK(CONCAT('tcc_migrations.', SHA1(DATABASE())))").execute(conn).await?;
    migrated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_database() {
        for url in
            ["mysql://u:p@localhost:3307/orders", "mariadb://localhost/orders", "mysql://u@localhost/orders?charset=latin1"]
        {
            let options = options_of(url).unwrap();
            assert_eq!((options.get_database(), options.get_charset()), (Some("orders"), "utf8mb4"), "{url}");
        }
    }

    #[test]
    fn urls_of_anything_else_are_refused_and_not_repeated() {
        for url in [
            "",
            "postgres://u:secret@localhost/orders",
            "mysql://u:secret@localhost",
            "mysql://u:secret@localhost/",
            "mysql://u:secret@local host/orders",
            "mysql://u:secret@localhost/orders?ssl-mode=secret",
            "mysql://u@localhost/orders?pasword=secret",
        ] {
            let problem = options_of(url).expect_err(url);
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}

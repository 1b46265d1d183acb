//! What all PostgreSQL databases have in common: how a URL names them, how their clock is read, how migrations run on them.

use std::str::FromStr;

use sqlx::{
    PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};

/// The clock of a PostgreSQL database at a statement (not at its transaction's start), as an SQL expression: microseconds. A
/// literal, so that `concat!` can put it into a statement.
#[macro_export]
macro_rules! postgres_now {
    () => {
        "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
    };
}

/// The parameters of a URL that the driver knows.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

const UNKNOWN_PARAMETER: &str = "has an unknown parameter; known are sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, \
     dbname, user, password, application_name, statement-cache-capacity";

/// Where the database is that a `postgres:` or `postgresql:` URL names.
///
/// # Errors
/// What is wrong with the URL. Nothing of the URL is repeated, since it may have a password in it.
pub fn options_of(url: &str) -> Result<PgConnectOptions, &'static str> {
    if !url.starts_with("postgres:") && !url.starts_with("postgresql:") {
        return Err("must begin with `postgres:` (`postgres://user:password@host:5432/name`)");
    }
    crate::unknown_parameter(url, &PARAMETERS, UNKNOWN_PARAMETER)?;
    let options =
        PgConnectOptions::from_str(url).map_err(|_| "is no valid `postgres:` URL, or has a parameter out of its range")?;
    match options.get_database() {
        None | Some("") => Err("must name a database (`postgres://user:password@host:5432/name`)"),
        Some(_) => Ok(options),
    }
}

/// Applies migrations, one process at a time. Lifts the connection's time limits, and does not restore them: close it.
///
/// # Errors
/// The database failed, or has other migrations than these.
pub async fn migrate(conn: &mut PgConnection, migrator: &Migrator) -> Result<(), MigrateError> {
    // One who starts at the same time waits for the lock as long as the other's migrations take.
    sqlx::raw_sql("SET lock_timeout = 0; SET statement_timeout = 0").execute(&mut *conn).await?;
    // `run` takes no plain connection inside of a future that moves between threads.
    migrator.run_direct(None, conn, false).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_database() {
        for url in ["postgres://u:p@localhost:5433/orders", "postgresql://localhost/orders", "postgres:///orders?host=/run/pg"]
        {
            let options = options_of(url).unwrap();
            assert_eq!(options.get_database(), Some("orders"), "{url}");
        }
    }

    #[test]
    fn urls_of_anything_else_are_refused_and_not_repeated() {
        for url in [
            "",
            "mysql://u:secret@localhost/orders",
            "postgres://u:secret@localhost",
            "postgres://u:secret@localhost/",
            "postgres://u:secret@local host/orders",
            "postgres://u:secret@localhost/orders?sslmode=secret",
            "postgres://u@localhost/orders?pasword=secret",
        ] {
            let problem = options_of(url).expect_err(url);
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}

//! The log on PostgreSQL, shared by several gateways. Times are by the database's clock.

mod apply;
mod load;
mod open;
mod read;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions, raw_sql};
use tcc_database::postgres_now;
use tcc_types::Timestamp;

pub(crate) use self::open::open;
use crate::{
    clock::ServerClock,
    fault::{Fault, Meaning, damaged},
    rows,
    writer::{Backend, plan::Run},
};

/// How PostgreSQL is written to.
pub(crate) struct Postgres {
    connect: PgConnectOptions,
    /// What each session sets first.
    session: String,
    clock: Arc<ServerClock>,
    connect_timeout: Duration,
    write_timeout: Duration,
}

/// One round trip, in which the clock is read where the transaction begins.
const BEGIN: &str = concat!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT ", postgres_now!());

impl Postgres {
    /// Runs a text that reads the clock.
    async fn read_clock(&self, connection: &mut PgConnection, text: &'static str) -> Result<Timestamp, sqlx::Error> {
        let sent = Instant::now();
        let rows = raw_sql(text).fetch_all(connection).await?;
        let received = Instant::now();
        let server = match rows.last().map(|row| rows::instant(row, 0)) {
            Some(Ok(server)) => server,
            Some(Err(Fault::Sql(error))) => return Err(error),
            Some(Err(Fault::Overtaken(_) | Fault::Other(_))) | None => {
                return Err(sqlx::Error::Decode(damaged("clock").into()));
            }
        };
        Ok(self.clock.compare(sent, received, server))
    }
}

#[async_trait]
impl Backend for Postgres {
    type Connection = PgConnection;

    fn write_timeout(&self) -> Option<Duration> {
        Some(self.write_timeout)
    }

    async fn connect(&mut self) -> Result<PgConnection, sqlx::Error> {
        let opening = async {
            let mut connection = self.connect.connect().await?;
            raw_sql(AssertSqlSafe(self.session.clone())).execute(&mut connection).await?;
            Ok(connection)
        };
        match tokio::time::timeout(self.connect_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no connection within `connect_timeout_ms`",
            ))),
        }
    }

    async fn begin(&mut self, connection: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
        self.read_clock(connection, BEGIN).await
    }

    async fn apply(&mut self, connection: &mut PgConnection, run: &mut Run, now: Timestamp) -> Result<(), Fault> {
        apply::apply(connection, run, now).await
    }

    /// As a text, so that whatever stands between can see it.
    async fn commit(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        raw_sql("COMMIT").execute(connection).await.map(drop)
    }

    async fn roll_back(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        raw_sql("ROLLBACK").execute(connection).await.map(drop)
    }

    async fn disconnect(&mut self, connection: PgConnection) -> Result<(), sqlx::Error> {
        connection.close().await
    }

    fn meaning_of(error: &sqlx::Error) -> Meaning {
        meaning_of(error)
    }
}

fn meaning_of(error: &sqlx::Error) -> Meaning {
    Meaning::of_driver(error).unwrap_or_else(|| {
        let code = error.as_database_error().and_then(|error| error.code());
        meaning_of_code(code.as_deref().unwrap_or_default())
    })
}

/// By SQLSTATE.
fn meaning_of_code(code: &str) -> Meaning {
    match code {
        // Serialization failure, deadlock, `lock_timeout`.
        "40001" | "40P01" | "55P03" => Meaning::Again,
        // Read-only: the server has become a standby. Statements that a proxy or a failover took away from this connection.
        "25006" | "26000" | "0A000" => Meaning::Down,
        _ => match code.get(..2).unwrap_or_default() {
            // A value, a constraint.
            "22" | "23" => Meaning::Unusable,
            // Connections, who may connect and to what, a broken transaction, resources (a full disk, too many connections),
            // an operator (shutdown, crash, start), the system (its files).
            "08" | "28" | "3D" | "25" | "53" | "57" | "58" => Meaning::Down,
            _ => Meaning::Unavailable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_what_may_pass() {
        for (codes, meaning) in [
            (&["40001", "40P01", "55P03"][..], Meaning::Again),
            (&["08006", "57P01", "57P02", "57P03", "53100", "53300", "25006", "58030"], Meaning::Down),
            (&["23505", "23514", "22021"], Meaning::Unusable),
            (&["XX000", "42P01", ""], Meaning::Unavailable),
        ] {
            for code in codes {
                assert_eq!(meaning_of_code(code), meaning, "{code}");
            }
        }
    }
}

//! The log on MySQL and MariaDB (InnoDB), shared by several gateways, in SQL that both accept. Times are by the database's clock.
//!
//! Writers are READ COMMITTED: a statement sees what was committed before it, and what it changes it changes as it stands.

mod apply;
mod load;
mod open;
mod read;
mod values;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlDatabaseError},
    raw_sql,
};
use tcc_database::mysql_now;
use tcc_types::Timestamp;

pub(crate) use self::open::open;
use self::values::Marks;
use crate::{
    clock::ServerClock,
    fault::{Fault, Meaning, damaged},
    rows,
    writer::{Backend, plan::Run},
};

/// How MySQL is written to.
pub(crate) struct Mysql {
    connect: MySqlConnectOptions,
    /// What each session sets first.
    session: String,
    clock: Arc<ServerClock>,
    marks: Marks,
    connect_timeout: Duration,
    write_timeout: Duration,
}

/// One round trip, in which the clock is read where the transaction begins.
const BEGIN: &str = concat!("START TRANSACTION; SELECT ", mysql_now!());

/// After how long the server closes a connection that is idle: the only way in which it gets rid of the locks of a process that is
/// gone without a word.
const SERVER_KEEPS_IDLE_SECONDS: u64 = 60;

impl Mysql {
    /// Runs a text that reads the clock last.
    async fn read_clock(&self, connection: &mut MySqlConnection, text: &'static str) -> Result<Timestamp, sqlx::Error> {
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
impl Backend for Mysql {
    type Connection = MySqlConnection;

    fn write_timeout(&self) -> Option<Duration> {
        Some(self.write_timeout)
    }

    async fn connect(&mut self) -> Result<MySqlConnection, sqlx::Error> {
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

    async fn begin(&mut self, connection: &mut MySqlConnection) -> Result<Timestamp, sqlx::Error> {
        self.read_clock(connection, BEGIN).await
    }

    async fn apply(&mut self, connection: &mut MySqlConnection, run: &mut Run, now: Timestamp) -> Result<(), Fault> {
        apply::apply(connection, run, now, &mut self.marks).await
    }

    /// As a text, so that whatever stands between can see it.
    async fn commit(&mut self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        raw_sql("COMMIT").execute(connection).await.map(drop)
    }

    async fn roll_back(&mut self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        raw_sql("ROLLBACK").execute(connection).await.map(drop)
    }

    async fn disconnect(&mut self, connection: MySqlConnection) -> Result<(), sqlx::Error> {
        connection.close().await
    }

    fn meaning_of(error: &sqlx::Error) -> Meaning {
        meaning_of(error)
    }
}

fn meaning_of(error: &sqlx::Error) -> Meaning {
    Meaning::of_driver(error).unwrap_or_else(|| {
        let number = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
            .map(MySqlDatabaseError::number);
        meaning_of_number(number.unwrap_or_default())
    })
}

/// By the server's error number. Those that only one of MySQL and MariaDB has mean nothing else in the other.
fn meaning_of_number(number: u16) -> Meaning {
    match number {
        // A deadlock, also as the answer to a commit in a cluster; a lock that was waited for too long. The second may have
        // undone its statement only: the writer rolls back the rest.
        1213 | 1205 => Meaning::Again,
        // What is there already, may not be NULL, is too long, out of range, of a wrong kind, refused by a constraint or a
        // trigger; a text that is no JSON; a packet that is too large.
        1062 | 1048 | 1364 | 1406 | 1264 | 1265 | 1292 | 1366 | 1451 | 1452 | 3819 | 4025 | 1644 | 3140 | 3141 | 4038
        | 1153 => Meaning::Unusable,
        // Read-only. Too many connections, in all or of one user. Shutting down, killed, idle for too long. Refused. No such
        // database. A statement that took too long. The network. The disk is full, or fails. Prepared statements that are gone.
        1290
        | 1792
        | 1836
        | 1040
        | 1203
        | 1226
        | 1053
        | 1077
        | 1079
        | 1927
        | 4031
        | 1044
        | 1045
        | 1049
        | 1129
        | 1130
        | 1969
        | 3024
        | 1042
        | 1043
        | 1080
        | 1152
        | 1158..=1161
        | 1184
        | 1021
        | 1026
        | 1030
        | 1114
        | 3
        | 14
        | 28
        | 1243
        | 1461 => Meaning::Down,
        _ => Meaning::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use tcc_servers::{Kind, shared};

    use super::*;
    use crate::{LogOptions, log::Opened};

    #[tokio::test]
    async fn a_session_does_not_depend_on_the_servers_defaults() {
        let options = LogOptions { database_url: shared(Kind::Mysql).create_database(), ..LogOptions::default() };
        let connect = tcc_database::mysql::options_of(&options.database_url).unwrap();
        let Opened { mut backend, connection, .. } = open(&options, connect).await.unwrap();
        let mut connection = connection.unwrap();
        let mut again = backend.connect().await.unwrap();
        for connection in [&mut connection, &mut again] {
            let text = "SELECT CONCAT_WS(' ', @@tx_isolation, @@time_zone, @@innodb_lock_wait_timeout, @@lock_wait_timeout, \
                        @@wait_timeout, @@max_statement_time, @@idle_transaction_timeout, @@autocommit = 1)";
            let set: String = sqlx::query_scalar(text).fetch_one(connection).await.unwrap();
            assert_eq!(set, "READ-COMMITTED +00:00 1 1 60 5.000000 10 1");
        }
    }

    #[test]
    fn numbers_tell_what_may_pass() {
        for (numbers, meaning) in [
            (&[1213, 1205][..], Meaning::Again),
            (&[1290, 1836, 1040, 1203, 1226, 1053, 1021, 1114, 1969, 28], Meaning::Down),
            (&[1062, 1048, 1406, 3819, 4025, 1452, 1644], Meaning::Unusable),
            (&[1180, 1317, 1146, 0], Meaning::Unavailable),
        ] {
            for number in numbers {
                assert_eq!(meaning_of_number(*number), meaning, "{number}");
            }
        }
    }
}

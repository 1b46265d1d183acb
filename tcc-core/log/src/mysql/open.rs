//! Opening: the tables, whose log it is, whether its commits are durable, then the connections.

use std::{sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, MySqlConnection, MySqlPool,
    migrate::MigrateError,
    mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlRow},
    query, query_scalar, raw_sql,
};
use tcc_database::{lease, mysql_now};
use tcc_types::SystemEntropy;

use super::{Mysql, SERVER_KEEPS_IDLE_SECONDS, meaning_of, read::Readers, values::Marks};
use crate::{
    Error, LogOptions,
    clock::ServerClock,
    fault::Fault,
    log::Opened,
    readers::{Connections, listing_max},
    rows::Columns,
    writer::Backend,
};

const DAY_SECONDS: u64 = 86_400;

/// Connects, and makes the tables or brings them up to date. Several may do so at once.
pub(crate) async fn open(options: &LogOptions, connect: MySqlConnectOptions) -> Result<Opened<Mysql>, Error> {
    let clock = Arc::new(ServerClock::new());
    let write_timeout = Duration::from_millis(options.write_timeout_ms);
    let reads = Readers(Connections::new(readers(options, &connect), options));
    let another = || Mysql {
        connect: connect.clone(),
        session: session(options),
        clock: Arc::clone(&clock),
        marks: Marks::new(&SystemEntropy),
        connect_timeout: Duration::from_millis(options.connect_timeout_ms),
        write_timeout,
    };
    let mut backend = another();
    migrate(backend.connect().await.map_err(plain)?).await?;
    let mut connection = backend.connect().await.map_err(plain)?;
    Settings::read(&mut connection).await?.check()?;
    identify(&mut connection, options).await?;
    // From here on `now` means something.
    backend.read_clock(&mut connection, concat!("SELECT ", mysql_now!())).await.map_err(plain)?;
    tracing::info!(database = tcc_database::without_secrets(&options.database_url), name = %options.name, "the transaction log is open");
    let more = (1..options.batches_in_flight_max).map(|_| another()).collect();
    Ok(Opened { backend, connection: Some(connection), more, reads: Arc::new(reads), clock, shared: true })
}

/// What the writer's session sets, whatever the server's defaults are. What only MariaDB has stands in a comment that it alone
/// reads: limits for a statement, and for a transaction whose process is gone without its connection being closed.
fn session(options: &LogOptions) -> String {
    let lock_wait_seconds = options.lock_wait_ms.div_ceil(1_000).min(DAY_SECONDS);
    let write_seconds = options.write_timeout_ms.div_ceil(1_000).min(DAY_SECONDS);
    // Longer than a transaction may be silent: while its writer waits for nothing but itself.
    let idle_seconds = SERVER_KEEPS_IDLE_SECONDS.max(2 * write_seconds);
    format!(
        "{}; SET SESSION innodb_lock_wait_timeout = {lock_wait_seconds}, SESSION lock_wait_timeout = {lock_wait_seconds}, \
         SESSION wait_timeout = {idle_seconds} \
         /*M! , SESSION max_statement_time = {write_seconds}, SESSION idle_transaction_timeout = {} */",
        tcc_database::mysql::SESSION,
        2 * write_seconds
    )
}

/// A reader that wrote would escape the writer's batches. Reads of several statements see one state, the others need none.
fn readers(options: &LogOptions, connect: &MySqlConnectOptions) -> MySqlPool {
    // Whoever reads gives up at his own limit; this ends what the server is still doing then.
    let limit_seconds = listing_max(options).as_secs().saturating_add(1).min(DAY_SECONDS);
    let session = format!(
        "{}; SET SESSION lock_wait_timeout = {limit_seconds} /*M! , SESSION max_statement_time = {limit_seconds} */; \
         SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        tcc_database::mysql::SESSION
    );
    lease::tested(MySqlPoolOptions::new())
        .max_connections(options.read_connections_max)
        .acquire_timeout(Duration::from_millis(options.connect_timeout_ms))
        .after_connect(move |connection, _| {
            let session = AssertSqlSafe(session.clone());
            Box::pin(async move { raw_sql(session).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(connect.clone())
}

async fn migrate(mut connection: MySqlConnection) -> Result<(), Error> {
    let migrated = tcc_database::mysql::migrate(&mut connection, tcc_migrations::log::mysql()).await;
    migrated.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => not_migrated(error),
        error => Error::Unusable(format!("the migrations failed: {error}")),
    })?;
    // Its limits were lifted.
    connection.close().await.map_err(plain)
}

fn not_migrated(error: sqlx::Error) -> Error {
    // By default nobody but an administrator may make triggers while there is a binary log.
    const NO_TRIGGERS: &str = "1419";
    let text = error.to_string();
    if text.contains(NO_TRIGGERS) {
        let advice = "set `log_bin_trust_function_creators = 1` until this log was opened once";
        return Error::Unusable(format!("the migrations failed: {text}: {advice}"));
    }
    plain(error)
}

fn plain(error: sqlx::Error) -> Error {
    Fault::Sql(error).into_error(meaning_of)
}

/// Writes or checks whose log this is: participants would not find their transactions under another name.
async fn identify(connection: &mut MySqlConnection, options: &LogOptions) -> Result<(), Error> {
    query("INSERT INTO tcc_log_identity (only_row, name) VALUES (1, ?) ON DUPLICATE KEY UPDATE only_row = 1")
        .bind(options.name.as_str())
        .execute(&mut *connection)
        .await
        .map_err(plain)?;
    let stored: String = query_scalar("SELECT name FROM tcc_log_identity").fetch_one(connection).await.map_err(plain)?;
    options.check_name(&stored)
}

/// The server's settings that decide what a commit is worth.
#[derive(Debug, Default)]
struct Settings {
    values: Vec<(String, String)>,
}

impl Settings {
    async fn read(connection: &mut MySqlConnection) -> Result<Self, Error> {
        let text = "SHOW SESSION VARIABLES WHERE Variable_name IN \
                    ('innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', 'sync_binlog', 'binlog_format')";
        let rows = raw_sql(text).fetch_all(connection).await.map_err(plain)?;
        let pair = |row: &MySqlRow| Ok((row.text(0)?.to_ascii_lowercase(), row.text(1)?.to_ascii_lowercase()));
        Ok(Self { values: rows.iter().map(pair).collect::<Result<_, sqlx::Error>>().map_err(plain)? })
    }

    /// Whether it has another value than this. What a server does not have it need not have.
    fn differs(&self, name: &str, wanted: &str) -> bool {
        self.values.iter().any(|(known, value)| known == name && value != wanted)
    }

    fn has_binlog(&self) -> bool {
        !self.differs("log_bin", "on") && self.values.iter().any(|(name, _)| name == "log_bin")
    }

    /// Which settings let a commit be lost that was answered.
    fn careless(&self) -> Vec<&'static str> {
        let mut careless = Vec::new();
        if self.differs("innodb_flush_log_at_trx_commit", "1") {
            careless.push("innodb_flush_log_at_trx_commit is not 1: a crash loses transactions that were acknowledged");
        }
        if self.differs("innodb_doublewrite", "on") && self.differs("innodb_doublewrite", "1") {
            careless.push("innodb_doublewrite is not ON: a crash can leave torn pages");
        }
        if self.has_binlog() && self.differs("sync_binlog", "1") {
            careless.push("sync_binlog is not 1: after a crash the binary log, and its replicas, may lack transactions");
        }
        careless
    }

    fn check(&self) -> Result<(), Error> {
        for problem in self.careless() {
            tracing::warn!(problem, "the transaction log's database does not keep what it commits");
        }
        if self.has_binlog() && !self.differs("binlog_format", "statement") {
            let problem = "the database's binlog_format is STATEMENT, which cannot log what is written under READ COMMITTED: \
                           set it to ROW";
            return Err(Error::Unusable(problem.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(values: &[(&str, &str)]) -> Settings {
        Settings { values: values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect() }
    }

    #[test]
    fn each_setting_that_loses_commits_is_told() {
        let sound = [
            ("innodb_flush_log_at_trx_commit", "1"),
            ("innodb_doublewrite", "on"),
            ("log_bin", "on"),
            ("sync_binlog", "1"),
            ("binlog_format", "row"),
        ];
        assert!(settings(&sound).careless().is_empty() && settings(&sound).check().is_ok());
        for (index, value) in [(0, "2"), (0, "0"), (1, "off"), (3, "0"), (3, "1000")] {
            let mut one = sound;
            one[index].1 = value;
            assert_eq!(settings(&one).careless().len(), 1, "{one:?}");
        }
    }

    #[test]
    fn a_binary_log_matters_only_where_there_is_one() {
        let off = [("log_bin", "off"), ("sync_binlog", "0"), ("binlog_format", "statement")];
        assert!(settings(&off).careless().is_empty() && settings(&off).check().is_ok());
        assert!(settings(&[]).careless().is_empty() && settings(&[]).check().is_ok());
        let statement = [("log_bin", "on"), ("sync_binlog", "1"), ("binlog_format", "statement")];
        assert!(settings(&statement).check().is_err());
    }
}

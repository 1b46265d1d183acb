//! Opening: the tables, whose log it is, then the connections.

use std::{fmt::Write, sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
    query, query_scalar, raw_sql,
};
use tcc_database::{lease, postgres_now};

use super::{Postgres, meaning_of, read::Readers};
use crate::{
    Error, LogOptions,
    clock::ServerClock,
    fault::Fault,
    log::Opened,
    readers::{Connections, listing_max},
    writer::Backend,
};

/// Connects, and makes the tables or brings them up to date. Several may do so at once.
pub(crate) async fn open(options: &LogOptions, connect: PgConnectOptions) -> Result<Opened<Postgres>, Error> {
    let clock = Arc::new(ServerClock::new());
    let write_timeout = Duration::from_millis(options.write_timeout_ms);
    let reads = Readers(Connections::new(readers(options, &connect), options));
    let another = || Postgres {
        connect: connect.clone(),
        session: session(options),
        clock: Arc::clone(&clock),
        connect_timeout: Duration::from_millis(options.connect_timeout_ms),
        write_timeout,
    };
    let mut backend = another();
    migrate(backend.connect().await.map_err(plain)?).await?;
    let mut connection = backend.connect().await.map_err(plain)?;
    identify(&mut connection, options).await?;
    // From here on `now` means something.
    backend.read_clock(&mut connection, concat!("SELECT ", postgres_now!())).await.map_err(plain)?;
    tracing::info!(database = tcc_database::without_secrets(&options.database_url), name = %options.name, "the transaction log is open");
    let more = (1..options.batches_in_flight_max).map(|_| another()).collect();
    Ok(Opened { backend, connection: Some(connection), more, reads: Arc::new(reads), clock, shared: true })
}

/// What the writer's session sets, whatever the server's defaults are. The planner knows nothing of fresh tables and of the
/// lists that statements join: each row is to be looked up by its key.
pub(super) fn session(options: &LogOptions) -> String {
    let mut text = "SET default_transaction_isolation = 'read committed'; SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
                    SET plan_cache_mode = force_generic_plan; \
                    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
        .to_owned();
    for (name, limit_ms) in [
        ("lock_timeout", options.lock_wait_ms),
        ("statement_timeout", options.write_timeout_ms),
        ("idle_in_transaction_session_timeout", options.write_timeout_ms),
    ] {
        // The largest that the server takes. Writing to a string does not fail.
        let _ = write!(text, "SET {name} = {};", limit_ms.min(i32::MAX as u64));
    }
    text
}

fn readers(options: &LogOptions, connect: &PgConnectOptions) -> PgPool {
    // Whoever reads gives up at his own limit; this ends what the server is still doing then.
    let limit_ms = listing_max(options).as_millis().min(i32::MAX as u128);
    // A reader that wrote would escape the writer's batches.
    let session = format!("SET jit = off; SET default_transaction_read_only = on; SET statement_timeout = {limit_ms}");
    lease::tested(PgPoolOptions::new())
        .max_connections(options.read_connections_max)
        .acquire_timeout(Duration::from_millis(options.connect_timeout_ms))
        .after_connect(move |connection, _| {
            let session = AssertSqlSafe(session.clone());
            Box::pin(async move { raw_sql(session).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(connect.clone())
}

async fn migrate(mut connection: PgConnection) -> Result<(), Error> {
    let migrated = tcc_database::postgres::migrate(&mut connection, &tcc_migrations::log::postgres()).await;
    migrated.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => plain(error),
        error => Error::Unusable(format!("the migrations failed: {error}")),
    })?;
    // Its limits were lifted.
    connection.close().await.map_err(plain)
}

fn plain(error: sqlx::Error) -> Error {
    Fault::Sql(error).into_error(meaning_of)
}

/// Writes or checks whose log this is: participants would not find their transactions under another name.
async fn identify(connection: &mut PgConnection, options: &LogOptions) -> Result<(), Error> {
    query("INSERT INTO tcc_log_identity (only_row, name) VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(options.name.as_str())
        .execute(&mut *connection)
        .await
        .map_err(plain)?;
    let stored: String = query_scalar("SELECT name FROM tcc_log_identity").fetch_one(connection).await.map_err(plain)?;
    options.check_name(&stored)
}

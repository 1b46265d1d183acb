//! Talking to a server from anywhere: each call runs on a thread and a runtime of its own, so that it neither needs the caller's
//! runtime nor minds it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

use super::Kind;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Connects and runs one statement.
pub(crate) fn execute(kind: Kind, url: &str, sql: &str) -> anyhow::Result<()> {
    blocking(async {
        match kind {
            Kind::Postgres => {
                let mut connection = PgConnection::connect(url).await?;
                connection.execute(AssertSqlSafe(sql)).await?;
                connection.close().await
            }
            Kind::Mysql => {
                let mut connection = MySqlConnection::connect(url).await?;
                connection.execute(AssertSqlSafe(sql)).await?;
                connection.close().await
            }
        }
    })?
    .with_context(|| format!("the private server of {kind}"))
}

/// Waits until the server answers a query.
pub(crate) fn await_ready(
    kind: Kind,
    url: &str,
    within: Duration,
    mut is_alive: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let give_up = Instant::now() + within;
    loop {
        let Err(error) = execute(kind, url, "SELECT 1") else { return Ok(()) };
        if !is_alive()? {
            bail!("the private server of {kind} ended before it answered");
        }
        if Instant::now() >= give_up {
            return Err(error).with_context(|| format!("no answer after {within:?}"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> anyhow::Result<T> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        anyhow::Ok(runtime.block_on(work))
    };
    std::thread::scope(|scope| scope.spawn(run).join()).map_err(|_| anyhow::anyhow!("a thread of tcc-servers panicked"))?
}

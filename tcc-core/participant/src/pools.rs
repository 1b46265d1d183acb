//! How connections to a database server are pooled: what PostgreSQL and MySQL have in common.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, pool::PoolOptions};

use crate::Options;

/// A connection that was used less long ago is taken to be alive: testing it would cost a round trip in each operation.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A pool whose connections are each set up by `session`, which is SQL of ours.
pub(crate) fn server_pool<D: sqlx::Database>(options: &Options, session: String) -> PoolOptions<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    PoolOptions::new()
        .acquire_timeout(options.connection_wait_max())
        .test_before_acquire(false)
        .before_acquire(|conn: &mut D::Connection, of| {
            let idle_for = of.idle_for;
            Box::pin(async move {
                if idle_for > TRUSTED_FOR {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |conn, _| {
            let session = AssertSqlSafe(session.clone());
            Box::pin(async move { sqlx::raw_sql(session).execute(conn).await.map(drop) })
        })
}

//! How connections to a database server are pooled: what PostgreSQL and MySQL have in common.

use sqlx::{AssertSqlSafe, Executor, pool::PoolOptions};
use tcc_database::lease;

use crate::Options;

/// A pool whose connections are each set up by `session`, which is SQL of ours.
pub(crate) fn server_pool<D: sqlx::Database>(options: &Options, session: String) -> PoolOptions<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    lease::tested(PoolOptions::new()).acquire_timeout(options.connection_wait_max()).after_connect(move |conn, _| {
        let session = AssertSqlSafe(session.clone());
        Box::pin(async move { sqlx::raw_sql(session).execute(conn).await.map(drop) })
    })
}

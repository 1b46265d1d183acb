//! Issues coupons by the hundred thousand, straight into their table: over gRPC it would take longer than any run.

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, SqliteConnection};
use tcc_types::{Clock, SystemClock};

use super::orders::coupon;
use crate::harness::{Cluster, Owner, Store};

const ROWS_PER_STATEMENT: u64 = 1_000;
const LIFE: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// Issues the coupons of the first so many orders.
pub(crate) async fn issue(cluster: &Cluster, number: u32) -> anyhow::Result<()> {
    issue_at(cluster.databases().store(), cluster.database_url(Owner::Coupon), number).await
}

/// As [`issue`], in this database.
pub(crate) async fn issue_at(store: Store, url: &str, number: u32) -> anyhow::Result<()> {
    let issued = match store {
        Store::Sqlite => run(SqliteConnection::connect(url).await?, number).await,
        Store::Postgres => run(PgConnection::connect(url).await?, number).await,
        Store::Mysql => run(MySqlConnection::connect(url).await?, number).await,
    };
    issued.context("coupons cannot be issued")
}

async fn run<C>(mut connection: C, number: u32) -> sqlx::Result<()>
where
    C: Connection,
    for<'c> &'c mut C: Executor<'c, Database = C::Database>,
{
    let expires_at = SystemClock.now().plus(LIFE).as_micros();
    let number = u64::from(number);
    for first in (0..number).step_by(ROWS_PER_STATEMENT as usize) {
        let rows: Vec<String> = (first..number.min(first + ROWS_PER_STATEMENT))
            .map(|number| {
                let (coupon, user) = coupon(number);
                format!("('{coupon}', '{user}', 500, {expires_at}, 1)")
            })
            .collect();
        let sql =
            format!("INSERT INTO coupons (coupon_id, user_id, discount_minor, expires_at, state) VALUES {}", rows.join(", "));
        connection.execute(AssertSqlSafe(sql)).await?;
    }
    connection.close().await
}

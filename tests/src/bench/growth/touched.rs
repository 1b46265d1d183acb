//! How many rows and pages the databases touched, by their own count. SQLite counts neither: there the calls of its functions are
//! counted together with the instructions.

use sqlx::{Connection, MySqlConnection, PgConnection, Row};

use super::{
    cost::{ByRelation, Touched},
    database::alone_on_postgres,
};
use crate::harness::{Cluster, Owner, Store};

const OWNERS: [Owner; 3] = [Owner::Log, Owner::Orders, Owner::Inventory];

const OF_POSTGRES: &str = "SELECT s.relname::text, \
     (coalesce(s.seq_tup_read, 0) + coalesce(s.idx_tup_fetch, 0) + s.n_tup_ins + s.n_tup_upd + s.n_tup_del)::bigint, \
     (i.heap_blks_read + i.heap_blks_hit + coalesce(i.toast_blks_read, 0) + coalesce(i.toast_blks_hit, 0))::bigint \
     FROM pg_stat_user_tables AS s JOIN pg_statio_user_tables AS i USING (relid) \
     UNION ALL SELECT s.indexrelname::text, s.idx_tup_read::bigint, (i.idx_blks_read + i.idx_blks_hit)::bigint \
     FROM pg_stat_user_indexes AS s JOIN pg_statio_user_indexes AS i USING (indexrelid)";

const OF_MYSQL: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Handler_read_first', 'Handler_read_key', 'Handler_read_last', \
     'Handler_read_next', 'Handler_read_prev', 'Handler_read_rnd', 'Handler_read_rnd_next', 'Handler_write', 'Handler_update', \
     'Handler_delete', 'Innodb_buffer_pool_read_requests')";

/// Counts from an arbitrary beginning, of all databases, when every process has ended. SQLite counts nothing.
///
/// # Errors
/// A database cannot be asked.
pub(crate) async fn read(cluster: &Cluster) -> anyhow::Result<ByRelation> {
    let mut counts = ByRelation::new();
    match cluster.databases().store() {
        Store::Sqlite => {}
        Store::Postgres => {
            alone_on_postgres(cluster.database_url(Owner::Log)).await?;
            for owner in OWNERS {
                let mut server = PgConnection::connect(cluster.database_url(owner)).await?;
                for row in sqlx::query(OF_POSTGRES).fetch_all(&mut server).await? {
                    let (rows, pages): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
                    let name = format!("{}.{}", owner.name(), row.try_get::<String, _>(0)?);
                    counts.insert(name, Touched { rows: rows as f64, pages: pages as f64 });
                }
                server.close().await?;
            }
        }
        Store::Mysql => {
            let mut server = MySqlConnection::connect(cluster.database_url(Owner::Log)).await?;
            for row in sqlx::query(OF_MYSQL).fetch_all(&mut server).await? {
                let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                let value: f64 = value.parse()?;
                let touched = if name.starts_with("Handler") {
                    Touched { rows: value, pages: 0.0 }
                } else {
                    Touched { rows: 0.0, pages: value }
                };
                counts.insert(name, touched);
            }
            server.close().await?;
        }
    }
    Ok(counts)
}

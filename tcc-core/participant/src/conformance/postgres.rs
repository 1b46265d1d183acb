//! The test participant's tables on PostgreSQL.

use sqlx::{PgConnection, Postgres};
use tcc_types::{BranchKey, Op, Timestamp};

use super::{BenchDatabase, Books, Effects};
use crate::Store;

impl BenchDatabase for Postgres {
    async fn create_bench(store: &Store<Self>, initial: i64) -> Result<(), sqlx::Error> {
        const STOCK: &str = "CREATE TABLE bench_stock (id BIGINT PRIMARY KEY, initial BIGINT NOT NULL, \
             available BIGINT NOT NULL, frozen BIGINT NOT NULL, sold BIGINT NOT NULL)";
        const LEDGER: &str = "CREATE TABLE bench_ledger (gid TEXT COLLATE \"C\" NOT NULL, \
             branch_id TEXT COLLATE \"C\" NOT NULL, op TEXT NOT NULL, pieces BIGINT NOT NULL)";
        const INDEX: &str = "CREATE INDEX bench_ledger_branch ON bench_ledger (gid, branch_id)";
        let mut transaction = store.begin().await?;
        for sql in [STOCK, LEDGER, INDEX] {
            sqlx::query(sql).execute(&mut *transaction).await?;
        }
        sqlx::query("INSERT INTO bench_stock VALUES (1, $1, $1, 0, 0)").bind(initial).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    async fn freeze(conn: &mut PgConnection, pieces: i64) -> Result<bool, sqlx::Error> {
        const SQL: &str = "UPDATE bench_stock SET available = available - $1, frozen = frozen + $1 \
             WHERE id = 1 AND available >= $1";
        Ok(sqlx::query(SQL).bind(pieces).execute(conn).await?.rows_affected() == 1)
    }

    async fn spend(conn: &mut PgConnection, pieces: i64) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE bench_stock SET frozen = frozen - $1, sold = sold + $1 WHERE id = 1";
        sqlx::query(SQL).bind(pieces).execute(conn).await.map(drop)
    }

    async fn release(conn: &mut PgConnection, pieces: i64) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE bench_stock SET frozen = frozen - $1, available = available + $1 WHERE id = 1";
        sqlx::query(SQL).bind(pieces).execute(conn).await.map(drop)
    }

    async fn record(conn: &mut PgConnection, key: &BranchKey, op: Op, pieces: i64) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO bench_ledger VALUES ($1, $2, $3, $4)")
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(format!("{op:?}"))
            .bind(pieces)
            .execute(conn)
            .await
            .map(drop)
    }

    async fn books(store: &Store<Self>) -> Result<Books, sqlx::Error> {
        const SQL: &str = "SELECT initial, available, frozen, sold, (SELECT COALESCE(SUM(pieces), 0)::bigint FROM tcc_branches \
             JOIN bench_ledger USING (gid, branch_id) WHERE status = 1 AND op = 'Try') FROM bench_stock";
        let (initial, available, frozen, sold, tried) = sqlx::query_as(SQL).fetch_one(store.read_pool()).await?;
        Ok(Books { initial, available, frozen, sold, tried })
    }

    async fn lose_transaction(conn: &mut PgConnection) {
        let _ = sqlx::raw_sql("SELECT 1 / 0").execute(conn).await;
    }

    async fn set_times(
        store: &Store<Self>,
        key: &BranchKey,
        not_after: Timestamp,
        changed_at: Timestamp,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE tcc_branches SET not_after = $3, changed_at = $4 WHERE gid = $1 AND branch_id = $2")
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(not_after.as_micros())
            .bind(changed_at.as_micros())
            .execute(store.write_pool())
            .await
            .map(drop)
    }

    async fn effects(store: &Store<Self>, key: &BranchKey) -> Result<Effects, sqlx::Error> {
        const SQL: &str = "SELECT COUNT(*) FILTER (WHERE op = 'Try'), COUNT(*) FILTER (WHERE op = 'Confirm'), \
             COUNT(*) FILTER (WHERE op = 'Cancel') FROM bench_ledger WHERE gid = $1 AND branch_id = $2";
        let (reserved, spent, released) =
            sqlx::query_as(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_one(store.read_pool()).await?;
        Ok(Effects { reserved, spent, released })
    }
}

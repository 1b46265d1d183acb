//! The test participant's tables on MySQL and MariaDB.

use sqlx::{MySql, MySqlConnection};
use tcc_types::{BranchKey, Op, Timestamp};

use super::{BenchDatabase, Books, Effects};
use crate::Store;

impl BenchDatabase for MySql {
    async fn create_bench(store: &Store<Self>, initial: i64) -> Result<(), sqlx::Error> {
        const STOCK: &str = "CREATE TABLE bench_stock (id BIGINT PRIMARY KEY, initial BIGINT NOT NULL, \
             available BIGINT NOT NULL, frozen BIGINT NOT NULL, sold BIGINT NOT NULL) ENGINE = InnoDB";
        const LEDGER: &str = "CREATE TABLE bench_ledger (id BIGINT PRIMARY KEY AUTO_INCREMENT, \
             gid VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
             branch_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, op VARCHAR(16) NOT NULL, \
             pieces BIGINT NOT NULL, KEY bench_ledger_branch (gid, branch_id)) ENGINE = InnoDB";
        for sql in [STOCK, LEDGER] {
            sqlx::query(sql).execute(store.write_pool()).await?;
        }
        let stock = sqlx::query("INSERT INTO bench_stock VALUES (1, ?, ?, 0, 0)").bind(initial).bind(initial);
        stock.execute(store.write_pool()).await.map(drop)
    }

    async fn freeze(conn: &mut MySqlConnection, pieces: i64) -> Result<bool, sqlx::Error> {
        const SQL: &str = "UPDATE bench_stock SET available = available - ?, frozen = frozen + ? \
             WHERE id = 1 AND available >= ?";
        Ok(sqlx::query(SQL).bind(pieces).bind(pieces).bind(pieces).execute(conn).await?.rows_affected() == 1)
    }

    async fn spend(conn: &mut MySqlConnection, pieces: i64) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE bench_stock SET frozen = frozen - ?, sold = sold + ? WHERE id = 1";
        sqlx::query(SQL).bind(pieces).bind(pieces).execute(conn).await.map(drop)
    }

    async fn release(conn: &mut MySqlConnection, pieces: i64) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE bench_stock SET frozen = frozen - ?, available = available + ? WHERE id = 1";
        sqlx::query(SQL).bind(pieces).bind(pieces).execute(conn).await.map(drop)
    }

    async fn record(conn: &mut MySqlConnection, key: &BranchKey, op: Op, pieces: i64) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO bench_ledger (gid, branch_id, op, pieces) VALUES (?, ?, ?, ?)")
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(format!("{op:?}"))
            .bind(pieces)
            .execute(conn)
            .await
            .map(drop)
    }

    async fn books(store: &Store<Self>) -> Result<Books, sqlx::Error> {
        // Not one plain statement: under load, MariaDB 10.11 was seen (once in tens of thousands of reads) to show the stock as
        // changed by a transaction whose inserted row it did not show. While the stock is locked, nobody who changed it is under
        // way, and who did not yet cannot commit.
        const LOCK: &str = "SELECT initial, available, frozen, sold FROM bench_stock WHERE id = 1 LOCK IN SHARE MODE";
        const TRIED: &str = "SELECT CAST(COALESCE(SUM(pieces), 0) AS SIGNED) FROM tcc_branches \
             JOIN bench_ledger USING (gid, branch_id) WHERE status = 1 AND op = 'Try'";
        let mut transaction = store.begin().await?;
        let (initial, available, frozen, sold) = sqlx::query_as(LOCK).fetch_one(&mut *transaction).await?;
        let tried = sqlx::query_scalar(TRIED).fetch_one(&mut *transaction).await?;
        transaction.rollback().await?;
        Ok(Books { initial, available, frozen, sold, tried })
    }

    async fn lose_transaction(conn: &mut MySqlConnection) {
        let _ = sqlx::raw_sql("ROLLBACK").execute(conn).await;
    }

    async fn set_times(
        store: &Store<Self>,
        key: &BranchKey,
        not_after: Timestamp,
        changed_at: Timestamp,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE tcc_branches SET not_after = ?, changed_at = ? WHERE gid = ? AND branch_id = ?")
            .bind(not_after.as_micros())
            .bind(changed_at.as_micros())
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .execute(store.write_pool())
            .await
            .map(drop)
    }

    async fn effects(store: &Store<Self>, key: &BranchKey) -> Result<Effects, sqlx::Error> {
        const SQL: &str = "SELECT COUNT(CASE WHEN op = 'Try' THEN 1 END), COUNT(CASE WHEN op = 'Confirm' THEN 1 END), \
             COUNT(CASE WHEN op = 'Cancel' THEN 1 END) FROM bench_ledger WHERE gid = ? AND branch_id = ?";
        let (reserved, spent, released) =
            sqlx::query_as(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_one(store.read_pool()).await?;
        Ok(Effects { reserved, spent, released })
    }
}

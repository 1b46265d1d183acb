//! The SDK on MySQL and MariaDB (InnoDB), in SQL that both accept. Each local transaction is READ COMMITTED: a statement sees what
//! was committed before it began. A write to a row that another transaction has written, and an insert of the same key, wait for
//! that transaction's end.
//!
//! `one` has the statements about one branch, `many` those about lists of them, which cost more where the list is short.

mod many;
mod one;

use bytes::Bytes;
use sqlx::{
    MySql, MySqlConnection, Pool,
    error::DatabaseError,
    migrate::{MigrateError, Migrator},
    mysql::{MySqlDatabaseError, MySqlRow},
    raw_sql,
};
use tcc_barrier::{Kept, Look};
use tcc_database::{lease::Place, mysql_now};
use tcc_types::{BranchKey, CancelCall, Decision, Gid, Invalid, Refusal, Timestamp, TryCall};

use crate::{
    BranchRow, Database, InDoubt, OldRow, OpenError, Options,
    pools::server_pool,
    rows::{branch_row, branch_row_of, columns, corrupt, in_doubt_of, old_row_of, undone, walk_from},
};

/// What an insert does where there is a row: it takes the row's exclusive lock (a plain insert would take a shared one, and two
/// of those deadlock), and changes what means nothing. So it counts two rows as affected, and one only where it inserted.
macro_rules! found {
    () => {
        "ON DUPLICATE KEY UPDATE found = 1 - tcc_branches.found"
    };
}
use found;

columns!(MySqlRow, i64);

/// From how many branches on a list is worth it: MariaDB takes a quarter of a millisecond for one, in which it does as much for a
/// few branches one by one.
const LIST_MIN: usize = 4;

impl Database for MySql {
    const PLACE: Place = Place::Server;

    // Its isolation is the session's.
    const BEGIN: &'static str = "BEGIN";

    async fn open(url: &str, options: &Options) -> Result<(Pool<Self>, Pool<Self>), OpenError> {
        let connect = tcc_database::mysql::options_of(url).map_err(|problem| Invalid::new("database_url", problem))?;
        let session = session(options);
        let write = server_pool(options, session.clone())
            .max_connections(options.write_connections_max)
            .connect_with(connect.clone())
            .await?;
        Self::migrate(&write, tcc_migrations::participant::mysql()).await?;
        let read = server_pool(options, session + "; SET SESSION TRANSACTION READ ONLY")
            .max_connections(options.read_connections_max)
            .connect_with(connect)
            .await?;
        Ok((write, read))
    }

    async fn migrate(write: &Pool<Self>, migrator: Migrator) -> Result<(), MigrateError> {
        let mut conn = write.acquire().await?;
        // It loses its time limits.
        conn.close_on_drop();
        tcc_database::mysql::migrate(&mut conn, migrator).await
    }

    fn is_retryable(error: &dyn DatabaseError) -> bool {
        const LOCK_WAIT_TIMEOUT: u16 = 1205;
        const DEADLOCK: u16 = 1213;
        // MySQL's; MariaDB says that a lock wait timed out.
        const LOCK_NOWAIT: u16 = 3572;
        matches!(error.try_downcast_ref().map(MySqlDatabaseError::number), Some(LOCK_WAIT_TIMEOUT | DEADLOCK | LOCK_NOWAIT))
    }

    const FORESEES: bool = true;

    async fn insert_tried(conn: &mut MySqlConnection, calls: &[&TryCall]) -> Result<Vec<bool>, sqlx::Error> {
        Self::insert_foreseen(conn, calls, &vec![None; calls.len()]).await
    }

    async fn insert_foreseen(
        conn: &mut MySqlConnection,
        calls: &[&TryCall],
        foreseen: &[Option<Kept<'_>>],
    ) -> Result<Vec<bool>, sqlx::Error> {
        if calls.len() >= LIST_MIN {
            return many::insert_tried(conn, calls, foreseen).await;
        }
        let mut inserted = Vec::with_capacity(calls.len());
        for (call, foreseen) in calls.iter().zip(foreseen) {
            inserted.push(one::insert_tried(conn, call, *foreseen).await?);
        }
        Ok(inserted)
    }

    async fn settle_tried(
        conn: &mut MySqlConnection,
        settles: &[(&BranchKey, Decision)],
    ) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
        if settles.len() >= LIST_MIN {
            return many::settle_tried(conn, settles).await;
        }
        let mut reserved = Vec::with_capacity(settles.len());
        for (key, decision) in settles {
            reserved.push(one::settle_tried(conn, key, *decision).await?);
        }
        Ok(reserved)
    }

    async fn insert_cancelled(conn: &mut MySqlConnection, calls: &[&CancelCall]) -> Result<Vec<bool>, sqlx::Error> {
        if calls.len() >= LIST_MIN {
            return many::insert_cancelled(conn, calls).await;
        }
        let mut inserted = Vec::with_capacity(calls.len());
        for call in calls {
            inserted.push(one::insert_cancelled(conn, call).await?);
        }
        Ok(inserted)
    }

    async fn look(conn: &mut MySqlConnection, keys: &[&BranchKey]) -> Result<Look, sqlx::Error> {
        // Seldom: not worth a second text.
        many::look(conn, keys).await
    }

    async fn enter(conn: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        raw_sql("SAVEPOINT tcc_entered").execute(conn).await.map(drop)
    }

    async fn check_same(conn: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        // A deadlock rolls the whole transaction back, savepoints and all, and COMMIT without one succeeds.
        const NO_SUCH_SAVEPOINT: u16 = 1305;
        let released = raw_sql("RELEASE SAVEPOINT tcc_entered").execute(conn).await;
        released.map(drop).map_err(|error| if number(&error) == Some(NO_SUCH_SAVEPOINT) { undone() } else { error })
    }

    async fn keep_reserved(conn: &mut MySqlConnection, kept: &[Kept<'_>]) -> Result<(), sqlx::Error> {
        if kept.len() >= LIST_MIN {
            return many::keep_reserved(conn, kept).await;
        }
        for kept in kept {
            one::keep_reserved(conn, *kept).await?;
        }
        Ok(())
    }

    async fn keep_refusals(conn: &mut MySqlConnection, refused: &[(&BranchKey, &Refusal)]) -> Result<(), sqlx::Error> {
        if refused.len() >= LIST_MIN {
            return many::keep_refusals(conn, refused).await;
        }
        for (key, refusal) in refused {
            one::keep_refusal(conn, key, refusal).await?;
        }
        Ok(())
    }

    async fn branch_row(conn: &mut MySqlConnection, key: &BranchKey) -> Result<Option<BranchRow>, sqlx::Error> {
        const SQL: &str = concat!("SELECT ", branch_row!("`empty`"), " FROM tcc_branches WHERE gid = ? AND branch_id = ?");
        let found = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_optional(conn).await?;
        found.as_ref().map(branch_row_of).transpose()
    }

    async fn count_tried(conn: &mut MySqlConnection) -> Result<u64, sqlx::Error> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tcc_branches WHERE status = 1").fetch_one(conn).await?;
        u64::try_from(count).map_err(corrupt)
    }

    async fn now(conn: &mut MySqlConnection) -> Result<Timestamp, sqlx::Error> {
        const SQL: &str = concat!("SELECT ", mysql_now!());
        sqlx::query_scalar(SQL).fetch_one(conn).await.map(Timestamp::from_micros)
    }

    async fn tried_due(conn: &mut MySqlConnection, limit: u32) -> Result<Vec<InDoubt>, sqlx::Error> {
        // A clock that ticks within the statement could not bound its walk along the index.
        const SQL: &str = "SELECT gid, branch_id, coordinator, not_after, ask_after FROM tcc_branches \
             WHERE status = 1 AND ask_after <= ? ORDER BY ask_after LIMIT ?";
        let now = Self::now(conn).await?;
        let query = sqlx::query(SQL).bind(now.as_micros()).bind(limit);
        query.fetch_all(conn).await?.iter().map(in_doubt_of).collect()
    }

    async fn postpone(
        conn: &mut MySqlConnection,
        key: &BranchKey,
        ask_after: Timestamp,
        forgotten: bool,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = concat!(
            "UPDATE tcc_branches FORCE INDEX (PRIMARY) SET ask_after = ?, forgotten_at = CASE WHEN ? THEN COALESCE(forgotten_at, ",
            mysql_now!(),
            ") ELSE forgotten_at END WHERE gid = ? AND branch_id = ? AND status = 1"
        );
        let postponed = sqlx::query(SQL)
            .bind(ask_after.as_micros())
            .bind(forgotten)
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .execute(conn)
            .await?;
        Ok(postponed.rows_affected() == 1)
    }

    async fn ended_page(
        conn: &mut MySqlConnection,
        after: Option<&BranchKey>,
        minted_before: Gid,
        limit: u32,
    ) -> Result<Vec<OldRow>, sqlx::Error> {
        const SQL: &str = "SELECT gid, branch_id, status, coordinator, not_after, changed_at FROM tcc_branches \
             WHERE gid >= ? AND (gid > ? OR branch_id > ?) AND gid < ? ORDER BY gid, branch_id LIMIT ?";
        let (gid, branch) = walk_from(after);
        let query = sqlx::query(SQL).bind(gid.clone()).bind(gid).bind(branch).bind(minted_before.to_string()).bind(limit);
        query.fetch_all(conn).await?.iter().map(old_row_of).collect()
    }

    async fn delete_ended(conn: &mut MySqlConnection, row: &OldRow) -> Result<bool, sqlx::Error> {
        const SQL: &str = "DELETE FROM tcc_branches WHERE gid = ? AND branch_id = ? AND status + 0 = ? AND changed_at = ? \
             AND status + 0 <> 1";
        let deleted = sqlx::query(SQL)
            .bind(row.key.gid.to_string())
            .bind(row.key.branch.as_str())
            .bind(row.status.code())
            .bind(row.changed_at.as_micros())
            .execute(conn)
            .await?;
        Ok(deleted.rows_affected() == 1)
    }

    async fn forgotten(
        conn: &mut MySqlConnection,
        after: Option<&BranchKey>,
        limit: u32,
    ) -> Result<Vec<BranchRow>, sqlx::Error> {
        const SQL: &str = concat!(
            "SELECT ",
            branch_row!("`empty`"),
            " FROM tcc_branches WHERE status = 1 AND forgotten_at IS NOT NULL AND gid >= ? AND (gid > ? OR branch_id > ?) ",
            "ORDER BY gid, branch_id LIMIT ?"
        );
        let (gid, branch) = walk_from(after);
        let query = sqlx::query(SQL).bind(gid.clone()).bind(gid).bind(branch).bind(limit);
        query.fetch_all(conn).await?.iter().map(branch_row_of).collect()
    }
}

/// Of an error that the database reported.
fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref().map(MySqlDatabaseError::number)
}

/// What each session must be, whatever the server's defaults are. What only MariaDB has stands in comments that it alone reads:
/// limits for a statement, and for a process that is gone without its connections being closed.
fn session(options: &Options) -> String {
    let lock_wait_seconds = options.lock_wait_ms_max.div_ceil(1_000);
    let transaction_seconds = options.transaction_ms_max.div_ceil(1_000);
    format!(
        "{}; SET SESSION innodb_lock_wait_timeout = {lock_wait_seconds}, SESSION lock_wait_timeout = {lock_wait_seconds} \
         /*M! , SESSION max_statement_time = {transaction_seconds}, SESSION idle_transaction_timeout = {} */",
        tcc_database::mysql::SESSION,
        transaction_seconds * 2
    )
}

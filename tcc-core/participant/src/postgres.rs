//! The SDK on PostgreSQL. Each local transaction is READ COMMITTED: a statement sees what was committed before it began. A write
//! to a row that another transaction has written waits for that transaction's end; so does an insert of the same key.

use bytes::Bytes;
use sqlx::{
    PgConnection, Pool, Postgres, Row as _,
    error::DatabaseError,
    migrate::{MigrateError, Migrator},
    postgres::PgRow,
};
use tcc_barrier::{Look, Request};
use tcc_database::{lease::Place, postgres_now};
use tcc_types::{BranchKey, CancelCall, Gid, Invalid, Payload, Refusal, Timestamp, TryCall};

use crate::{
    BranchRow, Database, InDoubt, OldRow, OpenError, Options,
    pools::server_pool,
    rows::{branch_row, branch_row_of, columns, corrupt, in_doubt_of, inserted_here, old_row_of, row, row_of, walk_from},
};

columns!(PgRow, i16);

impl Database for Postgres {
    const PLACE: Place = Place::Server;

    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

    async fn open(url: &str, options: &Options) -> Result<(Pool<Self>, Pool<Self>), OpenError> {
        let connect = tcc_database::postgres::options_of(url).map_err(|problem| Invalid::new("database_url", problem))?;
        let session = session(options);
        let write = server_pool(options, session.clone())
            .max_connections(options.write_connections_max)
            .connect_with(connect.clone())
            .await?;
        Self::migrate(&write, tcc_migrations::participant::postgres()).await?;
        let read = server_pool(options, session + "; SET default_transaction_read_only = on")
            .max_connections(options.read_connections_max)
            .connect_with(connect)
            .await?;
        Ok((write, read))
    }

    async fn migrate(write: &Pool<Self>, migrator: Migrator) -> Result<(), MigrateError> {
        let mut conn = write.acquire().await?;
        // It loses its time limits.
        conn.close_on_drop();
        tcc_database::postgres::migrate(&mut conn, &migrator).await
    }

    fn is_retryable(error: &dyn DatabaseError) -> bool {
        const SERIALIZATION_FAILURE: &str = "40001";
        const DEADLOCK_DETECTED: &str = "40P01";
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        matches!(error.code().as_deref(), Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED | LOCK_NOT_AVAILABLE))
    }

    async fn insert_tried(conn: &mut PgConnection, call: &TryCall) -> Result<bool, sqlx::Error> {
        const SQL: &str = concat!(
            "INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, ",
            "not_after, ask_after, created_at, changed_at) ",
            "SELECT $1, $2, 1, 0, $3, $4, $5, $6, $7, ",
            postgres_now!(),
            ", ",
            postgres_now!(),
            " WHERE ",
            postgres_now!(),
            // Changes nothing, but locks the row that is there, which is a write: a repeated yes is then told by a commit that waits
            // for whatever standby the first one has to be on. One that only reads would not.
            " <= $6 ON CONFLICT (gid, branch_id) DO UPDATE SET status = tcc_branches.status WHERE FALSE"
        );
        let request = Request::from(call);
        let inserted = sqlx::query(SQL)
            .bind(call.key.gid.to_string())
            .bind(call.key.branch.as_str())
            .bind(&call.payload.type_url)
            .bind(request.fingerprint.as_slice())
            .bind(request.coordinator.as_str())
            .bind(call.not_after.as_micros())
            .bind(call.ask_after.as_micros())
            .execute(conn)
            .await?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn confirm_tried(conn: &mut PgConnection, key: &BranchKey) -> Result<Option<Bytes>, sqlx::Error> {
        const SQL: &str = concat!(
            "UPDATE tcc_branches SET status = 3, changed_at = ",
            postgres_now!(),
            " WHERE gid = $1 AND branch_id = $2 AND status = 1 RETURNING reserved"
        );
        settle(conn, key, SQL).await
    }

    async fn cancel_tried(conn: &mut PgConnection, key: &BranchKey) -> Result<Option<Bytes>, sqlx::Error> {
        const SQL: &str = concat!(
            "UPDATE tcc_branches SET status = 4, changed_at = ",
            postgres_now!(),
            " WHERE gid = $1 AND branch_id = $2 AND status = 1 RETURNING reserved"
        );
        settle(conn, key, SQL).await
    }

    async fn insert_cancelled(conn: &mut PgConnection, call: &CancelCall) -> Result<bool, sqlx::Error> {
        const SQL: &str = concat!(
            "INSERT INTO tcc_branches (gid, branch_id, status, empty, not_after, created_at, changed_at) VALUES ($1, $2, 4, 1, $3, ",
            postgres_now!(),
            ", ",
            postgres_now!(),
            ") ON CONFLICT (gid, branch_id) DO NOTHING"
        );
        let inserted = sqlx::query(SQL)
            .bind(call.key.gid.to_string())
            .bind(call.key.branch.as_str())
            .bind(call.not_after.as_micros())
            .execute(conn)
            .await?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn look(conn: &mut PgConnection, key: &BranchKey) -> Result<Look, sqlx::Error> {
        // The join yields one row in any case, so that the clock is read in the same statement as the branch.
        const SQL: &str = concat!(
            "SELECT ",
            postgres_now!(),
            " AS looked_at, ",
            row!(),
            " FROM (SELECT 1) AS one LEFT JOIN tcc_branches ON gid = $1 AND branch_id = $2"
        );
        let found = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_one(conn).await?;
        Ok(Look { row: row_of(&found)?, now: Timestamp::from_micros(found.try_get("looked_at")?) })
    }

    async fn check_settled(conn: &mut PgConnection, _: &BranchKey) -> Result<(), sqlx::Error> {
        // After an error any statement fails but COMMIT, which rolls back and reports success.
        sqlx::query("SELECT 1").execute(conn).await.map(drop)
    }

    async fn keep_reserved(
        conn: &mut PgConnection,
        key: &BranchKey,
        reserved: &Bytes,
        output: Option<&Payload>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE tcc_branches SET reserved = $3, output_type_url = $4, output_value = $5 \
             WHERE gid = $1 AND branch_id = $2 AND status = 1";
        let kept = sqlx::query(SQL)
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(&reserved[..])
            .bind(output.map(|output| output.type_url.as_str()))
            .bind(output.map(|output| &output.value[..]))
            .execute(conn)
            .await?;
        inserted_here(kept.rows_affected())
    }

    async fn keep_refusal(conn: &mut PgConnection, key: &BranchKey, refusal: &Refusal) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE tcc_branches SET status = 2, refusal_code = $3, refusal_message = $4 \
             WHERE gid = $1 AND branch_id = $2 AND status = 1";
        let kept = sqlx::query(SQL)
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(&refusal.code)
            .bind(&refusal.message)
            .execute(conn)
            .await?;
        inserted_here(kept.rows_affected())
    }

    async fn branch_row(conn: &mut PgConnection, key: &BranchKey) -> Result<Option<BranchRow>, sqlx::Error> {
        const SQL: &str = concat!("SELECT ", branch_row!("empty"), " FROM tcc_branches WHERE gid = $1 AND branch_id = $2");
        let found = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_optional(conn).await?;
        found.as_ref().map(branch_row_of).transpose()
    }

    async fn count_tried(conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tcc_branches WHERE status = 1").fetch_one(conn).await?;
        u64::try_from(count).map_err(corrupt)
    }

    async fn now(conn: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
        const SQL: &str = concat!("SELECT ", postgres_now!());
        sqlx::query_scalar(SQL).fetch_one(conn).await.map(Timestamp::from_micros)
    }

    async fn tried_due(conn: &mut PgConnection, limit: u32) -> Result<Vec<InDoubt>, sqlx::Error> {
        // The clock ticks within a statement; asked once, in a subquery, it can bound the walk along the index.
        const SQL: &str = concat!(
            "SELECT gid, branch_id, coordinator, not_after, ask_after FROM tcc_branches WHERE status = 1 AND ask_after <= (SELECT ",
            postgres_now!(),
            ") ORDER BY ask_after LIMIT $1"
        );
        sqlx::query(SQL).bind(i64::from(limit)).fetch_all(conn).await?.iter().map(in_doubt_of).collect()
    }

    async fn postpone(
        conn: &mut PgConnection,
        key: &BranchKey,
        ask_after: Timestamp,
        forgotten: bool,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = concat!(
            "UPDATE tcc_branches SET ask_after = $3, forgotten_at = CASE WHEN $4 THEN COALESCE(forgotten_at, ",
            postgres_now!(),
            ") ELSE forgotten_at END WHERE gid = $1 AND branch_id = $2 AND status = 1"
        );
        let postponed = sqlx::query(SQL)
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(ask_after.as_micros())
            .bind(forgotten)
            .execute(conn)
            .await?;
        Ok(postponed.rows_affected() == 1)
    }

    async fn ended_page(
        conn: &mut PgConnection,
        after: Option<&BranchKey>,
        minted_before: Gid,
        limit: u32,
    ) -> Result<Vec<OldRow>, sqlx::Error> {
        const SQL: &str = "SELECT gid, branch_id, status, coordinator, not_after, changed_at FROM tcc_branches \
             WHERE (gid, branch_id) > ($1, $2) AND gid < $3 ORDER BY gid, branch_id LIMIT $4";
        let (gid, branch) = walk_from(after);
        let query = sqlx::query(SQL).bind(gid).bind(branch).bind(minted_before.to_string()).bind(i64::from(limit));
        query.fetch_all(conn).await?.iter().map(old_row_of).collect()
    }

    async fn delete_ended(conn: &mut PgConnection, row: &OldRow) -> Result<bool, sqlx::Error> {
        const SQL: &str = "DELETE FROM tcc_branches WHERE gid = $1 AND branch_id = $2 AND status = $3 AND changed_at = $4 \
             AND status <> 1";
        let deleted = sqlx::query(SQL)
            .bind(row.key.gid.to_string())
            .bind(row.key.branch.as_str())
            .bind(row.status.code())
            .bind(row.changed_at.as_micros())
            .execute(conn)
            .await?;
        Ok(deleted.rows_affected() == 1)
    }

    async fn forgotten(conn: &mut PgConnection, after: Option<&BranchKey>, limit: u32) -> Result<Vec<BranchRow>, sqlx::Error> {
        const SQL: &str = concat!(
            "SELECT ",
            branch_row!("empty"),
            " FROM tcc_branches WHERE status = 1 AND forgotten_at IS NOT NULL AND (gid, branch_id) > ($1, $2) ",
            "ORDER BY gid, branch_id LIMIT $3"
        );
        let (gid, branch) = walk_from(after);
        let query = sqlx::query(SQL).bind(gid).bind(branch).bind(i64::from(limit));
        query.fetch_all(conn).await?.iter().map(branch_row_of).collect()
    }
}

/// What each session must be, whatever the server's defaults are. Where synchronous commit is on in any of its ways, that is the
/// administrator's choice; where it is off, a commit that was answered could be lost.
fn session(options: &Options) -> String {
    let (lock_wait_ms, transaction_ms) = (options.lock_wait_ms_max, options.transaction_ms_max);
    format!(
        "SET default_transaction_isolation = 'read committed'; SET jit = off; SET lock_timeout = {lock_wait_ms}; \
         SET statement_timeout = {transaction_ms}; SET idle_in_transaction_session_timeout = {}; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        // The engine's own limit comes first; this is for a process that is gone without its connections being closed.
        transaction_ms * 2
    )
}

/// Runs one of the two compare-and-sets.
async fn settle(conn: &mut PgConnection, key: &BranchKey, sql: &'static str) -> Result<Option<Bytes>, sqlx::Error> {
    let changed = sqlx::query(sql).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_optional(conn).await?;
    match changed {
        Some(row) => Ok(Some(row.try_get::<Vec<u8>, _>("reserved")?.into())),
        None => Ok(None),
    }
}

//! The SDK on PostgreSQL. Each local transaction is READ COMMITTED: a statement sees what was committed before it began. A write
//! to a row that another transaction has written waits for that transaction's end; so does an insert of the same key.

use bytes::Bytes;
use sqlx::{
    PgConnection, Pool, Postgres, Row as _,
    error::DatabaseError,
    migrate::{MigrateError, Migrator},
    postgres::PgRow,
};
use tcc_barrier::{Kept, Look, Request};
use tcc_database::{lease::Place, postgres_now};
use tcc_types::{BranchKey, CancelCall, Decision, Gid, Invalid, Refusal, Timestamp, TryCall};

use crate::{
    BranchRow, Database, InDoubt, OldRow, OpenError, Options,
    pools::server_pool,
    rows::{
        Keys, answers, branch_row, branch_row_of, columns, corrupt, in_doubt_of, inserted_here, old_row_of, place_of, row,
        row_of, settled, walk_from,
    },
};

columns!(PgRow, i16);

/// The tried rows `t` of a list `v`. By its plain name the status would let the planner walk through the index of all that are tried.
macro_rules! of_list {
    () => {
        "t.gid = ANY (ARRAY[v.gid]) AND t.branch_id = v.branch_id AND t.status + 0 = 1"
    };
}

// The statements over lists of branches: each goes through its list from the first to the last and looks every row up by its key,
// so that rows are locked in the order of the list, and nothing depends on the size of the table. No planner may choose another way:
// an insert has none; the look's lateral rows are locked, and that is not moved; and the updates compare the gid with an array of
// one, which is no condition to hash, to sort or to walk along an index by.

const INSERT_TRIED: &str = concat!(
    "INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, ",
    "not_after, ask_after, reserved, output_type_url, output_value, created_at, changed_at) ",
    "SELECT v.gid, v.branch_id, 1, 0, v.type_url, v.request_fingerprint, v.coordinator, v.not_after, v.ask_after, ",
    "v.reserved, v.output_type_url, v.output_value, ",
    postgres_now!(),
    ", ",
    postgres_now!(),
    " FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bigint[], $7::bigint[], $8::bytea[], ",
    "$9::text[], $10::bytea[]) AS v(gid, branch_id, type_url, request_fingerprint, coordinator, not_after, ask_after, ",
    "reserved, output_type_url, output_value) WHERE ",
    postgres_now!(),
    " <= v.not_after ON CONFLICT (gid, branch_id) DO NOTHING RETURNING gid, branch_id"
);

const SETTLE_TRIED: &str = concat!(
    "UPDATE tcc_branches AS t SET status = v.status, changed_at = ",
    postgres_now!(),
    " FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS v(gid, branch_id, status, place) WHERE ",
    of_list!(),
    " RETURNING v.place, t.reserved"
);

const INSERT_CANCELLED: &str = concat!(
    "INSERT INTO tcc_branches (gid, branch_id, status, empty, not_after, created_at, changed_at) ",
    "SELECT v.gid, v.branch_id, 4, 1, v.not_after, ",
    postgres_now!(),
    ", ",
    postgres_now!(),
    " FROM unnest($1::text[], $2::text[], $3::bigint[]) AS v(gid, branch_id, not_after) ",
    "ON CONFLICT (gid, branch_id) DO NOTHING RETURNING gid, branch_id"
);

/// The join yields a row for each key in any case, and so the clock too. To lock is to write: see [`Database::look`].
const LOOK: &str = concat!(
    "SELECT v.place, (SELECT ",
    postgres_now!(),
    ") AS looked_at, t.* FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS v(gid, branch_id, place) LEFT JOIN LATERAL (SELECT ",
    row!(),
    " FROM tcc_branches AS t WHERE t.gid = v.gid AND t.branch_id = v.branch_id FOR NO KEY UPDATE) AS t ON TRUE"
);

const KEEP_RESERVED: &str = concat!(
    "UPDATE tcc_branches AS t SET reserved = v.reserved, output_type_url = v.output_type_url, output_value = v.output_value ",
    "FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[]) ",
    "AS v(gid, branch_id, reserved, output_type_url, output_value) WHERE ",
    of_list!()
);

const KEEP_REFUSALS: &str = concat!(
    "UPDATE tcc_branches AS t SET status = 2, refusal_code = v.code, refusal_message = v.message, ",
    "reserved = NULL, output_type_url = NULL, output_value = NULL ",
    "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS v(gid, branch_id, code, message) WHERE ",
    of_list!()
);

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

    const FORESEES: bool = true;

    async fn insert_tried(conn: &mut PgConnection, calls: &[&TryCall]) -> Result<Vec<bool>, sqlx::Error> {
        Self::insert_foreseen(conn, calls, &vec![None; calls.len()]).await
    }

    async fn insert_foreseen(
        conn: &mut PgConnection,
        calls: &[&TryCall],
        foreseen: &[Option<Kept<'_>>],
    ) -> Result<Vec<bool>, sqlx::Error> {
        let keys = Keys::new(calls.iter().map(|call| &call.key));
        let requests = column(calls, |call| Request::from(*call));
        let inserted = sqlx::query(INSERT_TRIED)
            .bind(&keys.gids)
            .bind(&keys.branches)
            .bind(column(calls, |call| call.payload.type_url.as_str()))
            .bind(column(&requests, |request| request.fingerprint.as_slice()))
            .bind(column(&requests, |request| request.coordinator.as_str()))
            .bind(column(calls, |call| call.not_after.as_micros()))
            .bind(column(calls, |call| call.ask_after.as_micros()))
            .bind(column(foreseen, |kept| kept.map(|kept| &kept.reserved[..])))
            .bind(column(foreseen, |kept| kept.and_then(|kept| Some(kept.output?.type_url.as_str()))))
            .bind(column(foreseen, |kept| kept.and_then(|kept| Some(&kept.output?.value[..]))))
            .fetch_all(conn)
            .await?;
        made(&keys, &inserted)
    }

    async fn settle_tried(
        conn: &mut PgConnection,
        settles: &[(&BranchKey, Decision)],
    ) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
        let keys = Keys::new(settles.iter().map(|(key, _)| *key));
        let changed = sqlx::query(SETTLE_TRIED)
            .bind(&keys.gids)
            .bind(&keys.branches)
            .bind(column(settles, |(_, decision)| settled(*decision).code()))
            .fetch_all(conn)
            .await?;
        let changed = changed.iter().map(|row| {
            let reserved: Vec<u8> = row.try_get("reserved")?;
            Ok((place(row)?, Some(reserved.into())))
        });
        answers(settles.len(), None, changed)
    }

    async fn insert_cancelled(conn: &mut PgConnection, calls: &[&CancelCall]) -> Result<Vec<bool>, sqlx::Error> {
        let keys = Keys::new(calls.iter().map(|call| &call.key));
        let inserted = sqlx::query(INSERT_CANCELLED)
            .bind(&keys.gids)
            .bind(&keys.branches)
            .bind(column(calls, |call| call.not_after.as_micros()))
            .fetch_all(conn)
            .await?;
        made(&keys, &inserted)
    }

    async fn look(conn: &mut PgConnection, keys: &[&BranchKey]) -> Result<Look, sqlx::Error> {
        let asked = Keys::new(keys.iter().copied());
        let found = sqlx::query(LOOK).bind(&asked.gids).bind(&asked.branches).fetch_all(conn).await?;
        let now = found.first().ok_or_else(|| corrupt("no row for a key"))?.try_get("looked_at")?;
        let rows = answers(keys.len(), None, found.iter().map(|row| Ok((place(row)?, row_of(row)?))))?;
        Ok(Look { rows, now: Timestamp::from_micros(now) })
    }

    async fn check_same(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        // After an error any statement fails but COMMIT, which rolls back and reports success.
        sqlx::query("SELECT 1").execute(conn).await.map(drop)
    }

    async fn keep_reserved(conn: &mut PgConnection, kept: &[Kept<'_>]) -> Result<(), sqlx::Error> {
        let keys = Keys::new(kept.iter().map(|kept| kept.key));
        let done = sqlx::query(KEEP_RESERVED)
            .bind(&keys.gids)
            .bind(&keys.branches)
            .bind(column(kept, |kept| &kept.reserved[..]))
            .bind(column(kept, |kept| kept.output.map(|output| output.type_url.as_str())))
            .bind(column(kept, |kept| kept.output.map(|output| &output.value[..])))
            .execute(conn)
            .await?;
        inserted_here(done.rows_affected(), kept.len())
    }

    async fn keep_refusals(conn: &mut PgConnection, refused: &[(&BranchKey, &Refusal)]) -> Result<(), sqlx::Error> {
        let keys = Keys::new(refused.iter().map(|(key, _)| *key));
        let done = sqlx::query(KEEP_REFUSALS)
            .bind(&keys.gids)
            .bind(&keys.branches)
            .bind(column(refused, |(_, refusal)| refusal.code.as_str()))
            .bind(column(refused, |(_, refusal)| refusal.message.as_str()))
            .execute(conn)
            .await?;
        inserted_here(done.rows_affected(), refused.len())
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
/// administrator's choice; where it is off, a commit that was answered could be lost. A plan is kept for as long as nobody analyzes
/// the table: one that reads all of a table because it was small once must not be made at all.
fn session(options: &Options) -> String {
    let (lock_wait_ms, transaction_ms) = (options.lock_wait_ms_max, options.transaction_ms_max);
    format!(
        "SET default_transaction_isolation = 'read committed'; SET jit = off; SET enable_seqscan = off; \
         SET plan_cache_mode = force_generic_plan; SET lock_timeout = {lock_wait_ms}; SET statement_timeout = {transaction_ms}; \
         SET idle_in_transaction_session_timeout = {}; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        // The engine's own limit comes first; this is for a process that is gone without its connections being closed.
        transaction_ms * 2
    )
}

/// One column of a list of items, as it is bound to `unnest`.
fn column<'a, T, V>(items: &'a [T], of: impl Fn(&'a T) -> V) -> Vec<V> {
    items.iter().map(of).collect()
}

/// Which of the keys are among the inserted rows.
fn made(keys: &Keys<'_>, inserted: &[PgRow]) -> Result<Vec<bool>, sqlx::Error> {
    let places = inserted.iter().map(|row| Ok((keys.place(row.try_get("gid")?, row.try_get("branch_id")?)?, true)));
    answers(keys.gids.len(), false, places)
}

/// The place in the question of the key that a row is for.
fn place(row: &PgRow) -> Result<usize, sqlx::Error> {
    // It counts from 1.
    place_of(row.try_get::<i64, _>("place")? - 1)
}

#[cfg(test)]
mod tests;

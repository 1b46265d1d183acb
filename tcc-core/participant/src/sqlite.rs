//! The SDK on SQLite: one connection writes, in the order of asking and always under `BEGIN IMMEDIATE`, so nothing can change
//! between two statements of a transaction; others read beside it (WAL). Every commit is on disk before it is answered.

use std::path::Path;

use bytes::Bytes;
use sqlx::{
    Connection, Pool, Row as _, Sqlite, SqliteConnection, Transaction,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use tcc_barrier::{Look, Request, Row};
use tcc_migrations::sqlite_now;
use tcc_types::{BranchKey, BranchRowStatus, CancelCall, Fingerprint, Invalid, LogName, Payload, Refusal, Timestamp, TryCall};

use crate::{BranchRow, Database, OpenError, Options};

impl Database for Sqlite {
    async fn open(url: &str, options: &Options) -> Result<(Pool<Self>, Pool<Self>), OpenError> {
        let connect = connect_options(url)?.busy_timeout(options.lock_wait_max());
        if let Some(folder) = connect.get_filename().parent().filter(|folder| *folder != Path::new("")) {
            tokio::fs::create_dir_all(folder).await.map_err(OpenError::Folder)?;
        }
        let pool =
            || SqlitePoolOptions::new().acquire_timeout(options.connection_wait_max()).idle_timeout(None).max_lifetime(None);
        let write = pool()
            .max_connections(1)
            // Pinging costs a thread hop for each operation, and the connection was pinged when it came back.
            .test_before_acquire(false)
            // SQLite ends a transaction by itself on some errors (disk full), and sqlx then counts one that is not there. Such
            // a connection could never begin again.
            .before_acquire(|conn, _| Box::pin(async move { Ok(!conn.is_in_transaction()) }))
            .connect_with(connect.clone())
            .await?;
        tcc_migrations::participant::sqlite().run(&write).await?;
        let read =
            pool().max_connections(options.read_connections_max).connect_with(connect.pragma("query_only", "on")).await?;
        Ok((write, read))
    }

    async fn begin(write: &Pool<Self>) -> Result<Transaction<'static, Self>, sqlx::Error> {
        write.begin_with("BEGIN IMMEDIATE").await
    }

    fn is_retryable(error: &dyn DatabaseError) -> bool {
        const BUSY: i32 = 5;
        const LOCKED: i32 = 6;
        let code = error.code().and_then(|code| code.parse::<i32>().ok());
        // The low byte is the primary result code; the rest only says more about it.
        code.is_some_and(|code| matches!(code & 0xff, BUSY | LOCKED))
    }

    async fn insert_tried(conn: &mut SqliteConnection, call: &TryCall) -> Result<bool, sqlx::Error> {
        const SQL: &str = concat!(
            "INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, ",
            "not_after, ask_after, created_at, changed_at) ",
            "SELECT ?1, ?2, 1, 0, ?3, ?4, ?5, ?6, ?7, ",
            sqlite_now!(),
            ", ",
            sqlite_now!(),
            " WHERE ",
            sqlite_now!(),
            " <= ?6 ON CONFLICT (gid, branch_id) DO NOTHING"
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

    async fn confirm_tried(conn: &mut SqliteConnection, key: &BranchKey) -> Result<Option<Bytes>, sqlx::Error> {
        const SQL: &str = concat!(
            "UPDATE tcc_branches SET status = 3, changed_at = ",
            sqlite_now!(),
            " WHERE gid = ?1 AND branch_id = ?2 AND status = 1 RETURNING reserved"
        );
        settle(conn, key, SQL).await
    }

    async fn cancel_tried(conn: &mut SqliteConnection, key: &BranchKey) -> Result<Option<Bytes>, sqlx::Error> {
        const SQL: &str = concat!(
            "UPDATE tcc_branches SET status = 4, changed_at = ",
            sqlite_now!(),
            " WHERE gid = ?1 AND branch_id = ?2 AND status = 1 RETURNING reserved"
        );
        settle(conn, key, SQL).await
    }

    async fn insert_cancelled(conn: &mut SqliteConnection, call: &CancelCall) -> Result<bool, sqlx::Error> {
        const SQL: &str = concat!(
            "INSERT INTO tcc_branches (gid, branch_id, status, empty, not_after, created_at, changed_at) VALUES (?1, ?2, 4, 1, ?3, ",
            sqlite_now!(),
            ", ",
            sqlite_now!(),
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

    async fn look(conn: &mut SqliteConnection, key: &BranchKey) -> Result<Look, sqlx::Error> {
        // The join yields one row in any case, so that the clock is read in the same statement as the branch.
        const SQL: &str = concat!(
            "SELECT ",
            sqlite_now!(),
            " AS now, status, request_fingerprint, coordinator, output_type_url, output_value, refusal_code, refusal_message ",
            "FROM (SELECT 1) LEFT JOIN tcc_branches ON gid = ?1 AND branch_id = ?2"
        );
        let found = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_one(conn).await?;
        Ok(Look { row: row_of(&found)?, now: Timestamp::from_micros(found.try_get("now")?) })
    }

    async fn keep_reserved(
        conn: &mut SqliteConnection,
        key: &BranchKey,
        reserved: &Bytes,
        output: Option<&Payload>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE tcc_branches SET reserved = ?3, output_type_url = ?4, output_value = ?5 \
             WHERE gid = ?1 AND branch_id = ?2 AND status = 1";
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

    async fn keep_refusal(conn: &mut SqliteConnection, key: &BranchKey, refusal: &Refusal) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE tcc_branches SET status = 2, refusal_code = ?3, refusal_message = ?4 \
             WHERE gid = ?1 AND branch_id = ?2 AND status = 1";
        let kept = sqlx::query(SQL)
            .bind(key.gid.to_string())
            .bind(key.branch.as_str())
            .bind(&refusal.code)
            .bind(&refusal.message)
            .execute(conn)
            .await?;
        inserted_here(kept.rows_affected())
    }

    async fn branch_row(read: &Pool<Self>, key: &BranchKey) -> Result<Option<BranchRow>, sqlx::Error> {
        const SQL: &str = "SELECT status, empty, type_url, coordinator, refusal_code, refusal_message, not_after, ask_after, \
             created_at, changed_at FROM tcc_branches WHERE gid = ?1 AND branch_id = ?2";
        let found = sqlx::query(SQL).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_optional(read).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        Ok(Some(BranchRow {
            key: key.clone(),
            status: status_of(found.try_get("status")?)?,
            empty: found.try_get("empty")?,
            type_url: found.try_get("type_url")?,
            coordinator: found.try_get::<Option<String>, _>("coordinator")?.map(LogName::new).transpose().map_err(corrupt)?,
            refusal: refusal_of(&found)?,
            not_after: Timestamp::from_micros(found.try_get("not_after")?),
            ask_after: found.try_get::<Option<i64>, _>("ask_after")?.map(Timestamp::from_micros),
            created_at: Timestamp::from_micros(found.try_get("created_at")?),
            changed_at: Timestamp::from_micros(found.try_get("changed_at")?),
        }))
    }

    async fn count_tried(read: &Pool<Self>) -> Result<u64, sqlx::Error> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tcc_branches WHERE status = 1").fetch_one(read).await?;
        u64::try_from(count).map_err(corrupt)
    }
}

fn connect_options(url: &str) -> Result<SqliteConnectOptions, Invalid> {
    let path = tcc_migrations::sqlite::path_of(url).map_err(|problem| Invalid::new("database_url", problem))?;
    Ok(SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true))
}

/// Runs one of the two compare-and-sets.
async fn settle(conn: &mut SqliteConnection, key: &BranchKey, sql: &'static str) -> Result<Option<Bytes>, sqlx::Error> {
    // All rows (one at most) are fetched, so that the statement runs to its end.
    let mut changed = sqlx::query(sql).bind(key.gid.to_string()).bind(key.branch.as_str()).fetch_all(conn).await?;
    match changed.pop() {
        Some(row) => Ok(Some(row.try_get::<Vec<u8>, _>("reserved")?.into())),
        None => Ok(None),
    }
}

/// The row that this very transaction inserted must still be there.
fn inserted_here(rows_affected: u64) -> Result<(), sqlx::Error> {
    match rows_affected {
        1 => Ok(()),
        _ => Err(sqlx::Error::Protocol(
            "the branch's row is gone: the handler ended the transaction, or ignored an error".to_owned(),
        )),
    }
}

fn row_of(found: &SqliteRow) -> Result<Option<Row>, sqlx::Error> {
    let Some(status) = found.try_get::<Option<i64>, _>("status")? else {
        return Ok(None);
    };
    let request = request_of(found)?;
    let known = || request.clone().ok_or_else(|| corrupt("a row without the request of its Try"));
    Ok(Some(match status_of(status)? {
        BranchRowStatus::Tried => Row::Tried { request: known()?, output: output_of(found)? },
        BranchRowStatus::Refused => {
            let refusal = refusal_of(found)?.ok_or_else(|| corrupt("a refused row without its reason"))?;
            Row::Refused { request: known()?, refusal }
        }
        BranchRowStatus::Confirmed => Row::Confirmed { request: known()?, output: output_of(found)? },
        BranchRowStatus::Cancelled => Row::Cancelled { request },
    }))
}

fn status_of(code: i64) -> Result<BranchRowStatus, sqlx::Error> {
    BranchRowStatus::from_code(code).ok_or_else(|| corrupt("a row with an unknown status"))
}

fn request_of(found: &SqliteRow) -> Result<Option<Request>, sqlx::Error> {
    let fingerprint: Option<Vec<u8>> = found.try_get("request_fingerprint")?;
    let coordinator: Option<String> = found.try_get("coordinator")?;
    let (Some(fingerprint), Some(coordinator)) = (fingerprint, coordinator) else {
        return Ok(None);
    };
    let fingerprint = Fingerprint::from_slice(&fingerprint).ok_or_else(|| corrupt("a fingerprint that is not 32 bytes"))?;
    Ok(Some(Request { fingerprint, coordinator: LogName::new(coordinator).map_err(corrupt)? }))
}

fn output_of(found: &SqliteRow) -> Result<Option<Payload>, sqlx::Error> {
    let type_url: Option<String> = found.try_get("output_type_url")?;
    let value: Option<Vec<u8>> = found.try_get("output_value")?;
    Ok(type_url.zip(value).map(|(type_url, value)| Payload { type_url, value: value.into() }))
}

fn refusal_of(found: &SqliteRow) -> Result<Option<Refusal>, sqlx::Error> {
    let code: Option<String> = found.try_get("refusal_code")?;
    let message: Option<String> = found.try_get("refusal_message")?;
    Ok(code.zip(message).map(|(code, message)| Refusal::business(code, message)))
}

fn corrupt(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

//! What the APIs beside a participant answer when its database fails. No word of the cause goes out: that is in the log.

use std::time::Duration;

use sqlx::{
    error::{DatabaseError, ErrorKind},
    mysql::MySqlDatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};
use tcc_wire::status;
use tonic::Status;

/// When to repeat a call that the database did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// UNAVAILABLE where the database did not answer and the same call may work later; INTERNAL where it answered, and what it
/// said or holds is not what this program put there, so that no repetition helps. Logs the cause.
///
/// `domain` is the package of the API that answers (`order.v1`).
#[must_use]
pub fn status_of_sql(domain: &str, error: &sqlx::Error) -> Status {
    tracing::error!(%error, "the database failed");
    let may_work_later = match error {
        sqlx::Error::Database(error) => may_pass(&**error),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // What came makes no sense: so sqlx tells of a connection that ends while it is opened.
        sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        // Damage (what is stored does not decode, a row that must be there is not), or a defect. sqlx's list may grow.
        _ => false,
    };
    if may_work_later {
        status::unavailable(domain, "the database did not answer: repeat the call", RETRY_AFTER)
    } else {
        status::internal(domain)
    }
}

/// True if what the database said is about its own state (busy, full, shutting down) and not about the statement.
fn may_pass(error: &dyn DatabaseError) -> bool {
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return ends_the_session(error.severity()) || postgres_may_pass(error.code());
    }
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        return mysql_may_pass(error.number());
    }
    // SQLite: a violated constraint is a defect of the statement; anything else (busy, disk full, I/O) may pass.
    matches!(error.kind(), ErrorKind::Other)
}

/// The server has given this session up, or itself: whatever the reason, it was not the statement's.
const fn ends_the_session(severity: PgSeverity) -> bool {
    matches!(severity, PgSeverity::Fatal | PgSeverity::Panic)
}

/// By the SQLSTATE's class. Source: PostgreSQL's appendix of error codes.
fn postgres_may_pass(code: &str) -> bool {
    match code {
        // The session was idle in its transaction for too long; the server is a standby, as after a failover; a lock was not
        // free in time.
        "25P03" | "25006" | "55P03" => true,
        // Connection, rollback asked for, resources (disk full, too many connections), an operator or a limit intervened, I/O.
        _ => ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)),
    }
}

/// By the error's number. Source: the lists of error codes of MySQL and MariaDB.
fn mysql_may_pass(number: u16) -> bool {
    match number {
        // Writing a file, disk full, out of memory, table full, commit failed, log or tablespace full.
        3 | 1021 | 1026 | 1037 | 1038 | 1041 | 1114 | 1180 | 1197 | 1713
        // Too many connections or other resources of a user.
        | 1040 | 1203 | 1226
        // Shutting down, interrupted, killed, out of time, aborted connection, replication is not ready.
        | 1047 | 1053 | 1152 | 1158..=1161 | 1184 | 1317 | 1927 | 1969 | 3024 | 4031
        // Lock wait, deadlock.
        | 1205 | 1213
        // Read-only, as after a failover.
        | 1290 | 1792 | 1836 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn damage_is_internal_and_a_database_that_does_not_answer_is_unavailable() {
        for error in [
            sqlx::Error::RowNotFound,
            sqlx::Error::Decode("secret".into()),
            sqlx::Error::ColumnDecode { index: "state".to_owned(), source: "secret".into() },
            sqlx::Error::ColumnNotFound("state".to_owned()),
        ] {
            let status = status_of_sql("order.v1", &error);
            assert_eq!(status.code(), Code::Internal, "{error}");
            assert!(!status.message().contains("secret"), "{status:?}");
        }
        for error in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::Io(std::io::Error::other("secret")),
            sqlx::Error::Protocol("secret".to_owned()),
        ] {
            let status = status_of_sql("order.v1", &error);
            assert_eq!(status.code(), Code::Unavailable, "{error}");
            assert!(!status.message().contains("secret"), "{status:?}");
        }
    }

    #[tokio::test]
    async fn a_broken_constraint_is_internal_and_a_full_disk_is_not() {
        let mut conn = <sqlx::SqliteConnection as sqlx::Connection>::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE t (a TEXT NOT NULL)").execute(&mut conn).await.unwrap();
        let broken = sqlx::query("INSERT INTO t VALUES (NULL)").execute(&mut conn).await.unwrap_err();
        assert_eq!(status_of_sql("order.v1", &broken).code(), Code::Internal);
        sqlx::query("PRAGMA max_page_count = 2").execute(&mut conn).await.unwrap();
        let full = sqlx::query("INSERT INTO t VALUES (hex(zeroblob(100000)))").execute(&mut conn).await.unwrap_err();
        assert_eq!(status_of_sql("order.v1", &full).code(), Code::Unavailable, "{full}");
    }

    #[test]
    fn a_session_that_the_server_gives_up_may_pass() {
        for (severity, gives_up) in
            [(PgSeverity::Panic, true), (PgSeverity::Fatal, true), (PgSeverity::Error, false), (PgSeverity::Warning, false)]
        {
            assert_eq!(ends_the_session(severity), gives_up);
        }
    }

    #[test]
    fn what_a_server_says_of_itself_may_pass_and_what_it_says_of_the_statement_does_not() {
        for code in ["08006", "25006", "25P03", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "57P03", "58030"]
        {
            assert!(postgres_may_pass(code), "{code}");
        }
        for code in ["22021", "23505", "23514", "25P02", "42601", "42P01", "XX001"] {
            assert!(!postgres_may_pass(code), "{code}");
        }
        for number in [1021, 1040, 1053, 1114, 1205, 1213, 1290, 1317, 1969, 3024] {
            assert!(mysql_may_pass(number), "{number}");
        }
        for number in [1048, 1054, 1062, 1064, 1146, 1366, 1406, 3819, 4025] {
            assert!(!mysql_may_pass(number), "{number}");
        }
    }
}

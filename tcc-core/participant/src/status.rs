//! What the APIs beside a participant answer when its database fails. No word of the cause goes out: that is in the log.

use std::time::Duration;

use sqlx::error::{DatabaseError, ErrorKind};
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
        sqlx::Error::Database(error) => is_no_constraint(&**error),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // Damage (what is stored does not decode, a row that must be there is not), or a defect. sqlx's list may grow.
        _ => false,
    };
    if may_work_later {
        status::unavailable(domain, "the database did not answer: repeat the call", RETRY_AFTER)
    } else {
        status::internal(domain)
    }
}

/// A violated constraint is a defect of the statement; anything else (busy, disk full, I/O) may pass.
fn is_no_constraint(error: &dyn DatabaseError) -> bool {
    matches!(error.kind(), ErrorKind::Other)
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
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::Io(std::io::Error::other("secret"))] {
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
}

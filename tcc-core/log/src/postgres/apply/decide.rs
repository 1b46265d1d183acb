//! The compare-and-set. The only statement that moves a transaction out of trying.

use sqlx::{PgConnection, query};
use tcc_types::Timestamp;

use super::column;
use crate::{
    Decide, Decided,
    fault::Fault,
    postgres::load::{load_heads, touch},
    rows,
    writer::{
        answers::{Wanted, answer_decides, unchanged},
        write::Ask,
    },
};

/// Status 1 is trying. Votes are NULL for Cancel, which needs none.
pub(super) const DECIDE: &str = "UPDATE tcc_log_transactions AS t \
                      SET status = v.status, next_attempt_at = v.next_attempt_at, cause = v.cause, owner = v.owner, decided_at = $7 \
                      FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[]) \
                      AS v(gid, status, next_attempt_at, cause, votes, owner) \
                      WHERE t.gid = ANY(ARRAY[v.gid]) AND t.status + 0 = 1 AND (v.votes IS NULL OR t.branch_count = v.votes) \
                      RETURNING t.gid, t.branch_count";

pub(super) async fn apply(
    connection: &mut PgConnection,
    asks: &mut [Ask<Decide, Decided>],
    now: Timestamp,
) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question.gid);
    let wanted = Wanted::all(asks)?;
    let rows = query(DECIDE)
        .bind(column(&wanted, |wanted| &wanted.gid.as_bytes()[..]))
        .bind(column(&wanted, |wanted| wanted.status.code()))
        .bind(column(&wanted, |wanted| wanted.next_attempt_at.as_micros()))
        .bind(column(&wanted, |wanted| wanted.cause.as_deref()))
        .bind(column(&wanted, |wanted| wanted.votes))
        .bind(column(&wanted, |wanted| wanted.owner))
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await?;
    let changed = rows::gid_counts(&rows)?;
    let others = unchanged(asks.iter().map(|ask| ask.question.gid), &changed);
    touch(connection, &others).await?;
    let mut standing = load_heads(connection, &others).await?;
    answer_decides(asks, &changed, &mut standing, now)
}

//! The compare-and-set. The only statement that moves a transaction out of trying.

use sqlx::SqliteConnection;
use tcc_database::sqlite::lists::ManyRows;
use tcc_types::Timestamp;

use crate::{
    Decide, Decided,
    fault::Fault,
    rows,
    sqlite::load::load_heads,
    writer::{
        answers::{Wanted, answer_decides, unchanged},
        write::Ask,
    },
};

/// Status 1 is trying. The fifth value is the number of votes; NULL for Cancel, which needs none. The plus
/// sign keeps the planner from taking its term for a reason to scan the table.
pub(super) const DECIDE: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_transactions AS t \
           SET status = v.column2, next_attempt_at = v.column3, cause = v.column4, owner = v.column6, decided_at = ? FROM (VALUES ",
    width: 6,
    tail: ") AS v WHERE t.gid = v.column1 AND +t.status = 1 AND (v.column5 IS NULL OR t.branch_count = v.column5) RETURNING gid, branch_count",
};

pub(super) async fn apply(
    connection: &mut SqliteConnection,
    asks: &mut [Ask<Decide, Decided>],
    now: Timestamp,
) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    let rows = DECIDE
        .fetch(connection, &[now.as_micros()], &Wanted::all(asks)?, |values, wanted| {
            values
                .put(&wanted.gid.as_bytes()[..])
                .put(wanted.status.code())
                .put(wanted.next_attempt_at.as_micros())
                .put(wanted.cause.as_deref())
                .put(wanted.votes)
                .put(wanted.owner);
        })
        .await?;
    let changed = rows::gid_counts(&rows)?;
    let mut standing = load_heads(connection, &unchanged(asks.iter().map(|ask| ask.question.gid), &changed)).await?;
    answer_decides(asks, &changed, &mut standing, now)
}

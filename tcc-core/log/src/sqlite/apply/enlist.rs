//! Enlisting: the branch and the raised count in one commit.

use sqlx::SqliteConnection;
use tcc_database::sqlite::lists::ManyRows;

use super::begin::insert_branches;
use crate::{
    Enlisted,
    fault::Fault,
    rows,
    sqlite::load::load,
    writer::{
        answers::{answer_enlists, raised_branches, unchanged},
        write::{Ask, Enlist},
    },
};

/// Status 1 is trying, 3 is decided on request and open to branches. The plus signs keep the planner from taking these terms for
/// a reason to scan the table instead of looking up each gid.
pub(super) const RAISE: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_transactions AS t SET branch_count = t.branch_count + 1 FROM (VALUES ",
    width: 3,
    tail: ") AS v WHERE t.gid = v.column1 AND +t.status = 1 AND +t.decides = 3 AND +t.branch_count < v.column3 \
           AND NOT EXISTS (SELECT 1 FROM tcc_log_branches AS b WHERE b.gid = v.column1 AND b.branch_id = v.column2) \
           RETURNING gid, branch_count",
};

pub(super) async fn apply(connection: &mut SqliteConnection, asks: &mut [Ask<Enlist, Enlisted>]) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    let rows = RAISE
        .fetch(connection, &[], asks, |values, ask| {
            let Enlist { gid, branch, branches_max } = &ask.question;
            values.put(&gid.as_bytes()[..]).put(branch.branch.as_str()).put(i64::from(*branches_max));
        })
        .await?;
    let raised = rows::gid_counts(&rows)?;
    insert_branches(connection, &raised_branches(asks, &raised)).await?;
    let mut standing = load(connection, &unchanged(asks.iter().map(|ask| ask.question.gid), &raised)).await?;
    answer_enlists(asks, &raised, &mut standing)
}

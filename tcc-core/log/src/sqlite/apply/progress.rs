//! What follows a decision: parked transactions and finished ones.

use std::collections::HashSet;

use sqlx::SqliteConnection;
use tcc_database::sqlite::lists::ManyRows;
use tcc_types::{Gid, Timestamp};

use crate::{
    Park,
    fault::Fault,
    rows::{self, Columns},
    sqlite::load::put_gid,
    writer::{
        answers::{has_stuck, parked_branches},
        write::Ask,
    },
};

/// The plus sign keeps the planner from taking its term for a reason to walk through all that is unfinished.
pub(super) const PARK: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_transactions AS t \
           SET next_attempt_at = v.column2, has_stuck = max(t.has_stuck, v.column3) FROM (VALUES ",
    width: 4,
    tail: ") AS v WHERE t.gid = v.column1 AND t.owner = v.column4 AND +t.finished_at IS NULL RETURNING gid",
};

/// What is settled stays so, by whatever means it was first, and is not stuck.
pub(super) const PARK_BRANCHES: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_branches AS b SET settled = coalesce(b.settled, v.column3), attempts = v.column4, \
           stuck_kind = iif(coalesce(b.settled, v.column3) IS NULL, v.column5, NULL), \
           stuck_since = iif(coalesce(b.settled, v.column3) IS NULL, v.column6, NULL), \
           stuck_detail = iif(coalesce(b.settled, v.column3) IS NULL, v.column7, NULL) FROM (VALUES ",
    width: 7,
    tail: ") AS v WHERE b.gid = v.column1 AND b.branch_id = v.column2",
};

/// Confirming (2) becomes confirmed (3), cancelling (4) becomes cancelled (5).
pub(super) const FINISH: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_transactions SET status = status + 1, finished_at = ? WHERE gid IN (VALUES ",
    width: 1,
    tail: ") AND status IN (2, 4) RETURNING gid, has_stuck",
};

/// What has ended is not stuck: the list of stuck branches, and its index, hold only what an operator can do something about.
pub(super) const UNSTICK: ManyRows = ManyRows {
    head: "UPDATE OR FAIL tcc_log_branches SET stuck_kind = NULL, stuck_since = NULL, stuck_detail = NULL WHERE gid IN (VALUES ",
    width: 1,
    tail: ") AND stuck_kind IS NOT NULL",
};

pub(super) async fn park(connection: &mut SqliteConnection, asks: &mut [Ask<Park, ()>]) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    let rows = PARK
        .fetch(connection, &[], asks, |values, ask| {
            let park = &ask.question;
            values
                .put(&park.gid.as_bytes()[..])
                .put(park.next_attempt_at.as_micros())
                .put(i64::from(has_stuck(park)))
                .put(rows::owner_number(park.owner));
        })
        .await?;
    let parked: HashSet<Gid> = rows::gids(&rows)?;
    PARK_BRANCHES
        .fetch(connection, &[], &parked_branches(asks, &parked), |values, progress| {
            values
                .put(&progress.gid.as_bytes()[..])
                .put(progress.branch)
                .put(progress.settled)
                .put(progress.attempts)
                .put(progress.stuck_kind)
                .put(progress.stuck_since)
                .put(progress.stuck_detail);
        })
        .await?;
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

pub(super) async fn finish(connection: &mut SqliteConnection, asks: &mut [Ask<Gid, ()>], now: Timestamp) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    let rows = FINISH.fetch(connection, &[now.as_micros()], asks, |values, ask| put_gid(values, &ask.question)).await?;
    let mut with_stuck = Vec::new();
    for row in &rows {
        if row.int(1)? != 0 {
            with_stuck.push(rows::gid(row, 0)?);
        }
    }
    UNSTICK.fetch(connection, &[], &with_stuck, put_gid).await?;
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

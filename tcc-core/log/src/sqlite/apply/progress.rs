//! What follows a decision: parked transactions and finished ones.

use std::collections::{BTreeMap, HashSet};

use sqlx::SqliteConnection;
use tcc_machine::{BranchProgress, Stuck};
use tcc_types::{BranchId, Gid, Timestamp};

use crate::{
    Error, Park,
    codes::Code,
    sqlite::{
        rows::{self, put_gid},
        values::ManyRows,
        write::Ask,
    },
};

/// The plus sign keeps the planner from taking its term for a reason to walk through all that is unfinished.
pub(super) const PARK: ManyRows = ManyRows {
    head: "UPDATE tcc_log_transactions AS t \
           SET next_attempt_at = v.column2, has_stuck = max(t.has_stuck, v.column3) FROM (VALUES ",
    width: 3,
    tail: ") AS v WHERE t.gid = v.column1 AND +t.finished_at IS NULL RETURNING gid",
};

/// What is settled stays so, by whatever means it was first, and is not stuck.
pub(super) const PARK_BRANCHES: ManyRows = ManyRows {
    head: "UPDATE tcc_log_branches AS b SET settled = coalesce(b.settled, v.column3), attempts = v.column4, \
           stuck_kind = iif(coalesce(b.settled, v.column3) IS NULL, v.column5, NULL), \
           stuck_since = iif(coalesce(b.settled, v.column3) IS NULL, v.column6, NULL), \
           stuck_detail = iif(coalesce(b.settled, v.column3) IS NULL, v.column7, NULL) FROM (VALUES ",
    width: 7,
    tail: ") AS v WHERE b.gid = v.column1 AND b.branch_id = v.column2",
};

/// Confirming (2) becomes confirmed (3), cancelling (4) becomes cancelled (5).
pub(super) const FINISH: ManyRows = ManyRows {
    head: "UPDATE tcc_log_transactions SET status = status + 1, finished_at = ? WHERE gid IN (VALUES ",
    width: 1,
    tail: ") AND status IN (2, 4) RETURNING gid, has_stuck",
};

/// What has ended is not stuck: the list of stuck branches, and its index, hold only what an operator can do something about.
pub(super) const UNSTICK: ManyRows = ManyRows {
    head: "UPDATE tcc_log_branches SET stuck_kind = NULL, stuck_since = NULL, stuck_detail = NULL WHERE gid IN (VALUES ",
    width: 1,
    tail: ") AND stuck_kind IS NOT NULL",
};

pub(super) async fn park(connection: &mut SqliteConnection, asks: &mut [Ask<Park, ()>]) -> Result<(), Error> {
    if asks.is_empty() {
        return Ok(());
    }
    let rows = PARK
        .fetch(connection, &[], asks, |values, ask| {
            let Park { gid, next_attempt_at, branches } = &ask.question;
            let has_stuck = branches.iter().any(|(_, progress)| progress.stuck.is_some());
            values.put(&gid.as_bytes()[..]).put(next_attempt_at.as_micros()).put(i64::from(has_stuck));
        })
        .await?;
    let parked = rows.iter().map(|row| rows::gid(row, 0)).collect::<Result<HashSet<_>, _>>()?;
    // One row for each branch: with two, the statement would be free to take either.
    let mut branches: BTreeMap<(Gid, &BranchId), &BranchProgress> = BTreeMap::new();
    for ask in asks.iter().filter(|ask| parked.contains(&ask.question.gid)) {
        branches.extend(ask.question.branches.iter().map(|(branch, progress)| ((ask.question.gid, branch), progress)));
    }
    let branches: Vec<_> = branches.into_iter().collect();
    PARK_BRANCHES
        .fetch(connection, &[], &branches, |values, ((gid, branch), progress)| {
            let stuck = progress.stuck.as_ref();
            values
                .put(&gid.as_bytes()[..])
                .put(branch.as_str())
                .put(progress.settled.map(Code::code))
                .put(i64::from(progress.attempts))
                .put(stuck.map(|stuck| stuck.kind.code()))
                .put(stuck.map(|stuck| stuck.since.as_micros()))
                .put(stuck.map(detail));
        })
        .await?;
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

/// The detail, cut to what may be stored.
fn detail(stuck: &Stuck) -> &str {
    &stuck.detail[..stuck.detail.floor_char_boundary(Stuck::DETAIL_LENGTH_MAX)]
}

pub(super) async fn finish(connection: &mut SqliteConnection, asks: &mut [Ask<Gid, ()>], now: Timestamp) -> Result<(), Error> {
    if asks.is_empty() {
        return Ok(());
    }
    let rows = FINISH.fetch(connection, &[now.as_micros()], asks, |values, ask| put_gid(values, &ask.question)).await?;
    let mut with_stuck = Vec::new();
    for row in &rows {
        if rows::get::<i64>(row, 1)? != 0 {
            with_stuck.push(rows::gid(row, 0)?);
        }
    }
    UNSTICK.fetch(connection, &[], &with_stuck, put_gid).await?;
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

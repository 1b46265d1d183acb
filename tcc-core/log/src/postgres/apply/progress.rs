//! What follows a decision: parked transactions and finished ones.

use std::collections::HashSet;

use sqlx::{PgConnection, query};
use tcc_types::{Gid, Timestamp};

use super::column;
use crate::{
    Park,
    fault::Fault,
    postgres::load::bytes_of,
    rows::{self, Columns},
    writer::{
        answers::{has_stuck, parked_branches},
        write::Ask,
    },
};

/// Status 1, 2 and 4 are what is unfinished. By its other name (`finished_at IS NULL`) the planner would find an index of all that is
/// unfinished, and walk through it.
pub(super) const PARK: &str = "UPDATE tcc_log_transactions AS t \
                    SET next_attempt_at = v.next_attempt_at, has_stuck = greatest(t.has_stuck, v.has_stuck) \
                    FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]) AS v(gid, next_attempt_at, has_stuck, owner) \
                    WHERE t.gid = ANY(ARRAY[v.gid]) AND t.owner = v.owner AND t.status + 0 IN (1, 2, 4) RETURNING t.gid";

/// What is settled stays so, by whatever means it was first, and is not stuck.
pub(super) const PARK_BRANCHES: &str = "UPDATE tcc_log_branches AS b SET settled = coalesce(b.settled, v.settled), attempts = v.attempts, \
                             stuck_kind = CASE WHEN coalesce(b.settled, v.settled) IS NULL THEN v.stuck_kind END, \
                             stuck_since = CASE WHEN coalesce(b.settled, v.settled) IS NULL THEN v.stuck_since END, \
                             stuck_detail = CASE WHEN coalesce(b.settled, v.settled) IS NULL THEN v.stuck_detail END \
                             FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
                             $7::text[]) AS v(gid, branch_id, settled, attempts, stuck_kind, stuck_since, stuck_detail) \
                             WHERE b.gid = ANY(ARRAY[v.gid]) AND b.branch_id = v.branch_id";

/// Confirming (2) becomes confirmed (3), cancelling (4) becomes cancelled (5).
pub(super) const FINISH: &str = "UPDATE tcc_log_transactions AS t SET status = t.status + 1, finished_at = $2 \
                      FROM unnest($1::bytea[]) AS v(gid) WHERE t.gid = ANY(ARRAY[v.gid]) AND t.status + 0 IN (2, 4) RETURNING t.gid, t.has_stuck";

/// What has ended is not stuck: the list of stuck branches, and its index, hold only what an operator can do something about.
/// By its plain name (`stuck_kind IS NOT NULL`) the planner would walk through that index.
pub(super) const UNSTICK: &str = "UPDATE tcc_log_branches SET stuck_kind = NULL, stuck_since = NULL, stuck_detail = NULL \
                       WHERE gid = ANY($1::bytea[]) AND coalesce(stuck_kind, 0) > 0";

pub(super) async fn park(connection: &mut PgConnection, asks: &mut [Ask<Park, ()>]) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question.gid);
    let rows = query(PARK)
        .bind(column(asks, |ask| &ask.question.gid.as_bytes()[..]))
        .bind(column(asks, |ask| ask.question.next_attempt_at.as_micros()))
        .bind(column(asks, |ask| i64::from(has_stuck(&ask.question))))
        .bind(column(asks, |ask| rows::owner_number(ask.question.owner)))
        .fetch_all(&mut *connection)
        .await?;
    let parked: HashSet<Gid> = rows::gids(&rows)?;
    let branches = parked_branches(asks, &parked);
    if !branches.is_empty() {
        query(PARK_BRANCHES)
            .bind(column(&branches, |progress| &progress.gid.as_bytes()[..]))
            .bind(column(&branches, |progress| progress.branch))
            .bind(column(&branches, |progress| progress.settled))
            .bind(column(&branches, |progress| progress.attempts))
            .bind(column(&branches, |progress| progress.stuck_kind))
            .bind(column(&branches, |progress| progress.stuck_since))
            .bind(column(&branches, |progress| progress.stuck_detail.map(without_nul)))
            .execute(connection)
            .await?;
    }
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

/// A text may have no such character here, and a detail is whatever somebody's error said.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) async fn finish(connection: &mut PgConnection, asks: &mut [Ask<Gid, ()>], now: Timestamp) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question);
    let rows = query(FINISH)
        .bind(column(asks, |ask| &ask.question.as_bytes()[..]))
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await?;
    let mut with_stuck = Vec::new();
    for row in &rows {
        if row.int(1)? != 0 {
            with_stuck.push(rows::gid(row, 0)?);
        }
    }
    if !with_stuck.is_empty() {
        query(UNSTICK).bind(bytes_of(&with_stuck)).execute(connection).await?;
    }
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

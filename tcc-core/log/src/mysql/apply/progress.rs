//! What follows a decision: parked transactions and finished ones.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{MySqlConnection, query};
use tcc_types::{Gid, Timestamp};

use super::marked;
use crate::{
    Park,
    fault::Fault,
    mysql::values::{Marks, branches, digits, gid_lists, list, lists, transactions},
    rows,
    writer::{
        answers::{StoredProgress, has_stuck, parked_branches},
        write::Ask,
    },
};

pub(super) const PARK: &str = concat!(
    "UPDATE ",
    list!(g gid, next_attempt_at int, has_stuck int, owner int),
    transactions!(),
    "SET t.next_attempt_at = v.next_attempt_at, t.has_stuck = GREATEST(t.has_stuck, v.has_stuck), t.touched_by = UNHEX(?) \
     WHERE t.owner = v.owner AND t.finished_at IS NULL"
);

/// What is settled stays so, by whatever means it was first, and is not stuck. Each value is the same whether `settled` is set
/// before it or after it, which the database does not promise.
pub(super) const PARK_BRANCHES: &str = concat!(
    "UPDATE ",
    list!(g gid, branch_id id, settled int, attempts int, stuck_kind int, stuck_since int, stuck_detail text),
    branches!(),
    "AND b.branch_id = v.branch_id \
     SET b.settled = COALESCE(b.settled, v.settled), b.attempts = v.attempts, \
     b.stuck_kind = CASE WHEN COALESCE(b.settled, v.settled) IS NULL THEN v.stuck_kind END, \
     b.stuck_since = CASE WHEN COALESCE(b.settled, v.settled) IS NULL THEN v.stuck_since END, \
     b.stuck_detail = CASE WHEN COALESCE(b.settled, v.settled) IS NULL THEN v.stuck_detail END"
);

/// Confirming (2) becomes confirmed (3), cancelling (4) becomes cancelled (5). Gives 1 to `LAST_INSERT_ID` where one of them had stuck
/// branches, and nothing where none had.
pub(super) const FINISH: &str = concat!(
    "UPDATE ",
    list!(g gid),
    transactions!(),
    "SET t.status = t.status + 1, t.finished_at = ?, t.touched_by = UNHEX(?), \
     t.has_stuck = IF(t.has_stuck = 1, LAST_INSERT_ID(1), 0) WHERE t.status IN (2, 4)"
);

/// What has ended is not stuck: the list of stuck branches, and its index, hold only what an operator can do something about.
pub(super) const UNSTICK: &str = concat!(
    "UPDATE ",
    list!(g gid),
    branches!(),
    "SET b.stuck_kind = NULL, b.stuck_since = NULL, b.stuck_detail = NULL WHERE b.stuck_kind IS NOT NULL"
);

pub(super) const ENDED_WITH_STUCK: &str =
    concat!("SELECT t.gid FROM ", list!(g gid), transactions!(), "WHERE t.touched_by = UNHEX(?) AND t.has_stuck = 1");

/// A row of [`PARK`].
fn parked_row(park: &Park) -> impl Serialize {
    let next_attempt_at = park.next_attempt_at.as_micros();
    (digits(park.gid), next_attempt_at, u8::from(has_stuck(park)), rows::owner_number(park.owner))
}

/// A row of [`PARK_BRANCHES`].
fn progress_row(progress: StoredProgress<'_>) -> impl Serialize {
    let StoredProgress { gid, branch, settled, attempts, stuck_kind, stuck_since, stuck_detail } = progress;
    (digits(gid), branch, settled, attempts, stuck_kind, stuck_since, stuck_detail)
}

pub(super) async fn park(connection: &mut MySqlConnection, asks: &mut [Ask<Park, ()>], marks: &mut Marks) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question.gid);
    let mark = marks.take();
    let mut counted = 0;
    for list in lists(asks.iter().map(|ask| parked_row(&ask.question)))? {
        counted += query(PARK).bind(list).bind(&mark).execute(&mut *connection).await?.rows_affected();
    }
    let gids: Vec<Gid> = asks.iter().map(|ask| ask.question.gid).collect();
    let parked: HashSet<Gid> = if counted == gids.len() as u64 {
        gids.into_iter().collect()
    } else {
        marked(connection, &gids, &mark).await?.into_keys().collect()
    };
    for list in lists(parked_branches(asks, &parked).into_iter().map(progress_row))? {
        query(PARK_BRANCHES).bind(list).execute(&mut *connection).await?;
    }
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

pub(super) async fn finish(
    connection: &mut MySqlConnection,
    asks: &mut [Ask<Gid, ()>],
    now: Timestamp,
    marks: &mut Marks,
) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question);
    let gids: Vec<Gid> = asks.iter().map(|ask| ask.question).collect();
    let mark = marks.take();
    let mut with_stuck = Vec::new();
    for list in gid_lists(&gids)? {
        let done = query(FINISH).bind(&list).bind(now.as_micros()).bind(&mark).execute(&mut *connection).await?;
        if done.last_insert_id() != 0 {
            let rows = query(ENDED_WITH_STUCK).bind(&list).bind(&mark).fetch_all(&mut *connection).await?;
            with_stuck.extend(rows::gids::<Vec<Gid>>(&rows)?);
        }
    }
    for list in gid_lists(&with_stuck)? {
        query(UNSTICK).bind(list).execute(&mut *connection).await?;
    }
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

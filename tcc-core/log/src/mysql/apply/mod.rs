//! The statements of each kind of write, over whole groups. Runs inside the writer's transaction; sets answers, tells none.
//!
//! Other gateways write at the same time: each statement writes first, and what it did not change is looked at in a new one,
//! which sees what the first one waited for. Within a statement rows go in key order, and a transaction comes before its
//! branches, so that two gateways rarely meet crosswise.
//!
//! No statement returns the rows that it changed. Where it counts as many as it was given, these are they; otherwise they have
//! its mark.

mod alone;
mod begin;
mod decide;
mod enlist;
mod progress;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use sqlx::{MySqlConnection, query};
use tcc_types::{Gid, Timestamp};

use super::values::{Marks, gid_lists, list, transactions};
use crate::{fault::Fault, rows, writer::plan::Run};

/// Runs the statements of one run.
pub(super) async fn apply(
    connection: &mut MySqlConnection,
    run: &mut Run,
    now: Timestamp,
    marks: &mut Marks,
) -> Result<(), Fault> {
    begin::apply(connection, &mut run.begins, now, marks).await?;
    enlist::apply(connection, &mut run.enlists, marks).await?;
    decide::apply(connection, &mut run.decides, now, marks).await?;
    progress::park(connection, &mut run.parks, marks).await?;
    progress::finish(connection, &mut run.finishes, now, marks).await?;
    match &mut run.alone {
        Some(alone) => alone::apply(connection, alone, now, marks).await,
        None => Ok(()),
    }
}

const MARKED: &str =
    concat!("SELECT t.gid, t.branch_count FROM ", list!(g gid), transactions!(), "WHERE t.touched_by = UNHEX(?)");

/// Of these transactions, those that have the mark, with their number of branches.
async fn marked(connection: &mut MySqlConnection, gids: &[Gid], mark: &str) -> Result<HashMap<Gid, u32>, Fault> {
    let mut found = HashMap::with_capacity(gids.len());
    for list in gid_lists(gids)? {
        let rows = query(MARKED).bind(list).bind(mark).fetch_all(&mut *connection).await?;
        found.extend(rows::gid_counts(&rows)?);
    }
    Ok(found)
}

/// Changes what means nothing.
const TOUCH: &str = concat!("UPDATE ", list!(g gid), transactions!(), "SET t.found = 1 - t.found");

/// Writes to transactions that others changed, before they are told. InnoDB shows a commit to others before it is on the disk
/// (unless there is a binary log); a later commit takes it along, but only one that has written something. An insert that finds
/// a row in its way writes to it in any case.
async fn touch(connection: &mut MySqlConnection, gids: &[Gid]) -> Result<(), Fault> {
    for list in gid_lists(gids)? {
        query(TOUCH).bind(list).execute(&mut *connection).await?;
    }
    Ok(())
}

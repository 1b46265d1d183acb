//! Enlisting: the branch and the raised count in one commit.

use std::collections::{HashMap, HashSet};

use sqlx::{MySqlConnection, query};
use tcc_types::Gid;

use super::{begin::insert_branches, marked, touch};
use crate::{
    Enlisted,
    fault::Fault,
    mysql::{
        load::{BRANCH_KEYS, fetch, key_lists, load},
        values::{Marks, digits, gid_lists, list, lists, transactions},
    },
    rows,
    writer::{
        answers::{answer_enlists, raised_branches, unchanged},
        write::{Ask, Enlist},
    },
};

/// Status 1 is trying, 3 is decided on request and open to branches. Whether the branch is there is asked in a later statement:
/// this one locks the transaction, and whoever inserts a branch holds that lock.
pub(super) const RAISE: &str = concat!(
    "UPDATE ",
    list!(g gid, branches_max int),
    transactions!(),
    "SET t.branch_count = t.branch_count + 1, t.touched_by = UNHEX(?) \
     WHERE t.status = 1 AND t.decides = 3 AND t.branch_count < v.branches_max"
);

pub(super) const LOWER: &str = concat!("UPDATE ", list!(g gid), transactions!(), "SET t.branch_count = t.branch_count - 1");

pub(super) async fn apply(
    connection: &mut MySqlConnection,
    asks: &mut [Ask<Enlist, Enlisted>],
    marks: &mut Marks,
) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question.gid);
    let mark = marks.take();
    let raise = |ask: &Ask<Enlist, _>| (digits(ask.question.gid), ask.question.branches_max);
    for list in lists(asks.iter().map(raise))? {
        query(RAISE).bind(list).bind(&mark).execute(&mut *connection).await?;
    }
    let gids: Vec<Gid> = asks.iter().map(|ask| ask.question.gid).collect();
    let mut raised = marked(connection, &gids, &mark).await?;
    take_back(connection, asks, &mut raised).await?;
    insert_branches(connection, &raised_branches(asks, &raised)).await?;
    let others = unchanged(gids.into_iter(), &raised);
    touch(connection, &others).await?;
    let mut standing = load(connection, &others).await?;
    answer_enlists(asks, &raised, &mut standing)
}

/// Lowers again what was raised for branches that are there already.
async fn take_back(
    connection: &mut MySqlConnection,
    asks: &[Ask<Enlist, Enlisted>],
    raised: &mut HashMap<Gid, u32>,
) -> Result<(), Fault> {
    let keys: Vec<_> = raised_branches(asks, raised).into_iter().map(|(gid, _, new)| (gid, &new.branch)).collect();
    let there: HashSet<Gid> = rows::gids(&fetch(connection, BRANCH_KEYS, &key_lists(keys)?).await?)?;
    let mut lowered: Vec<Gid> = there.into_iter().collect();
    lowered.sort_unstable();
    for list in gid_lists(&lowered)? {
        query(LOWER).bind(list).execute(&mut *connection).await?;
    }
    for gid in lowered {
        raised.remove(&gid);
    }
    Ok(())
}

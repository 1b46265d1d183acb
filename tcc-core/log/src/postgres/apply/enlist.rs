//! Enlisting: the branch and the raised count in one commit.

use std::collections::HashSet;

use sqlx::{PgConnection, query};
use tcc_types::Gid;

use super::{begin::insert_branches, column};
use crate::{
    Enlisted,
    fault::Fault,
    postgres::load::{bytes_of, load, touch},
    rows,
    writer::{
        answers::{answer_enlists, raised_branches, unchanged},
        write::{Ask, Enlist},
    },
};

/// Status 1 is trying, 3 is decided on request and open to branches. Whether the branch is there is not asked here: of another
/// gateway's, which this statement may wait for, it would not see the branch. It locks the transaction, so that whoever comes
/// next sees both.
pub(super) const RAISE: &str = "UPDATE tcc_log_transactions AS t SET branch_count = t.branch_count + 1 \
                     FROM unnest($1::bytea[], $2::bigint[]) AS v(gid, branches_max) \
                     WHERE t.gid = ANY(ARRAY[v.gid]) AND t.status + 0 = 1 AND t.decides = 3 AND t.branch_count < v.branches_max \
                     RETURNING t.gid, t.branch_count";

pub(super) const LOWER: &str = "UPDATE tcc_log_transactions SET branch_count = branch_count - 1 WHERE gid = ANY($1::bytea[])";

pub(super) async fn apply(connection: &mut PgConnection, asks: &mut [Ask<Enlist, Enlisted>]) -> Result<(), Fault> {
    if asks.is_empty() {
        return Ok(());
    }
    asks.sort_by_key(|ask| ask.question.gid);
    let rows = query(RAISE)
        .bind(column(asks, |ask| &ask.question.gid.as_bytes()[..]))
        .bind(column(asks, |ask| i64::from(ask.question.branches_max)))
        .fetch_all(&mut *connection)
        .await?;
    let mut raised = rows::gid_counts(&rows)?;
    let inserted = insert_branches(connection, &raised_branches(asks, &raised)).await?;
    if inserted.len() < raised.len() {
        // Those branches are there already.
        let inserted: HashSet<Gid> = inserted.into_iter().collect();
        let mut lowered: Vec<Gid> = raised.keys().copied().filter(|gid| !inserted.contains(gid)).collect();
        lowered.sort_unstable();
        query(LOWER).bind(bytes_of(&lowered)).execute(&mut *connection).await?;
        raised.retain(|gid, _| inserted.contains(gid));
    }
    let others = unchanged(asks.iter().map(|ask| ask.question.gid), &raised);
    touch(connection, &others).await?;
    let mut standing = load(connection, &others).await?;
    answer_enlists(asks, &raised, &mut standing)
}

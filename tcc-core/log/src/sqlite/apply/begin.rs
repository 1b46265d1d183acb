//! Begun and the cancelled record: one insert for both, since the loser obeys the winner.

use std::collections::HashSet;

use sqlx::SqliteConnection;
use tcc_database::sqlite::lists::ManyRows;
use tcc_types::{Gid, Timestamp};

use crate::{
    NewBranch,
    fault::Fault,
    rows::{self, Columns, head_columns},
    sqlite::load::load,
    writer::{
        answers::{Standing, answer_begins, branches_of, losers},
        write::Beginning,
    },
};

pub(super) const INSERT: ManyRows = ManyRows {
    head: concat!("INSERT OR FAIL INTO tcc_log_transactions (", head_columns!(), ") SELECT * FROM (VALUES "),
    width: 16,
    tail: ") WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING RETURNING gid",
};

pub(super) const INSERT_BRANCHES: ManyRows = ManyRows {
    head: "INSERT OR FAIL INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) SELECT * FROM (VALUES ",
    width: 6,
    tail: ") WHERE column1 IS NOT NULL",
};

pub(super) const GIDS_BY_KEY: ManyRows = ManyRows {
    head: "SELECT t.gid, t.initiator, t.idempotency_key FROM (VALUES ",
    width: 2,
    // CROSS JOIN keeps the order: each given key is looked up in the index.
    tail: ") AS v CROSS JOIN tcc_log_transactions AS t ON t.initiator = v.column1 AND t.idempotency_key = v.column2",
};

pub(super) async fn apply(
    connection: &mut SqliteConnection,
    beginnings: &mut [Beginning],
    now: Timestamp,
) -> Result<(), Fault> {
    if beginnings.is_empty() {
        return Ok(());
    }
    let inserted = insert(connection, beginnings, now).await?;
    let standing = if inserted.len() < beginnings.len() {
        find_standing(connection, beginnings, &inserted).await?
    } else {
        Standing::default()
    };
    answer_begins(beginnings, &inserted, &standing, now)
}

/// Inserts what is not there yet, in queue order; returns the gids of what was inserted.
async fn insert(connection: &mut SqliteConnection, beginnings: &[Beginning], now: Timestamp) -> Result<HashSet<Gid>, Fault> {
    let heads = beginnings.iter().map(|beginning| beginning.head(now)).collect::<Result<Vec<_>, _>>()?;
    let rows = INSERT
        .fetch(connection, &[], &heads, |values, head| {
            values
                .put(head.gid)
                .put(head.status)
                .put(head.initiator)
                .put(head.key)
                .put(head.fingerprint)
                .put(head.try_order)
                .put(head.decides)
                .put(head.branch_count)
                .put(head.try_until)
                .put(head.decide_by)
                .put(head.created_at)
                .put(head.decided_at)
                .put(head.decided_at)
                .put(head.next_attempt_at)
                .put(head.cause.as_deref())
                .put(head.owner);
        })
        .await?;
    let inserted: HashSet<Gid> = rows::gids(&rows)?;
    insert_branches(connection, &branches_of(beginnings, &inserted)).await?;
    Ok(inserted)
}

/// Inserts branches, each with its place in the initiator's order.
pub(super) async fn insert_branches(
    connection: &mut SqliteConnection,
    branches: &[(Gid, i64, &NewBranch)],
) -> Result<(), Fault> {
    INSERT_BRANCHES
        .fetch(connection, &[], branches, |values, (gid, seq, new)| {
            values
                .put(&gid.as_bytes()[..])
                .put(new.branch.as_str())
                .put(*seq)
                .put(new.participant.as_str())
                .put(new.payload.type_url.as_str())
                .put(&new.payload.value[..]);
        })
        .await?;
    Ok(())
}

async fn find_standing(
    connection: &mut SqliteConnection,
    beginnings: &[Beginning],
    inserted: &HashSet<Gid>,
) -> Result<Standing, Fault> {
    let by_gid = load(connection, &losers(beginnings, inserted)).await?;
    let mut standing = Standing { by_gid, ..Standing::default() };
    let keys = standing.missing_keys(beginnings, inserted);
    let rows = GIDS_BY_KEY
        .fetch(connection, &[], &keys, |values, (initiator, key)| {
            values.put(initiator.as_str()).put(key.as_str());
        })
        .await?;
    let mut gids = Vec::with_capacity(rows.len());
    for row in &rows {
        let gid = rows::gid(row, 0)?;
        if standing.by_key.insert((row.text(1)?.to_owned(), row.text(2)?.to_owned()), gid).is_none() {
            gids.push(gid);
        }
    }
    standing.by_gid.extend(load(connection, &gids).await?);
    Ok(standing)
}

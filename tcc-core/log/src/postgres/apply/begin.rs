//! Begun and the cancelled record: one insert for both, since the loser obeys the winner.

use std::collections::{BTreeSet, HashSet};

use sqlx::{PgConnection, query};
use tcc_types::{Gid, Timestamp};

use super::column;
use crate::{
    NewBranch,
    fault::Fault,
    postgres::load::{load, touch},
    rows::{self, Columns, head_columns},
    writer::{
        answers::{Standing, answer_begins, branches_of, losers},
        write::Beginning,
    },
};

pub(super) const INSERT: &str = concat!(
    "INSERT INTO tcc_log_transactions (",
    head_columns!(),
    ") SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $12::bigint[], $13::bigint[], $14::text[], \
     $15::bigint[]) ON CONFLICT DO NOTHING RETURNING gid"
);

pub(super) const INSERT_BRANCHES: &str = "INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) \
                               SELECT * FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bytea[]) \
                               ON CONFLICT DO NOTHING RETURNING gid";

/// Finds more than was asked for, a key of one initiator under another: pairs would be a join, for which the planner walks through
/// all of an index as long as it takes the table for small.
pub(super) const GIDS_BY_KEY: &str = "SELECT gid, initiator, idempotency_key FROM tcc_log_transactions \
                                      WHERE initiator = ANY($1::text[]) AND idempotency_key = ANY($2::text[])";

pub(super) async fn apply(connection: &mut PgConnection, beginnings: &mut [Beginning], now: Timestamp) -> Result<(), Fault> {
    if beginnings.is_empty() {
        return Ok(());
    }
    // Keys first: requests that race for a key bring gids of their own, and requests that race for a gid bring the same key.
    beginnings.sort_by(|one, two| (one.key(), one.gid()).cmp(&(two.key(), two.gid())));
    let inserted = insert(connection, beginnings, now).await?;
    let standing = if inserted.len() < beginnings.len() {
        find_standing(connection, beginnings, &inserted).await?
    } else {
        Standing::default()
    };
    answer_begins(beginnings, &inserted, &standing, now)
}

/// Inserts what is not there yet; returns the gids of what was inserted.
async fn insert(connection: &mut PgConnection, beginnings: &[Beginning], now: Timestamp) -> Result<HashSet<Gid>, Fault> {
    let heads = beginnings.iter().map(|beginning| beginning.head(now)).collect::<Result<Vec<_>, _>>()?;
    let rows = query(INSERT)
        .bind(column(&heads, |head| head.gid))
        .bind(column(&heads, |head| head.status))
        .bind(column(&heads, |head| head.initiator))
        .bind(column(&heads, |head| head.key))
        .bind(column(&heads, |head| head.fingerprint))
        .bind(column(&heads, |head| head.try_order))
        .bind(column(&heads, |head| head.decides))
        .bind(column(&heads, |head| head.branch_count))
        .bind(column(&heads, |head| head.try_until))
        .bind(column(&heads, |head| head.decide_by))
        .bind(column(&heads, |head| head.created_at))
        .bind(column(&heads, |head| head.decided_at))
        .bind(column(&heads, |head| head.next_attempt_at))
        .bind(column(&heads, |head| head.cause.as_deref()))
        .bind(column(&heads, |head| head.owner))
        .fetch_all(&mut *connection)
        .await?;
    let inserted: HashSet<Gid> = rows::gids(&rows)?;
    let branches = branches_of(beginnings, &inserted);
    if insert_branches(connection, &branches).await?.len() < branches.len() {
        return Err(Fault::Overtaken("a branch is there whose transaction is not"));
    }
    Ok(inserted)
}

/// Inserts branches, each with its place in the initiator's order. Returns the gids of those that were not there yet.
pub(super) async fn insert_branches(
    connection: &mut PgConnection,
    branches: &[(Gid, i64, &NewBranch)],
) -> Result<Vec<Gid>, Fault> {
    if branches.is_empty() {
        return Ok(Vec::new());
    }
    let rows = query(INSERT_BRANCHES)
        .bind(column(branches, |(gid, ..)| &gid.as_bytes()[..]))
        .bind(column(branches, |(_, _, new)| new.branch.as_str()))
        .bind(column(branches, |(_, seq, _)| *seq))
        .bind(column(branches, |(_, _, new)| new.participant.as_str()))
        .bind(column(branches, |(_, _, new)| new.payload.type_url.as_str()))
        .bind(column(branches, |(_, _, new)| &new.payload.value[..]))
        .fetch_all(connection)
        .await?;
    rows::gids(&rows)
}

async fn find_standing(
    connection: &mut PgConnection,
    beginnings: &[Beginning],
    inserted: &HashSet<Gid>,
) -> Result<Standing, Fault> {
    let losers = losers(beginnings, inserted);
    touch(connection, &losers).await?;
    let by_gid = load(connection, &losers).await?;
    let mut standing = Standing { by_gid, ..Standing::default() };
    let keys = standing.missing_keys(beginnings, inserted);
    if keys.is_empty() {
        return Ok(standing);
    }
    let initiators: BTreeSet<&str> = keys.iter().map(|(initiator, _)| initiator.as_str()).collect();
    let rows = query(GIDS_BY_KEY)
        .bind(initiators.into_iter().collect::<Vec<_>>())
        .bind(column(&keys, |(_, key)| key.as_str()))
        .fetch_all(&mut *connection)
        .await?;
    let asked: HashSet<(&str, &str)> = keys.iter().map(|(initiator, key)| (initiator.as_str(), key.as_str())).collect();
    let mut gids = Vec::with_capacity(rows.len());
    for row in &rows {
        let (gid, pair) = (rows::gid(row, 0)?, (row.text(1)?, row.text(2)?));
        if asked.contains(&pair) && standing.by_key.insert((pair.0.to_owned(), pair.1.to_owned()), gid).is_none() {
            gids.push(gid);
        }
    }
    touch(connection, &gids).await?;
    standing.by_gid.extend(load(connection, &gids).await?);
    Ok(standing)
}

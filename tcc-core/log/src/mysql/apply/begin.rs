//! Begun and the cancelled record: one insert for both, since the loser obeys the winner.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{MySqlConnection, query};
use tcc_types::{Gid, Timestamp};

use super::marked;
use crate::{
    Error, NewBranch,
    fault::Fault,
    mysql::{
        load::{fetch, load},
        values::{Marks, digits, encoded, is_brief, is_name, list, lists},
    },
    rows::{self, Columns, head_columns},
    writer::{
        answers::{NewHead, Standing, answer_begins, branches_of, losers},
        write::Beginning,
    },
};

/// Counts one row for each that it inserts and two for each that was in the way, by its gid or by its key.
pub(super) const INSERT: &str = concat!(
    "INSERT INTO tcc_log_transactions (",
    head_columns!(),
    ", touched_by) SELECT UNHEX(v.g), v.status, v.initiator, v.idempotency_key, FROM_BASE64(v.fingerprint), v.try_order, \
     v.decides, v.branch_count, v.try_until, v.decide_by, v.created_at, v.decided_at, v.decided_at, v.next_attempt_at, v.cause, \
     v.owner, UNHEX(?) FROM ",
    list!(
        g gid, status int, initiator id, idempotency_key id, fingerprint brief, try_order int, decides int, branch_count int,
        try_until int, decide_by int, created_at int, decided_at int, next_attempt_at int, cause name, owner int
    ),
    " ON DUPLICATE KEY UPDATE found = 1 - tcc_log_transactions.found"
);

macro_rules! insert_branches {
    ($text:ident $bytes:ident) => {
        concat!(
            "INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) \
             SELECT UNHEX(v.g), v.branch_id, v.seq, v.participant, v.type_url, FROM_BASE64(v.payload) FROM ",
            list!(g gid, branch_id id, seq int, participant id, type_url $text, payload $bytes)
        )
    };
}

pub(super) const INSERT_BRANCHES: &str = insert_branches!(text encoded);

/// The same where all that is stored is short, as it nearly always is.
pub(super) const INSERT_BRIEF_BRANCHES: &str = insert_branches!(name brief);

pub(super) const GIDS_BY_KEY: &str = concat!(
    "SELECT t.gid, t.initiator, t.idempotency_key FROM ",
    list!(initiator id, idempotency_key id),
    " STRAIGHT_JOIN tcc_log_transactions AS t FORCE INDEX (tcc_log_transactions_by_key) \
     ON t.initiator = v.initiator AND t.idempotency_key = v.idempotency_key"
);

#[derive(Serialize)]
struct Head<'a> {
    g: String,
    status: i64,
    initiator: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    try_order: i64,
    decides: i64,
    branch_count: i64,
    try_until: i64,
    decide_by: i64,
    created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<i64>,
    next_attempt_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    owner: i64,
}

impl<'a> Head<'a> {
    fn new(gid: Gid, head: NewHead<'a>) -> Self {
        Self {
            g: digits(gid),
            status: head.status,
            initiator: head.initiator,
            idempotency_key: head.key,
            fingerprint: head.fingerprint.map(encoded),
            try_order: head.try_order,
            decides: head.decides,
            branch_count: head.branch_count,
            try_until: head.try_until,
            decide_by: head.decide_by,
            created_at: head.created_at,
            decided_at: head.decided_at,
            next_attempt_at: head.next_attempt_at,
            cause: head.cause,
            owner: head.owner,
        }
    }
}

#[derive(Serialize)]
struct Branch<'a> {
    g: String,
    branch_id: &'a str,
    seq: i64,
    participant: &'a str,
    type_url: &'a str,
    payload: String,
}

#[derive(Serialize)]
struct Key<'a> {
    initiator: &'a str,
    idempotency_key: &'a str,
}

pub(super) async fn apply(
    connection: &mut MySqlConnection,
    beginnings: &mut [Beginning],
    now: Timestamp,
    marks: &mut Marks,
) -> Result<(), Fault> {
    if beginnings.is_empty() {
        return Ok(());
    }
    // Keys first: requests that race for a key bring gids of their own, and requests that race for a gid bring the same key.
    beginnings.sort_by(|one, two| (one.key(), one.gid()).cmp(&(two.key(), two.gid())));
    let inserted = insert(connection, beginnings, now, &marks.take()).await?;
    insert_branches(connection, &branches_of(beginnings, &inserted)).await?;
    let standing = if inserted.len() < beginnings.len() {
        find_standing(connection, beginnings, &inserted).await?
    } else {
        Standing::default()
    };
    answer_begins(beginnings, &inserted, &standing, now)
}

/// Inserts what is not there yet; returns the gids of what was inserted.
async fn insert(
    connection: &mut MySqlConnection,
    beginnings: &[Beginning],
    now: Timestamp,
    mark: &str,
) -> Result<HashSet<Gid>, Fault> {
    let heads = beginnings
        .iter()
        .map(|beginning| Ok(Head::new(beginning.gid(), beginning.head(now)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let mut counted = 0;
    for list in lists(heads)? {
        counted += query(INSERT).bind(mark).bind(list).execute(&mut *connection).await?.rows_affected();
    }
    let gids: Vec<Gid> = beginnings.iter().map(Beginning::gid).collect();
    if counted == gids.len() as u64 {
        Ok(gids.into_iter().collect())
    } else {
        Ok(marked(connection, &gids, mark).await?.into_keys().collect())
    }
}

/// Inserts branches, each with its place in the initiator's order.
pub(super) async fn insert_branches(
    connection: &mut MySqlConnection,
    branches: &[(Gid, i64, &NewBranch)],
) -> Result<(), Fault> {
    let mut ordered: Vec<_> = branches.iter().collect();
    ordered.sort_unstable_by_key(|(gid, _, new)| (*gid, &new.branch));
    let is_brief = |(_, _, new): &&(Gid, i64, &NewBranch)| is_name(&new.payload.type_url) && is_brief(&new.payload.value);
    let text = if ordered.iter().all(is_brief) { INSERT_BRIEF_BRANCHES } else { INSERT_BRANCHES };
    let rows = ordered.into_iter().map(|(gid, seq, new)| Branch {
        g: digits(*gid),
        branch_id: new.branch.as_str(),
        seq: *seq,
        participant: new.participant.as_str(),
        type_url: new.payload.type_url.as_str(),
        payload: encoded(&new.payload.value),
    });
    for list in lists(rows)? {
        query(text).bind(list).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn find_standing(
    connection: &mut MySqlConnection,
    beginnings: &[Beginning],
    inserted: &HashSet<Gid>,
) -> Result<Standing, Fault> {
    let by_gid = load(connection, &losers(beginnings, inserted)).await?;
    let mut standing = Standing { by_gid, ..Standing::default() };
    let keys = standing.missing_keys(beginnings, inserted);
    let keys = keys.into_iter().map(|(initiator, key)| Key { initiator: initiator.as_str(), idempotency_key: key.as_str() });
    let rows = fetch(connection, GIDS_BY_KEY, &lists(keys)?).await?;
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

//! Begun and the cancelled record: one insert for both, since the loser obeys the winner.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{MySql, MySqlConnection, mysql::MySqlArguments, query, query::Query};
use tcc_types::{Gid, Timestamp};

use super::marked;
use crate::{
    Error, NewBranch,
    fault::Fault,
    mysql::{
        load::{fetch, load},
        values::{Insert, Marks, Piece, digits, encoded, is_brief, is_name, list, lists, mysql_insert},
    },
    rows::{self, Columns, head_columns},
    writer::{
        answers::{NewHead, Standing, answer_begins, branches_of, losers},
        write::Beginning,
    },
};

macro_rules! insert {
    () => {
        concat!("INSERT INTO tcc_log_transactions (", head_columns!(), ", touched_by) ")
    };
}

/// Counts one row for each that it inserts and two for each that was in the way, by its gid or by its key.
macro_rules! found {
    () => {
        " ON DUPLICATE KEY UPDATE found = 1 - tcc_log_transactions.found"
    };
}

pub(super) const INSERT: &str = concat!(
    insert!(),
    "SELECT UNHEX(v.g), v.status, v.initiator, v.idempotency_key, FROM_BASE64(v.fingerprint), v.try_order, v.decides, \
     v.branch_count, v.try_until, v.decide_by, ?, v.decided_at, v.decided_at, v.next_attempt_at, v.cause, v.owner, UNHEX(?) FROM ",
    list!(
        g gid, status int, initiator id, idempotency_key id, fingerprint brief, try_order int, decides int, branch_count int,
        try_until int, decide_by int, decided_at int, next_attempt_at int, cause name, owner int
    ),
    found!()
);

const INSERT_VALUES: Insert =
    mysql_insert!(concat!(insert!(), "VALUES "), "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, UNHEX(?))", found!());

macro_rules! insert_branches {
    () => {
        "INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) "
    };
    ($text:ident $bytes:ident) => {
        concat!(
            insert_branches!(),
            "SELECT UNHEX(v.g), v.branch_id, v.seq, v.participant, v.type_url, FROM_BASE64(v.payload) FROM ",
            list!(g gid, branch_id id, seq int, participant id, type_url $text, payload $bytes)
        )
    };
}

pub(super) const INSERT_BRANCHES: &str = insert_branches!(text encoded);

/// The same where all that is stored is short, as it nearly always is.
pub(super) const INSERT_BRIEF_BRANCHES: &str = insert_branches!(name brief);

const INSERT_BRANCH_VALUES: Insert = mysql_insert!(concat!(insert_branches!(), "VALUES "), "(?, ?, ?, ?, ?, ?)", "");

pub(super) const GIDS_BY_KEY: &str = concat!(
    "SELECT t.gid, t.initiator, t.idempotency_key FROM ",
    list!(initiator id, idempotency_key id),
    " STRAIGHT_JOIN tcc_log_transactions AS t FORCE INDEX (tcc_log_transactions_by_key) \
     ON t.initiator = v.initiator AND t.idempotency_key = v.idempotency_key"
);

type MySqlQuery = Query<'static, MySql, MySqlArguments>;

/// A row of [`INSERT`].
fn head_row((gid, head): &(Gid, NewHead<'_>)) -> impl Serialize {
    (
        digits(*gid),
        head.status,
        head.initiator,
        head.key,
        head.fingerprint.map(encoded),
        head.try_order,
        head.decides,
        head.branch_count,
        head.try_until,
        head.decide_by,
        head.decided_at,
        head.next_attempt_at,
        head.cause.as_deref(),
        head.owner,
    )
}

/// A row of [`INSERT_VALUES`].
fn bind_head(query: MySqlQuery, head: &NewHead<'_>, mark: &str) -> MySqlQuery {
    query
        .bind(head.gid)
        .bind(head.status)
        .bind(head.initiator)
        .bind(head.key)
        .bind(head.fingerprint)
        .bind(head.try_order)
        .bind(head.decides)
        .bind(head.branch_count)
        .bind(head.try_until)
        .bind(head.decide_by)
        .bind(head.created_at)
        .bind(head.decided_at)
        .bind(head.decided_at)
        .bind(head.next_attempt_at)
        .bind(head.cause.as_deref())
        .bind(head.owner)
        .bind(mark)
}

/// A branch with its place in the initiator's order.
type Sequenced<'a> = (Gid, i64, &'a NewBranch);

/// A row of [`INSERT_BRANCHES`].
fn branch_row((gid, seq, new): &Sequenced<'_>) -> impl Serialize {
    let (payload, participant) = (&new.payload, new.participant.as_str());
    (digits(*gid), new.branch.as_str(), *seq, participant, payload.type_url.as_str(), encoded(&payload.value))
}

/// A row of [`INSERT_BRANCH_VALUES`].
fn bind_branch(query: MySqlQuery, (gid, seq, new): &Sequenced<'_>) -> MySqlQuery {
    query
        .bind(&gid.as_bytes()[..])
        .bind(new.branch.as_str())
        .bind(*seq)
        .bind(new.participant.as_str())
        .bind(new.payload.type_url.as_str())
        .bind(&new.payload.value[..])
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
    let heads =
        beginnings.iter().map(|beginning| Ok((beginning.gid(), beginning.head(now)?))).collect::<Result<Vec<_>, Error>>()?;
    let mut counted = 0;
    for piece in INSERT_VALUES.pieces(&heads, |(_, head)| head.cause.as_ref().map_or(0, String::len)) {
        match piece {
            Piece::Values(text, heads) => {
                let query = heads.iter().fold(query(text), |query, (_, head)| bind_head(query, head, mark));
                counted += query.execute(&mut *connection).await?.rows_affected();
            }
            Piece::List(heads) => {
                for list in lists(heads.iter().map(head_row))? {
                    let query = query(INSERT).bind(now.as_micros()).bind(mark).bind(list);
                    counted += query.execute(&mut *connection).await?.rows_affected();
                }
            }
        }
    }
    let gids: Vec<Gid> = beginnings.iter().map(Beginning::gid).collect();
    if counted == gids.len() as u64 {
        Ok(gids.into_iter().collect())
    } else {
        Ok(marked(connection, &gids, mark).await?.into_keys().collect())
    }
}

/// Inserts branches, each with its place in the initiator's order.
pub(super) async fn insert_branches(connection: &mut MySqlConnection, branches: &[Sequenced<'_>]) -> Result<(), Fault> {
    let mut ordered = branches.to_vec();
    ordered.sort_unstable_by_key(|(gid, _, new)| (*gid, &new.branch));
    let bytes = |(_, _, new): &Sequenced<'_>| new.payload.type_url.len() + new.payload.value.len();
    for piece in INSERT_BRANCH_VALUES.pieces(&ordered, bytes) {
        match piece {
            Piece::Values(text, branches) => {
                let query = branches.iter().fold(query(text), bind_branch);
                query.execute(&mut *connection).await?;
            }
            Piece::List(branches) => {
                let is_brief = |(_, _, new): &Sequenced<'_>| is_name(&new.payload.type_url) && is_brief(&new.payload.value);
                let text = if branches.iter().all(is_brief) { INSERT_BRIEF_BRANCHES } else { INSERT_BRANCHES };
                for list in lists(branches.iter().map(branch_row))? {
                    query(text).bind(list).execute(&mut *connection).await?;
                }
            }
        }
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
    let keys = keys.into_iter().map(|(initiator, key)| (initiator.as_str(), key.as_str()));
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

//! The statements about lists of branches: each goes through its list in order and looks every row up by its key. No rules here;
//! called by the implementation of `Database`.
//!
//! No statement returns the rows that it changed: they have its mark.

use bytes::Bytes;
use serde::Serialize;
use sqlx::{
    MySql, MySqlConnection, Row as _,
    mysql::{MySqlArguments, MySqlRow},
    query,
    query::Query,
};
use tcc_barrier::{Kept, Look, Request};
use tcc_database::{
    mysql::lists::{encoded, is_brief, lists},
    mysql_list, mysql_now,
};
use tcc_types::{BranchKey, CancelCall, Decision, Entropy, Refusal, SystemEntropy, Timestamp, TryCall};

use super::found;
use crate::rows::{answers, inserted_here, place_of, row, row_of, settled};

/// The row `t` of each key of a list, in the list's order and never in another way.
macro_rules! by_key {
    ($join:literal) => {
        concat!(" ", $join, " tcc_branches AS t FORCE INDEX (PRIMARY) ON t.gid = v.gid AND t.branch_id = v.branch_id ")
    };
}

/// Gives 1 to `LAST_INSERT_ID` where a Try is late, and nothing where none is: a late one changes no row, but shows.
macro_rules! insert_tried {
    ($type_url:literal, $coordinator:literal, $($columns:tt)+) => {
        concat!(
            "INSERT INTO tcc_branches (gid, branch_id, status, `empty`, type_url, request_fingerprint, coordinator, reserved, ",
            "output_type_url, output_value, not_after, ask_after, created_at, changed_at, touched_by) ",
            "SELECT v.gid, v.branch_id, 1, 0, ",
            $type_url,
            ", FROM_BASE64(v.fingerprint), ",
            $coordinator,
            ", FROM_BASE64(v.reserved), v.output_type_url, FROM_BASE64(v.output_value), v.not_after, v.ask_after, ",
            mysql_now!(),
            ", ",
            mysql_now!(),
            ", ? FROM ",
            mysql_list!($($columns)+),
            " WHERE IF(",
            mysql_now!(),
            " <= v.not_after, TRUE, LAST_INSERT_ID(1) = 0) ",
            found!()
        )
    };
    ($bytes:ident) => {
        insert_tried!(
            "v.type_url",
            "v.coordinator",
            gid id, branch_id id, fingerprint brief, not_after int, ask_after int, reserved $bytes, output_type_url name,
            output_value $bytes, type_url name, coordinator id
        )
    };
}

const INSERT_TRIED: &str = insert_tried!(encoded);

/// The same where all that is foreseen is short, as it nearly always is.
const INSERT_TRIED_BRIEF: &str = insert_tried!(brief);

/// The same where moreover all have one type and one coordinator, as they nearly always have: these are bound once.
const INSERT_TRIED_ALIKE: &str = insert_tried!(
    "?",
    "?",
    gid id, branch_id id, fingerprint brief, not_after int, ask_after int, reserved brief, output_type_url name, output_value brief
);

const SETTLE_TRIED: &str = concat!(
    "UPDATE ",
    mysql_list!(gid id, branch_id id, status int),
    by_key!("STRAIGHT_JOIN"),
    "SET t.status = v.status, t.changed_at = ",
    mysql_now!(),
    ", t.touched_by = ? WHERE t.status = 1"
);

const INSERT_CANCELLED: &str = concat!(
    "INSERT INTO tcc_branches (gid, branch_id, status, `empty`, not_after, created_at, changed_at, touched_by) ",
    "SELECT v.gid, v.branch_id, 4, 1, v.not_after, ",
    mysql_now!(),
    ", ",
    mysql_now!(),
    ", ? FROM ",
    mysql_list!(gid id, branch_id id, not_after int),
    " ",
    found!()
);

const MARKED: &str = concat!(
    "SELECT v.place, t.reserved FROM ",
    mysql_list!(place int, gid id, branch_id id),
    by_key!("STRAIGHT_JOIN"),
    "WHERE t.touched_by = ?"
);

/// Changes what means nothing.
const TOUCH: &str = concat!("UPDATE ", mysql_list!(gid id, branch_id id), by_key!("STRAIGHT_JOIN"), "SET t.touched_by = ?");

/// The join yields a row for each key in any case, and so the clock too.
const LOOK: &str = concat!(
    "SELECT v.place, ",
    mysql_now!(),
    " AS looked_at, ",
    row!(),
    " FROM ",
    mysql_list!(place int, gid id, branch_id id),
    by_key!("LEFT JOIN")
);

macro_rules! keep_reserved {
    ($bytes:ident) => {
        concat!(
            "UPDATE ",
            mysql_list!(gid id, branch_id id, reserved $bytes, output_type_url name, output_value $bytes),
            by_key!("STRAIGHT_JOIN"),
            "SET t.reserved = FROM_BASE64(v.reserved), t.output_type_url = v.output_type_url, ",
            "t.output_value = FROM_BASE64(v.output_value) WHERE t.status = 1"
        )
    };
}

const KEEP_RESERVED: &str = keep_reserved!(encoded);

/// The same where all that is kept is short, as it nearly always is.
const KEEP_BRIEF: &str = keep_reserved!(brief);

const KEEP_REFUSALS: &str = concat!(
    "UPDATE ",
    mysql_list!(gid id, branch_id id, code name, message name),
    by_key!("STRAIGHT_JOIN"),
    "SET t.status = 2, t.refusal_code = v.code, t.refusal_message = v.message, ",
    "t.reserved = NULL, t.output_type_url = NULL, t.output_value = NULL WHERE t.status = 1"
);

type MySqlQuery = Query<'static, MySql, MySqlArguments>;

/// The key of a row of a list.
fn of(key: &BranchKey) -> (String, &str) {
    (key.gid.to_string(), key.branch.as_str())
}

/// What is kept of a Try in a row of a list.
type Reserved<'a> = (Option<String>, Option<&'a str>, Option<String>);

fn reserved(kept: Option<Kept<'_>>) -> Reserved<'_> {
    let output = kept.and_then(|kept| kept.output);
    (
        kept.map(|kept| encoded(kept.reserved)),
        output.map(|output| output.type_url.as_str()),
        output.map(|output| encoded(&output.value)),
    )
}

fn is_kept_brief(kept: Kept<'_>) -> bool {
    is_brief(kept.reserved) && kept.output.is_none_or(|output| is_brief(&output.value))
}

fn texts<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Vec<String>, sqlx::Error> {
    lists(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn places(keys: &[&BranchKey]) -> Result<Vec<String>, sqlx::Error> {
    texts(keys.iter().enumerate().map(|(place, key)| {
        let (gid, branch) = of(key);
        (place, gid, branch)
    }))
}

fn place(row: &MySqlRow) -> Result<usize, sqlx::Error> {
    place_of(row.try_get("place")?)
}

/// What a statement did that left a mark over its lists.
struct Marking {
    /// Which no other statement has.
    mark: i64,
    /// How many rows it counted.
    counted: u64,
    /// Whether it gave something to `LAST_INSERT_ID`.
    told: bool,
}

async fn mark(
    conn: &mut MySqlConnection,
    sql: &'static str,
    lists: Vec<String>,
    bound: impl Fn(MySqlQuery, i64, String) -> MySqlQuery,
) -> Result<Marking, sqlx::Error> {
    let mark = SystemEntropy.next_u64().cast_signed();
    let mut marking = Marking { mark, counted: 0, told: false };
    for list in lists {
        let done = bound(query(sql), mark, list).execute(&mut *conn).await?;
        marking.counted += done.rows_affected();
        marking.told |= done.last_insert_id() != 0;
    }
    Ok(marking)
}

/// Binds the list, then the mark.
fn mark_last(query: MySqlQuery, mark: i64, list: String) -> MySqlQuery {
    query.bind(list).bind(mark)
}

/// Binds the mark, then the list.
fn mark_first(query: MySqlQuery, mark: i64, list: String) -> MySqlQuery {
    query.bind(mark).bind(list)
}

/// Those of the keys' rows that have the mark, by place, with what `of` takes from each.
async fn marked<T: Clone>(
    conn: &mut MySqlConnection,
    keys: &[&BranchKey],
    mark: i64,
    unchanged: T,
    of: impl Fn(&MySqlRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, sqlx::Error> {
    let mut found = Vec::with_capacity(keys.len());
    for list in places(keys)? {
        found.extend(query(MARKED).bind(list).bind(mark).fetch_all(&mut *conn).await?);
    }
    answers(keys.len(), unchanged, found.iter().map(|row| Ok((place(row)?, of(row)?))))
}

/// What a Try asks for, and whose it is.
fn asked(call: &TryCall) -> (&str, &str) {
    (&call.payload.type_url, call.coordinator.as_str())
}

/// The same of all, if they agree.
fn all_asked<'a>(calls: &[&'a TryCall]) -> Option<(&'a str, &'a str)> {
    let first = asked(calls.first()?);
    calls.iter().all(|call| asked(call) == first).then_some(first)
}

pub(super) async fn insert_tried(
    conn: &mut MySqlConnection,
    calls: &[&TryCall],
    foreseen: &[Option<Kept<'_>>],
) -> Result<Vec<bool>, sqlx::Error> {
    let are_brief = foreseen.iter().flatten().copied().all(is_kept_brief);
    let alike = all_asked(calls).filter(|_| are_brief);
    let rows = texts(calls.iter().zip(foreseen).map(|(call, foreseen)| {
        let (gid, branch) = of(&call.key);
        let fingerprint = encoded(Request::from(*call).fingerprint.as_slice());
        let (not_after, ask_after) = (call.not_after.as_micros(), call.ask_after.as_micros());
        let (reserved, output_type_url, output) = reserved(*foreseen);
        // Null where they are bound once.
        let (type_url, coordinator) = Some(asked(call)).filter(|_| alike.is_none()).unzip();
        (gid, branch, fingerprint, not_after, ask_after, reserved, output_type_url, output, type_url, coordinator)
    }))?;
    let Marking { mark, counted, told: late } = match alike {
        Some((type_url, coordinator)) => {
            let bound = |query: MySqlQuery, mark, list| query.bind(type_url).bind(coordinator).bind(mark).bind(list);
            mark(conn, INSERT_TRIED_ALIKE, rows, bound).await?
        }
        None => mark(conn, if are_brief { INSERT_TRIED_BRIEF } else { INSERT_TRIED }, rows, mark_first).await?,
    };
    if counted == 0 {
        return Ok(vec![false; calls.len()]);
    }
    // One for each that it made, two for each that was there, none for a late one.
    if usize::try_from(counted) == Ok(calls.len()) && !late {
        return Ok(vec![true; calls.len()]);
    }
    let keys: Vec<_> = calls.iter().map(|call| &call.key).collect();
    marked(conn, &keys, mark, false, |_| Ok(true)).await
}

pub(super) async fn settle_tried(
    conn: &mut MySqlConnection,
    settles: &[(&BranchKey, Decision)],
) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
    let rows = settles.iter().map(|(key, decision)| {
        let (gid, branch) = of(key);
        (gid, branch, settled(*decision).code())
    });
    let Marking { mark, counted, .. } = mark(conn, SETTLE_TRIED, texts(rows)?, mark_last).await?;
    if counted == 0 {
        return Ok(vec![None; settles.len()]);
    }
    let keys: Vec<_> = settles.iter().map(|(key, _)| *key).collect();
    marked(conn, &keys, mark, None, |row| Ok(Some(row.try_get::<Vec<u8>, _>("reserved")?.into()))).await
}

pub(super) async fn insert_cancelled(conn: &mut MySqlConnection, calls: &[&CancelCall]) -> Result<Vec<bool>, sqlx::Error> {
    let rows = calls.iter().map(|call| {
        let (gid, branch) = of(&call.key);
        (gid, branch, call.not_after.as_micros())
    });
    let Marking { mark, counted, .. } = mark(conn, INSERT_CANCELLED, texts(rows)?, mark_first).await?;
    // One for each that it made, two for each that was there.
    if usize::try_from(counted) == Ok(calls.len()) {
        return Ok(vec![true; calls.len()]);
    }
    let keys: Vec<_> = calls.iter().map(|call| &call.key).collect();
    marked(conn, &keys, mark, false, |_| Ok(true)).await
}

pub(super) async fn look(conn: &mut MySqlConnection, keys: &[&BranchKey]) -> Result<Look, sqlx::Error> {
    mark(conn, TOUCH, texts(keys.iter().map(|key| of(key)))?, mark_last).await?;
    let mut found = Vec::with_capacity(keys.len());
    for list in places(keys)? {
        found.extend(query(LOOK).bind(list).fetch_all(&mut *conn).await?);
    }
    let rows = answers(keys.len(), None, found.iter().map(|row| Ok((place(row)?, row_of(row)?))))?;
    // Every key has a row in what was found.
    let now = found.first().ok_or(sqlx::Error::RowNotFound)?.try_get("looked_at")?;
    Ok(Look { rows, now: Timestamp::from_micros(now) })
}

pub(super) async fn keep_reserved(conn: &mut MySqlConnection, kept: &[Kept<'_>]) -> Result<(), sqlx::Error> {
    let rows = kept.iter().map(|kept| {
        let ((gid, branch), (reserved, output_type_url, output)) = (of(kept.key), reserved(Some(*kept)));
        (gid, branch, reserved, output_type_url, output)
    });
    let are_brief = kept.iter().copied().all(is_kept_brief);
    keep(conn, if are_brief { KEEP_BRIEF } else { KEEP_RESERVED }, texts(rows)?, kept.len()).await
}

pub(super) async fn keep_refusals(conn: &mut MySqlConnection, refused: &[(&BranchKey, &Refusal)]) -> Result<(), sqlx::Error> {
    let rows = refused.iter().map(|(key, refusal)| {
        let (gid, branch) = of(key);
        (gid, branch, refusal.code.as_str(), refusal.message.as_str())
    });
    keep(conn, KEEP_REFUSALS, texts(rows)?, refused.len()).await
}

async fn keep(conn: &mut MySqlConnection, sql: &'static str, lists: Vec<String>, rows: usize) -> Result<(), sqlx::Error> {
    let mut counted = 0;
    for list in lists {
        counted += query(sql).bind(list).execute(&mut *conn).await?.rows_affected();
    }
    inserted_here(counted, rows)
}

#[cfg(test)]
mod tests;

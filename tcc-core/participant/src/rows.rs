//! What a database's row of `tcc_branches` means, once its columns are read: the same for all databases.

use std::cmp::Ordering;

use tcc_barrier::{Request, Row};
use tcc_types::{BranchKey, BranchRowStatus, Decision, Fingerprint, LogName, Payload, Refusal, Timestamp};

use crate::{BranchRow, InDoubt, OldRow};

/// The columns that [`branch_row_of`] reads.
macro_rules! branch_row {
    ($empty:literal) => {
        concat!(
            "gid, branch_id, status, ",
            $empty,
            ", type_url, coordinator, refusal_code, refusal_message, not_after, ask_after, created_at, changed_at, forgotten_at"
        )
    };
}

/// The columns that [`row_of`] reads.
macro_rules! row {
    () => {
        "status, request_fingerprint, coordinator, output_type_url, output_value, refusal_code, refusal_message"
    };
}

pub(crate) use {branch_row, row};

/// A fetched row, by column; `None` is NULL.
pub(crate) trait Columns {
    /// One of the codes, which are small numbers.
    fn code(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn instant(&self, column: &str) -> Result<Option<Timestamp>, sqlx::Error>;
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;
}

/// Implements [`Columns`] for a driver's row, whose codes are of this type.
macro_rules! columns {
    ($row:ty, $code:ty) => {
        impl $crate::rows::Columns for $row {
            fn code(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
                Ok(sqlx::Row::try_get::<Option<$code>, _>(self, column)?.map(i64::from))
            }

            fn instant(&self, column: &str) -> Result<Option<tcc_types::Timestamp>, sqlx::Error> {
                let micros: Option<i64> = sqlx::Row::try_get(self, column)?;
                Ok(micros.map(tcc_types::Timestamp::from_micros))
            }

            fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }

            fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
        }
    };
}

pub(crate) use columns;

/// As the barrier sees it; `None` where the columns are all NULL, since there is no row.
pub(crate) fn row_of(found: &impl Columns) -> Result<Option<Row>, sqlx::Error> {
    let Some(status) = found.code("status")? else {
        return Ok(None);
    };
    let request = request_of(found)?;
    let known = || request.clone().ok_or_else(|| corrupt("a row without the request of its Try"));
    Ok(Some(match status_of(status)? {
        BranchRowStatus::Tried => Row::Tried { request: known()?, output: output_of(found)? },
        BranchRowStatus::Refused => {
            let refusal = refusal_of(found)?.ok_or_else(|| corrupt("a refused row without its reason"))?;
            Row::Refused { request: known()?, refusal }
        }
        BranchRowStatus::Confirmed => Row::Confirmed { request: known()?, output: output_of(found)? },
        BranchRowStatus::Cancelled => Row::Cancelled { request },
    }))
}

/// As people see it.
pub(crate) fn branch_row_of(found: &impl Columns) -> Result<BranchRow, sqlx::Error> {
    Ok(BranchRow {
        key: key_of(found)?,
        status: status_of(required(found.code("status")?)?)?,
        empty: found.code("empty")? == Some(1),
        type_url: found.text("type_url")?,
        coordinator: coordinator_of(found)?,
        refusal: refusal_of(found)?,
        not_after: required(found.instant("not_after")?)?,
        ask_after: found.instant("ask_after")?,
        created_at: required(found.instant("created_at")?)?,
        changed_at: required(found.instant("changed_at")?)?,
        forgotten_at: found.instant("forgotten_at")?,
    })
}

/// As one who asks for it sees it: `gid, branch_id, coordinator, not_after, ask_after`.
pub(crate) fn in_doubt_of(found: &impl Columns) -> Result<InDoubt, sqlx::Error> {
    Ok(InDoubt {
        key: key_of(found)?,
        coordinator: required(coordinator_of(found)?)?,
        not_after: required(found.instant("not_after")?)?,
        ask_after: required(found.instant("ask_after")?)?,
    })
}

/// As retention sees it: `gid, branch_id, status, coordinator, not_after, changed_at`.
pub(crate) fn old_row_of(found: &impl Columns) -> Result<OldRow, sqlx::Error> {
    Ok(OldRow {
        key: key_of(found)?,
        status: status_of(required(found.code("status")?)?)?,
        coordinator: coordinator_of(found)?,
        not_after: required(found.instant("not_after")?)?,
        changed_at: required(found.instant("changed_at")?)?,
    })
}

/// Both columns of the key that a walk goes on from; at its beginning what is less than any key.
pub(crate) fn walk_from(after: Option<&BranchKey>) -> (String, &str) {
    after.map_or_else(Default::default, |key| (key.gid.to_string(), key.branch.as_str()))
}

/// The status of a row that this decision settled.
pub(crate) const fn settled(decision: Decision) -> BranchRowStatus {
    match decision {
        Decision::Confirm => BranchRowStatus::Confirmed,
        Decision::Cancel => BranchRowStatus::Cancelled,
    }
}

/// The keys that a statement is about, by column.
pub(crate) struct Keys<'a> {
    pub(crate) gids: Vec<String>,
    pub(crate) branches: Vec<&'a str>,
}

impl<'a> Keys<'a> {
    /// In ascending order.
    pub(crate) fn new(keys: impl Iterator<Item = &'a BranchKey> + Clone) -> Self {
        Self {
            gids: keys.clone().map(|key| key.gid.to_string()).collect(),
            branches: keys.map(|key| key.branch.as_str()).collect(),
        }
    }

    /// Which of them a found row is: by its columns `gid` and `branch_id`, which sort like the keys.
    pub(crate) fn place(&self, gid: &str, branch: &str) -> Result<usize, sqlx::Error> {
        let (mut from, mut to) = (0, self.gids.len());
        while from < to {
            let middle = from.midpoint(to);
            match (self.gids[middle].as_str(), self.branches[middle]).cmp(&(gid, branch)) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => to = middle,
            }
        }
        Err(corrupt("a row that was not asked for"))
    }
}

/// The answers of a statement about `count` branches that names those that it changed, by their place in the question.
pub(crate) fn answers<T: Clone>(
    count: usize,
    unchanged: T,
    changed: impl IntoIterator<Item = Result<(usize, T), sqlx::Error>>,
) -> Result<Vec<T>, sqlx::Error> {
    let mut answers = vec![unchanged; count];
    for answer in changed {
        let (place, answer) = answer?;
        *answers.get_mut(place).ok_or_else(|| corrupt("a place that is not in the question"))? = answer;
    }
    Ok(answers)
}

/// A place in the question as a database counts it, from 0.
pub(crate) fn place_of(counted: i64) -> Result<usize, sqlx::Error> {
    usize::try_from(counted).map_err(corrupt)
}

/// The rows that this very transaction inserted must all still be there.
pub(crate) fn inserted_here(rows_affected: u64, rows: usize) -> Result<(), sqlx::Error> {
    if usize::try_from(rows_affected) == Ok(rows) { Ok(()) } else { Err(undone()) }
}

/// What the transaction did to the row is not there any more.
pub(crate) fn undone() -> sqlx::Error {
    corrupt("a branch's row is as before: the handler ended the transaction, or ignored an error")
}

pub(crate) fn corrupt(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

fn required<T>(value: Option<T>) -> Result<T, sqlx::Error> {
    value.ok_or_else(|| corrupt("NULL where a value must be"))
}

fn key_of(found: &impl Columns) -> Result<BranchKey, sqlx::Error> {
    let gid = required(found.text("gid")?)?;
    let branch = required(found.text("branch_id")?)?;
    Ok(BranchKey { gid: gid.parse().map_err(corrupt)?, branch: branch.parse().map_err(corrupt)? })
}

fn status_of(code: i64) -> Result<BranchRowStatus, sqlx::Error> {
    BranchRowStatus::from_code(code).ok_or_else(|| corrupt("a row with an unknown status"))
}

fn coordinator_of(found: &impl Columns) -> Result<Option<LogName>, sqlx::Error> {
    found.text("coordinator")?.map(LogName::new).transpose().map_err(corrupt)
}

fn request_of(found: &impl Columns) -> Result<Option<Request>, sqlx::Error> {
    let (Some(fingerprint), Some(coordinator)) = (found.bytes("request_fingerprint")?, coordinator_of(found)?) else {
        return Ok(None);
    };
    let fingerprint = Fingerprint::from_slice(&fingerprint).ok_or_else(|| corrupt("a fingerprint that is not 32 bytes"))?;
    Ok(Some(Request { fingerprint, coordinator }))
}

fn output_of(found: &impl Columns) -> Result<Option<Payload>, sqlx::Error> {
    let (type_url, value) = (found.text("output_type_url")?, found.bytes("output_value")?);
    Ok(type_url.zip(value).map(|(type_url, value)| Payload { type_url, value: value.into() }))
}

fn refusal_of(found: &impl Columns) -> Result<Option<Refusal>, sqlx::Error> {
    let (code, message) = (found.text("refusal_code")?, found.text("refusal_message")?);
    Ok(code.zip(message).map(|(code, message)| Refusal::business(code, message)))
}

//! The compare-and-set. The only statement that moves a transaction out of trying.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use tcc_machine::Choice;
use tcc_types::{Gid, Timestamp, TxStatus};

use crate::{
    Decide, Decided, Error, TxRecord,
    sqlite::{rows, values::ManyRows, write::Ask},
};

/// Status 1 is trying. The fifth value is the number of votes; NULL for Cancel, which needs none. The plus
/// sign keeps the planner from taking its term for a reason to scan the table.
pub(super) const DECIDE: ManyRows = ManyRows {
    head: "UPDATE tcc_log_transactions AS t \
           SET status = v.column2, next_attempt_at = v.column3, cause = v.column4, decided_at = ? FROM (VALUES ",
    width: 5,
    tail: ") AS v WHERE t.gid = v.column1 AND +t.status = 1 AND (v.column5 IS NULL OR t.branch_count = v.column5) RETURNING gid, branch_count",
};

pub(super) async fn apply(
    connection: &mut SqliteConnection,
    asks: &mut [Ask<Decide, Decided>],
    now: Timestamp,
) -> Result<(), Error> {
    if asks.is_empty() {
        return Ok(());
    }
    let mut wanted = Vec::with_capacity(asks.len());
    for ask in asks.iter() {
        wanted.push(Wanted::new(&ask.question)?);
    }
    let rows = DECIDE
        .fetch(connection, &[now.as_micros()], &wanted, |values, wanted| {
            values
                .put(&wanted.gid.as_bytes()[..])
                .put(wanted.status.code())
                .put(wanted.next_attempt_at.as_micros())
                .put(wanted.cause.as_deref())
                .put(wanted.votes);
        })
        .await?;
    let mut changed = HashMap::with_capacity(rows.len());
    for row in &rows {
        changed.insert(rows::gid(row, 0)?, rows::count(row, 1)?);
    }
    let losers: Vec<Gid> = asks.iter().map(|ask| ask.question.gid).filter(|gid| !changed.contains_key(gid)).collect();
    let mut standing = rows::load_heads(connection, &losers).await?;
    for (ask, wanted) in asks.iter_mut().zip(wanted) {
        let answer = if let Some(branch_count) = changed.get(&wanted.gid).copied() {
            let cause = match &ask.question.choice {
                Choice::Confirm { .. } => None,
                Choice::Cancel { cause } => Some(cause.clone()),
            };
            Decided::Stands { status: wanted.status, decided_at: now, cause, branch_count }
        } else {
            what_stands(standing.remove(&wanted.gid))?
        };
        ask.answer(answer);
    }
    Ok(())
}

/// A decision as it is stored.
struct Wanted {
    gid: Gid,
    status: TxStatus,
    next_attempt_at: Timestamp,
    cause: Option<String>,
    votes: Option<i64>,
}

impl Wanted {
    fn new(decide: &Decide) -> Result<Self, Error> {
        let (status, cause, votes) = match &decide.choice {
            Choice::Confirm { votes } => (TxStatus::Confirming, None, Some(i64::from(*votes))),
            Choice::Cancel { cause } => (TxStatus::Cancelling, Some(rows::cause_text(cause)?), None),
        };
        Ok(Self { gid: decide.gid, status, next_attempt_at: decide.next_attempt_at, cause, votes })
    }
}

fn what_stands(record: Option<TxRecord>) -> Result<Decided, Error> {
    let Some(record) = record else { return Ok(Decided::Missing) };
    match (record.status, record.decided_at) {
        // Still trying, so it was a Confirm with another number of votes.
        (TxStatus::Trying, _) => Ok(Decided::CountMoved { branch_count: record.branch_count }),
        (
            status @ (TxStatus::Confirming | TxStatus::Confirmed | TxStatus::Cancelling | TxStatus::Cancelled),
            Some(decided_at),
        ) => Ok(Decided::Stands { status, decided_at, cause: record.cause, branch_count: record.branch_count }),
        (TxStatus::Confirming | TxStatus::Confirmed | TxStatus::Cancelling | TxStatus::Cancelled, None) => {
            Err(Error::Unusable("the log has a decision without its time".to_owned()))
        }
    }
}

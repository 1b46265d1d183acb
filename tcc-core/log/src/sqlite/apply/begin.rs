//! Begun and the cancelled record: one insert for both, since the loser obeys the winner.

use std::collections::{HashMap, HashSet};

use sqlx::SqliteConnection;
use tcc_machine::{CancelCause, Decides, TryOrder};
use tcc_types::{Gid, IdempotencyKey, Initiator, Timestamp, TxStatus};

use crate::{
    Begun, Error, NewBranch, NewTransaction, TxRecord,
    codes::Code,
    sqlite::{
        rows::{self, head_columns},
        values::{ManyRows, Values},
        write::{BeginCancelled, Beginning},
    },
};

pub(super) const INSERT: ManyRows = ManyRows {
    head: concat!("INSERT INTO tcc_log_transactions (", head_columns!(), ") SELECT * FROM (VALUES "),
    width: 15,
    tail: ") WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING RETURNING gid",
};

pub(super) const INSERT_BRANCHES: ManyRows = ManyRows {
    head: "INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) SELECT * FROM (VALUES ",
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
) -> Result<(), Error> {
    if beginnings.is_empty() {
        return Ok(());
    }
    let inserted = insert(connection, beginnings, now).await?;
    let mut standing = if inserted.len() < beginnings.len() {
        find_standing(connection, beginnings, &inserted).await?
    } else {
        Standing::default()
    };
    for beginning in beginnings {
        let won = inserted.contains(&beginning.gid());
        match beginning {
            Beginning::New(ask) if won => ask.answer(Begun::Inserted { created_at: now }),
            Beginning::New(ask) => {
                let record =
                    standing.of(ask.question.gid, ask.question.key.as_ref().map(|key| (&ask.question.initiator, key)))?;
                ask.answer(Begun::Exists(Box::new(record)));
            }
            Beginning::Cancelled(ask) if won => ask.answer(cancelled_record(&ask.question, now)),
            Beginning::Cancelled(ask) => ask.answer(standing.of(ask.question.gid, None)?),
        }
    }
    Ok(())
}

/// Inserts what is not there yet, in queue order; returns the gids of what was inserted.
async fn insert(connection: &mut SqliteConnection, beginnings: &[Beginning], now: Timestamp) -> Result<HashSet<Gid>, Error> {
    let rows = INSERT
        .fetch(connection, &[], beginnings, |values, beginning| match beginning {
            Beginning::New(ask) => put_new(values, &ask.question, now),
            Beginning::Cancelled(ask) => put_cancelled(values, &ask.question, now),
        })
        .await?;
    let inserted = rows.iter().map(|row| rows::gid(row, 0)).collect::<Result<HashSet<_>, _>>()?;
    let mut branches: Vec<(Gid, i64, &NewBranch)> = Vec::with_capacity(2 * inserted.len());
    for beginning in beginnings.iter().filter(|beginning| inserted.contains(&beginning.gid())) {
        match beginning {
            Beginning::New(ask) => {
                branches.extend((0..).zip(&ask.question.branches).map(|(seq, branch)| (ask.question.gid, seq, branch)))
            }
            Beginning::Cancelled(_) => {}
        }
    }
    insert_branches(connection, &branches).await?;
    Ok(inserted)
}

/// Inserts branches, each with its place in the initiator's order.
pub(super) async fn insert_branches(
    connection: &mut SqliteConnection,
    branches: &[(Gid, i64, &NewBranch)],
) -> Result<(), Error> {
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
        .await
        .map(drop)
}

fn put_new(values: &mut Values, new: &NewTransaction, now: Timestamp) {
    values
        .put(&new.gid.as_bytes()[..])
        .put(TxStatus::Trying.code())
        .put(new.initiator.as_str())
        .put(new.key.as_ref().map(IdempotencyKey::as_str))
        .put(new.fingerprint.as_slice())
        .put(new.try_order.code())
        .put(new.decides.code())
        .put(i64::try_from(new.branches.len()).unwrap_or(i64::MAX))
        .put(new.try_until.as_micros())
        .put(new.decide_by.as_micros())
        .put(now.as_micros())
        .put(None::<i64>)
        .put(None::<i64>)
        .put(new.next_attempt_at.as_micros())
        .put(None::<&str>);
}

fn put_cancelled(values: &mut Values, question: &BeginCancelled, now: Timestamp) {
    let record = cancelled_record(question, now);
    // The cause of a request is a name, which always has a JSON form; without one, the table's check refuses the row.
    let cause = record.cause.as_ref().and_then(|cause| rows::cause_text(cause).ok());
    values
        .put(&record.gid.as_bytes()[..])
        .put(record.status.code())
        .put(record.initiator.as_str())
        .put(None::<&str>)
        .put(None::<&[u8]>)
        .put(record.try_order.code())
        .put(record.decides.code())
        .put(0_i64)
        .put(record.try_until.as_micros())
        .put(record.decide_by.as_micros())
        .put(record.created_at.as_micros())
        .put(now.as_micros())
        .put(now.as_micros())
        .put(record.next_attempt_at.as_micros())
        .put(cause);
}

/// What stands in place of a gid that was never begun.
fn cancelled_record(question: &BeginCancelled, now: Timestamp) -> TxRecord {
    TxRecord {
        gid: question.gid,
        status: TxStatus::Cancelled,
        initiator: question.by.clone(),
        key: None,
        fingerprint: None,
        try_order: TryOrder::Parallel,
        decides: Decides::AtVotes,
        branch_count: 0,
        try_until: now,
        decide_by: now,
        created_at: now,
        decided_at: Some(now),
        finished_at: Some(now),
        next_attempt_at: now,
        cause: Some(CancelCause::Requested { by: question.by.clone() }),
        branches: Vec::new(),
    }
}

/// What the losers lost to.
#[derive(Default)]
struct Standing {
    by_gid: HashMap<Gid, TxRecord>,
    by_key: HashMap<(String, String), Gid>,
}

impl Standing {
    /// The transaction that has the gid, or else the key.
    fn of(&mut self, gid: Gid, key: Option<(&Initiator, &IdempotencyKey)>) -> Result<TxRecord, Error> {
        let by_key = || {
            let (initiator, key) = key?;
            let gid = self.by_key.get(&(initiator.as_str().to_owned(), key.as_str().to_owned()))?;
            self.by_gid.get(gid)
        };
        let found = self.by_gid.get(&gid).or_else(by_key).cloned();
        found.ok_or_else(|| Error::Unusable("the log refused a transaction that it does not have".to_owned()))
    }
}

async fn find_standing(
    connection: &mut SqliteConnection,
    beginnings: &[Beginning],
    inserted: &HashSet<Gid>,
) -> Result<Standing, Error> {
    let losers = || beginnings.iter().filter(|beginning| !inserted.contains(&beginning.gid()));
    let gids: Vec<Gid> = losers().map(Beginning::gid).collect();
    let by_gid = rows::load(connection, &gids).await?;
    let mut standing = Standing { by_gid, by_key: HashMap::new() };
    let keys: Vec<(&Initiator, &IdempotencyKey)> =
        losers().filter(|loser| !standing.by_gid.contains_key(&loser.gid())).filter_map(Beginning::key).collect();
    let rows = GIDS_BY_KEY
        .fetch(connection, &[], &keys, |values, (initiator, key)| {
            values.put(initiator.as_str()).put(key.as_str());
        })
        .await?;
    let mut gids = Vec::with_capacity(rows.len());
    for row in &rows {
        let gid = rows::gid(row, 0)?;
        if standing.by_key.insert((rows::get(row, 1)?, rows::get(row, 2)?), gid).is_none() {
            gids.push(gid);
        }
    }
    let by_key = rows::load(connection, &gids).await?;
    standing.by_gid.extend(by_key);
    Ok(standing)
}

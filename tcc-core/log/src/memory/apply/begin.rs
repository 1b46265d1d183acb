//! Begun and the cancelled record: one insert for both, since the loser obeys the winner.

use std::collections::HashSet;

use tcc_database::memory::Session;
use tcc_types::{Gid, Timestamp, TxStatus};

use super::{standing, stored};
use crate::{
    NewTransaction, TxRecord,
    fault::Fault,
    memory::tables::LogTables,
    writer::{
        answers::{Standing, answer_begins, cancelled_record, losers},
        write::Beginning,
    },
};

pub(super) async fn apply(session: &mut Session<LogTables>, beginnings: &mut [Beginning], now: Timestamp) -> Result<(), Fault> {
    let insert = |tables: &mut LogTables| {
        let mut inserted = HashSet::new();
        // In queue order.
        for beginning in &*beginnings {
            if tables.insert(record(beginning, now)) {
                inserted.insert(beginning.gid());
            }
        }
        let standing = in_the_way(tables, beginnings, &inserted);
        Ok((inserted, standing))
    };
    let (inserted, standing) = session.write(insert).await?;
    answer_begins(beginnings, &inserted, &standing, now)
}

/// What it inserts.
fn record(beginning: &Beginning, now: Timestamp) -> TxRecord {
    match beginning {
        Beginning::New(ask) => new_record(&ask.question, now),
        Beginning::Cancelled(ask) => cancelled_record(&ask.question, now),
    }
}

fn new_record(new: &NewTransaction, now: Timestamp) -> TxRecord {
    TxRecord {
        gid: new.gid,
        status: TxStatus::Trying,
        initiator: new.initiator.clone(),
        key: new.key.clone(),
        fingerprint: Some(new.fingerprint),
        try_order: new.try_order,
        decides: new.decides,
        branch_count: u32::try_from(new.branches.len()).unwrap_or(u32::MAX),
        try_until: new.try_until,
        decide_by: new.decide_by,
        created_at: now,
        decided_at: None,
        finished_at: None,
        owner: new.owner,
        next_attempt_at: new.next_attempt_at,
        cause: None,
        branches: new.branches.iter().map(stored).collect(),
    }
}

/// What the losers lost to.
fn in_the_way(tables: &LogTables, beginnings: &[Beginning], inserted: &HashSet<Gid>) -> Standing {
    let by_gid = standing(tables, losers(beginnings, inserted).into_iter());
    let mut found = Standing { by_gid, ..Standing::default() };
    let keys = found.missing_keys(beginnings, inserted);
    let holders = keys.into_iter().filter_map(|(initiator, key)| {
        let gid = tables.gid_of(initiator, key)?;
        Some(((initiator.as_str().to_owned(), key.as_str().to_owned()), gid))
    });
    let holders: Vec<_> = holders.collect();
    found.by_gid.extend(standing(tables, holders.iter().map(|(_, gid)| *gid)));
    found.by_key.extend(holders);
    found
}

//! What follows a decision: parked transactions and finished ones.

use std::collections::BTreeMap;

use tcc_database::memory::Session;
use tcc_machine::{BranchProgress, Stuck};
use tcc_types::{BranchId, Gid, Timestamp, TxStatus};

use crate::{
    Park, TxRecord,
    fault::Fault,
    memory::tables::LogTables,
    writer::{
        answers::{detail, has_stuck},
        write::Ask,
    },
};

pub(super) async fn park(session: &mut Session<LogTables>, asks: &mut [Ask<Park, ()>]) -> Result<(), Fault> {
    let park = |tables: &mut LogTables| {
        for park in asks.iter().map(|ask| &ask.question) {
            tables.update(
                park.gid,
                |row| row.is_unfinished() && row.record.owner == park.owner,
                |record, is_stuck| {
                    record.next_attempt_at = park.next_attempt_at;
                    *is_stuck |= has_stuck(park);
                    remember(record, park);
                },
            );
        }
        Ok(())
    };
    session.write(park).await?;
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

/// What is settled stays so, by whatever means it was first, and is not stuck.
fn remember(record: &mut TxRecord, park: &Park) {
    // The last word on each branch.
    let told: BTreeMap<&BranchId, &BranchProgress> =
        park.branches.iter().map(|(branch, progress)| (branch, progress)).collect();
    for branch in &mut record.branches {
        let Some(told) = told.get(&branch.branch) else { continue };
        let settled = branch.progress.settled.or(told.settled);
        let stuck = told.stuck.as_ref().filter(|_| settled.is_none());
        let stuck = stuck.map(|stuck| Stuck { detail: detail(stuck).to_owned(), ..stuck.clone() });
        branch.progress = BranchProgress { settled, attempts: told.attempts, stuck };
    }
}

pub(super) async fn finish(session: &mut Session<LogTables>, asks: &mut [Ask<Gid, ()>], now: Timestamp) -> Result<(), Fault> {
    let finish = |tables: &mut LogTables| {
        for ask in &*asks {
            let Some(end) = tables.transaction(ask.question).and_then(|record| end_of(record.status)) else { continue };
            tables.update(
                ask.question,
                |_| true,
                |record, _| {
                    (record.status, record.finished_at) = (end, Some(now));
                    // What has ended is not stuck.
                    record.branches.iter_mut().for_each(|branch| branch.progress.stuck = None);
                },
            );
        }
        Ok(())
    };
    session.write(finish).await?;
    asks.iter_mut().for_each(|ask| ask.answer(()));
    Ok(())
}

/// What a decided transaction becomes at its end.
const fn end_of(status: TxStatus) -> Option<TxStatus> {
    match status {
        TxStatus::Confirming => Some(TxStatus::Confirmed),
        TxStatus::Cancelling => Some(TxStatus::Cancelled),
        TxStatus::Trying | TxStatus::Confirmed | TxStatus::Cancelled => None,
    }
}

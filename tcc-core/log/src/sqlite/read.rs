//! The reads. Each sees one committed state; none waits for the writer.

use std::collections::{HashMap, HashSet};

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, query};
use tcc_types::{BranchId, BranchKey, Gid, IdempotencyKey, Initiator, ParticipantName, Timestamp, TxStatus};

use super::{
    fault::{damaged, nothing_done},
    rows::{self, head_columns},
    values::ManyRows,
};
use crate::{AuditRecord, Error, ListFilter, NewAudit, StuckBranch, TxRecord};

pub(super) const BRANCH_KEYS: ManyRows =
    ManyRows { head: "SELECT gid, branch_id FROM tcc_log_branches WHERE (gid, branch_id) IN (VALUES ", width: 2, tail: ")" };

pub(super) async fn statuses(
    connection: &mut SqliteConnection,
    keys: &[BranchKey],
) -> Result<Vec<Option<(TxRecord, bool)>>, Error> {
    let gids: Vec<Gid> = keys.iter().map(|key| key.gid).collect::<HashSet<_>>().into_iter().collect();
    let heads: HashMap<Gid, TxRecord> = rows::load_heads(connection, &gids).await?;
    let rows = BRANCH_KEYS
        .fetch(connection, &[], keys, |values, key| {
            values.put(&key.gid.as_bytes()[..]).put(key.branch.as_str());
        })
        .await?;
    let mut branches: HashSet<(Gid, BranchId)> = HashSet::with_capacity(rows.len());
    for row in &rows {
        branches.insert((rows::gid(row, 0)?, rows::branch_id(row, 1)?));
    }
    let found = |key: &BranchKey| {
        let record = heads.get(&key.gid)?;
        Some((record.clone(), branches.contains(&(key.gid, key.branch.clone()))))
    };
    Ok(keys.iter().map(found).collect())
}

pub(super) async fn find(
    connection: &mut SqliteConnection,
    initiator: &Initiator,
    key: &IdempotencyKey,
) -> Result<Option<TxRecord>, Error> {
    let text = concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions WHERE initiator = ? AND idempotency_key = ?");
    let row = query(text).bind(initiator.as_str()).bind(key.as_str()).fetch_optional(connection).await;
    row.map_err(|error| nothing_done(&error))?.as_ref().map(rows::head).transpose()
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    filter: &ListFilter,
    before: Option<Gid>,
    limit: u32,
) -> Result<Vec<TxRecord>, Error> {
    let mut text = QueryBuilder::<Sqlite>::new(concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions"));
    if !filter.statuses.is_empty() && !filter.statuses.iter().any(|status| status.has_ended()) {
        // What is unfinished is few, however long the history is.
        text.push(" INDEXED BY tcc_log_transactions_due WHERE finished_at IS NULL");
    } else {
        text.push(" WHERE TRUE");
    }
    if !filter.statuses.is_empty() {
        let mut list = text.push(" AND status IN (").separated(", ");
        for status in &filter.statuses {
            list.push_bind(status.code());
        }
        text.push(")");
    }
    if let Some(initiator) = &filter.initiator {
        text.push(" AND initiator = ").push_bind(initiator.as_str());
    }
    if let Some(before) = &before {
        text.push(" AND gid < ").push_bind(&before.as_bytes()[..]);
    }
    text.push(" ORDER BY gid DESC LIMIT ").push_bind(i64::from(limit));
    let rows = text.build().fetch_all(connection).await.map_err(|error| nothing_done(&error))?;
    rows.iter().map(rows::head).collect()
}

pub(super) async fn count_by_status(connection: &mut SqliteConnection) -> Result<Vec<(TxStatus, u64)>, Error> {
    let rows = query("SELECT status, count(*) FROM tcc_log_transactions GROUP BY status")
        .fetch_all(connection)
        .await
        .map_err(|error| nothing_done(&error))?;
    let mut counts = TxStatus::ALL.map(|status| (status, 0));
    for row in &rows {
        let status = rows::status(row, 0)?;
        for (_, count) in counts.iter_mut().filter(|(known, _)| *known == status) {
            *count = rows::get::<i64>(row, 1)?.unsigned_abs();
        }
    }
    Ok(counts.to_vec())
}

pub(super) async fn list_stuck(
    connection: &mut SqliteConnection,
    of: Option<&ParticipantName>,
    after: Option<(Timestamp, BranchKey)>,
    limit: u32,
) -> Result<Vec<StuckBranch>, Error> {
    let mut text = QueryBuilder::<Sqlite>::new(
        "SELECT b.gid, b.branch_id, b.participant, t.status, b.stuck_kind, b.stuck_since, b.stuck_detail, b.attempts, \
         t.next_attempt_at FROM tcc_log_branches AS b INDEXED BY tcc_log_branches_stuck \
         CROSS JOIN tcc_log_transactions AS t ON t.gid = b.gid WHERE b.stuck_kind IS NOT NULL",
    );
    if let Some(participant) = of {
        text.push(" AND b.participant = ").push_bind(participant.as_str());
    }
    if let Some((since, key)) = &after {
        text.push(" AND (b.stuck_since, b.gid, b.branch_id) > (").push_bind(since.as_micros());
        text.push(", ").push_bind(&key.gid.as_bytes()[..]).push(", ").push_bind(key.branch.as_str()).push(")");
    }
    text.push(" ORDER BY b.stuck_since, b.gid, b.branch_id LIMIT ").push_bind(i64::from(limit));
    let rows = text.build().fetch_all(connection).await.map_err(|error| nothing_done(&error))?;
    let mut branches = Vec::with_capacity(rows.len());
    for row in &rows {
        branches.push(StuckBranch {
            key: BranchKey { gid: rows::gid(row, 0)?, branch: rows::branch_id(row, 1)? },
            participant: rows::participant(row, 2)?,
            status: rows::status(row, 3)?,
            stuck: rows::stuck(row, 4)?.ok_or_else(|| damaged("stuck branch"))?,
            attempts: rows::count(row, 7)?,
            next_attempt_at: rows::instant(row, 8)?,
        });
    }
    Ok(branches)
}

pub(super) async fn list_audit(
    connection: &mut SqliteConnection,
    gid: Option<Gid>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AuditRecord>, Error> {
    let mut text =
        QueryBuilder::<Sqlite>::new("SELECT sequence, at, gid, branch_id, action, actor, reason FROM tcc_log_audit WHERE TRUE");
    if let Some(gid) = &gid {
        text.push(" AND gid = ").push_bind(&gid.as_bytes()[..]);
    }
    if let Some(before) = before {
        text.push(" AND sequence < ").push_bind(i64::try_from(before).unwrap_or(i64::MAX));
    }
    text.push(" ORDER BY sequence DESC LIMIT ").push_bind(i64::from(limit));
    let rows = text.build().fetch_all(connection).await.map_err(|error| nothing_done(&error))?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        records.push(AuditRecord {
            sequence: rows::get::<i64>(row, 0)?.unsigned_abs(),
            at: rows::instant(row, 1)?,
            entry: NewAudit {
                key: BranchKey { gid: rows::gid(row, 2)?, branch: rows::branch_id(row, 3)? },
                action: rows::code(row, 4, "audit action")?,
                actor: rows::get(row, 5)?,
                reason: rows::get(row, 6)?,
            },
        });
    }
    Ok(records)
}

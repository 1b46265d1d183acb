//! The reads. Each sees one committed state; none waits for the writer.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::{QueryBuilder, SqlitePool, Transaction, query};
use tcc_database::sqlite::lists::ManyRows;
use tcc_types::{BranchKey, Gid, IdempotencyKey, Initiator, ParticipantName, Timestamp, TxStatus};

use super::{
    load::{load, load_heads},
    meaning_of,
};
use crate::{
    AuditRecord, ListFilter, StuckBranch, TxRecord,
    fault::{Fault, Meaning},
    reads::Reads,
    rows::{self, audit_columns, head_columns, stuck_columns},
};

pub(super) const BRANCH_KEYS: ManyRows =
    ManyRows { head: "SELECT gid, branch_id FROM tcc_log_branches WHERE (gid, branch_id) IN (VALUES ", width: 2, tail: ")" };

/// The connections for reading.
pub(super) struct Readers(pub(super) SqlitePool);

impl Readers {
    /// A transaction in which all reads see the same state.
    async fn snapshot(&self) -> Result<Transaction<'static, sqlx::Sqlite>, Fault> {
        Ok(self.0.begin().await?)
    }
}

#[async_trait]
impl Reads for Readers {
    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Fault> {
        let text =
            concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions WHERE initiator = ? AND idempotency_key = ?");
        let row = query(text).bind(initiator.as_str()).bind(key.as_str()).fetch_optional(&self.0).await?;
        row.as_ref().map(rows::head).transpose()
    }

    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Fault> {
        Ok(load(&mut *self.snapshot().await?, &[gid]).await?.remove(&gid))
    }

    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Fault> {
        let mut snapshot = self.snapshot().await?;
        let gids: Vec<Gid> = keys.iter().map(|key| key.gid).collect::<HashSet<_>>().into_iter().collect();
        let heads = load_heads(&mut snapshot, &gids).await?;
        let branches = BRANCH_KEYS
            .fetch(&mut snapshot, &[], keys, |values, key| {
                values.put(&key.gid.as_bytes()[..]).put(key.branch.as_str());
            })
            .await?;
        rows::statuses(keys, &heads, &branches)
    }

    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Fault> {
        let mut text = QueryBuilder::<sqlx::Sqlite>::new(concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions"));
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
        text.build().fetch_all(&self.0).await?.iter().map(rows::head).collect()
    }

    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Fault> {
        let text = "SELECT status, count(*) FROM tcc_log_transactions GROUP BY status";
        rows::counts(&query(text).fetch_all(&self.0).await?)
    }

    async fn list_stuck(
        &self,
        of: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Fault> {
        let mut text = QueryBuilder::<sqlx::Sqlite>::new(concat!(
            "SELECT ",
            stuck_columns!(),
            " FROM tcc_log_branches AS b INDEXED BY tcc_log_branches_stuck \
             CROSS JOIN tcc_log_transactions AS t ON t.gid = b.gid WHERE b.stuck_kind IS NOT NULL"
        ));
        if let Some(participant) = of {
            text.push(" AND b.participant = ").push_bind(participant.as_str());
        }
        if let Some((since, key)) = &after {
            text.push(" AND (b.stuck_since, b.gid, b.branch_id) > (").push_bind(since.as_micros());
            text.push(", ").push_bind(&key.gid.as_bytes()[..]).push(", ").push_bind(key.branch.as_str()).push(")");
        }
        text.push(" ORDER BY b.stuck_since, b.gid, b.branch_id LIMIT ").push_bind(i64::from(limit));
        text.build().fetch_all(&self.0).await?.iter().map(rows::stuck_branch).collect()
    }

    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Fault> {
        let mut text =
            QueryBuilder::<sqlx::Sqlite>::new(concat!("SELECT ", audit_columns!(), " FROM tcc_log_audit WHERE TRUE"));
        if let Some(gid) = &gid {
            text.push(" AND gid = ").push_bind(&gid.as_bytes()[..]);
        }
        if let Some(before) = before {
            text.push(" AND sequence < ").push_bind(i64::try_from(before).unwrap_or(i64::MAX));
        }
        text.push(" ORDER BY sequence DESC LIMIT ").push_bind(i64::from(limit));
        text.build().fetch_all(&self.0).await?.iter().map(rows::audit).collect()
    }

    async fn close(&self) {
        self.0.close().await;
    }

    fn meaning_of(&self, error: &sqlx::Error) -> Meaning {
        meaning_of(error)
    }
}

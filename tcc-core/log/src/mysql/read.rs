//! The reads. Each sees one committed state; none waits for a writer.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::{MySql, QueryBuilder, query};
use tcc_database::lease::Transaction;
use tcc_types::{BranchKey, Gid, IdempotencyKey, Initiator, ParticipantName, Timestamp, TxStatus};

use super::{
    load::{BRANCH_KEYS, fetch, key_lists, load, load_heads},
    meaning_of,
};
use crate::{
    AuditRecord, ListFilter, StuckBranch, TxRecord,
    fault::{Fault, Meaning},
    readers::Connections,
    reads::Reads,
    rows::{self, audit_columns, head_columns, stuck_columns},
};

/// The connections for reading, each in REPEATABLE READ.
pub(super) struct Readers(pub(super) Connections<MySql>);

impl Readers {
    /// A transaction in which all reads see the same state.
    async fn snapshot(&self) -> Result<Transaction<MySql>, Fault> {
        Ok(Transaction::begin(self.0.lease().await?, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?)
    }
}

#[async_trait]
impl Reads for Readers {
    async fn find(&self, initiator: &Initiator, key: &IdempotencyKey) -> Result<Option<TxRecord>, Fault> {
        let text =
            concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions WHERE initiator = ? AND idempotency_key = ?");
        let query = query(text).bind(initiator.as_str()).bind(key.as_str());
        self.0
            .within(async {
                let mut lease = self.0.lease().await?;
                let row = query.fetch_optional(&mut *lease).await?;
                lease.give_back();
                row.as_ref().map(rows::head).transpose()
            })
            .await
    }

    async fn load(&self, gid: Gid) -> Result<Option<TxRecord>, Fault> {
        self.0
            .within(async {
                let mut snapshot = self.snapshot().await?;
                let mut found = load(&mut snapshot, &[gid]).await?;
                snapshot.leave();
                Ok(found.remove(&gid))
            })
            .await
    }

    async fn statuses(&self, keys: &[BranchKey]) -> Result<Vec<Option<(TxRecord, bool)>>, Fault> {
        let gids: Vec<Gid> = keys.iter().map(|key| key.gid).collect::<HashSet<_>>().into_iter().collect();
        let lists = key_lists(keys.iter().map(|key| (key.gid, &key.branch)))?;
        self.0
            .within(async {
                let mut snapshot = self.snapshot().await?;
                let heads = load_heads(&mut snapshot, &gids).await?;
                let branches = fetch(&mut snapshot, BRANCH_KEYS, &lists).await?;
                snapshot.leave();
                rows::statuses(keys, &heads, &branches)
            })
            .await
    }

    async fn list(&self, filter: &ListFilter, before: Option<Gid>, limit: u32) -> Result<Vec<TxRecord>, Fault> {
        let mut text = QueryBuilder::<MySql>::new(concat!("SELECT ", head_columns!(), " FROM tcc_log_transactions"));
        if !filter.statuses.is_empty() && !filter.statuses.iter().any(|status| status.has_ended()) {
            // What is unfinished is few, however long the history is.
            text.push(" FORCE INDEX (tcc_log_transactions_due) WHERE has_stuck IN (0, 1) AND due_at IS NOT NULL");
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
        self.0.listing(text.build()).await?.iter().map(rows::head).collect()
    }

    async fn count_by_status(&self) -> Result<Vec<(TxStatus, u64)>, Fault> {
        let text = "SELECT status, COUNT(*) FROM tcc_log_transactions GROUP BY status";
        rows::counts(&self.0.listing(query(text)).await?)
    }

    async fn list_stuck(
        &self,
        of: Option<&ParticipantName>,
        after: Option<(Timestamp, BranchKey)>,
        limit: u32,
    ) -> Result<Vec<StuckBranch>, Fault> {
        let mut text = QueryBuilder::<MySql>::new(concat!(
            "SELECT ",
            stuck_columns!(),
            " FROM tcc_log_branches AS b FORCE INDEX (tcc_log_branches_stuck) \
             STRAIGHT_JOIN tcc_log_transactions AS t FORCE INDEX (PRIMARY) ON t.gid = b.gid WHERE b.stuck_since IS NOT NULL"
        ));
        if let Some(participant) = of {
            text.push(" AND b.participant = ").push_bind(participant.as_str());
        }
        if let Some((since, key)) = &after {
            // The first term is what the index is asked for: of a comparison of rows it is asked nothing.
            text.push(" AND b.stuck_since >= ").push_bind(since.as_micros());
            text.push(" AND (b.stuck_since, b.gid, b.branch_id) > (").push_bind(since.as_micros());
            text.push(", ").push_bind(&key.gid.as_bytes()[..]).push(", ").push_bind(key.branch.as_str()).push(")");
        }
        text.push(" ORDER BY b.stuck_since, b.gid, b.branch_id LIMIT ").push_bind(i64::from(limit));
        self.0.listing(text.build()).await?.iter().map(rows::stuck_branch).collect()
    }

    async fn list_audit(&self, gid: Option<Gid>, before: Option<u64>, limit: u32) -> Result<Vec<AuditRecord>, Fault> {
        let mut text = QueryBuilder::<MySql>::new(concat!("SELECT ", audit_columns!(), " FROM tcc_log_audit WHERE TRUE"));
        if let Some(gid) = &gid {
            text.push(" AND gid = ").push_bind(&gid.as_bytes()[..]);
        }
        if let Some(before) = before {
            text.push(" AND sequence < ").push_bind(i64::try_from(before).unwrap_or(i64::MAX));
        }
        text.push(" ORDER BY sequence DESC LIMIT ").push_bind(i64::from(limit));
        self.0.listing(text.build()).await?.iter().map(rows::audit).collect()
    }

    async fn close(&self) {
        self.0.close().await;
    }

    fn meaning_of(&self, error: &sqlx::Error) -> Meaning {
        meaning_of(error)
    }
}

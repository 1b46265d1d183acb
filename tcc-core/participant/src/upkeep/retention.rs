//! Deletes rows of branches that have ended, long after: never one that still keeps a late Try out, or that a repeated Confirm
//! would miss.
//!
//! `refused` and `cancelled` rows go when both their `not_after` and their last change are older than the retention: a Try is
//! then late without them, and a Cancel records itself anew. `confirmed` rows go when, besides, the coordinator says that the
//! transaction has ended for every branch, so that no Confirm will be repeated. `tried` rows never go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tcc_barrier::{Deletion, is_over, judge_deletion};
use tcc_types::{BranchKey, Gid, LogName, Outcome, OutcomeQuery, Timestamp};
use tokio::time::{Instant, sleep};

use super::{UpkeepOptions, bounded_write};
use crate::{Database, OldRow, OutcomeSource, Store, Unanswered, outcomes::ask};

/// What one walk did, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Looked at.
    pub(crate) seen: u64,
    /// Deleted.
    pub(crate) deleted: u64,
    /// Steps.
    pub(crate) pages: u64,
}

/// The retention of one participant's rows.
pub(crate) struct Retention<D: Database, S> {
    store: Store<D>,
    source: Option<Arc<S>>,
}

impl<D: Database, S: OutcomeSource> Retention<D, S> {
    /// Of a database. Without a source every confirmed row is kept.
    pub(crate) const fn new(store: Store<D>, source: Option<Arc<S>>) -> Self {
        Self { store, source }
    }

    pub(super) fn options(&self) -> &UpkeepOptions {
        &self.store.options().upkeep
    }

    /// Walks once over all rows that are old enough, from the oldest, in steps; ends early where the database fails.
    ///
    /// Cancel-safe: a step deletes its rows wholly or not at all.
    pub(crate) async fn walk(&self) -> Walked {
        let mut walked = Walked::default();
        if let Err(error) = self.steps(&mut walked).await {
            tracing::warn!(%error, "a walk over rows that may be deleted ended early");
        }
        let Walked { seen, deleted, pages } = walked;
        if deleted > 0 {
            tracing::info!(seen, deleted, pages, "deleted rows of branches that ended long ago");
        }
        walked
    }

    async fn steps(&self, walked: &mut Walked) -> Result<(), sqlx::Error> {
        // Taken once: rows only grow older.
        let before = self.store.now().await?.minus(self.options().retention());
        let minted_before = Gid::first_of(before);
        let limit = self.options().retention_batch_max;
        let mut silent = BTreeSet::new();
        let mut after: Option<BranchKey> = None;
        loop {
            let began = Instant::now();
            let page = self.store.ended_page(after.as_ref(), minted_before, limit).await?;
            let full = page.len() >= limit as usize;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            walked.pages += 1;
            walked.seen += page.len() as u64;
            let rows = self.deletable(page, before, &mut silent).await;
            if !rows.is_empty() {
                walked.deleted += bounded_write(&self.store, || self.store.delete_ended(&rows)).await?;
            }
            if !full {
                return Ok(());
            }
            // Half of the time is the operations'.
            sleep(began.elapsed()).await;
        }
    }

    /// Those of a page that may go, in its order.
    async fn deletable(&self, page: Vec<OldRow>, before: Timestamp, silent: &mut BTreeSet<LogName>) -> Vec<OldRow> {
        let mut rows: Vec<OldRow> = page.into_iter().filter(|row| judged(row, before) != Deletion::Keep).collect();
        let over = self.over(&rows, before, silent).await;
        rows.retain(|row| match judged(row, before) {
            Deletion::Delete => true,
            Deletion::DeleteIfOver => over.contains(&row.key),
            Deletion::Keep => false,
        });
        rows
    }

    /// The confirmed ones whose coordinator says that their transaction is over. A coordinator that does not tell (`silent`) is
    /// not asked again in this walk.
    async fn over(&self, rows: &[OldRow], before: Timestamp, silent: &mut BTreeSet<LogName>) -> BTreeSet<BranchKey> {
        let mut over = BTreeSet::new();
        let Some(source) = &self.source else { return over };
        let mut queries: BTreeMap<&LogName, Vec<OutcomeQuery>> = BTreeMap::new();
        for row in rows.iter().filter(|row| judged(row, before) == Deletion::DeleteIfOver) {
            let Some(coordinator) = row.coordinator.as_ref().filter(|name| !silent.contains(*name)) else { continue };
            let query = OutcomeQuery { key: row.key.clone(), row_status: row.status, not_after: row.not_after };
            queries.entry(coordinator).or_default().push(query);
        }
        for (coordinator, queries) in queries {
            match ask(&**source, coordinator, &queries).await {
                Ok(outcomes) => over.extend(over_of(coordinator, queries, &outcomes)),
                Err(error) => {
                    match error {
                        Unanswered::NoSource => tracing::debug!(%coordinator, "confirmed rows are kept: nobody can be asked"),
                        Unanswered::NoAnswer(problem) => tracing::warn!(%coordinator, problem, "confirmed rows are kept"),
                    }
                    silent.insert(coordinator.clone());
                }
            }
        }
        over
    }
}

/// By the database's clock.
fn judged(row: &OldRow, before: Timestamp) -> Deletion {
    judge_deletion(row.status, row.not_after, row.changed_at, before)
}

fn over_of(coordinator: &LogName, queries: Vec<OutcomeQuery>, outcomes: &[Outcome]) -> Vec<BranchKey> {
    let mut contradicted: Option<BranchKey> = None;
    let mut over = Vec::with_capacity(queries.len());
    for (query, outcome) in queries.into_iter().zip(outcomes) {
        if is_over(*outcome) {
            over.push(query.key);
        } else if *outcome == Outcome::Cancelled {
            contradicted.get_or_insert(query.key);
        }
    }
    if let Some(branch) = contradicted {
        tracing::warn!(%coordinator, %branch, "a confirmed branch of a transaction that was cancelled is kept: stored rows were lost");
    }
    over
}

//! Answers GetOutcome: reads the log, asks [`tcc_machine`] what follows, and writes the cancelled record where that is demanded.

use std::time::Duration;

use tcc_log::TxRecord;
use tcc_machine::{Stored, UnknownGid, outcome_of, outcome_of_unknown};
use tcc_types::{BranchKey, Initiator, Invalid, LogName, Outcome, OutcomeQuery};

use crate::{Coordinator, Error};

impl Coordinator {
    /// Answers a participant's questions; see `tcc.v1.Coordinator.GetOutcome`.
    ///
    /// # Errors
    /// Too many questions, or the log does not answer.
    pub async fn outcomes(&self, coordinator: &LogName, queries: &[OutcomeQuery]) -> Result<Vec<Outcome>, Error> {
        let limit = self.0.config.outcome_queries_max;
        if queries.is_empty() || queries.len() > limit {
            let problem = format!("has {} queries; must have 1 to outcome_queries_max ({limit})", queries.len());
            return Err(Error::Invalid(vec![Invalid::new("queries", problem)]));
        }
        if coordinator != self.0.log.name() {
            return Ok(vec![Outcome::NotMine; queries.len()]);
        }
        let keys: Vec<BranchKey> = queries.iter().map(|query| query.key.clone()).collect();
        let known = self.0.log.statuses(&keys).await?;
        // Side by side, so that the cancelled records of a wiped log are written in batches.
        let outcomes = queries.iter().zip(known).map(|(query, known)| async move {
            match known {
                Some((record, has_branch)) => {
                    let record = self.0.settled(record).await?;
                    Ok(self.outcome_of(query, &record, has_branch))
                }
                None => self.outcome_of_unknown(query).await,
            }
        });
        futures::future::try_join_all(outcomes).await
    }

    fn outcome_of(&self, query: &OutcomeQuery, record: &TxRecord, has_branch: bool) -> Outcome {
        let stored = Stored { status: record.status, decide_by: record.decide_by, has_branch };
        outcome_of(query, stored, Duration::from_millis(self.0.config.ask_grace_ms), self.0.log.now())
    }

    async fn outcome_of_unknown(&self, query: &OutcomeQuery) -> Result<Outcome, Error> {
        let retention = Duration::from_millis(self.0.config.retention_ms);
        match outcome_of_unknown(query, retention, self.0.log.now()) {
            UnknownGid::Tell(outcome) => Ok(outcome),
            UnknownGid::WriteCancelled => {
                let by = Initiator::new("participant").map_err(|bad| Error::Invalid(vec![bad]))?;
                let record = self.0.log.begin_cancelled(query.key.gid, by).await?;
                let has_branch = record.branches.iter().any(|branch| branch.branch == query.key.branch);
                Ok(self.outcome_of(query, &record, has_branch))
            }
        }
    }
}

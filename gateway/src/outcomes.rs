//! Whom the orders' own branches ask what became of their transactions: the coordinator in this process.

use tcc_coordinator::Coordinator;
use tcc_participant::{OutcomeSource, Unanswered};
use tcc_types::{LogName, Outcome, OutcomeQuery};

/// The coordinator, as a participant asks it.
pub(crate) struct OwnOutcomes(pub(crate) Coordinator);

impl OutcomeSource for OwnOutcomes {
    async fn outcomes(&self, coordinator: &LogName, queries: &[OutcomeQuery]) -> Result<Vec<Outcome>, Unanswered> {
        self.0.outcomes(coordinator, queries).await.map_err(|error| Unanswered::NoAnswer(error.to_string()))
    }
}

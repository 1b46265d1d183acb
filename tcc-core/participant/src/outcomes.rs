//! Whom a participant asks what became of a transaction: one small trait, and nothing else of the coordinator. Asked by the
//! sweeper and by retention.

mod grpc;

use std::sync::Arc;

use tcc_types::{LogName, Outcome, OutcomeQuery};

pub use grpc::{CoordinatorConfig, GrpcOutcomes};

/// The coordinators that a participant can ask, by the names of their transaction logs.
pub trait OutcomeSource: Send + Sync + 'static {
    /// Tells what became of the transactions of these rows, which all carry the coordinator's name: one outcome for each query,
    /// in their order. A coordinator that answers [`Outcome::Cancelled`] has made it durable before. Where it told the others and
    /// not this one, that is [`Outcome::AskAgain`].
    ///
    /// Cancel-safe: a dropped question may be asked again.
    ///
    /// # Errors
    /// [`Unanswered`]; all can be retried, later.
    fn outcomes(
        &self,
        coordinator: &LogName,
        queries: &[OutcomeQuery],
    ) -> impl Future<Output = Result<Vec<Outcome>, Unanswered>> + Send;
}

impl<S: OutcomeSource> OutcomeSource for Arc<S> {
    fn outcomes(
        &self,
        coordinator: &LogName,
        queries: &[OutcomeQuery],
    ) -> impl Future<Output = Result<Vec<Outcome>, Unanswered>> + Send {
        S::outcomes(self, coordinator, queries)
    }
}

/// Why there is no answer. Nothing may be concluded from it about any transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// The configuration does not say where this coordinator is.
    #[error("no coordinator of this name is configured")]
    NoSource,
    /// It did not answer, or its answer does not follow the contract. The text is for the log.
    #[error("{0}")]
    NoAnswer(String),
}

/// Asks, and takes only an answer that has one outcome for each query.
pub(crate) async fn ask<S: OutcomeSource>(
    source: &S,
    coordinator: &LogName,
    queries: &[OutcomeQuery],
) -> Result<Vec<Outcome>, Unanswered> {
    let outcomes = source.outcomes(coordinator, queries).await?;
    if outcomes.len() == queries.len() {
        return Ok(outcomes);
    }
    Err(Unanswered::NoAnswer(format!("{} outcomes for {} queries", outcomes.len(), queries.len())))
}

//! Every legal change of a transaction's status, in one table.

use tcc_types::TxStatus;

/// What changes a status. Each is reported only after it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The Confirm decision stands.
    ConfirmDecided,
    /// The Cancel decision stands.
    CancelDecided,
    /// Every branch has carried the decision out, and that is recorded.
    Finished,
}

/// A change that the status does not allow: a defect of the caller, or a log that broke its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transaction that is {from:?} cannot take {change:?}")]
pub struct IllegalTransition {
    /// Where it was.
    pub from: TxStatus,
    /// What was asked.
    pub change: Change,
}

/// The status after a change.
///
/// # Errors
/// The table does not have it. Never retryable.
pub fn transition(from: TxStatus, change: Change) -> Result<TxStatus, IllegalTransition> {
    use Change::{CancelDecided, ConfirmDecided, Finished};
    use TxStatus::{Cancelled, Cancelling, Confirmed, Confirming, Trying};
    match (from, change) {
        (Trying, ConfirmDecided) => Ok(Confirming),
        (Trying, CancelDecided) => Ok(Cancelling),
        (Confirming, Finished) => Ok(Confirmed),
        (Cancelling, Finished) => Ok(Cancelled),
        // Hearing again what stands already changes nothing.
        (Confirming, ConfirmDecided) => Ok(Confirming),
        (Cancelling, CancelDecided) => Ok(Cancelling),
        (Confirmed, ConfirmDecided | Finished) => Ok(Confirmed),
        (Cancelled, CancelDecided | Finished) => Ok(Cancelled),
        (Trying, Finished) | (Confirming | Confirmed, CancelDecided) | (Cancelling | Cancelled, ConfirmDecided) => {
            Err(IllegalTransition { from, change })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_never_changes_and_an_end_is_final() {
        for from in TxStatus::ALL {
            for change in [Change::ConfirmDecided, Change::CancelDecided, Change::Finished] {
                let Ok(to) = transition(from, change) else { continue };
                if let Some(decision) = from.decision() {
                    assert_eq!(to.decision(), Some(decision), "{from:?} {change:?}");
                }
                if from.has_ended() {
                    assert_eq!(to, from, "{from:?} {change:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_ends_undecided() {
        assert!(transition(TxStatus::Trying, Change::Finished).is_err());
    }
}

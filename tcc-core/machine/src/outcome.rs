//! What a participant is told about a row of its own (GetOutcome), and which gids may still be begun or cancelled. Pure: the coordinator reads
//! and writes the log. The two belong together: an answer about an unknown gid stands only because whoever comes later with that gid meets
//! either the written record or this limit.

use std::time::Duration;

use tcc_types::{BranchRowStatus, Decision, Gid, Outcome, OutcomeQuery, Timestamp, TxStatus};

/// What the log has of the transaction that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it is.
    pub status: TxStatus,
    /// Until when it may stay undecided.
    pub decide_by: Timestamp,
    /// Whether the asked-about branch is one of its branches.
    pub has_branch: bool,
}

/// What a question about a gid that the log does not know leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownGid {
    /// Answer this.
    Tell(Outcome),
    /// First write the cancelled record, durably, then answer by [`outcome_of`] whatever stands there: "cancelled" must hold against a Begun
    /// that is still on its way.
    WriteCancelled,
}

/// Answers a question about a transaction that the log knows. What is undecided is to be asked about again `ask_grace` after it must be.
#[must_use]
pub fn outcome_of(query: &OutcomeQuery, stored: Stored, ask_grace: Duration, now: Timestamp) -> Outcome {
    use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
    let Some(decision) = stored.status.decision() else {
        return Outcome::AskAgain { at: stored.decide_by.plus(ask_grace).max(now.plus(ask_grace)) };
    };
    // A decided transaction has all the branches that it will ever have: any other is cancelled.
    let wanted = if stored.has_branch { decision } else { Decision::Cancel };
    let agrees = match query.row_status {
        Tried => false,
        Confirmed => wanted == Decision::Confirm,
        Refused | Cancelled => wanted == Decision::Cancel,
    };
    match wanted {
        // A row that contradicts its transaction is the only witness of it: it is not called finished, and so not deleted.
        _ if agrees && stored.status.has_ended() => Outcome::Finished,
        Decision::Confirm => Outcome::Confirmed,
        Decision::Cancel => Outcome::Cancelled,
    }
}

/// Answers a question about a gid that the log does not know. `retention` is how long the log keeps what has ended.
#[must_use]
pub fn outcome_of_unknown(query: &OutcomeQuery, retention: Duration, now: Timestamp) -> UnknownGid {
    let young = query.key.gid.minted_at().plus(retention) > now;
    if young && query.row_status == BranchRowStatus::Tried {
        UnknownGid::WriteCancelled
    } else {
        UnknownGid::Tell(Outcome::Forgotten)
    }
}

/// Why nothing may be begun, nor cancelled unknown, under a gid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnfitGid {
    /// Minted longer ago than half of the retention: what the log had of it may be deleted before it must be forgotten.
    TooOld,
    /// Minted ahead of the clock by more than the allowance.
    Ahead,
}

/// Whether a gid is of an age at which a transaction may be begun, or cancelled unknown, under it.
///
/// # Errors
/// It is not. Never retryable.
pub fn check_gid_age(gid: Gid, retention: Duration, clock_allowance: Duration, now: Timestamp) -> Result<(), UnfitGid> {
    let minted_at = gid.minted_at();
    if minted_at < now.minus(retention / 2) {
        return Err(UnfitGid::TooOld);
    }
    if minted_at > now.plus(clock_allowance) {
        return Err(UnfitGid::Ahead);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcc_types::{BranchId, BranchKey};

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const GRACE: Duration = Duration::from_secs(30);
    const RETENTION: Duration = Duration::from_secs(600);

    fn query(minted_at: Timestamp, row_status: BranchRowStatus) -> OutcomeQuery {
        let key = BranchKey { gid: Gid::first_of(minted_at), branch: BranchId::new("b").unwrap() };
        OutcomeQuery { key, row_status, not_after: NOW }
    }

    #[test]
    fn every_status_and_row_has_its_answer() {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        for status in TxStatus::ALL {
            for row_status in BranchRowStatus::ALL {
                for has_branch in [true, false] {
                    let stored = Stored { status, decide_by: NOW, has_branch };
                    let told = outcome_of(&query(NOW, row_status), stored, GRACE, NOW);
                    let expected = match (status, has_branch, row_status) {
                        (TxStatus::Trying, _, _) => Outcome::AskAgain { at: NOW.plus(GRACE) },
                        (TxStatus::Confirmed, true, Confirmed) => Outcome::Finished,
                        (TxStatus::Confirming | TxStatus::Confirmed, true, _) => Outcome::Confirmed,
                        (TxStatus::Cancelled, _, Refused | Cancelled) | (TxStatus::Confirmed, false, Refused | Cancelled) => {
                            Outcome::Finished
                        }
                        (TxStatus::Cancelling | TxStatus::Cancelled | TxStatus::Confirming, _, _)
                        | (TxStatus::Confirmed, false, Tried | Confirmed) => Outcome::Cancelled,
                    };
                    assert_eq!(told, expected, "{status:?} {row_status:?} {has_branch}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_gid_is_cancelled_in_writing_while_it_is_young_and_only_for_a_reservation() {
        let (young, old) = (NOW, NOW.minus(RETENTION));
        for row_status in BranchRowStatus::ALL {
            let told = outcome_of_unknown(&query(young, row_status), RETENTION, NOW);
            let tried = row_status == BranchRowStatus::Tried;
            let expected = if tried { UnknownGid::WriteCancelled } else { UnknownGid::Tell(Outcome::Forgotten) };
            assert_eq!(told, expected, "{row_status:?}");
            assert_eq!(outcome_of_unknown(&query(old, row_status), RETENTION, NOW), UnknownGid::Tell(Outcome::Forgotten));
        }
    }

    #[test]
    fn a_gid_is_of_use_for_half_of_the_retention() {
        let allowance = Duration::from_secs(5);
        let age = |minted_at| check_gid_age(Gid::first_of(minted_at), RETENTION, allowance, NOW);
        let millisecond = Duration::from_millis(1);
        assert_eq!(age(NOW.minus(RETENTION / 2)), Ok(()));
        assert_eq!(age(NOW.minus(RETENTION / 2 + millisecond)), Err(UnfitGid::TooOld));
        assert_eq!(age(NOW.plus(allowance)), Ok(()));
        assert_eq!(age(NOW.plus(allowance + millisecond)), Err(UnfitGid::Ahead));
    }
}

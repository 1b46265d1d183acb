//! Which rows of ended branches may be deleted, and when: never one that still keeps a late Try out, or that a repeated Confirm would miss.

use tcc_types::{BranchRowStatus, Outcome, Timestamp};

/// What may become of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It stays.
    Keep,
    /// It may go.
    Delete,
    /// It may go once the coordinator says that its transaction is over ([`is_over`]).
    DeleteIfOver,
}

/// Judges a row by its age. `before` is the database's clock less the retention.
///
/// Both instants count: after `not_after` no Try can come in any more, and what ended the row must be long past.
#[must_use]
pub fn judge_deletion(status: BranchRowStatus, not_after: Timestamp, changed_at: Timestamp, before: Timestamp) -> Deletion {
    let is_old = not_after < before && changed_at < before;
    match status {
        BranchRowStatus::Refused | BranchRowStatus::Cancelled if is_old => Deletion::Delete,
        // As long as its transaction has not ended for every branch, Confirm may be repeated.
        BranchRowStatus::Confirmed if is_old => Deletion::DeleteIfOver,
        BranchRowStatus::Refused | BranchRowStatus::Cancelled | BranchRowStatus::Confirmed | BranchRowStatus::Tried => {
            Deletion::Keep
        }
    }
}

/// Whether the coordinator's answer about a confirmed row says that no Confirm of it will be repeated.
#[must_use]
pub const fn is_over(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Finished | Outcome::Forgotten => true,
        // Not acknowledged by every branch yet, another coordinator's, or a contradiction of which the row is the only witness.
        Outcome::Confirmed | Outcome::AskAgain { .. } | Outcome::NotMine | Outcome::Cancelled => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ended_rows_go_and_only_when_both_instants_are_old() {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        let (before, old) = (Timestamp::from_millis(10), Timestamp::from_millis(9));
        for status in BranchRowStatus::ALL {
            let aged = match status {
                Tried => Deletion::Keep,
                Refused | Cancelled => Deletion::Delete,
                Confirmed => Deletion::DeleteIfOver,
            };
            assert_eq!(judge_deletion(status, old, old, before), aged, "{status:?}");
            assert_eq!(judge_deletion(status, before, old, before), Deletion::Keep, "{status:?}");
            assert_eq!(judge_deletion(status, old, before, before), Deletion::Keep, "{status:?}");
        }
    }
}

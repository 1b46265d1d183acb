//! What the reconciler finds: which rule does not hold, where, what each side says, and what to do. Words only, no reading.

use std::fmt;

use serde::{Serialize, Serializer};
use tcc_types::{BranchId, Gid};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Two sides tell different things that the protocol does not allow side by side.
    Disagreement,
    /// Nothing contradicts anything, but something that should have gone on has not: a process is down, or an operator is needed.
    Overdue,
    /// Two sides tell different things, and an operator has settled that outside and has put it on record.
    Noted,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident, $severity:ident, $name:literal, $to_do:literal;)+) => {
        /// A rule that was found not to hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule { $($(#[$doc])* $rule,)+ }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$rule),+];

            /// As reports name it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$rule => $name,)+ }
            }

            /// How much it weighs.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$rule => Severity::$severity,)+ }
            }

            /// What an operator may do about it.
            #[must_use]
            pub const fn what_to_do(self) -> &'static str {
                match self { $(Self::$rule => $to_do,)+ }
            }
        }
    };
}

rules! {
    /// A branch is confirmed, and its transaction is not decided.
    ConfirmedUndecided, Disagreement, "confirmed_but_undecided",
        "find out who confirmed it: the log has lost a decision (a restore, a stale standby), or somebody called the participant by hand";
    /// A branch is cancelled, and its transaction is not decided.
    CancelledUndecided, Disagreement, "cancelled_but_undecided",
        "its Try will be refused as suspended and the transaction cancelled; find out who cancelled it";
    /// A branch is confirmed, and its transaction is cancelled.
    ConfirmedButCancelled, Disagreement, "confirmed_but_transaction_cancelled",
        "a mixed outcome: undo this branch's business effect, then record it by MarkSettled if it is listed as stuck";
    /// A branch is cancelled or refused, and its transaction is confirmed.
    CancelledButConfirmed, Disagreement, "cancelled_but_transaction_confirmed",
        "a mixed outcome: do this branch's business effect by other means, then record it by MarkSettled if it is listed as stuck";
    /// A branch still holds its reservation, and the log has it as settled.
    TriedButSettled, Disagreement, "tried_but_settled_in_the_log",
        "its participant has lost a commit (a restore, a stale standby); it asks for the outcome after its ask_after and obeys it";
    /// A transaction is to be confirmed, and a participant has no row of its branch.
    RowMissing, Disagreement, "row_missing",
        "its participant has lost the row: once it is listed as stuck, TryAnew or MarkSettled";
    /// A reservation of a transaction that the log does not know.
    Orphan, Disagreement, "tried_but_transaction_unknown",
        "the log has lost the transaction, or somebody called the participant by hand; it asks for the outcome after its ask_after and is cancelled, or listed as forgotten";
    /// An ended branch of a transaction that the log should still know.
    TransactionMissing, Disagreement, "ended_but_transaction_unknown",
        "the log has lost the transaction, or log_retention_ms is longer than the coordinator's retention_ms";
    /// Branches of one transaction, which the log does not know, have ended differently.
    MixedOutcome, Disagreement, "mixed_outcome",
        "the log cannot tell any more which outcome was meant: compare with the business, and do or undo the effect of one side";
    /// A participant holds or has confirmed a branch that its transaction does not have.
    NotInTransaction, Disagreement, "branch_not_in_transaction",
        "if it is tried, it asks for the outcome and is cancelled; if it is confirmed, somebody called the participant by hand, or the log has lost the branch";
    /// The log has lost branches of a transaction.
    BranchesMissing, Disagreement, "branches_missing_in_the_log",
        "the log is damaged: restore the branches from a backup, or settle them by hand at their participants";
    /// A SKU's pieces do not add up, or one column is negative.
    StockUnbalanced, Disagreement, "stock_does_not_add_up",
        "somebody changed the stock beside the framework: correct the columns while the participant is stopped";
    /// What is frozen is not what the tried rows hold.
    FrozenDiffers, Disagreement, "frozen_is_not_what_tried_rows_hold",
        "a row or the stock was changed beside the framework: correct `frozen` (and `available` by as much) while the participant is stopped";
    /// Confirmed rows have spent more than is sold.
    SoldTooLow, Disagreement, "sold_is_less_than_confirmed_rows_spent",
        "a row or the stock was changed beside the framework: correct `sold` (and `available` by as much) while the participant is stopped";
    /// A coupon and the branch that has it say different things.
    CouponDiffers, Disagreement, "coupon_differs_from_its_branch",
        "a row or the coupon was changed beside the framework: set the coupon to what its branch says while the participant is stopped";
    /// An order and its branch say different things.
    OrderDiffers, Disagreement, "order_differs_from_its_branch",
        "a row or the order was changed beside the framework: set the order's status to its branch's";
    /// A transaction is due, and nobody drives it.
    TransactionOverdue, Overdue, "transaction_overdue",
        "see whether a gateway runs on this log and can reach it";
    /// A reservation should have asked for its outcome.
    RowOverdue, Overdue, "tried_row_overdue",
        "see whether its participant runs, and whether it can reach its coordinator";
    /// A branch keeps failing.
    Stuck, Overdue, "stuck",
        "see the coordinator's list of stuck branches: Probe, TryAnew or MarkSettled";
    /// A branch has another outcome than its transaction, and an operator has settled that by other means.
    SettledOutside, Noted, "settled_outside",
        "nothing: the audit record says who settled it, and why";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One thing that is not as it must be. Two are equal if the same sides say the same of the same branch or resource: so a second
/// look knows it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Which rule does not hold.
    pub rule: Rule,
    /// Of which transaction, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Gid>,
    /// Of which branch, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchId>,
    /// At which participant, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    /// Of which SKU, coupon or order, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What each side says.
    pub says: Vec<String>,
}

impl Finding {
    /// Of nothing yet.
    #[must_use]
    pub const fn new(rule: Rule) -> Self {
        Self { rule, gid: None, branch: None, participant: None, resource: None, says: Vec::new() }
    }

    /// Of this transaction.
    #[must_use]
    pub fn of(self, gid: Gid) -> Self {
        Self { gid: Some(gid), ..self }
    }

    /// Of this branch.
    #[must_use]
    pub fn branch(self, branch: &BranchId) -> Self {
        Self { branch: Some(branch.clone()), ..self }
    }

    /// At this participant.
    #[must_use]
    pub fn at(self, participant: impl Into<String>) -> Self {
        Self { participant: Some(participant.into()), ..self }
    }

    /// Of this SKU, coupon or order.
    #[must_use]
    pub fn resource(self, resource: impl Into<String>) -> Self {
        Self { resource: Some(resource.into()), ..self }
    }

    /// One side says this.
    #[must_use]
    pub fn says(mut self, what: impl Into<String>) -> Self {
        self.says.push(what.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule.name())?;
        let branch = self.branch.as_ref().map(BranchId::as_str);
        let gid = self.gid.map(|gid| gid.to_string());
        let places = [
            ("transaction", gid.as_deref()),
            ("branch", branch),
            ("participant", self.participant.as_deref()),
            ("of", self.resource.as_deref()),
        ];
        for (word, place) in places {
            if let Some(place) = place {
                write!(f, " {word} {place}")?;
            }
        }
        write!(f, ": {}", self.says.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
    }

    #[test]
    fn a_finding_tells_its_place_and_what_each_side_says() {
        let finding =
            Finding::new(Rule::StockUnbalanced).at("inventory").resource("apple").says("initial is 5").says("the sum is 4");
        let text = finding.to_string();
        assert_eq!(text, "stock_does_not_add_up participant inventory of apple: initial is 5; the sum is 4");
    }
}

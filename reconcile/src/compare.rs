//! Compares what the log and the participants say of one transaction. Pure: rows in, findings out; whether they stand is for the
//! second look ([`Candidates`](crate::Candidates)).

use std::{collections::BTreeSet, fmt, time::Duration};

use tcc_machine::Settled;
use tcc_types::{BranchRowStatus, Decision, Gid, LogName, ParticipantName, Timestamp};

use crate::{Case, Finding, LogBranch, Row, Rule, Transaction};

/// By what the cases of one look are judged.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whose transactions are compared; rows of other logs are passed over.
    pub log: LogName,
    /// The log database's clock, before it was read.
    pub now: Timestamp,
    /// The participants' databases.
    pub sides: Vec<Side>,
    /// How late something may be.
    pub grace: Duration,
    /// The coordinator's retention: how long it keeps at least what has ended.
    pub log_retention: Duration,
    /// The participants' retention: how long they keep at least what has ended.
    pub participant_retention: Duration,
}

/// A database of branch rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Whose branches are in it: the names by which the coordinator calls them.
    pub names: BTreeSet<ParticipantName>,
    /// Its clock, before it was read.
    pub now: Timestamp,
}

impl Side {
    /// Its participants' names.
    pub(crate) fn name(&self) -> String {
        self.names.iter().map(ParticipantName::as_str).collect::<Vec<_>>().join("+")
    }
}

impl Terms {
    fn side(&self, row: &Row) -> String {
        self.sides.get(row.side).map(Side::name).unwrap_or_default()
    }

    fn has(&self, row: &Row, branch: &LogBranch) -> bool {
        row.branch == branch.branch && self.sides.get(row.side).is_some_and(|side| side.names.contains(&branch.participant))
    }

    fn looks_at(&self, participant: &ParticipantName) -> bool {
        self.sides.iter().any(|side| side.names.contains(participant))
    }
}

/// Everything that is not as it must be about one transaction, as these rows say.
#[must_use]
pub fn compare(case: &Case, terms: &Terms) -> Vec<Finding> {
    let mut found = Vec::new();
    let ours = |row: &&Row| row.coordinator.as_ref().is_none_or(|log| *log == terms.log);
    let rows: Vec<&Row> = case.rows.iter().filter(ours).collect();
    let compared = Compared { gid: case.gid, rows: &rows, terms };
    match &case.transaction {
        Some(transaction) => compared.with(transaction, &mut found),
        None => compared.with_nothing(&mut found),
    }
    found.extend(rows.iter().filter_map(|row| compared.overdue(row)));
    found
}

/// One transaction's rows of this log.
struct Compared<'a> {
    gid: Gid,
    rows: &'a [&'a Row],
    terms: &'a Terms,
}

impl Compared<'_> {
    fn finding(&self, rule: Rule) -> Finding {
        Finding::new(rule).of(self.gid)
    }

    fn of_row(&self, rule: Rule, row: &Row, log_says: impl fmt::Display) -> Finding {
        let side = self.terms.side(row);
        let says = match row.forgotten_at {
            Some(at) => format!("{side} has it as {:?}, and was told at {at} that it is forgotten", row.status),
            None => format!("{side} has it as {:?}", row.status),
        };
        self.finding(rule).branch(&row.branch).at(side).says(format!("the log {log_says}")).says(says)
    }

    fn with(&self, transaction: &Transaction, found: &mut Vec<Finding>) {
        let status = transaction.status;
        let known = i64::try_from(transaction.branches.len()).unwrap_or(i64::MAX);
        if transaction.branch_count != known {
            let says = format!("the log has it as {status:?} with {} branches", transaction.branch_count);
            found.push(self.finding(Rule::BranchesMissing).says(says).says(format!("the log lists {known} branches")));
        }
        let due = transaction.next_attempt_at;
        if !status.has_ended() && due.plus(self.terms.grace) < self.terms.now {
            found.push(self.finding(Rule::TransactionOverdue).says(format!("the log has it as {status:?}, due since {due}")));
        }
        for branch in &transaction.branches {
            let row = self.rows.iter().find(|row| self.terms.has(row, branch));
            found.extend(self.of_branch(transaction, branch, row.copied()));
            found.extend(self.stuck(transaction, branch));
        }
        let unlisted = self.rows.iter().filter(|row| !transaction.branches.iter().any(|branch| self.terms.has(row, branch)));
        found.extend(unlisted.filter_map(|row| match row.status {
            // Whoever asks for the outcome of a branch that its transaction does not have is told to cancel.
            BranchRowStatus::Refused | BranchRowStatus::Cancelled => None,
            BranchRowStatus::Tried | BranchRowStatus::Confirmed => {
                let says = format!("has the transaction as {status:?}, without this branch");
                Some(self.of_row(Rule::NotInTransaction, row, says))
            }
        }));
    }

    fn of_branch(&self, transaction: &Transaction, branch: &LogBranch, row: Option<&Row>) -> Option<Finding> {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        // Of what an operator settled outside, its participant need not know yet.
        let settled = match branch.settled {
            Some(Settled::Outside) => false,
            Some(Settled::Acknowledged) => true,
            None => transaction.status.has_ended(),
        };
        let Some(row) = row else { return self.missing(transaction, branch) };
        let rule = match (transaction.status.decision(), row.status) {
            (None, Confirmed) => Rule::ConfirmedUndecided,
            (None, Cancelled) => Rule::CancelledUndecided,
            (Some(Decision::Confirm), Refused | Cancelled) => Rule::CancelledButConfirmed,
            (Some(Decision::Cancel), Confirmed) => Rule::ConfirmedButCancelled,
            (Some(_), Tried) if settled => Rule::TriedButSettled,
            (Some(_), Tried)
            | (None, Tried | Refused)
            | (Some(Decision::Confirm), Confirmed)
            | (Some(Decision::Cancel), Refused | Cancelled) => return None,
        };
        let also = match branch.settled {
            None => "",
            Some(Settled::Acknowledged) => ", and the branch as acknowledged",
            Some(Settled::Outside) => ", and the branch as settled outside",
        };
        Some(self.of_row(noted(rule, branch), row, format_args!("has the transaction as {:?}{also}", transaction.status)))
    }

    /// A branch without a row: every branch has one once Confirm is decided, until its participant's retention is over.
    fn missing(&self, transaction: &Transaction, branch: &LogBranch) -> Option<Finding> {
        match transaction.status.decision() {
            // Its Try may not have left yet, or never did.
            None | Some(Decision::Cancel) => return None,
            Some(Decision::Confirm) => {}
        }
        let decided_at = transaction.decided_at?;
        // It was confirmed after the decision, and is kept for so long after that. The grace is for clocks that differ.
        let kept = decided_at.plus(self.terms.participant_retention) > self.terms.now.plus(self.terms.grace);
        if !kept || !self.terms.looks_at(&branch.participant) {
            return None;
        }
        let log_says = format!("the log has the transaction as {:?}, decided at {decided_at}", transaction.status);
        let missing = self.finding(noted(Rule::RowMissing, branch)).branch(&branch.branch).at(branch.participant.as_str());
        Some(missing.says(log_says).says(format!("{} has no row", branch.participant)))
    }

    fn stuck(&self, transaction: &Transaction, branch: &LogBranch) -> Option<Finding> {
        let (why, since) = branch.stuck.as_ref()?;
        let says =
            format!("the log has the transaction as {:?}, and the branch as stuck since {since}: {why}", transaction.status);
        Some(self.finding(Rule::Stuck).branch(&branch.branch).at(branch.participant.as_str()).says(says))
    }

    /// The log has no such transaction: it never had it, or has lost it, or has kept it for its time.
    fn with_nothing(&self, found: &mut Vec<Finding>) {
        for row in self.rows {
            match row.status {
                BranchRowStatus::Tried => found.push(self.of_row(Rule::Orphan, row, "knows no such transaction")),
                BranchRowStatus::Refused | BranchRowStatus::Confirmed | BranchRowStatus::Cancelled => {
                    let now = self.terms.sides.get(row.side).map_or(self.terms.now, |side| side.now);
                    // A transaction ends after the last change of its rows, and is kept for so long after that. Whose an empty
                    // rollback is, nobody can tell.
                    let kept = row.changed_at.plus(self.terms.log_retention) > now.plus(self.terms.grace);
                    if kept && row.coordinator.is_some() {
                        found.push(self.of_row(Rule::TransactionMissing, row, "knows no such transaction"));
                    }
                }
            }
        }
        let any = |statuses: &[BranchRowStatus]| self.rows.iter().any(|row| statuses.contains(&row.status));
        if any(&[BranchRowStatus::Confirmed]) && any(&[BranchRowStatus::Refused, BranchRowStatus::Cancelled]) {
            let mixed = self.finding(Rule::MixedOutcome).says("the log knows no such transaction");
            let says = |row: &&&Row| format!("{} has {} as {:?}", self.terms.side(row), row.branch, row.status);
            found.push(self.rows.iter().map(|row| says(&row)).fold(mixed, Finding::says));
        }
    }

    fn overdue(&self, row: &Row) -> Option<Finding> {
        let side = self.terms.sides.get(row.side)?;
        let asks = row.ask_after.filter(|_| row.status == BranchRowStatus::Tried)?;
        let late = asks.plus(self.terms.grace) < side.now;
        let says = || format!("{} has it as Tried, to be asked about since {asks}", side.name());
        late.then(|| self.finding(Rule::RowOverdue).branch(&row.branch).at(side.name()).says(says()))
    }
}

/// What an operator has settled by other means is no disagreement any more, and is not hidden.
fn noted(rule: Rule, branch: &LogBranch) -> Rule {
    match branch.settled {
        Some(Settled::Outside) => Rule::SettledOutside,
        None | Some(Settled::Acknowledged) => rule,
    }
}

#[cfg(test)]
mod tests;

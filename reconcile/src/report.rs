//! What a run has found, for people and for programs. No reading, no judging.

use std::{collections::BTreeMap, fmt, process::ExitCode};

use serde::Serialize;

use crate::{Finding, Severity};

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Transactions of the log.
    pub transactions: u64,
    /// Rows of this log at participants.
    pub rows: u64,
    /// Rows of other logs at participants: not compared.
    pub rows_of_other_logs: u64,
    /// SKUs' buckets, coupons and orders.
    pub resources: u64,
    /// Findings of a first look that were gone at a later one: work in flight.
    pub in_flight: u64,
    /// Transactions that were not looked at a second time, and findings about columns that are not listed: more than
    /// `candidates_max`.
    pub left_out: u64,
}

/// What a run has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The log's name.
    pub log: String,
    /// What contradicts each other.
    pub disagreements: Vec<Finding>,
    /// What should have gone on and has not.
    pub overdue: Vec<Finding>,
    /// What an operator has settled outside.
    pub noted: Vec<Finding>,
    /// Branches of the log at participants whose database was not given, by participant.
    pub not_looked_at: BTreeMap<String, u64>,
    /// What was looked at.
    pub counts: Counts,
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was looked at agrees.
    Agree,
    /// Something does not.
    Disagree,
    /// Nothing was found to disagree, but not all that looked so could be looked at again.
    Incomplete,
}

impl Outcome {
    /// 0, 1 and 2.
    #[must_use]
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Agree => ExitCode::SUCCESS,
            Self::Disagree => ExitCode::from(1),
            Self::Incomplete => ExitCode::from(2),
        }
    }
}

impl Report {
    pub(crate) fn add(&mut self, finding: Finding) {
        match finding.rule.severity() {
            Severity::Disagreement => self.disagreements.push(finding),
            Severity::Overdue => self.overdue.push(finding),
            Severity::Noted => self.noted.push(finding),
        }
    }

    /// What it comes to; `strict`: what is overdue disagrees too.
    #[must_use]
    pub fn outcome(&self, strict: bool) -> Outcome {
        if !self.disagreements.is_empty() || (strict && !self.overdue.is_empty()) {
            Outcome::Disagree
        } else if self.counts.left_out > 0 {
            Outcome::Incomplete
        } else {
            Outcome::Agree
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, disagreements, overdue, noted, not_looked_at, counts } = self;
        for (word, findings) in [("DISAGREEMENT", disagreements), ("overdue", overdue), ("noted", noted)] {
            for finding in findings {
                writeln!(f, "{word} {finding}\n    to do: {}", finding.rule.what_to_do())?;
            }
        }
        for (participant, branches) in not_looked_at {
            writeln!(f, "not compared: {branches} branches at {participant}, whose database was not given")?;
        }
        if counts.left_out > 0 {
            writeln!(
                f,
                "incomplete: {} more than candidates_max were not looked at again, or are not listed",
                counts.left_out
            )?;
        }
        write!(
            f,
            "log {log}: {} disagreements, {} overdue; compared {} transactions, {} rows and {} resources; {} differences were work in \
             flight, {} rows are other logs'",
            disagreements.len(),
            overdue.len(),
            counts.transactions,
            counts.rows,
            counts.resources,
            counts.in_flight,
            counts.rows_of_other_logs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    #[test]
    fn only_what_disagrees_fails_unless_it_is_strict() {
        let mut report = Report::default();
        assert_eq!((report.outcome(false), report.outcome(true)), (Outcome::Agree, Outcome::Agree));
        report.add(Finding::new(Rule::Stuck));
        assert_eq!((report.outcome(false), report.outcome(true)), (Outcome::Agree, Outcome::Disagree));
        report.add(Finding::new(Rule::SettledOutside));
        report.overdue.clear();
        assert_eq!(report.outcome(true), Outcome::Agree);
        report.counts.left_out = 1;
        assert_eq!(report.outcome(false), Outcome::Incomplete);
        report.add(Finding::new(Rule::Orphan));
        assert_eq!(report.outcome(false), Outcome::Disagree);
    }

    #[test]
    fn every_finding_is_told_with_what_to_do() {
        let mut report = Report { log: "main".to_owned(), ..Report::default() };
        report.not_looked_at.insert("points".to_owned(), 3);
        for rule in Rule::ALL {
            report.add(Finding::new(*rule).resource("r-1").says("one").says("another"));
        }
        let text = report.to_string();
        for rule in Rule::ALL {
            assert!(text.contains(&format!("{rule} of r-1: one; another\n    to do: {}", rule.what_to_do())), "{text}");
        }
        assert!(text.contains("3 branches at points"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["overdue"].as_array().unwrap().len(), 3);
        assert_eq!(json["disagreements"][0]["rule"], "confirmed_but_undecided");
    }
}

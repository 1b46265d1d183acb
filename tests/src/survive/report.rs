//! The figures as an aligned table, and the verdict.

use std::time::Duration;

use comfy_table::Table;

use super::strikes::Target;
use crate::{
    cli::{align_right, table},
    witness::{Looks, Violations, verdict},
};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Summary {
    pub(crate) target: Target,
    pub(crate) violations: Violations,
    /// The books' rules that do not hold, and clients that got no answer.
    pub(crate) broken: Vec<String>,
    /// Orders whose fate a client was told.
    pub acknowledged: u64,
    /// Stored as confirmed.
    pub confirmed: usize,
    /// Stored as cancelled.
    pub cancelled: usize,
    /// Kills.
    pub kills: usize,
    /// Transactions that a killed gateway was driving and that another took over or ended, each with the time since the kill; for
    /// other targets, the time from each kill until an order was acknowledged after the return. Sorted.
    pub waits: Vec<Duration>,
    /// For other targets than gateways, the time from each return until an order was acknowledged. Sorted.
    pub after_return: Vec<Duration>,
    /// How often clients sent a request again.
    pub repeats: u64,
    /// From an order's first sending to its acknowledgement. Sorted.
    pub latencies: Vec<Duration>,
    /// What the reconciler saw meanwhile, if it was to look.
    pub(crate) looks: Option<Looks>,
    /// For how long orders were placed.
    pub elapsed: Duration,
}

impl Summary {
    /// Acknowledged as confirmed or held, and not there.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.violations.lost.len()
    }

    /// Order keys with two orders.
    #[must_use]
    pub fn doubled(&self) -> usize {
        self.violations.doubled.len()
    }

    /// Reservations that nobody released.
    #[must_use]
    pub fn leaked(&self) -> usize {
        self.violations.leaked.len()
    }

    /// Acknowledged as one outcome, and another stands.
    #[must_use]
    pub fn contradicted(&self) -> usize {
        self.violations.contradicted.len()
    }

    /// Runs of the reconciler that came to their end meanwhile.
    #[must_use]
    pub fn reconciled(&self) -> u64 {
        self.looks.as_ref().map_or(0, |looks| looks.ended)
    }

    /// Everything that must not be, each as a sentence. Empty: all is well.
    pub fn sentences(&self) -> impl Iterator<Item = &String> {
        self.violations.all().chain(&self.broken)
    }

    /// The figures.
    #[must_use]
    pub fn table(&self) -> Table {
        let millis = |wait: Option<Duration>| wait.map_or_else(|| "-".to_owned(), |wait| wait.as_millis().to_string());
        let p50_and_max = |sorted: &[Duration]| [millis(half(sorted)), millis(sorted.last().copied())];
        let [waited, waited_max] = p50_and_max(&self.waits);
        let waits = self.waits.len().to_string();
        let faults = match self.target {
            Target::Gateway => {
                vec![("takeovers", waits), ("takeover p50 ms", waited), ("takeover max ms", waited_max)]
            }
            Target::Database | Target::Inventory => {
                let [returned, returned_max] = p50_and_max(&self.after_return);
                vec![
                    ("returns", waits),
                    ("kill to first order p50 ms", waited),
                    ("kill to first order max ms", waited_max),
                    ("return to first order p50 ms", returned),
                    ("return to first order max ms", returned_max),
                ]
            }
        };
        let per_second = u128::from(self.acknowledged) * 1_000 / self.elapsed.as_millis().max(1);
        let [answered, answered_max] = p50_and_max(&self.latencies);
        let mut rows = vec![
            ("orders acknowledged", self.acknowledged.to_string()),
            ("confirmed", self.confirmed.to_string()),
            ("cancelled", self.cancelled.to_string()),
            ("lost", self.lost().to_string()),
            ("doubled", self.doubled().to_string()),
            ("oversold", self.violations.oversold.len().to_string()),
            ("leaked", self.leaked().to_string()),
            ("contradicted", self.contradicted().to_string()),
            ("kills", self.kills.to_string()),
        ];
        rows.extend(faults);
        rows.extend([
            ("orders/s", per_second.to_string()),
            ("answer p50 ms", answered),
            ("answer max ms", answered_max),
            ("sent again", self.repeats.to_string()),
        ]);
        if let Some(Looks { ended, cut_short, in_flight, .. }) = &self.looks {
            rows.extend([
                ("runs of the reconciler", ended.to_string()),
                ("cut short", cut_short.to_string()),
                ("differences in flight", in_flight.to_string()),
            ]);
        }
        let mut table = table(&["", "number"]);
        for (name, value) in rows {
            table.add_row([name.to_owned(), value]);
        }
        align_right(&mut table, 1..2);
        table
    }

    /// What is printed last.
    #[must_use]
    pub fn verdict(&self) -> String {
        if self.sentences().next().is_none() {
            return "verdict: nothing lost, doubled, oversold, leaked or contradicted; books balance".to_owned();
        }
        let words = format!("{}, {} other rules broken", self.violations.in_words(), self.broken.len());
        verdict(self.sentences(), &words)
    }
}

fn half(sorted: &[Duration]) -> Option<Duration> {
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(violations: Violations, broken: Vec<String>) -> Summary {
        Summary {
            target: Target::Gateway,
            violations,
            broken,
            acknowledged: 500,
            confirmed: 400,
            cancelled: 100,
            kills: 3,
            waits: [10, 20, 30].map(Duration::from_millis).into(),
            after_return: Vec::new(),
            repeats: 7,
            latencies: Vec::new(),
            looks: None,
            elapsed: Duration::from_secs(2),
        }
    }

    #[test]
    fn a_single_sentence_spoils_the_verdict() {
        assert!(summary(Violations::default(), Vec::new()).verdict().ends_with("books balance"));
        let lost = Violations { lost: vec!["order k is gone".to_owned()], ..Violations::default() };
        let text = summary(lost, Vec::new()).verdict();
        assert!(text.starts_with("broken: order k is gone\nverdict: 1 lost, 0 doubled"), "{text}");
        let text = summary(Violations::default(), vec!["apple: 1 are still frozen".to_owned()]).verdict();
        assert!(text.ends_with("0 contradicted, 1 other rules broken"), "{text}");
    }

    #[test]
    fn the_table_has_the_middle_and_the_longest_wait() {
        let text = summary(Violations::default(), Vec::new()).table().to_string();
        let has = |name: &str, value: &str| {
            let found = text.lines().any(|line| line.contains(name) && line.split_whitespace().any(|word| word == value));
            assert!(found, "{name} {value}\n{text}");
        };
        has("takeover p50 ms", "20");
        has("takeover max ms", "30");
        has("orders/s", "250");
        has("answer p50 ms", "-");
    }
}

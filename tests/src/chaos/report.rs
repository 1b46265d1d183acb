//! What came of it, as text and as JSON.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::Table;
use serde_json::{Value, json};

use super::{
    Conditions,
    inflict::Inflicted,
    measure::{Recoveries, available_per_mille, by_kind, percentile},
};
use crate::{
    cli::{align_right, table},
    witness::{Looks, Violations, verdict},
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    pub(crate) conditions: Conditions,
    pub(crate) violations: Violations,
    /// The books' rules that do not hold, what the reconciler found, clients without an answer, processes that ended by themselves.
    pub(crate) broken: Vec<String>,
    /// Decisions that changed after they were read, each as a sentence.
    pub(crate) changed: Vec<String>,
    /// How many decisions were read, and how often.
    pub(crate) decisions: (usize, u64),
    pub(crate) inflicted: Vec<Inflicted>,
    /// Orders whose fate a client was told.
    pub acknowledged: u64,
    /// Stored as confirmed.
    pub confirmed: usize,
    /// Stored as cancelled.
    pub cancelled: usize,
    /// Orders whose clients went away.
    pub abandoned: usize,
    /// How often clients sent a request again.
    pub repeats: u64,
    /// Orders that were first acknowledged in each second.
    pub(crate) per_second: Vec<u64>,
    pub(crate) recoveries: Recoveries,
    /// From an order's first sending to its acknowledgement. Sorted.
    pub(crate) latencies: Vec<Duration>,
    /// What the reconciler saw meanwhile.
    pub(crate) looks: Looks,
}

impl Summary {
    /// Everything that must not be, each as a sentence. Empty: all is well.
    pub fn sentences(&self) -> impl Iterator<Item = &String> {
        self.violations.all().chain(&self.changed).chain(&self.broken)
    }

    /// How many faults of each kind there were.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        by_kind(&self.inflicted)
    }

    /// Looks of the reconciler that came to their end meanwhile, and looks at the log's decisions.
    #[must_use]
    pub fn looks(&self) -> [u64; 2] {
        [self.looks.ended, self.decisions.1]
    }

    /// The figures.
    #[must_use]
    pub fn table(&self) -> Table {
        let millis = |wait: Option<Duration>| wait.map_or_else(|| "-".to_owned(), |wait| wait.as_millis().to_string());
        let three = |sorted: &[Duration]| [50, 99, 100].map(|percent| millis(percentile(sorted, percent))).join(" / ");
        let available = available_per_mille(&self.per_second);
        let Violations { lost, doubled, oversold, leaked, contradicted } = &self.violations;
        let Conditions { store, gateways, seed, minutes, .. } = self.conditions;
        let mut rows = vec![
            ("store, gateways, minutes, seed".to_owned(), format!("{store}, {gateways}, {minutes}, {seed}")),
            ("orders acknowledged".to_owned(), self.acknowledged.to_string()),
            ("confirmed".to_owned(), self.confirmed.to_string()),
            ("cancelled".to_owned(), self.cancelled.to_string()),
            ("abandoned by their clients".to_owned(), self.abandoned.to_string()),
            ("sent again".to_owned(), self.repeats.to_string()),
            ("lost".to_owned(), lost.len().to_string()),
            ("doubled".to_owned(), doubled.len().to_string()),
            ("oversold".to_owned(), oversold.len().to_string()),
            ("leaked".to_owned(), leaked.len().to_string()),
            ("contradicted".to_owned(), contradicted.len().to_string()),
            ("decisions that changed".to_owned(), self.changed.len().to_string()),
            ("decisions read, times".to_owned(), format!("{}, {}", self.decisions.0, self.decisions.1)),
            ("runs of the reconciler, cut short".to_owned(), format!("{}, {}", self.looks.ended, self.looks.cut_short)),
        ];
        rows.extend(self.faults().into_iter().map(|(kind, count)| (format!("fault: {kind}"), count.to_string())));
        rows.extend([
            ("available, % of seconds".to_owned(), format!("{}.{}", available / 10, available % 10)),
            ("recovery p50 / p99 / max ms".to_owned(), three(&self.recoveries.all())),
            ("faults without a measured recovery".to_owned(), self.recoveries.unmeasured.to_string()),
            ("answer p50 / p99 / max ms".to_owned(), three(&self.latencies)),
        ]);
        let mut table = table(&["", "number"]);
        for (name, value) in rows {
            table.add_row([name, value]);
        }
        align_right(&mut table, 1..2);
        table
    }

    /// What is printed last.
    #[must_use]
    pub fn verdict(&self) -> String {
        let (counts, changed, other) = (self.violations.in_words(), self.changed.len(), self.broken.len());
        let books = if self.sentences().next().is_none() { "books balance" } else { "something is broken" };
        let words = format!("{counts}, {changed} decisions changed, {other} other rules broken; {books}");
        verdict(self.sentences(), &words)
    }

    /// Everything, for programs. Times are milliseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let three = |sorted: &[Duration]| {
            let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(sorted, percent).map(millis));
            json!({ "p50": p50, "p99": p99, "max": max, "count": sorted.len() })
        };
        let faults = self.inflicted.iter().filter(|one| one.happened).map(|one| {
            json!({ "kind": one.fault.kind(), "place": one.place, "began": millis(one.began), "ended": millis(one.ended) })
        });
        let Violations { lost, doubled, oversold, leaked, contradicted } = &self.violations;
        let Conditions { store, gateways, seed, minutes, clients, orders_per_second } = self.conditions;
        let recoveries = self.recoveries.by_kind.iter().map(|(kind, sorted)| (*kind, three(sorted)));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "command": self.conditions.command(),
            "store": store.to_string(),
            "seed": seed,
            "gateways": gateways,
            "minutes": minutes,
            "clients": clients,
            "orders_per_second_max": orders_per_second,
            "orders": {
                "acknowledged": self.acknowledged,
                "confirmed": self.confirmed,
                "cancelled": self.cancelled,
                "abandoned": self.abandoned,
                "sent_again": self.repeats,
                "per_second": self.per_second,
            },
            "broken": {
                "lost": lost,
                "doubled": doubled,
                "oversold": oversold,
                "leaked": leaked,
                "contradicted": contradicted,
                "decisions_changed": self.changed,
                "other": self.broken,
            },
            "decisions": { "read": self.decisions.0, "times": self.decisions.1 },
            "reconciler": { "ended": self.looks.ended, "cut_short": self.looks.cut_short, "in_flight": self.looks.in_flight },
            "faults_by_kind": self.faults(),
            "faults": faults.collect::<Vec<_>>(),
            "available_per_mille": available_per_mille(&self.per_second),
            "recovery": three(&self.recoveries.all()),
            "recovery_by_kind": recoveries.collect::<BTreeMap<_, _>>(),
            "faults_without_a_measured_recovery": self.recoveries.unmeasured,
            "latency": three(&self.latencies),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        chaos::plan::{Disturbance, Fault},
        harness::{Party, Store},
    };

    pub(crate) fn summary() -> Summary {
        let inflicted = |fault, began, ended| Inflicted {
            fault,
            place: "inventory".to_owned(),
            began: Duration::from_millis(began),
            ended: Duration::from_millis(ended),
            happened: true,
        };
        Summary {
            conditions: Conditions {
                store: Store::Postgres,
                gateways: 3,
                seed: 7,
                minutes: 0.05,
                clients: 4,
                orders_per_second: 200,
            },
            violations: Violations::default(),
            broken: Vec::new(),
            changed: Vec::new(),
            decisions: (400, 3),
            inflicted: vec![
                inflicted(Fault::Kill(Party::Inventory), 500, 900),
                inflicted(Fault::Link(0, Disturbance::Cut), 1_000, 2_500),
            ],
            acknowledged: 400,
            confirmed: 300,
            cancelled: 100,
            abandoned: 4,
            repeats: 9,
            per_second: vec![200, 0, 190],
            recoveries: Recoveries { by_kind: [("kill -9", vec![Duration::from_millis(30)])].into(), unmeasured: 1 },
            latencies: Vec::new(),
            looks: Looks::default(),
        }
    }

    #[test]
    fn a_single_sentence_spoils_the_verdict() {
        assert!(summary().verdict().ends_with("books balance"));
        for spoil in [
            |summary: &mut Summary| summary.violations.oversold.push("apple".to_owned()),
            |summary: &mut Summary| summary.changed.push("the log".to_owned()),
            |summary: &mut Summary| summary.broken.push("a rule".to_owned()),
        ] {
            let mut spoiled = summary();
            spoil(&mut spoiled);
            assert!(spoiled.verdict().starts_with("broken: ") && spoiled.verdict().ends_with("something is broken"));
        }
    }

    #[test]
    fn the_report_has_every_fault_with_its_times() {
        let json = summary().json();
        assert_eq!(json["faults_by_kind"], json!({ "kill -9": 1, "link cut": 1 }));
        assert_eq!(json["faults"][1], json!({ "kind": "link cut", "place": "inventory", "began": 1_000, "ended": 2_500 }));
        assert_eq!(json["available_per_mille"], 666);
        assert_eq!(json["recovery_by_kind"]["kill -9"]["max"], 30);
        let command =
            "tcc-cluster chaos --store postgres --gateways 3 --seed 7 --minutes 0.05 --clients 4 --orders-per-second 200";
        assert_eq!(json["command"], command);
        let text = summary().table().to_string();
        assert!(text.contains("fault: kill -9") && text.contains("66.6"), "{text}");
    }
}

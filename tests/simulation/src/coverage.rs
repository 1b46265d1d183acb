//! What was reached, how often, and what was going wrong meanwhile. Adds up over seeds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tcc_types::Op;

/// How often something was reached, and how often under each kind of fault.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reached {
    pub(crate) times: u64,
    pub(crate) under: BTreeMap<String, u64>,
}

impl Reached {
    fn count(&mut self, faults: &[&'static str]) {
        self.times += 1;
        for fault in faults {
            *self.under.entry((*fault).to_owned()).or_default() += 1;
        }
    }

    fn add(&mut self, other: Self) {
        self.times += other.times;
        add(&mut self.under, other.under);
    }
}

/// What was reached.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Coverage {
    /// Steps towards a database.
    pub(crate) steps: u64,
    /// Messages that arrived once more.
    pub(crate) repeats: u64,
    /// Statuses of transactions, from and to.
    pub(crate) transitions: BTreeMap<String, Reached>,
    /// Statuses of branch rows, from and to.
    pub(crate) rows: BTreeMap<String, Reached>,
    /// Operations, and the row that each found when it arrived.
    pub(crate) cells: BTreeMap<String, Reached>,
    /// Operations and their answers.
    pub(crate) answers: BTreeMap<String, Reached>,
    /// Faults, by kind.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Machines that were stopped, by the point where they were.
    pub(crate) stops: BTreeMap<String, u64>,
    /// What clients were told.
    pub(crate) told: BTreeMap<String, u64>,
}

impl Coverage {
    pub(crate) fn transition(&mut self, from: &str, to: &str, faults: &[&'static str]) {
        self.transitions.entry(format!("{from} -> {to}")).or_default().count(faults);
    }

    pub(crate) fn row(&mut self, from: &str, to: &str, faults: &[&'static str]) {
        self.rows.entry(format!("{from} -> {to}")).or_default().count(faults);
    }

    pub(crate) fn arrived(&mut self, op: Op, row: &str, faults: &[&'static str]) {
        self.cells.entry(format!("{op:?} finds {row}")).or_default().count(faults);
    }

    pub(crate) fn answered(&mut self, op: Op, answer: &str, faults: &[&'static str]) {
        self.answers.entry(format!("{op:?}: {answer}")).or_default().count(faults);
    }

    pub(crate) fn fault(&mut self, kind: &str) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    pub(crate) fn stop(&mut self, point: String) {
        *self.stops.entry(point).or_default() += 1;
    }

    pub(crate) fn tell(&mut self, what: &str) {
        *self.told.entry(what.to_owned()).or_default() += 1;
    }

    /// Adds what another run reached.
    pub(crate) fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.repeats += other.repeats;
        for (mine, others) in [
            (&mut self.transitions, other.transitions),
            (&mut self.rows, other.rows),
            (&mut self.cells, other.cells),
            (&mut self.answers, other.answers),
        ] {
            others.into_iter().for_each(|(what, reached)| mine.entry(what).or_default().add(reached));
        }
        add(&mut self.faults, other.faults);
        add(&mut self.stops, other.stops);
        add(&mut self.told, other.told);
    }
}

fn add(mine: &mut BTreeMap<String, u64>, others: BTreeMap<String, u64>) {
    others.into_iter().for_each(|(what, times)| *mine.entry(what).or_default() += times);
}

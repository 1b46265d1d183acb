//! A coordinator that answers what a case tells it to, and remembers what it was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tcc_types::{BranchKey, Entropy, LogName, Outcome, OutcomeQuery};

use crate::{OutcomeSource, Unanswered};

/// The scripted coordinators. A handle.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Mutex<Script>>);

/// What they do.
#[derive(Debug, Default)]
pub struct Script {
    /// What became of each transaction. To be asked about another one is a failure of the case.
    pub outcomes: BTreeMap<BranchKey, Outcome>,
    /// These do not answer.
    pub silent: BTreeSet<LogName>,
    /// These are not configured.
    pub unknown: BTreeSet<LogName>,
    /// Answers lack their last outcome.
    pub short: bool,
    /// Every question that came, in order.
    pub asked: Vec<(LogName, Vec<OutcomeQuery>)>,
}

impl Answers {
    /// Reads or changes the script.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what became of a branch's transaction.
    pub fn set(&self, key: &BranchKey, outcome: Outcome) {
        self.script().outcomes.insert(key.clone(), outcome);
    }

    /// How many queries each question had.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        self.script().asked.iter().map(|(_, queries)| queries.len()).collect()
    }
}

impl OutcomeSource for Answers {
    async fn outcomes(&self, coordinator: &LogName, queries: &[OutcomeQuery]) -> Result<Vec<Outcome>, Unanswered> {
        let mut script = self.script();
        script.asked.push((coordinator.clone(), queries.to_vec()));
        if script.unknown.contains(coordinator) {
            return Err(Unanswered::NoSource);
        }
        if script.silent.contains(coordinator) {
            return Err(Unanswered::NoAnswer("injected silence".to_owned()));
        }
        let take = queries.len() - usize::from(script.short);
        let outcome = |query: &OutcomeQuery| *script.outcomes.get(&query.key).expect("the case says what became of it");
        Ok(queries.iter().take(take).map(outcome).collect())
    }
}

/// Randomness that always gives the same: 0 no jitter at all, `u64::MAX` all of it.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub u64);

impl Entropy for Fixed {
    fn next_u64(&self) -> u64 {
        self.0
    }
}

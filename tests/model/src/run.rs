//! Runs the checker on a configuration, and tells what it found.

use std::{
    fmt,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, Model};

use crate::{Configuration, world::World};

/// A rule that does not hold, with the way there.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// What happened, step by step, and the last state. Empty: what should be possible is not.
    pub trace: String,
}

/// What came of one configuration.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of the configuration.
    pub name: &'static str,
    /// Different states; each was looked at.
    pub states: usize,
    /// Steps from one state to another that were taken.
    pub steps: usize,
    /// Steps on the longest way that was walked; varies a little with the number of processors.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Nothing is left to explore. False where the checker stopped because every rule is broken.
    pub exhausted: bool,
    /// What does not hold.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, steps, depth, took, exhausted, findings } = self;
        let end = if *exhausted { "exhausted" } else { "NOT exhausted" };
        write!(f, "{name}: {states} states, {steps} steps, depth {depth}, {end} in {:.1} s", took.as_secs_f64())?;
        for Finding { rule, trace } in findings {
            write!(f, "\n  BROKEN {rule}\n{trace}")?;
        }
        Ok(())
    }
}

/// Explores a configuration to its end, on all processors.
#[must_use]
pub fn check(configuration: &Configuration) -> Report {
    let since = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let checker = World::new(configuration.clone()).checker().threads(threads).spawn_bfs().join();
    let mut findings = Vec::new();
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        let found = discoveries.get(property.name);
        match (property.expectation, found) {
            (Expectation::Always, Some(path)) => {
                let mut trace: Vec<_> = path.clone().into_actions().iter().map(|action| format!("    {action:?}")).collect();
                trace.push(format!("    {:#?}", path.last_state()));
                findings.push(Finding { rule: property.name, trace: trace.join("\n") });
            }
            (Expectation::Sometimes, None) => findings.push(Finding { rule: property.name, trace: String::new() }),
            (Expectation::Always, None) | (Expectation::Sometimes, Some(_)) | (Expectation::Eventually, _) => {}
        }
    }
    Report {
        name: configuration.name,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: since.elapsed(),
        exhausted: checker.is_done() && findings.is_empty(),
        findings,
    }
}

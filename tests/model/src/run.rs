//! Runs the checker on a configuration, and tells what it found.

use std::{
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Representative};

use crate::{Configuration, configuration::Kind, mark::Mark, statements::Rows, world::World};

/// A rule that does not hold, with the way there.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: String,
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
    /// Nothing is left to explore. False where the checker stopped since a rule is broken.
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

/// Which states count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetry {
    /// Those that differ only by which gateway, or which of several transactions that are alike, is which.
    Reduced,
    /// None: for comparison.
    Ignored,
}

/// Explores a configuration to its end, or to the first state that breaks a rule, on all processors.
#[must_use]
pub fn check(configuration: &Configuration, symmetry: Symmetry) -> Report {
    match &configuration.kind {
        Kind::Protocol(bounds) => {
            let alike = bounds.gateways > 1 || bounds.transactions.len() > 1;
            let reduced = symmetry == Symmetry::Reduced && alike;
            explore(configuration, || World::new(bounds.clone()), World::seen, reduced)
        }
        Kind::Statements(statements) => explore(configuration, || Rows::new(statements.clone()), Rows::seen, false),
    }
}

/// As [`check`]; where a rule is broken, goes again for the shortest way there.
#[must_use]
pub fn check_and_explain(configuration: &Configuration, symmetry: Symmetry) -> Report {
    let mut report = check(configuration, symmetry);
    if report.findings.iter().any(|finding| !finding.trace.is_empty()) {
        report.findings = match &configuration.kind {
            Kind::Protocol(bounds) => shortest(World::new(bounds.clone())),
            Kind::Statements(statements) => shortest(Rows::new(statements.clone())),
        };
    }
    report
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Depth first: what waits to be explored stays small.
fn explore<M>(configuration: &Configuration, make: impl Fn() -> M, seen: impl Fn(&M) -> u64, reduced: bool) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Send + Sync + Representative + fmt::Debug + 'static,
    M::Action: Clone + PartialEq + fmt::Debug + Send + Sync,
{
    let since = Instant::now();
    let builder = make().checker().threads(threads()).finish_when(HasDiscoveries::AnyFailures);
    let builder = if reduced { builder.symmetry() } else { builder };
    let checker = builder.spawn_dfs().join();
    let mut findings = findings_of(&checker);
    let is_broken = !findings.is_empty();
    let seen = seen(checker.model());
    let missing = configuration.shows.iter().filter(|mark| seen & (1 << **mark as u32) == 0);
    if !is_broken {
        findings.extend(missing.map(|mark: &Mark| Finding { rule: format!("never seen: {mark:?}"), trace: String::new() }));
    }
    Report {
        name: configuration.name,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: since.elapsed(),
        exhausted: checker.is_done() && !is_broken,
        findings,
    }
}

/// Breadth first: what is found first is nearest.
fn shortest<M>(model: M) -> Vec<Finding>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Send + Sync + fmt::Debug + 'static,
    M::Action: Clone + PartialEq + fmt::Debug + Send + Sync,
{
    findings_of(&model.checker().threads(threads()).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join())
}

fn findings_of<M>(checker: &impl Checker<M>) -> Vec<Finding>
where
    M: Model,
    M::State: Hash + Clone + PartialEq + fmt::Debug,
    M::Action: Clone + PartialEq + fmt::Debug,
{
    let discoveries = checker.discoveries();
    let properties = checker.model().properties();
    let broken = properties.iter().filter(|property| property.expectation == Expectation::Always);
    let findings = broken.filter_map(|property| {
        let path = discoveries.get(property.name)?;
        let mut trace: Vec<_> = path.clone().into_actions().iter().map(|action| format!("    {action:?}")).collect();
        trace.push(format!("    {:#?}", path.last_state()));
        Some(Finding { rule: property.name.to_owned(), trace: trace.join("\n") })
    });
    findings.collect()
}

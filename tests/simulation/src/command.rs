//! `simulate`: many seeds, each in a process of its own, as many at a time as there are processors; what they reached, added up; and for
//! each that failed, how to run it again.

use std::{
    io::IsTerminal,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use futures::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tcc_preload::Library;

use crate::{
    coverage::{Coverage, Reached},
    preload,
    run::{Options, Report, run},
};

/// What tells a process that it is to run one seed, and how: JSON.
const CHILD_VARIABLE: &str = "TCC_SIMULATION_CHILD";
/// A seed that really takes longer hangs.
const SEED_WITHIN: Duration = Duration::from_secs(120);
/// Failing seeds that are told of in full.
const TOLD_MAX: usize = 5;
const TEMPLATE: &str = "{bar:40} {pos}/{len} seeds, {msg}, {eta} left";

/// Which seeds.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// How many.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    pub from: u64,
    /// How many at the same time; 0: as many as there are processors.
    #[arg(long, default_value_t = 0)]
    pub jobs: usize,
    /// Print the trace of each.
    #[arg(long)]
    pub trace: bool,
    /// Run each seed twice, and compare the traces.
    #[arg(long)]
    pub twice: bool,
    /// Leave these faults of the plan out, by their numbers.
    #[arg(long, value_delimiter = ',')]
    pub without: Vec<usize>,
    /// Look for the fewest faults with which a seed still fails.
    #[arg(long)]
    pub minimize: bool,
    /// Write what was reached, and the failures, as JSON.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// One seed, as it is asked of a child.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Order {
    seed: u64,
    without: Vec<usize>,
    trace: bool,
}

/// Runs one seed if this process was started for that: call it before anything else, and before there is a runtime.
#[must_use]
pub fn child() -> Option<ExitCode> {
    let order = std::env::var(CHILD_VARIABLE).ok()?;
    let Ok(order) = serde_json::from_str::<Order>(&order) else {
        eprintln!("{CHILD_VARIABLE} is for this program's own use");
        return Some(ExitCode::from(2));
    };
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let report = run(order.seed, &Options { keeps_text: order.trace, without: order.without });
    for line in &report.trace {
        println!("{line}");
    }
    match serde_json::to_string(&report) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("the report cannot be written: {error}"),
    }
    Some(ExitCode::SUCCESS)
}

/// Runs the seeds and prints what came of them. Exit status 0: every rule was kept; 1: some was broken; 2: it could not be run.
pub async fn simulate(args: &SimulateArgs) -> ExitCode {
    match attempt(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn attempt(args: &SimulateArgs) -> anyhow::Result<bool> {
    let library = preload::build().context("randomness cannot be made the seed's")?;
    let started = Instant::now();
    let jobs = if args.jobs == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { args.jobs };
    let seeds = args.from..args.from.saturating_add(args.seeds);
    let progress = Progress::new(args.seeds);
    let running = seeds.map(|seed| one(&library, seed, args));
    let mut running = stream::iter(running).buffer_unordered(jobs);
    let mut sum = Sum::default();
    while let Some(report) = running.next().await {
        sum.add(report?);
        progress.show(&sum);
    }
    progress.end();
    println!("{}", sum.table(started.elapsed(), jobs));
    println!("{}", sum.coverage_tables());
    sum.failed.sort_by_key(|report| report.events);
    for report in sum.failed.iter().take(TOLD_MAX) {
        tell(&library, report, args).await?;
    }
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_vec_pretty(&sum.json())?).with_context(|| path.display().to_string())?;
    }
    println!("{}", sum.verdict());
    Ok(sum.failed.is_empty())
}

/// Runs one seed, in a process of its own.
async fn one(library: &Library, seed: u64, args: &SimulateArgs) -> anyhow::Result<Report> {
    let mut report = in_child(library, &Order { seed, without: args.without.clone(), trace: args.trace }).await?;
    if args.trace {
        report.trace.drain(..).for_each(|line| println!("{line}"));
    }
    if args.twice {
        let again = in_child(library, &Order { seed, without: args.without.clone(), trace: false }).await?;
        if again.trace_hash != report.trace_hash {
            let what = format!("determinism: the trace is {} and then {}", report.trace_hash, again.trace_hash);
            report.violations.push(what);
        }
    }
    Ok(report)
}

async fn in_child(library: &Library, order: &Order) -> anyhow::Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(CHILD_VARIABLE, serde_json::to_string(order)?);
    preload::under(&mut command, library, order.seed);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let mut command = tokio::process::Command::from(command);
    let began = Instant::now();
    let output = tokio::time::timeout(SEED_WITHIN, command.kill_on_drop(true).output()).await;
    let output = output.with_context(|| format!("seed {} hangs: it took {SEED_WITHIN:?}", order.seed))??;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let last = lines.pop();
    ensure!(output.status.success() && last.is_some(), "seed {} ended with {}", order.seed, output.status);
    let mut report: Report = serde_json::from_str(&last.unwrap_or_default())?;
    report.trace = lines;
    report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// Tells of a seed that failed.
async fn tell(library: &Library, report: &Report, args: &SimulateArgs) -> anyhow::Result<()> {
    println!("seed {} failed, after {} events:", report.seed, report.events);
    for violation in &report.violations {
        println!("  broken: {violation}");
    }
    let mut without = args.without.clone();
    if args.minimize {
        without = fewest(library, report, without).await?;
        let rest = report.plan.iter().enumerate().filter(|(number, _)| !without.contains(number));
        println!("  the faults that it takes:");
        rest.for_each(|(_, fault)| println!("    {fault}"));
    }
    let list = without.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let without = if list.is_empty() { list } else { format!(" --without {list}") };
    println!("  again: simulate --from {} --seeds 1 --trace{without}", report.seed);
    Ok(())
}

/// Leaves faults out, one after the other, as long as the same rule is broken without them, until none can be left out any more.
async fn fewest(library: &Library, report: &Report, mut without: Vec<usize>) -> anyhow::Result<Vec<usize>> {
    let rule = |report: &Report| report.violations.first().and_then(|it| it.split(',').next().map(str::to_owned));
    loop {
        let before = without.len();
        for number in 0..report.plan.len() {
            if without.contains(&number) {
                continue;
            }
            without.push(number);
            let again = in_child(library, &Order { seed: report.seed, without: without.clone(), trace: false }).await?;
            if rule(&again) != rule(report) {
                without.pop();
            }
        }
        if without.len() == before {
            break;
        }
    }
    without.sort_unstable();
    Ok(without)
}

/// What came of all seeds.
#[derive(Default)]
struct Sum {
    seeds: u64,
    failed: Vec<Report>,
    simulated_ms: u64,
    took_ms: Vec<u64>,
    steps_max: u32,
    transactions: u64,
    unanswered: u64,
    faults: u64,
    coverage: Coverage,
    hash: u64,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.simulated_ms += report.simulated_ms;
        self.took_ms.push(report.took_ms);
        self.steps_max = self.steps_max.max(report.steps);
        self.transactions += report.transactions;
        self.unanswered += report.unanswered;
        self.faults += report.faults as u64;
        self.coverage.add(report.coverage.clone());
        // In whatever order they end, the sum is the same.
        let hash = u64::from_str_radix(&report.trace_hash, 16).unwrap_or_default();
        self.hash = self.hash.wrapping_add(hash.rotate_left(u32::try_from(report.seed % 64).unwrap_or(0)));
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }

    fn table(&mut self, took: Duration, jobs: usize) -> Table {
        self.took_ms.sort_unstable();
        let at = |part: usize| self.took_ms.get(self.took_ms.len().saturating_sub(1) * part / 100).copied().unwrap_or(0);
        let hours = Duration::from_millis(self.simulated_ms).as_secs_f64() / 3_600.0;
        rows([
            ("seeds", format!("{} in {:.0} s, {jobs} at a time", self.seeds, took.as_secs_f64())),
            ("simulated", format!("{hours:.1} hours")),
            ("transactions", format!("{} ({:.0} a seed)", self.transactions, self.a_seed(self.transactions))),
            ("faults", format!("{} ({:.0} a seed)", self.faults, self.a_seed(self.faults))),
            ("machines stopped", self.coverage.stops.values().sum::<u64>().to_string()),
            ("messages repeated", self.coverage.repeats.to_string()),
            ("steps towards databases", self.coverage.steps.to_string()),
            ("requests given up", self.unanswered.to_string()),
            ("a seed takes", format!("{} ms (p50), {} ms (p99), {} ms at most", at(50), at(99), at(100))),
            ("steps of a seed", format!("{} at most, of 100,000", self.steps_max)),
            ("hash of all traces", format!("{:016x}", self.hash)),
        ])
    }

    #[allow(clippy::cast_precision_loss, reason = "for people")]
    fn a_seed(&self, all: u64) -> f64 {
        all as f64 / self.seeds.max(1) as f64
    }

    fn coverage_tables(&self) -> String {
        let reached = |title: &str, all: &std::collections::BTreeMap<String, Reached>| {
            let rows = all.iter().map(|(what, reached)| {
                let kinds = reached.under.len();
                (what.clone(), format!("{} (under {kinds} kinds of faults)", reached.times))
            });
            format!("{title}\n{}\n", table(rows))
        };
        let counted = |title: &str, all: &std::collections::BTreeMap<String, u64>| {
            format!("{title}\n{}\n", table(all.iter().map(|(what, times)| (what.clone(), times.to_string()))))
        };
        [
            counted("Faults", &self.coverage.faults),
            counted("Machines stopped at", &self.coverage.stops),
            reached("Transactions", &self.coverage.transitions),
            reached("Branch rows", &self.coverage.rows),
            reached("Operations and what they find", &self.coverage.cells),
            reached("Operations and their answers", &self.coverage.answers),
            counted("What clients were told", &self.coverage.told),
        ]
        .join("\n")
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "seeds": self.seeds,
            "simulated_ms": self.simulated_ms,
            "transactions": self.transactions,
            "faults": self.faults,
            "hash": format!("{:016x}", self.hash),
            "coverage": self.coverage,
            "failed": self.failed,
        })
    }

    fn verdict(&self) -> String {
        match self.failed.len() {
            0 => format!("verdict: {} seeds kept every rule", self.seeds),
            failed => format!("verdict: {failed} of {} seeds broke a rule", self.seeds),
        }
    }
}

fn rows<const N: usize>(rows: [(&str, String); N]) -> Table {
    table(rows.into_iter().map(|(name, value)| (name.to_owned(), value)))
}

fn table(rows: impl Iterator<Item = (String, String)>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// How far it is: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    told: std::cell::Cell<Instant>,
}

impl Progress {
    fn new(seeds: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(seeds).with_style(style)
        });
        Self { bar, told: std::cell::Cell::new(Instant::now()) }
    }

    fn show(&self, sum: &Sum) {
        let failed = sum.failed.len();
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{failed} failed"));
                bar.set_position(sum.seeds);
            }
            None if self.told.get().elapsed() > Duration::from_secs(30) => {
                eprintln!("{} seeds, {failed} failed", sum.seeds);
                self.told.set(Instant::now());
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

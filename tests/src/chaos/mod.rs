//! `tcc-cluster chaos`: steady orders while processes are killed and stopped, links between all of them harmed, the database killed and
//! disks full, as a seeded plan says; and a verdict on what the clients were told.

mod inflict;
mod measure;
mod plan;
mod report;
mod timeline;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tcc_types::{Entropy, SystemEntropy};
use tokio_util::sync::CancellationToken;

pub use self::report::Summary;
use self::{
    inflict::{Inflicted, Inflictor},
    plan::{Planned, plan},
};
use crate::{
    harness::{Cluster, ClusterConfig, Owner, Scope, ServerChoice, Store, broken_rules},
    witness::{Clients, Decisions, Fate, History, Looks, Pace, Progress, ask_for_abandoned, evidence, stock_up, violations},
};

/// After faults have stopped, everything ends within this, or the verdict is bad.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// The grace of the reconciler that looks on.
const GRACE_MS: u64 = 2_000;
/// Seeds that are chosen here are short enough to be typed.
const SEEDS: u64 = 1_000_000;

/// How long, on what, and under which load.
#[derive(Clone, Debug, Args)]
pub struct ChaosArgs {
    /// What everything is kept in. postgres and mysql (MySQL or MariaDB) start a private server, which is killed again and again.
    #[arg(long, value_enum, default_value = "postgres")]
    pub store: Store,
    /// For how long; 0.5 is half a minute.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    pub minutes: f64,
    /// What the plan of faults is made from; without it one is chosen and printed. The plan is the same each time, what it meets is not.
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many gateways; without it 3, and 1 on SQLite, which can have no more.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub gateways: Option<u8>,
    /// Clients that order at the same time. With few, all of them soon wait for what is broken, and nobody tries what is not.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Orders that all clients together place in a second, at most; 0: each orders again as soon as it has its answer.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub orders_per_second: u32,
    /// Writes the report here, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draws orders and faults over time here, as SVG.
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// What the processes log, in the language of `RUST_LOG`.
    #[arg(long, default_value = "warn")]
    pub log: String,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.25..=1_440.0).contains(&minutes) { Ok(minutes) } else { Err("must be from 0.25 to 1440".to_owned()) }
}

/// Runs it and prints the figures and the verdict.
pub async fn run(args: ChaosArgs) -> ExitCode {
    let binary = std::env::current_exe().context("where this binary is");
    let summary = match binary {
        Ok(binary) => attempt(&args, binary).await,
        Err(error) => Err(error),
    };
    match summary {
        Ok(summary) => {
            println!("{}\n{}", summary.table(), summary.verdict());
            ExitCode::from(u8::from(summary.sentences().next().is_some()))
        }
        Err(error) => {
            println!("error: {error:#}\nverdict: none, it did not come to its end");
            ExitCode::from(2)
        }
    }
}

/// Runs it on a cluster of the given binary.
///
/// # Errors
/// A process does not start, or does not come back, or a file cannot be written.
pub async fn attempt(args: &ChaosArgs, binary: PathBuf) -> anyhow::Result<Summary> {
    let store = args.store;
    let gateways = usize::from(args.gateways.unwrap_or(if store == Store::Sqlite { 1 } else { 3 }));
    let seed = args.seed.unwrap_or_else(|| SystemEntropy.next_u64() % SEEDS);
    let config = ClusterConfig {
        store,
        server: if store.kind().is_some() { ServerChoice::Own } else { ServerChoice::default() },
        gateways,
        linked: true,
        disks_may_fill: true,
        log_filter: args.log.clone(),
        // What a client may have to wait for everything that is broken again and again.
        coordinator: json!({ "try_for_ms": 30_000, "retry_cap_ms": 1_000, "stuck_probe_ms": 2_000, "ask_grace_ms": 5_000 }),
        participant: json!({ "upkeep": { "sweep_interval_ms": 1_000 } }),
        ..ClusterConfig::temporary(binary)
    };
    let mut cluster = Cluster::start(config).await?;
    println!("{store}, {gateways} gateways, seed {seed}: {}", cluster.whereabouts());
    let result = orders_and_faults(&mut cluster, args, seed).await;
    if !matches!(&result, Ok(summary) if summary.sentences().next().is_none()) {
        println!("{}", cluster.log_tails());
        println!("logs stay in {}", cluster.keep_folder().display());
    }
    let summary = result?;
    cluster.stop().await?;
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&summary.json())?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.picture {
        timeline::draw(file, &summary)?;
    }
    Ok(summary)
}

/// What a run has left behind, apart from the databases.
struct Run {
    history: History,
    decisions: Decisions,
    looks: Looks,
    inflicted: Vec<Inflicted>,
    problems: Vec<String>,
    acknowledged: u64,
    per_second: Vec<u64>,
    recoveries: Vec<Duration>,
    started: Instant,
    elapsed: Duration,
}

async fn orders_and_faults(cluster: &mut Cluster, args: &ChaosArgs, seed: u64) -> anyhow::Result<Summary> {
    stock_up(cluster).await?;
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let lanes = plan(seed, args.store, cluster.gateways(), length);
    ensure!(lanes.iter().any(|lane| !lane.is_empty()), "nothing breaks in {length:?}");
    let mut run = break_everything(cluster, args, &lanes, length).await?;
    let quiet = cluster.quiet(QUIET_WITHIN).await?;
    let open = quiet.err().map(|open| format!("after {QUIET_WITHIN:?} {open}"));
    run.problems.extend(open);
    // What nobody was told has ended by now; asking for it must not change what it is.
    run.decisions.look().await?;
    ask_for_abandoned(&mut run.history, &cluster.all_orders(), &cluster.coupons(), run.started).await;
    let quiet = cluster.quiet(QUIET_WITHIN).await?;
    run.problems.extend(quiet.err());
    run.decisions.look().await?;
    summarize(cluster, args, seed, run).await
}

async fn break_everything(
    cluster: &mut Cluster,
    args: &ChaosArgs,
    lanes: &[Vec<Planned>],
    length: Duration,
) -> anyhow::Result<Run> {
    let mut decisions = Decisions::new(args.store, cluster.database_url(Owner::Log));
    let (reconcile, mut looks) = (cluster.reconcile_config(GRACE_MS), Looks::default());
    let (orders, coupons) = (cluster.orders_by_link()?, cluster.coupons());
    let started = Instant::now();
    let rate = (args.orders_per_second > 0).then_some(args.orders_per_second);
    let clients = Clients::start(&orders, &coupons, Pace { clients: args.clients, orders_per_second: rate }, started);
    let counters = clients.counters();
    let progress = Progress::new(length.as_secs(), clients.counters());
    let inflictor = Inflictor::new(cluster, started);
    let watched = CancellationToken::new();
    let working = async {
        let work = async {
            inflictor.carry_out(lanes, |text| progress.tell(text)).await?;
            tokio::time::sleep(length.saturating_sub(started.elapsed())).await;
            clients.stop().await
        };
        let history = tokio::select! {
            history = work => history,
            never = progress.show() => match never {},
        };
        watched.cancel();
        history
    };
    let (history, (), ()) = tokio::join!(working, decisions.watch(&watched), looks.look(&reconcile, &watched));
    let (history, elapsed) = (history?, started.elapsed());
    let (inflicted, problems) = inflictor.done();
    Ok(Run {
        per_second: measure::per_second(&history.told, elapsed),
        recoveries: measure::recoveries(&inflicted, &history.told, args.store, orders.len()),
        acknowledged: counters.acknowledged.load(Ordering::Relaxed),
        history,
        decisions,
        looks,
        inflicted,
        problems,
        started,
        elapsed,
    })
}

async fn summarize(cluster: &Cluster, args: &ChaosArgs, seed: u64, run: Run) -> anyhow::Result<Summary> {
    let Run { mut history, decisions, mut looks, .. } = run;
    let ledger = cluster.ledger().await?;
    let mut broken = run.problems;
    broken.append(&mut history.problems);
    broken.extend(broken_rules(&ledger, Scope::AtRestOrdersOnly));
    broken.extend(cluster.disagreements_at_rest().await?);
    broken.extend(std::mem::take(&mut looks.disagreements));
    let evidence = evidence(cluster.databases(), &ledger).await?;
    let count = |fate| evidence.transactions.iter().filter(|one| one.fate == fate).count();
    history.latencies.sort_unstable();
    Ok(Summary {
        store: args.store,
        seed,
        gateways: cluster.gateways(),
        elapsed: run.elapsed,
        violations: violations(&history, &evidence),
        broken,
        decisions: (decisions.decided(), decisions.looks),
        changed: decisions.changed,
        recoveries: run.recoveries,
        per_second: run.per_second,
        inflicted: run.inflicted,
        acknowledged: run.acknowledged,
        confirmed: count(Fate::Confirmed),
        cancelled: count(Fate::Cancelled),
        abandoned: history.abandoned.len(),
        repeats: history.repeats,
        latencies: history.latencies,
        looks,
    })
}

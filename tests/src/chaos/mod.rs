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

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;
use tcc_proto::order::v1::{CreateOrderRequest, OrderLine, OrderStatus};
use tcc_types::{Entropy, SystemEntropy};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::report::Summary;
use self::{
    inflict::{Inflicted, Inflictor},
    measure::Recoveries,
    plan::{Planned, plan},
};
use crate::{
    harness::{Cluster, ClusterConfig, Owner, Party, Scope, ServerChoice, Store, broken_rules, order_with_retry},
    witness::{
        Clients, Decisions, Ending, Fate, GRACE_MS, History, Looks, Pace, Progress, QUIET_WITHIN, ask_for_abandoned, end,
        evidence, plentiful_sku, stock_up, violations,
    },
};

/// Once all is mended, each gateway places an order within this.
const PLACES_WITHIN: Duration = Duration::from_secs(60);
/// Every answer is kept until the end, and the whole log is read again and again: more takes several runs.
const MINUTES_MAX: f64 = 120.0;
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
    if (0.25..=MINUTES_MAX).contains(&minutes) { Ok(minutes) } else { Err(format!("must be from 0.25 to {MINUTES_MAX}")) }
}

/// Runs it and prints the figures and the verdict.
pub async fn run(args: ChaosArgs) -> ExitCode {
    end(async {
        let binary = std::env::current_exe().context("where this binary is")?;
        let summary = attempt(&args, binary).await?;
        let well = summary.sentences().next().is_none();
        Ok(Ending { table: summary.table().to_string(), verdict: summary.verdict(), well })
    })
    .await
}

/// Runs it on a cluster of the given binary.
///
/// # Errors
/// A process does not start, or does not come back, or a file cannot be written.
pub async fn attempt(args: &ChaosArgs, binary: PathBuf) -> anyhow::Result<Summary> {
    let store = args.store;
    let gateways = usize::from(args.gateways.unwrap_or(if store == Store::Sqlite { 1 } else { 3 }));
    let seed = args.seed.unwrap_or_else(|| SystemEntropy.next_u64() % SEEDS);
    let conditions = Conditions {
        store,
        gateways,
        seed,
        minutes: args.minutes,
        clients: args.clients,
        orders_per_second: args.orders_per_second,
    };
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
    println!("{}\n{}", cluster.whereabouts(), conditions.command());
    let result = orders_and_faults(&mut cluster, conditions).await;
    if !matches!(&result, Ok(summary) if summary.sentences().next().is_none()) {
        println!("{}", cluster.log_tails());
        println!("logs stay in {}", cluster.keep_folder().display());
    }
    let mut summary = result?;
    if let Err(error) = cluster.stop().await {
        summary.broken.push(format!("a process did not end as it must: {error:#}"));
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&summary.json())?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.picture {
        timeline::draw(file, &summary)?;
    }
    Ok(summary)
}

/// Everything that a run is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) store: Store,
    pub(crate) gateways: usize,
    pub(crate) seed: u64,
    pub(crate) minutes: f64,
    pub(crate) clients: u32,
    /// 0: without a limit.
    pub(crate) orders_per_second: u32,
}

impl Conditions {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// How to have the same plan under the same load again.
    pub(crate) fn command(&self) -> String {
        let Self { store, gateways, seed, minutes, clients, orders_per_second } = self;
        let store = store.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        format!(
            "tcc-cluster chaos --store {store} --gateways {gateways} --seed {seed} --minutes {minutes} --clients {clients} \
             --orders-per-second {orders_per_second}"
        )
    }
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
    recoveries: Recoveries,
    started: Instant,
}

async fn orders_and_faults(cluster: &mut Cluster, conditions: Conditions) -> anyhow::Result<Summary> {
    stock_up(cluster).await?;
    let lanes = plan(conditions.seed, conditions.store, conditions.gateways, conditions.length());
    let mut run = break_everything(cluster, conditions, &lanes).await?;
    if run.decisions.looks == 0 {
        run.problems.push("nobody read decisions while orders were placed".to_owned());
    }
    let quiet = cluster.quiet(QUIET_WITHIN).await?;
    let open = quiet.err().map(|open| format!("after {QUIET_WITHIN:?} {open}"));
    run.problems.extend(open);
    run.problems.extend(every_gateway_places_an_order(cluster).await?);
    // What nobody was told has ended by now; asking for it must not change what it is.
    run.decisions.look().await?;
    ask_for_abandoned(&mut run.history, &cluster.all_orders(), &cluster.coupons(), run.started).await;
    let quiet = cluster.quiet(QUIET_WITHIN).await?;
    run.problems.extend(quiet.err());
    run.decisions.look().await?;
    summarize(cluster, conditions, run).await
}

/// What is wrong with those that do not, once nothing is broken any more: whoever goes elsewhere would not notice.
async fn every_gateway_places_an_order(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (index, orders) in cluster.orders_by_link()?.into_iter().enumerate() {
        let request = CreateOrderRequest {
            order_key: format!("after-all-{index}"),
            user_id: "user-0".to_owned(),
            lines: vec![OrderLine { sku: plentiful_sku(), quantity: 1 }],
            ..CreateOrderRequest::default()
        };
        match timeout(PLACES_WITHIN, order_with_retry(orders, &request)).await {
            Ok(Ok((order, _))) if order.status() == OrderStatus::Confirmed => {}
            Ok(answer) => problems.push(format!("{} does not place an order: {answer:?}", Party::Gateway(index))),
            Err(_) => problems.push(format!("{} places no order within {PLACES_WITHIN:?}", Party::Gateway(index))),
        }
    }
    Ok(problems)
}

async fn break_everything(cluster: &mut Cluster, conditions: Conditions, lanes: &[Vec<Planned>]) -> anyhow::Result<Run> {
    let Conditions { store, clients, orders_per_second, .. } = conditions;
    let length = conditions.length();
    let mut decisions = Decisions::new(store, cluster.database_url(Owner::Log));
    let (reconcile, mut looks) = (cluster.reconcile_config(GRACE_MS), Looks::default());
    let (orders, coupons) = (cluster.orders_by_link()?, cluster.coupons());
    let started = Instant::now();
    let orders_per_second = (orders_per_second > 0).then_some(orders_per_second);
    let clients = Clients::start(&orders, &coupons, Pace { clients, orders_per_second }, started);
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
    let history = history?;
    let (inflicted, problems) = inflictor.done();
    Ok(Run {
        per_second: measure::per_second(&history.told, length),
        recoveries: measure::recoveries(&inflicted, &history.told, store, orders.len()),
        acknowledged: counters.acknowledged.load(Ordering::Relaxed),
        history,
        decisions,
        looks,
        inflicted,
        problems,
        started,
    })
}

/// What must have been for a verdict to mean anything.
fn nothing_was_tried(run: &Run, confirmed: usize) -> Vec<String> {
    let zeros = [
        (run.inflicted.iter().any(|one| one.happened), "nothing was broken"),
        (confirmed > 0, "no order was confirmed"),
        (run.looks.ended > 0, "the reconciler never came to its end while orders were placed"),
    ];
    zeros.into_iter().filter(|(was, _)| !was).map(|(_, sentence)| sentence.to_owned()).collect()
}

async fn summarize(cluster: &Cluster, conditions: Conditions, mut run: Run) -> anyhow::Result<Summary> {
    let ledger = cluster.ledger().await?;
    let mut broken = std::mem::take(&mut run.problems);
    broken.append(&mut run.history.problems);
    broken.extend(broken_rules(&ledger, Scope::AtRestOrdersOnly));
    broken.extend(cluster.disagreements_at_rest().await?);
    broken.extend(std::mem::take(&mut run.looks.disagreements));
    broken.sort();
    broken.dedup();
    let evidence = evidence(cluster.databases(), &ledger).await?;
    let count = |fate| evidence.transactions.iter().filter(|one| one.fate == fate).count();
    broken.extend(nothing_was_tried(&run, count(Fate::Confirmed)));
    let Run { mut history, decisions, looks, .. } = run;
    history.latencies.sort_unstable();
    Ok(Summary {
        conditions,
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

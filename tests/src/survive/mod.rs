//! `tcc-cluster survive`: steady orders while something is killed again and again, and a verdict on what the clients were told.

mod report;
mod strikes;
mod takeover;
mod watch;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

pub use self::{report::Summary, strikes::Target};
use self::{
    strikes::{Strike, Striker, interruptions},
    watch::Watch,
};
use crate::{
    harness::{Cluster, ClusterConfig, Owner, Scope, broken_rules},
    store_args::StoreArgs,
    witness::{
        Clients, Ending, Fate, GRACE_MS, History, Looks, Pace, Progress, QUIET_WITHIN, ask_for_abandoned, end, evidence,
        stock_up, violations,
    },
};

/// What is killed how often, and under which load.
#[derive(Clone, Debug, Args)]
pub struct SurviveArgs {
    /// Where everything is kept, and how many gateways.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is killed (SIGKILL) and brought back half a second to two seconds later.
    #[arg(long, value_enum, default_value = "gateway")]
    pub kill: Target,
    /// One kill in so many milliseconds.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub every_ms: u64,
    /// For how long.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub for_seconds: u64,
    /// Clients that order at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Orders that all clients together place in a second; without it each client orders again as soon as it has its answer.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub orders_per_second: Option<u32>,
    /// Also runs the reconciler all the time: it must find nothing that stands for longer than its grace. It takes some of the
    /// machine, and so of the figures.
    #[arg(long)]
    pub reconcile: bool,
    /// What the processes log, in the language of `RUST_LOG`.
    #[arg(long, default_value = "warn")]
    pub log: String,
}

/// Runs it and prints the figures and the verdict.
pub async fn run(args: SurviveArgs) -> ExitCode {
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
/// A process does not start, or does not come back.
pub async fn attempt(args: &SurviveArgs, binary: PathBuf) -> anyhow::Result<Summary> {
    let config = ClusterConfig {
        log_filter: args.log.clone(),
        // What a client may have to wait for a participant that is killed again and again.
        coordinator: json!({ "try_for_ms": 30_000, "retry_cap_ms": 1_000, "stuck_probe_ms": 2_000 }),
        participant: json!({ "upkeep": { "sweep_interval_ms": 1_000 } }),
        ..ClusterConfig::temporary(binary)
    };
    let mut cluster = Cluster::start(args.store.clone().apply(config)?).await?;
    let result = orders_and_kills(&mut cluster, args).await;
    if !matches!(&result, Ok(summary) if summary.sentences().next().is_none()) {
        println!("{}", cluster.log_tails());
        println!("logs stay in {}", cluster.keep_folder().display());
    }
    let summary = result?;
    cluster.stop().await?;
    Ok(summary)
}

async fn orders_and_kills(cluster: &mut Cluster, args: &SurviveArgs) -> anyhow::Result<Summary> {
    let addresses: Vec<String> = cluster.gateway_addresses().iter().map(ToString::to_string).collect();
    println!("{} gateways ({}), {}", addresses.len(), addresses.join(", "), cluster.whereabouts());
    stock_up(cluster).await?;
    let started = Instant::now();
    let store = cluster.databases().store();
    let watch = Watch::new(store, cluster.database_url(Owner::Log).to_owned(), started);
    let owners = numbers(cluster, &watch).await?;
    let (reconcile, mut looks) = (cluster.reconcile_config(GRACE_MS), Looks::default());
    let (orders, coupons) = (cluster.all_orders(), cluster.coupons());
    let pace = Pace { clients: args.clients, orders_per_second: args.orders_per_second };
    let clients = Clients::start(&orders, &coupons, pace, started);
    let counters = clients.counters();
    let (strikes, history, elapsed) = {
        let progress = Progress::new(args.for_seconds, clients.counters());
        let mut striker = Striker::new(cluster, args.kill, &watch, started, owners)?;
        let (end, period) = (Duration::from_secs(args.for_seconds), Duration::from_millis(args.every_ms));
        let work = async {
            let strikes = striker.strike_until(end, period, |text| progress.tell(text)).await;
            let mut history = clients.stop().await?;
            ask_for_abandoned(&mut history, &orders, &coupons, started).await;
            anyhow::Ok((strikes?, history, started.elapsed()))
        };
        let watched = CancellationToken::new();
        let watching = async { watch.run(watched.clone()).await };
        let working = async {
            let done = tokio::select! {
                done = work => done,
                never = progress.show() => match never {},
            };
            // What was orphaned last is still looked for.
            let _ = timeout(QUIET_WITHIN, nobody_waits(&watch, done.is_ok())).await;
            watched.cancel();
            done
        };
        let looking = async {
            if args.reconcile {
                looks.look(&reconcile, &watched).await;
            }
        };
        let (done, (), ()) = tokio::join!(working, watching, looking);
        done?
    };
    let acknowledged = counters.acknowledged.load(Ordering::Relaxed);
    let mut summary = summarize(cluster, args, &watch, &strikes, history, acknowledged, elapsed).await?;
    summary.broken.extend(std::mem::take(&mut looks.disagreements));
    summary.looks = args.reconcile.then_some(looks);
    Ok(summary)
}

async fn summarize(
    cluster: &Cluster,
    args: &SurviveArgs,
    watch: &Watch,
    strikes: &[Strike],
    mut history: History,
    acknowledged: u64,
    elapsed: Duration,
) -> anyhow::Result<Summary> {
    let mut broken = std::mem::take(&mut history.problems);
    if let Err(open) = cluster.quiet(QUIET_WITHIN).await? {
        broken.push(format!("after {QUIET_WITHIN:?} {open}"));
    }
    let ledger = cluster.ledger().await?;
    broken.extend(broken_rules(&ledger, Scope::AtRestOrdersOnly));
    broken.extend(cluster.disagreements_at_rest().await?);
    let evidence = evidence(cluster.databases(), &ledger).await?;
    let (mut waits, waiting) = watch.takeovers().await;
    if waiting > 0 {
        broken.push(format!("{waiting} transactions of killed gateways were taken over by nobody"));
    }
    let mut after_return = Vec::new();
    match args.kill {
        Target::Gateway => {}
        Target::Database | Target::Inventory => {
            let interruptions = interruptions(strikes, &history);
            waits = interruptions.iter().map(|one| one.since_kill).collect();
            after_return = interruptions.iter().map(|one| one.since_return).collect();
        }
    }
    waits.sort_unstable();
    after_return.sort_unstable();
    history.latencies.sort_unstable();
    let count = |fate| evidence.transactions.iter().filter(|one| one.fate == fate).count();
    Ok(Summary {
        target: args.kill,
        violations: violations(&history, &evidence),
        broken,
        acknowledged,
        confirmed: count(Fate::Confirmed),
        cancelled: count(Fate::Cancelled),
        kills: strikes.len(),
        waits,
        after_return,
        repeats: history.repeats,
        latencies: history.latencies,
        looks: None,
        elapsed,
    })
}

/// The number of each gateway's run: they were started one after the other.
async fn numbers(cluster: &Cluster, watch: &Watch) -> anyhow::Result<Vec<i64>> {
    let newest = watch.newest_owner().await?;
    let gateways = i64::try_from(cluster.gateways())?;
    ensure!(newest >= gateways, "{gateways} gateways have taken {newest} numbers");
    Ok((newest - gateways + 1..=newest).collect())
}

async fn nobody_waits(watch: &Watch, wanted: bool) {
    let mut ticks = interval(Duration::from_millis(50));
    while wanted && watch.takeovers().await.1 > 0 {
        ticks.tick().await;
    }
}

//! `tcc-cluster survive`: steady orders while something is killed again and again, and a verdict on what the clients were told.

mod clients;
mod history;
mod looks;
mod report;
mod strikes;
mod takeover;
mod verdict;
mod watch;

use std::{
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tcc_proto::inventory::v1::AddStockRequest;
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    clients::{Client, Counters, SKUS, sku},
    history::History,
    looks::Looks,
    strikes::{Strike, Striker, interruptions},
    verdict::{Fate, violations},
    watch::{Watch, evidence},
};
pub use self::{report::Summary, strikes::Target};
use crate::{
    harness::{Cluster, ClusterConfig, Owner, Scope, broken_rules},
    store_args::StoreArgs,
};

/// After faults have stopped, everything ends within this, or the verdict is bad.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// Clients that were told to stop have their last answers within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(300);
/// Of each SKU: more than any run orders.
const PIECES: i64 = 100_000_000;
const TEMPLATE: &str = "{bar:40} {pos}/{len} s, {prefix}, {msg}";
/// The grace of the reconciler that looks on.
const GRACE_MS: u64 = 2_000;
/// Without a terminal there is one line in so many seconds.
const LINE_EVERY: u64 = 10;

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
    let counters = Counters::new();
    let stop = CancellationToken::new();
    let (reconcile, mut looks) = (cluster.reconcile_config(GRACE_MS), Looks::default());
    let clients = start_clients(cluster, args, &counters, started, &stop);
    let (strikes, history, elapsed) = {
        let progress = Progress::new(args.for_seconds, &counters);
        let mut striker = Striker::new(cluster, args.kill, &watch, started, owners)?;
        let (end, period) = (Duration::from_secs(args.for_seconds), Duration::from_millis(args.every_ms));
        let work = async {
            let strikes = striker.strike_until(end, period, |text| progress.tell(text)).await;
            stop.cancel();
            let history = collect(clients).await?;
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

async fn stock_up(cluster: &Cluster) -> anyhow::Result<()> {
    for number in 0..SKUS {
        let request = AddStockRequest { receipt_id: format!("survive-{number}"), sku: sku(number), quantity: PIECES };
        cluster.inventory().add_stock(request).await?;
    }
    Ok(())
}

/// The number of each gateway's run: they were started one after the other.
async fn numbers(cluster: &Cluster, watch: &Watch) -> anyhow::Result<Vec<i64>> {
    let newest = watch.newest_owner().await?;
    let gateways = i64::try_from(cluster.gateways())?;
    ensure!(newest >= gateways, "{gateways} gateways have taken {newest} numbers");
    Ok((newest - gateways + 1..=newest).collect())
}

fn start_clients(
    cluster: &Cluster,
    args: &SurviveArgs,
    counters: &Arc<Counters>,
    started: Instant,
    stop: &CancellationToken,
) -> JoinSet<History> {
    let pace = args.orders_per_second.map(|rate| Duration::from_secs(1) * args.clients / rate);
    let mut clients = JoinSet::new();
    for number in 0..args.clients as usize {
        let client = Client::new(number, cluster.all_orders(), cluster.coupons(), Arc::clone(counters), started);
        clients.spawn(client.order_until(stop.clone(), pace));
    }
    clients
}

async fn collect(mut clients: JoinSet<History>) -> anyhow::Result<History> {
    let all = async {
        let mut history = History::default();
        while let Some(one) = clients.join_next().await {
            history.extend(one.context("a client failed")?);
        }
        anyhow::Ok(history)
    };
    timeout(ANSWERS_WITHIN, all).await.with_context(|| format!("clients have no answer after {ANSWERS_WITHIN:?}"))?
}

async fn nobody_waits(watch: &Watch, wanted: bool) {
    let mut ticks = interval(Duration::from_millis(50));
    while wanted && watch.takeovers().await.1 > 0 {
        ticks.tick().await;
    }
}

/// How far it is: a bar on a terminal, plain lines elsewhere. On standard error, so that the report stays clean.
struct Progress<'a> {
    bar: Option<ProgressBar>,
    counters: &'a Counters,
}

impl<'a> Progress<'a> {
    fn new(seconds: u64, counters: &'a Counters) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(seconds).with_style(style).with_message("no kill yet")
        });
        Self { bar, counters }
    }

    fn tell(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    fn orders(&self) -> String {
        format!("{} orders", self.counters.acknowledged.load(Ordering::Relaxed))
    }

    async fn show(&self) -> std::convert::Infallible {
        let mut ticks = interval(Duration::from_secs(1));
        let mut seconds = 0;
        loop {
            ticks.tick().await;
            match &self.bar {
                Some(bar) => {
                    bar.set_prefix(self.orders());
                    bar.set_position(seconds);
                }
                None if seconds % LINE_EVERY == 0 && seconds > 0 => eprintln!("{seconds} s, {}", self.orders()),
                None => {}
            }
            seconds += 1;
        }
    }
}

//! How much natural batching gains: transactions per second with batches against one commit for each record.
//!
//! `cargo bench -p tcc-log` (options after `--`: `--seconds 2`, `--repetitions 5`; or `TCC_BENCH_SECONDS`,
//! `TCC_BENCH_REPETITIONS`; `TCC_BENCH_FOLDER` chooses the disk). Each transaction is what an order costs the log: begin with two
//! branches, decide, finish. Both sides are the same program on a real file with `synchronous=FULL`; they differ in `batch_max`
//! alone and take turns within one run, so that a disk whose speed drifts does not favour either.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::{Duration, Instant},
};

use tcc_log::{DatabaseLog, LogOptions, TxLog, conformance::samples};
use tcc_types::SystemClock;
use tokio::task::JoinSet;

const CALLERS: [usize; 4] = [1, 8, 64, 256];

/// One measurement.
#[derive(Clone, Copy, Default)]
struct Figures {
    transactions_per_second: f64,
    commits_per_transaction: f64,
    /// From the first write to the last answer of a transaction, half of them faster.
    latency_ms: f64,
}

#[tokio::main]
async fn main() {
    let seconds: f64 = option("--seconds", "TCC_BENCH_SECONDS", 2.0);
    let repetitions: usize = option("--repetitions", "TCC_BENCH_REPETITIONS", 5);
    let folder: PathBuf = option("--folder", "TCC_BENCH_FOLDER", PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    std::fs::create_dir_all(&folder).expect("the folder for the databases");
    println!("begin (2 branches) + decide + finish, synchronous=FULL, {repetitions} x {seconds} s for each cell, medians");
    println!(
        "{:>7} | {:>10} {:>10} {:>7} | {:>14} {:>14} | {:>12} {:>12}",
        "callers", "batched/s", "single/s", "ratio", "commits/tx", "commits/tx 1", "p50 ms", "p50 ms 1"
    );
    for callers in CALLERS {
        let (mut batched, mut single) = (Vec::new(), Vec::new());
        for repetition in 0..repetitions {
            // Neither side is always the first.
            let turns = if repetition.is_multiple_of(2) { [true, false] } else { [false, true] };
            for batches in turns {
                let batch_max = if batches { LogOptions::default().batch_max } else { 1 };
                let figures = measure(&folder, callers, batch_max, Duration::from_secs_f64(seconds)).await;
                if batches { batched.push(figures) } else { single.push(figures) }
            }
        }
        let rate = |runs: &[Figures]| median(runs, |run| run.transactions_per_second);
        let commits = |runs: &[Figures]| median(runs, |run| run.commits_per_transaction);
        let latency = |runs: &[Figures]| median(runs, |run| run.latency_ms);
        println!(
            "{callers:>7} | {:>10.0} {:>10.0} {:>6.1}x | {:>14.3} {:>14.3} | {:>12.2} {:>12.2}",
            rate(&batched),
            rate(&single),
            rate(&batched) / rate(&single),
            commits(&batched),
            commits(&single),
            latency(&batched),
            latency(&single),
        );
    }
}

async fn measure(folder: &Path, callers: usize, batch_max: usize, time: Duration) -> Figures {
    let folder = tempfile::tempdir_in(folder).expect("a folder for the database");
    let database_url = format!("sqlite:{}", folder.path().join("log.db").display());
    let options = LogOptions { database_url, batch_max, ..LogOptions::default() };
    let log = Arc::new(DatabaseLog::open(options, Arc::new(SystemClock)).await.expect("the log opens"));
    let stop = Arc::new(AtomicBool::new(false));
    let (before, start) = (log.stats(), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                transaction(&*log).await;
                latencies.push(start.elapsed());
            }
            latencies
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let (elapsed, after) = (start.elapsed(), log.stats());
    log.close().await;
    latencies.sort_unstable();
    let count = latencies.len() as f64;
    Figures {
        transactions_per_second: count / elapsed.as_secs_f64(),
        commits_per_transaction: (after.commits - before.commits) as f64 / count,
        latency_ms: latencies[latencies.len() / 2].as_secs_f64() * 1_000.0,
    }
}

async fn transaction(log: &dyn TxLog) {
    let new = samples::transaction(log.now(), 2);
    let gid = new.gid;
    log.begin(new).await.expect("begin");
    log.decide(samples::confirm(log.now(), gid, 2)).await.expect("decide");
    log.finish(gid).await.expect("finish");
}

fn median(runs: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// From the command line, or else the environment, or else the default.
fn option<T: std::str::FromStr>(flag: &str, variable: &str, default: T) -> T {
    let arguments: Vec<String> = std::env::args().collect();
    let after_flag = arguments.iter().position(|argument| argument == flag).and_then(|index| arguments.get(index + 1));
    let text = after_flag.cloned().or_else(|| std::env::var(variable).ok());
    text.map_or(default, |text| text.parse().ok().unwrap_or_else(|| panic!("{flag}: cannot read `{text}`")))
}

//! How much buckets bring: two instances of the participant on one database, one hot SKU, orders in a closed loop. Prints rates, the
//! numbers of buckets interleaved, and holds nothing but the books to be right. `BUCKET_BATCH=1` shows what they bring where nothing is
//! merged:
//! `cargo test --release -p tcc-inventory --test bucket_rates -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[allow(unused_imports, unused_macros, reason = "these are no tests of every database")]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{MySql, Postgres};
use support::{TestDatabase, key, receipt, try_call};
use tcc_inventory::{Inventory, Spread, StockBooks};
use tcc_participant::{Engine, Options};
use tcc_types::{ConfirmCall, SettleAnswer, TryAnswer};
use tokio::task::JoinSet;

const BUCKETS: [u32; 4] = [1, 2, 4, 16];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rates_on_postgres() {
    rates::<Postgres>("postgres").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rates_on_mysql() {
    rates::<MySql>("mysql").await;
}

async fn rates<D: TestDatabase>(name: &str) {
    let (rounds, clients) = (setting("BUCKET_ROUNDS", 5), setting("BUCKET_CLIENTS", 256));
    let mut of_each: Vec<Vec<f64>> = vec![Vec::new(); BUCKETS.len()];
    for round in 0..rounds {
        let mut line = format!("{name} {clients} clients, round {round}:");
        for (buckets, rates) in BUCKETS.into_iter().zip(&mut of_each) {
            let (rate, retries) = rate::<D>(buckets, clients).await;
            rates.push(rate);
            line += &format!("  {buckets} buckets {rate:.0}/s ({retries} retries)");
        }
        println!("{line}");
    }
    let ratios = |rates: &Vec<f64>| {
        let mut ratios: Vec<f64> = rates.iter().zip(&of_each[0]).map(|(rate, merged)| rate / merged).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    for (buckets, rates) in BUCKETS.into_iter().zip(&of_each) {
        println!("{name} {clients} clients: {buckets} buckets: median ratio to merging alone {:.2}", ratios(rates));
    }
}

/// How each instance runs its operations.
fn options() -> Options {
    match u32::try_from(setting("BUCKET_BATCH", 256)).unwrap() {
        // As many side by side as there are connections.
        1 => Options { batch_max: 1, batches_in_flight_max: 16, ..Options::default() },
        batch_max => Options { batch_max, ..Options::default() },
    }
}

/// Operations a second, and how often a local transaction ran anew.
async fn rate<D: TestDatabase>(buckets: u32, clients: u64) -> (f64, u64) {
    let fresh = D::fresh();
    let store = D::opened(&fresh, &options()).await;
    let books = D::books(store.clone());
    books.receive(&receipt("first", "hot", 1_000_000_000)).await.unwrap();
    books.spread(&Spread::new("hot", buckets).unwrap()).await.unwrap();
    let other = D::opened(&fresh, &options()).await;
    let engines = [Engine::batched(Inventory::new(), store.clone()), Engine::batched(Inventory::new(), other)];
    let (done, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut running = JoinSet::new();
    for client in 0..clients {
        // An order's settlement may come to another instance than its Try: half of them do.
        let pair =
            [engines[usize::try_from(client % 2).unwrap()].clone(), engines[usize::try_from(client / 2 % 2).unwrap()].clone()];
        let (done, over) = (done.clone(), over.clone());
        running.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let key = key();
                let answer = pair[0].try_branch(try_call(&key, &[("hot", 1)])).await.unwrap();
                assert_eq!(answer, TryAnswer::Reserved(None));
                assert_eq!(pair[1].confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
                done.fetch_add(2, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (from, began) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_millis(setting("BUCKET_MS", 2_000))).await;
    let operations = done.load(Ordering::Relaxed) - from;
    #[allow(clippy::cast_precision_loss, reason = "it is printed")]
    let rate = operations as f64 / began.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    running.join_all().await;
    let stock = books.get("hot").await.unwrap().unwrap();
    assert_eq!((stock.frozen, stock.sold), (0, i64::try_from(done.load(Ordering::Relaxed) / 2).unwrap()));
    (rate, engines.iter().map(Engine::retries).sum())
}

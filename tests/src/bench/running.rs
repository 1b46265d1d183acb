//! Load on a gateway that runs already, for whoever watches it with a profiler. It checks no books, and compares with nothing.

use std::{process::ExitCode, sync::Arc, time::Duration};

use tcc_types::{Entropy, SystemEntropy};

use super::{
    args::BenchArgs,
    cell::{Pace, Shape},
    figures::Figures,
    load::{self, Tallies, Window},
    orders::{Orders, sku},
};
use crate::harness::Store;

const SKUS: u32 = 1_000;

/// Puts on the load of each pace in turn, and prints what came of it.
///
/// # Errors
/// The gateway does not answer.
pub(crate) async fn run(args: &BenchArgs, gateway: &str) -> anyhow::Result<ExitCode> {
    let measures = args.measures();
    let skus = if args.sku.is_empty() { (0..SKUS).map(sku).collect() } else { args.sku.clone() };
    // The store is the gateway's affair.
    let shape = Shape { store: Store::default(), skus: u32::try_from(skus.len())?, refused: 0, coupons: false };
    let clients = load::connect(gateway, args.channels).await?;
    let mut failed = 0;
    let closed = measures.in_flight.iter().copied().map(Pace::InFlight);
    for pace in closed.chain(measures.rate.iter().copied().map(Pace::PerSecond)) {
        let key = format!("bench-{:016x}", SystemEntropy.next_u64());
        let orders = Arc::new(Orders::of_skus(shape, skus.clone(), key));
        let window = Window::new(Duration::from_secs(args.warm_up_seconds), Duration::from_secs(measures.seconds));
        let tallies = Arc::new(Tallies::new(window)?);
        load::drive(&clients, orders, pace, Arc::clone(&tallies)).await?;
        let tally = tallies.sum()?;
        let figures = Figures::of(&tally, window.length());
        println!(
            "{pace}: {:.0} orders/s, p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, {} failed {}",
            figures.orders_per_second,
            figures.p50_us / 1_000.0,
            figures.p99_us / 1_000.0,
            figures.p999_us / 1_000.0,
            tally.failed,
            tally.first_failure.as_deref().unwrap_or_default()
        );
        failed += tally.failed;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! One run of a whole system: fresh processes on fresh databases, load, and the books. Called by `bench` for its own build and
//! for the older one alike.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures::stream::{StreamExt, TryStreamExt};
use tcc_proto::inventory::v1::AddStockRequest;

use super::{
    args::Settings,
    books,
    cell::{Cell, Contender},
    counters::Counters,
    coupons,
    figures::Figures,
    load::{self, Tallies, Window},
    machine,
    orders::{Orders, SOLD_OUT_SKU, sku},
};
use crate::harness::{Cluster, ClusterConfig, Role, ServerChoice};

/// Of each SKU: more than any run orders.
pub(crate) const PIECES: i64 = 1_000_000_000;
const SEED_CONCURRENCY: usize = 64;

/// What is the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) channels: u32,
    pub(crate) coupons_issued: u32,
    pub(crate) log_filter: String,
    /// Of this build; an older one may not know them.
    pub(crate) settings: Settings,
    /// Of the database servers, beside [`machine::server_settings`].
    pub(crate) server_settings: Vec<(String, String)>,
    /// Where the preload library counts, if there is one.
    pub(crate) fsync_file: Option<PathBuf>,
}

/// Starts a system of this binary, measures it, and checks its books.
///
/// # Errors
/// It does not start, or cannot be asked. What it does wrong under load is an outcome and no error.
pub(crate) async fn run(cell: Cell, binary: &Path, conditions: &Conditions) -> anyhow::Result<Result<Figures, Vec<String>>> {
    debug_assert!(cell.contender != Contender::Floor);
    let settings = if cell.contender == Contender::Ours { conditions.settings.clone() } else { Settings::default() };
    let config = ClusterConfig {
        participant: settings.participant.into(),
        coordinator: settings.coordinator.into(),
        log: settings.log.into(),
        store: cell.shape.store,
        server: ServerChoice::Own,
        server_settings: machine::server_settings(cell.shape.store, &conditions.server_settings),
        log_filter: conditions.log_filter.clone(),
        ..ClusterConfig::temporary(binary.to_owned())
    };
    let mut cluster = Cluster::start(config).await?;
    let measured = measure(&cluster, cell, conditions).await;
    if !matches!(&measured, Ok(Ok(_))) {
        eprintln!("{}\nlogs stay in {}", cluster.log_tails(), cluster.keep_folder().display());
    }
    let measured = measured?;
    cluster.stop().await?;
    Ok(measured)
}

async fn measure(cluster: &Cluster, cell: Cell, conditions: &Conditions) -> anyhow::Result<Result<Figures, Vec<String>>> {
    stock_up(cluster, cell).await?;
    if cell.shape.coupons {
        coupons::issue(cluster, conditions.coupons_issued).await?;
    }
    let clients = load::connect(&format!("http://{}", cluster.address(Role::Gateway)), conditions.channels).await?;
    let mut counters = Counters::of_cluster(cluster, conditions.fsync_file.as_deref()).await?;
    let orders = Arc::new(Orders::new(cell.shape, "bench".to_owned()));
    let window = Window::new(conditions.warm_up, conditions.measured);
    let tallies = Arc::new(Tallies::new(window)?);
    let drive = load::drive(&clients, orders, cell.pace, Arc::clone(&tallies));
    let (driven, counts) = tokio::join!(drive, load::at_both_ends(window, async || counters.read().await));
    driven?;
    let tally = tallies.sum()?;
    let problems = books::of_cluster(cluster, &tally, cell.contender).await?;
    if !problems.is_empty() {
        return Ok(Err(problems));
    }
    let [before, after] = counts?;
    Ok(Ok(Figures::of(&tally, window.length()).with_counts(before, after, tally.done)))
}

async fn stock_up(cluster: &Cluster, cell: Cell) -> anyhow::Result<()> {
    let inventory = cluster.inventory();
    let shelves = (0..cell.shape.skus).map(|number| (sku(number), PIECES)).chain([(SOLD_OUT_SKU.to_owned(), 1)]);
    let receipts = shelves.map(|(sku, quantity)| {
        let mut inventory = inventory.clone();
        let request = AddStockRequest { receipt_id: format!("bench-{sku}"), sku, quantity };
        async move { inventory.add_stock(request).await }
    });
    let filled = futures::stream::iter(receipts).buffer_unordered(SEED_CONCURRENCY).try_for_each(|_| async { Ok(()) });
    filled.await.context("the stock cannot be filled")
}

//! Measures one state: a system of its own is filled, loaded and left alone for the same time, several times, and its books are
//! checked.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{
    args::GrowthArgs,
    books::{self, Expected},
    fill::{self, SILENT, SKUS},
    instructions::Counted,
    memory,
    silent::Silent,
    state::State,
    touched::{self, ByRelation, Touched},
};
use crate::{
    bench::{
        cell::Shape,
        load::{self, Tallies, Window, place},
        machine::load_average,
        orders::Orders,
    },
    harness::{Cluster, ClusterConfig, Role, ServerChoice, Store},
};

const CHANNELS: u32 = 4;
/// Longer than anything that is measured takes.
const FOR_EVER: Duration = Duration::from_secs(24 * 3_600);
/// With which the memory of a transaction in flight is measured, and how many orders each client of these places.
const MANY_IN_FLIGHT: u32 = 1_024;
const ORDERS_OF_EACH: u64 = 16;
/// Fewer could not be told from chance.
const COUNTED_ORDERS_MIN: u64 = 50;
/// After a start, before anything is read off: what a process does first is done.
const STARTED: Duration = Duration::from_secs(2);
/// Processes that count instructions: all that an order without a coupon needs.
const SERVERS: [Role; 2] = [Role::Inventory, Role::Gateway];

/// What was found of one state on one store.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    pub(crate) store: String,
    pub(crate) state: State,
    /// So many of it.
    pub(crate) rows: u64,
    pub(crate) orders: u64,
    pub(crate) orders_per_second: f64,
    /// For each order; `None`: this store counts neither.
    pub(crate) touched: Option<Touched>,
    pub(crate) touched_by_relation: Option<ByRelation>,
    /// Touched in a second by the same processes without any order.
    pub(crate) touched_at_rest: Option<Touched>,
    /// For each order, of gateway and inventory; `None`: callgrind is not installed.
    pub(crate) instructions: Option<f64>,
    /// Of the gateway, in KiB: after its start, its peak under the load, its peak with 1,024 orders in flight.
    pub(crate) resident_kib: [u64; 3],
    /// Stuck branches that were tried again meanwhile.
    pub(crate) probed: u64,
    pub(crate) load_average: [f64; 2],
    /// Why there is no figure.
    pub(crate) problems: Vec<String>,
}

impl Found {
    /// With 1,024 in flight, beyond what the gateway has at rest.
    pub(crate) fn kib_per_transaction(&self) -> f64 {
        let [rest, _, many] = self.resident_kib;
        many.saturating_sub(rest) as f64 / f64::from(MANY_IN_FLIGHT)
    }
}

/// A filled system under measurement.
struct System {
    cluster: Cluster,
    orders: Arc<Orders>,
    confirmed: u64,
}

/// What came of one load.
struct Loaded {
    took: Duration,
    orders: u64,
}

/// Measures one state.
///
/// # Errors
/// The system does not start, or a database cannot be filled or asked. Books that do not balance are an outcome.
pub(crate) async fn measure(args: &GrowthArgs, store: Store, state: State, binary: &Path) -> anyhow::Result<Found> {
    let folder = tempfile::tempdir()?;
    let before = load_average();
    let silent = Silent::listen().await?;
    let counted = if args.counted_orders > 0 { Counted::new(binary, folder.path())? } else { None };
    let program = counted.as_ref().map_or(binary, Counted::program).to_owned();
    let config = ClusterConfig {
        store,
        server: ServerChoice::Own,
        log_filter: args.log.clone(),
        more_participants: [(SILENT.to_owned(), silent.url().to_owned())].into(),
        ..ClusterConfig::temporary(program)
    };
    // It makes the tables, and ends.
    let mut cluster = Cluster::start(config).await?;
    for role in [Role::Gateway, Role::Coupon, Role::Inventory] {
        cluster.terminate(role).await?;
    }
    let rows = if state == State::Empty { 0 } else { args.scaled(state.full()) };
    fill::fill(&cluster, state, rows).await?;
    let shape = Shape { store, skus: u32::try_from(SKUS)?, refused: 0, coupons: false };
    let mut system = System { cluster, orders: Arc::new(Orders::new(shape, "growth".to_owned())), confirmed: 0 };
    system.keep_from_cleaning().await?;

    let (touched, loaded, [rest, loaded_peak]) = system.touched(args).await?;
    let instructions = system.instructions(args, counted.as_ref()).await?;
    let many_peak = system.many_in_flight(args).await?;

    let expected = Expected { state, rows, confirmed: system.confirmed };
    let mut problems = books::problems(&system.cluster, expected).await?;
    let probed = books::probed(&system.cluster).await?;
    if state == State::Stuck && (probed == 0 || silent.swallowed() == 0) {
        problems.push("no stuck branch was tried again".to_owned());
    }
    if !problems.is_empty() {
        eprintln!("{}\nlogs stay in {}", system.cluster.log_tails(), system.cluster.keep_folder().display());
    }
    let orders = loaded.orders;
    let found = Found {
        store: store.to_string(),
        state,
        rows,
        orders,
        orders_per_second: orders as f64 / loaded.took.as_secs_f64(),
        touched: touched.as_ref().map(|(per_order, _)| touched::sum(per_order)),
        touched_at_rest: touched.as_ref().map(|(_, at_rest)| *at_rest),
        touched_by_relation: touched.map(|(per_order, _)| per_order),
        instructions,
        resident_kib: [rest, loaded_peak, many_peak],
        probed,
        load_average: [before, load_average()],
        problems,
    };
    system.cluster.stop().await?;
    Ok(found)
}

impl System {
    /// PostgreSQL cleans up whenever it likes, and counts the pages: not while they are counted for orders.
    async fn keep_from_cleaning(&self) -> anyhow::Result<()> {
        if self.cluster.databases().store() != Store::Postgres {
            return Ok(());
        }
        let url = self.cluster.database_url(crate::harness::Owner::Log);
        let mut server = super::database::Database::to_fill(Store::Postgres, url).await?;
        server.run("ALTER SYSTEM SET autovacuum = off").await?;
        server.run("SELECT pg_reload_conf()").await
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        for role in SERVERS {
            self.cluster.restart(role).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        for role in SERVERS.into_iter().rev() {
            let status = self.cluster.terminate(role).await?;
            ensure!(status.success(), "{role} ended with {status}");
        }
        Ok(())
    }

    /// So many orders, so many at a time.
    async fn load(&mut self, orders: u64, in_flight: u32) -> anyhow::Result<Loaded> {
        let address = self.cluster.address(Role::Gateway);
        let clients = load::connect(&format!("http://{address}"), CHANNELS).await?;
        let tallies = Arc::new(Tallies::new(Window::new(Duration::ZERO, FOR_EVER))?);
        let last = self.orders.take() + orders;
        let since = Instant::now();
        let mut tasks = JoinSet::new();
        for client in clients.iter().cycle().take(in_flight as usize) {
            let (mut client, orders, tallies) = (client.clone(), Arc::clone(&self.orders), Arc::clone(&tallies));
            tasks.spawn(async move {
                loop {
                    let number = orders.take();
                    if number > last {
                        return;
                    }
                    place(&mut client, &orders, number, Instant::now(), &tallies).await;
                }
            });
        }
        load::all(tasks).await?;
        let took = since.elapsed();
        let tally = tallies.sum()?;
        let first_failure = tally.first_failure.as_deref().unwrap_or_default();
        ensure!(tally.failed == 0, "{} orders did not end as they must; the first: {first_failure}", tally.failed);
        self.confirmed += tally.confirmed;
        Ok(Loaded { took, orders: tally.confirmed })
    }

    /// Starts it, puts the load on it, and ends it. Also how long it was up before it was to end, and the gateway's memory in KiB
    /// before the load, and at its most.
    async fn under_load(&mut self, orders: u64, in_flight: u32) -> anyhow::Result<(Loaded, Duration, [u64; 2])> {
        self.start().await?;
        let up = Instant::now();
        sleep(STARTED).await;
        let rest = memory::of(Role::Gateway).ok().map_or(0, |resident| resident.now);
        let loaded = self.load(orders, in_flight).await?;
        let peak = memory::of(Role::Gateway).ok().map_or(0, |resident| resident.peak);
        let lasted = up.elapsed();
        self.end().await?;
        Ok((loaded, lasted, [rest, peak]))
    }

    /// As long without any order.
    async fn at_rest(&mut self, lasts: Duration) -> anyhow::Result<()> {
        self.start().await?;
        sleep(lasts).await;
        self.end().await
    }

    /// Rows and pages for each order, and in a second at rest.
    async fn touched(&mut self, args: &GrowthArgs) -> anyhow::Result<(Option<(ByRelation, Touched)>, Loaded, [u64; 2])> {
        let before = touched::read(&self.cluster).await?;
        let (loaded, lasted, resident) = self.under_load(args.load(), args.in_flight).await?;
        let Some(before) = before else { return Ok((None, loaded, resident)) };
        let ended = touched::read(&self.cluster).await?.unwrap_or_default();
        self.at_rest(lasted).await?;
        let rested = touched::read(&self.cluster).await?.unwrap_or_default();
        let with_orders = touched::between(&before, &ended, loaded.orders as f64);
        let without = touched::between(&ended, &rested, loaded.orders as f64);
        let per_order = touched::between(&without, &with_orders, 1.0);
        let at_rest = touched::sum(&touched::between(&ended, &rested, lasted.as_secs_f64()));
        Ok((Some((per_order, at_rest)), loaded, resident))
    }

    /// Instructions for each order, one at a time: how many share a batch would be chance.
    async fn instructions(&mut self, args: &GrowthArgs, counted: Option<&Counted>) -> anyhow::Result<Option<f64>> {
        let Some(counted) = counted else { return Ok(None) };
        let orders = args.scaled(u64::from(args.counted_orders)).max(COUNTED_ORDERS_MIN);
        counted.count(true)?;
        let (loaded, lasted, _) = self.under_load(orders, 1).await?;
        let with_orders = counted.take(SERVERS.len())?;
        self.at_rest(lasted).await?;
        let without = counted.take(SERVERS.len())?;
        counted.count(false)?;
        Ok(Some((with_orders - without) / loaded.orders as f64))
    }

    /// The gateway's memory at its most, in KiB.
    async fn many_in_flight(&mut self, args: &GrowthArgs) -> anyhow::Result<u64> {
        let orders = args.scaled(u64::from(MANY_IN_FLIGHT) * ORDERS_OF_EACH).max(u64::from(MANY_IN_FLIGHT) * 2);
        let (_, _, [_, peak]) = self.under_load(orders, MANY_IN_FLIGHT).await?;
        Ok(peak)
    }
}

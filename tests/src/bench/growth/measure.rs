//! Measures one state: a system of its own is filled, loaded and left alone for the same time, several times, and its books are
//! checked.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::ensure;
use serde::Serialize;

use super::{
    args::GrowthArgs,
    books::{self, Expected},
    cost::{self, Basis, ByRelation, Cost},
    depth::{self, Levels},
    fill::{self, SILENT, SKUS},
    instructions::Counted,
    silent::Silent,
    state::State,
    system::{Coming, Loaded, SERVERS, System, WARM_UP_ORDERS},
    touched,
};
use crate::{
    bench::{
        cell::Shape,
        machine::{self, load_average},
        orders::Orders,
    },
    harness::{Cluster, ClusterConfig, Role, ServerChoice, Store},
};

/// With which the memory of a transaction in flight is measured, and how many orders each client of these places.
const MANY_IN_FLIGHT: u32 = 1_024;
const ORDERS_OF_EACH: u64 = 16;
/// Fewer could not be told from chance.
const COUNTED_ORDERS_MIN: u64 = 50;

/// What was found of one state on one store.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    pub(crate) store: String,
    pub(crate) state: State,
    /// So many of it.
    pub(crate) rows: u64,
    pub(crate) fill_seconds: f64,
    pub(crate) orders: u64,
    pub(crate) orders_per_second: f64,
    /// Rows and pages; `None`: nobody counted them.
    pub(crate) touched: Option<Cost<ByRelation>>,
    /// How deep the indexes were before the orders of which rows and pages were counted, and after. Empty: this store does not tell.
    pub(crate) index_levels: [Levels; 2],
    /// Pages of SQLite's below the roots of its trees, for each order: of those in `touched`.
    pub(crate) below_roots: Option<f64>,
    /// Of gateway and inventory; `None`: callgrind is not installed.
    pub(crate) instructions: Option<Cost<f64>>,
    /// Of the gateway, in KiB: after its start, its peak under the load, its peak with 1,024 orders in flight.
    pub(crate) resident_kib: [u64; 3],
    /// Stuck branches that were tried again meanwhile.
    pub(crate) probed: u64,
    pub(crate) load_average: [f64; 2],
    /// Why there is no figure.
    pub(crate) problems: Vec<String>,
}

/// What was counted under callgrind.
struct CostUnderCallgrind {
    instructions: Cost<f64>,
    /// What SQLite touched, and how many pages of that were below roots for each order, if it is there.
    sqlite: Option<(Cost<ByRelation>, f64)>,
}

impl Found {
    /// With 1,024 in flight, beyond what the gateway has at rest.
    pub(crate) fn kib_per_transaction(&self) -> f64 {
        let [rest, _, many] = self.resident_kib;
        many.saturating_sub(rest) as f64 / f64::from(MANY_IN_FLIGHT)
    }
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
        server_settings: machine::server_settings(store, &[]),
        log_filter: args.log.clone(),
        more_participants: [(SILENT.to_owned(), silent.url().to_owned())].into(),
        ..ClusterConfig::temporary(program)
    };
    // It makes the tables, and ends.
    let mut cluster = Cluster::start(config).await?;
    for role in [Role::Gateway, Role::Coupon, Role::Inventory] {
        cluster.terminate(role).await?;
    }
    let shape = Shape { store, skus: u32::try_from(SKUS)?, refused: 0, coupons: false };
    let mut system = System { cluster, orders: Arc::new(Orders::new(shape, "growth".to_owned())), state, confirmed: 0 };
    system.keep_from_cleaning().await?;
    let rows = if state == State::Empty { 0 } else { args.scaled(state.full()) };
    let since = Instant::now();
    fill::fill(&system.cluster, state, rows).await?;
    let fill_seconds = since.elapsed().as_secs_f64();

    // What is counted by the order comes first: the empty system is as empty as it can be.
    let (mut instructions, mut touched, mut below_roots) = (None, None, None);
    if let Some(counted) = &counted {
        let counts = system.counted(args, counted).await?;
        instructions = Some(counts.instructions);
        (touched, below_roots) = counts.sqlite.unzip();
    }
    let mut index_levels = [Levels::new(), Levels::new()];
    if store != Store::Sqlite {
        let (cost, levels) = system.touched(args).await?;
        (touched, index_levels) = (Some(cost), levels);
    }
    system.prepare().await?;
    let Loaded { orders, took, resident_kib: [rest, loaded_peak], .. } =
        system.under_load(args.load(), Coming::AtOnce { in_flight: args.in_flight }).await?;
    let [_, many_peak] = system.many_in_flight(args).await?;

    let mut problems = books::problems(&system.cluster, Expected { state, rows, confirmed: system.confirmed }).await?;
    let probed = books::probed(&system.cluster).await?;
    if state == State::Stuck && (probed == 0 || silent.swallowed() == 0) {
        problems.push("no stuck branch was tried again".to_owned());
    }
    if !problems.is_empty() {
        eprintln!("{}\nlogs stay in {}", system.cluster.log_tails(), system.cluster.keep_folder().display());
    }
    let found = Found {
        store: store.to_string(),
        state,
        rows,
        fill_seconds,
        orders,
        orders_per_second: orders as f64 / took.as_secs_f64(),
        touched,
        index_levels,
        below_roots,
        instructions,
        resident_kib: [rest, loaded_peak, many_peak],
        probed,
        load_average: [before, load_average()],
        problems,
    };
    system.cluster.stop().await?;
    Ok(found)
}

/// How often stuck branches were tried while orders came, and while none came: a system that is busy gets to fewer. To ask for it reads
/// rows: not between two readings of what was touched.
struct Attempts {
    before: u64,
    with_orders: u64,
}

impl Attempts {
    async fn begin(system: &System) -> anyhow::Result<Self> {
        Ok(Self { before: books::attempts(&system.cluster).await?, with_orders: 0 })
    }

    async fn with_orders(&mut self, system: &System) -> anyhow::Result<()> {
        let now = books::attempts(&system.cluster).await?;
        (self.with_orders, self.before) = (now - self.before, now);
        Ok(())
    }

    /// For each that there was without orders.
    async fn ratio(self, system: &System) -> anyhow::Result<f64> {
        if system.state != State::Stuck {
            return Ok(1.0);
        }
        let at_rest = books::attempts(&system.cluster).await? - self.before;
        ensure!(self.with_orders > 0 && at_rest > 0, "no stuck branch was tried again");
        eprintln!("stuck branches were tried {} times beside the orders, {at_rest} times without", self.with_orders);
        Ok(self.with_orders as f64 / at_rest as f64)
    }
}

impl System {
    /// Rows and pages, and how deep the indexes were before and after.
    async fn touched(&mut self, args: &GrowthArgs) -> anyhow::Result<(Cost<ByRelation>, [Levels; 2])> {
        self.prepare().await?;
        let levels = depth::read(&self.cluster).await?;
        let mut attempts = Attempts::begin(self).await?;
        let before = touched::read(&self.cluster).await?;
        let coming = Coming::Evenly { per_second: args.rate, in_flight_max: MANY_IN_FLIGHT as usize };
        let Loaded { orders, lasted, .. } = self.under_load(args.load(), coming).await?;
        let with_orders = cost::less(&touched::read(&self.cluster).await?, &before);
        let levels = [levels, depth::read(&self.cluster).await?];
        attempts.with_orders(self).await?;
        self.prepare().await?;
        let before = touched::read(&self.cluster).await?;
        self.at_rest(lasted, coming).await?;
        let at_rest = cost::less(&touched::read(&self.cluster).await?, &before);
        let background = attempts.ratio(self).await?;
        let basis = Basis { orders, first_orders: WARM_UP_ORDERS, lasted, background };
        Ok((Cost::<ByRelation>::of(&with_orders, &at_rest, basis), levels))
    }

    /// Instructions, and what SQLite did, if it is there.
    async fn counted(&mut self, args: &GrowthArgs, counted: &Counted) -> anyhow::Result<CostUnderCallgrind> {
        let orders = args.scaled(u64::from(args.counted_orders)).max(COUNTED_ORDERS_MIN);
        counted.count(true)?;
        self.prepare().await?;
        let mut attempts = Attempts::begin(self).await?;
        // One at a time: how many share a batch would be chance.
        let coming = Coming::Evenly { per_second: args.counted_rate, in_flight_max: 1 };
        let Loaded { orders, lasted, .. } = self.under_load(orders, coming).await?;
        let with_orders = counted.take(SERVERS.len())?;
        attempts.with_orders(self).await?;
        self.prepare().await?;
        self.at_rest(lasted, coming).await?;
        let at_rest = counted.take(SERVERS.len())?;
        let background = attempts.ratio(self).await?;
        counted.count(false)?;
        let basis = Basis { orders, first_orders: WARM_UP_ORDERS, lasted, background };
        let touched = Cost::<ByRelation>::of(&with_orders.sqlite, &at_rest.sqlite, basis);
        let below_roots = Cost::<f64>::of(with_orders.below_roots, at_rest.below_roots, basis).per_order;
        Ok(CostUnderCallgrind {
            instructions: Cost::<f64>::of(with_orders.instructions, at_rest.instructions, basis),
            sqlite: (!with_orders.sqlite.is_empty()).then_some((touched, below_roots)),
        })
    }

    /// The gateway's memory in KiB, at rest and at its most.
    async fn many_in_flight(&mut self, args: &GrowthArgs) -> anyhow::Result<[u64; 2]> {
        let orders = args.scaled(u64::from(MANY_IN_FLIGHT) * ORDERS_OF_EACH).max(u64::from(MANY_IN_FLIGHT) * 2);
        Ok(self.under_load(orders, Coming::AtOnce { in_flight: MANY_IN_FLIGHT }).await?.resident_kib)
    }
}

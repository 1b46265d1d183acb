//! A filled system: started, loaded, left alone and ended as often as anybody measures, each time from the same beginning.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tcc_proto::order::v1::order_service_client::OrderServiceClient;
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};
use tonic::transport::Channel;

use super::{database::Database, memory, state::State};
use crate::{
    bench::{
        load::{self, Tallies, Window, place},
        orders::Orders,
    },
    harness::{Cluster, Owner, Role, Store},
};

const CHANNELS: u32 = 4;
/// Longer than anything that is measured takes.
const FOR_EVER: Duration = Duration::from_secs(24 * 3_600);
/// Orders before those that are counted: connections are open then, and know their statements.
pub(crate) const WARM_UP_ORDERS: u64 = 200;
/// After a start, before anything is read off: what a process does first is done.
const STARTED: Duration = Duration::from_secs(2);
/// What is measured: all that an order without a coupon needs.
pub(crate) const SERVERS: [Role; 2] = [Role::Inventory, Role::Gateway];
const OWNERS: [Owner; 3] = [Owner::Log, Owner::Orders, Owner::Inventory];

/// Its processes are stopped.
pub(crate) struct System {
    pub(crate) cluster: Cluster,
    pub(crate) orders: Arc<Orders>,
    pub(crate) state: State,
    pub(crate) confirmed: u64,
}

/// How orders come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Coming {
    /// The next when an earlier one of so many has ended.
    AtOnce { in_flight: u32 },
    /// At even distances; while so many are under way, the next waits.
    Evenly { per_second: u32, in_flight_max: usize },
}

/// What came of one load.
pub(crate) struct Loaded {
    pub(crate) orders: u64,
    pub(crate) took: Duration,
    /// From the processes' start to their end.
    pub(crate) lasted: Duration,
    /// The gateway's memory in KiB, after its start and at its most.
    pub(crate) resident_kib: [u64; 2],
}

impl System {
    /// PostgreSQL cleans up whenever it likes, and counts the pages: not while they are counted for orders.
    pub(crate) async fn keep_from_cleaning(&self) -> anyhow::Result<()> {
        if self.cluster.databases().store() != Store::Postgres {
            return Ok(());
        }
        let mut server = Database::to_fill(Store::Postgres, self.cluster.database_url(Owner::Log)).await?;
        server.run("ALTER SYSTEM SET autovacuum = off").await?;
        server.run("SELECT pg_reload_conf()").await
    }

    /// Makes the next start like the one before: nothing of what orders left behind is still to be cleaned up, and whatever is stuck
    /// is due.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        let store = self.cluster.databases().store();
        for owner in OWNERS {
            let mut database = Database::to_fill(store, self.cluster.database_url(owner)).await?;
            if self.state == State::Stuck && owner == Owner::Log {
                database.run("UPDATE tcc_log_transactions SET next_attempt_at = created_at WHERE has_stuck = 1").await?;
            }
            database.settle().await?;
        }
        Ok(())
    }

    /// Starts it, puts so many orders on it, and ends it.
    pub(crate) async fn under_load(&mut self, orders: u64, coming: Coming) -> anyhow::Result<Loaded> {
        self.start().await?;
        let up = Instant::now();
        sleep(STARTED).await;
        let rest = memory::of(Role::Gateway)?.now;
        self.load(WARM_UP_ORDERS, coming).await?;
        let (confirmed, took) = self.load(orders, coming).await?;
        let peak = memory::of(Role::Gateway)?.peak;
        let lasted = up.elapsed();
        self.end().await?;
        Ok(Loaded { orders: confirmed, took, lasted, resident_kib: [rest, peak] })
    }

    /// As [`Self::under_load`], and for as long, but after the first few orders none come.
    pub(crate) async fn at_rest(&mut self, lasts: Duration, coming: Coming) -> anyhow::Result<()> {
        self.start().await?;
        let up = Instant::now();
        sleep(STARTED).await;
        self.load(WARM_UP_ORDERS, coming).await?;
        sleep(lasts.saturating_sub(up.elapsed())).await;
        self.end().await
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

    /// How many were confirmed, and within how long.
    async fn load(&mut self, orders: u64, coming: Coming) -> anyhow::Result<(u64, Duration)> {
        let address = self.cluster.address(Role::Gateway);
        let clients = load::connect(&format!("http://{address}"), CHANNELS).await?;
        let tallies = Arc::new(Tallies::new(Window::new(Duration::ZERO, FOR_EVER))?);
        let since = Instant::now();
        match coming {
            Coming::AtOnce { in_flight } => at_once(&clients, &self.orders, orders, in_flight, &tallies).await?,
            Coming::Evenly { per_second, in_flight_max } => {
                evenly(&clients, &self.orders, orders, (per_second, in_flight_max), &tallies).await?;
            }
        }
        let took = since.elapsed();
        let tally = tallies.sum()?;
        let first_failure = tally.first_failure.as_deref().unwrap_or_default();
        ensure!(tally.failed == 0, "{} orders did not end as they must; the first: {first_failure}", tally.failed);
        self.confirmed += tally.confirmed;
        Ok((tally.confirmed, took))
    }
}

/// So many orders, so many at a time.
async fn at_once(
    clients: &[OrderServiceClient<Channel>],
    orders: &Arc<Orders>,
    count: u64,
    in_flight: u32,
    tallies: &Arc<Tallies>,
) -> anyhow::Result<()> {
    let last = orders.take() + count;
    let mut tasks = JoinSet::new();
    for client in clients.iter().cycle().take(in_flight as usize) {
        let (mut client, orders, tallies) = (client.clone(), Arc::clone(orders), Arc::clone(tallies));
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
    load::all(tasks).await
}

/// So many orders, at even distances.
async fn evenly(
    clients: &[OrderServiceClient<Channel>],
    orders: &Arc<Orders>,
    count: u64,
    (per_second, in_flight_max): (u32, usize),
    tallies: &Arc<Tallies>,
) -> anyhow::Result<()> {
    let mut due = interval(Duration::from_secs(1) / per_second);
    let mut tasks = JoinSet::new();
    for (_, client) in (0..count).zip(clients.iter().cycle()) {
        due.tick().await;
        if tasks.len() >= in_flight_max {
            tasks.join_next().await.transpose().context("a client failed")?;
        }
        let (mut client, orders, tallies) = (client.clone(), Arc::clone(orders), Arc::clone(tallies));
        tasks.spawn(async move { place(&mut client, &orders, orders.take(), Instant::now(), &tallies).await });
    }
    load::all(tasks).await
}

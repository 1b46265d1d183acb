//! Puts load on a gateway's front door, and times the answers. It knows nothing of processes or databases.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use hdrhistogram::Histogram;
use tcc_proto::order::v1::order_service_client::OrderServiceClient;
use tokio::{task::JoinSet, time::sleep_until};
use tonic::transport::{Channel, Endpoint};

use super::{
    cell::Pace,
    open_loop,
    orders::{Fate, Orders},
};

/// Latencies are kept in microseconds, to three digits, up to this.
const LATENCY_US_MAX: u64 = 120_000_000;
const DIGITS: u8 = 3;
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// When load begins, is measured, and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Of orders that were due in the window and ended as they must, whenever they did, in microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// Ended as they must, within the window.
    pub(crate) done: u64,
    /// Ended as they must, in the whole run.
    pub(crate) confirmed: u64,
    /// As they must, too.
    pub(crate) refused: u64,
    /// Ended in any other way.
    pub(crate) failed: u64,
    /// How the first of those did.
    pub(crate) first_failure: Option<String>,
}

/// Several of them, so that clients seldom wait for each other when they count.
#[derive(Debug)]
pub(crate) struct Tallies {
    window: Window,
    parts: Vec<Mutex<Tally>>,
    turn: AtomicU64,
}

/// How many tallies there are.
const PARTS: usize = 8;

impl Window {
    pub(crate) fn new(warm_up: Duration, measured: Duration) -> Self {
        let start = Instant::now();
        Self { from: start + warm_up, until: start + warm_up + measured }
    }

    pub(crate) fn length(&self) -> Duration {
        self.until - self.from
    }

    fn has(&self, instant: Instant) -> bool {
        (self.from..self.until).contains(&instant)
    }
}

fn micros(since: Instant, now: Instant) -> u64 {
    u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX).max(1)
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)?;
        Ok(Self { latency_us, done: 0, confirmed: 0, refused: 0, failed: 0, first_failure: None })
    }

    fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.latency_us.add(&other.latency_us)?;
        self.done += other.done;
        self.confirmed += other.confirmed;
        self.refused += other.refused;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        Ok(())
    }
}

impl Tallies {
    pub(crate) fn new(window: Window) -> anyhow::Result<Self> {
        let parts = (0..PARTS).map(|_| Tally::new().map(Mutex::new)).collect::<anyhow::Result<_>>()?;
        Ok(Self { window, parts, turn: AtomicU64::new(0) })
    }

    /// Whether more orders are to begin.
    pub(crate) fn is_open(&self) -> bool {
        Instant::now() < self.window.until
    }

    /// An order has ended now. Latency counts from `since`.
    pub(crate) fn ended(&self, since: Instant, fate: Result<Fate, String>) {
        let now = Instant::now();
        let part = self.turn.fetch_add(1, Ordering::Relaxed) as usize % PARTS;
        let mut tally = self.parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        match fate {
            Ok(fate) => {
                match fate {
                    Fate::Confirmed => tally.confirmed += 1,
                    Fate::Refused => tally.refused += 1,
                }
                tally.done += u64::from(self.window.has(now));
                if self.window.has(since) {
                    tally.latency_us.saturating_record(micros(since, now));
                }
            }
            Err(what) => {
                tally.failed += 1;
                tally.first_failure.get_or_insert(what);
            }
        }
    }

    /// An order that was due at `since` could not even begin: it waited at least until now.
    pub(crate) fn never_began(&self, since: Instant) {
        if self.window.has(since) {
            let mut tally = self.parts[0].lock().unwrap_or_else(PoisonError::into_inner);
            tally.latency_us.saturating_record(micros(since, Instant::now()));
        }
    }

    pub(crate) fn sum(&self) -> anyhow::Result<Tally> {
        let mut sum = Tally::new()?;
        for part in &self.parts {
            sum.add(part.lock().unwrap_or_else(PoisonError::into_inner).clone())?;
        }
        Ok(sum)
    }
}

/// Connects so often to a gateway.
///
/// # Errors
/// It does not answer.
pub(crate) async fn connect(url: &str, channels: u32) -> anyhow::Result<Vec<OrderServiceClient<Channel>>> {
    let endpoint = Endpoint::from_shared(url.to_owned())?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT).tcp_nodelay(true);
    let mut clients = Vec::new();
    for _ in 0..channels {
        let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {url}"))?;
        clients.push(OrderServiceClient::new(channel));
    }
    Ok(clients)
}

/// Puts load on a gateway until the window ends, and waits for the last answers.
///
/// # Errors
/// A client panicked.
pub(crate) async fn drive(
    clients: &[OrderServiceClient<Channel>],
    orders: Arc<Orders>,
    pace: Pace,
    tallies: Arc<Tallies>,
) -> anyhow::Result<()> {
    match pace {
        Pace::InFlight(number) => {
            let mut tasks = JoinSet::new();
            for client in clients.iter().cycle().take(number as usize) {
                tasks.spawn(closed(client.clone(), Arc::clone(&orders), Arc::clone(&tallies)));
            }
            all(tasks).await
        }
        Pace::PerSecond(rate) => open_loop::drive(clients, orders, rate, tallies).await,
    }
}

/// One client of a closed loop: the next order begins when the last one has ended.
async fn closed(mut client: OrderServiceClient<Channel>, orders: Arc<Orders>, tallies: Arc<Tallies>) {
    while tallies.is_open() {
        let since = Instant::now();
        place(&mut client, &orders, orders.take(), since, &tallies).await;
    }
}

/// Places one order and counts it.
pub(crate) async fn place(
    client: &mut OrderServiceClient<Channel>,
    orders: &Orders,
    number: u64,
    since: Instant,
    tallies: &Tallies,
) {
    let fate = match client.create_order(orders.request(number)).await {
        Ok(answer) => orders.judge(number, answer.get_ref().order.as_ref()),
        Err(status) => Err(format!("an order ended with {:?}: {}", status.code(), status.message())),
    };
    tallies.ended(since, fate);
}

/// Waits for clients.
pub(crate) async fn all(mut tasks: JoinSet<()>) -> anyhow::Result<()> {
    while let Some(joined) = tasks.join_next().await {
        joined.context("a client failed")?;
    }
    Ok(())
}

/// Asks at the beginning of the window and at its end.
pub(crate) async fn at_both_ends<T>(window: Window, mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<[T; 2]> {
    sleep_until(window.from.into()).await;
    let first = ask().await?;
    sleep_until(window.until.into()).await;
    Ok([first, ask().await?])
}

//! The clients: each places one order after the other, and repeats what is not answered at another gateway, under the same key,
//! until it is answered; but for some that go away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::{
    future::join_all,
    stream::{self, StreamExt, TryStreamExt},
};
use tcc_client::is_repeatable;
use tcc_proto::{
    coupon::v1::{IssueCouponRequest, coupon_service_client::CouponServiceClient},
    inventory::v1::AddStockRequest,
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, Order, OrderLine, OrderStatus,
        order_service_client::OrderServiceClient,
    },
};
use tcc_types::{Clock, Entropy, SystemClock, SystemEntropy};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

use super::history::{History, Told};
use crate::{
    explain,
    harness::{Cluster, repeat},
};

/// SKUs to order, of which there is more than any run orders; the first is in every second order.
const SKUS: u64 = 10;
const PIECES: i64 = 100_000_000;
/// SKUs of which there is little: some of them are asked for at the same time by more than can have them.
const SCARCE_SKUS: u64 = 400;
const SCARCE_PIECES: i64 = 10;
/// Orders after which the next scarce SKU is asked for.
const ORDERS_OF_SCARCE: u64 = 250;
/// More than there is of any SKU.
const TOO_MANY: i64 = 1_000_000_000;
/// Receipts that are booked at the same time.
const RECEIPTS_AT_ONCE: usize = 16;
/// A gateway that has not answered by then is taken for dead: the client goes to another.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);
/// A client gives up after this; that is told in the verdict.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// All clients that were told to stop have their last answers within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(300);
/// After all gateways were asked in vain.
const PAUSE_MAX: Duration = Duration::from_millis(300);
/// Longest time for which a client waits that is going to go away.
const PATIENCE_MAX: Duration = Duration::from_millis(40);
/// Until when an order is held that nobody decides.
const LEFT_FOR: Duration = Duration::from_secs(3);
const COUPON_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// What a client wants of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Stock only.
    Plain,
    /// With a coupon of its own.
    WithCoupon,
    /// Of a SKU that is soon sold out.
    Scarce,
    /// Asks for more than there is.
    TooMany,
    /// Held, then confirmed.
    HoldConfirm,
    /// Held, then cancelled.
    HoldCancel,
    /// Held, and left to its time.
    HoldLeft,
    /// Placed once more at another gateway after it was acknowledged.
    Repeated,
    /// Placed at every gateway at the same time.
    AtOnce,
    /// The client goes away before it has its answer, and never asks again.
    Abandoned,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Plain,
        Self::WithCoupon,
        Self::Scarce,
        Self::TooMany,
        Self::HoldConfirm,
        Self::HoldCancel,
        Self::HoldLeft,
        Self::Repeated,
        Self::AtOnce,
        Self::Abandoned,
    ];

    /// Its share of a hundred orders.
    const fn share(self) -> u64 {
        match self {
            Self::Plain => 46,
            Self::WithCoupon => 12,
            Self::Scarce | Self::HoldConfirm => 8,
            Self::TooMany | Self::HoldCancel | Self::Repeated => 6,
            Self::AtOnce | Self::Abandoned => 3,
            Self::HoldLeft => 2,
        }
    }

    const fn holds(self) -> bool {
        match self {
            Self::HoldConfirm | Self::HoldCancel | Self::HoldLeft => true,
            Self::Plain | Self::WithCoupon | Self::Scarce | Self::TooMany | Self::Repeated | Self::AtOnce | Self::Abandoned => {
                false
            }
        }
    }

    fn picked(dice: u64) -> Self {
        let mut rest = dice % 100;
        for kind in Self::ALL {
            if rest < kind.share() {
                return kind;
            }
            rest -= kind.share();
        }
        Self::Plain
    }
}

/// Puts everything on the shelves that clients order.
///
/// # Errors
/// The server's.
pub(crate) async fn stock_up(cluster: &Cluster) -> Result<(), Status> {
    let plenty = (0..SKUS).map(|number| (sku(number), PIECES));
    let scarce = (0..SCARCE_SKUS).map(|number| (scarce_sku(number), SCARCE_PIECES));
    let receipt = |(sku, quantity): (String, i64)| {
        let mut inventory = cluster.inventory();
        async move { inventory.add_stock(AddStockRequest { receipt_id: format!("receipt-{sku}"), sku, quantity }).await.map(drop) }
    };
    stream::iter(plenty.chain(scarce).map(receipt)).buffer_unordered(RECEIPTS_AT_ONCE).try_collect().await
}

/// How many order, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Clients that order at the same time.
    pub(crate) clients: u32,
    /// Orders that all of them together place in a second; `None`: each orders again as soon as it has its answer.
    pub(crate) orders_per_second: Option<u32>,
}

/// All clients, while they order.
#[derive(Debug)]
pub(crate) struct Clients {
    tasks: JoinSet<History>,
    stop: CancellationToken,
    counters: Arc<Counters>,
}

impl Clients {
    /// They begin.
    pub(crate) fn start(
        gateways: &[OrderServiceClient<Channel>],
        coupons: &CouponServiceClient<Channel>,
        pace: Pace,
        started: Instant,
    ) -> Self {
        let Pace { clients, orders_per_second } = pace;
        let period = orders_per_second.map(|rate| Duration::from_secs(1) * clients / rate);
        let (stop, counters) = (CancellationToken::new(), Arc::new(Counters::default()));
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let client = Client {
                at: number as usize % gateways.len(),
                gateways: gateways.to_vec(),
                coupons: coupons.clone(),
                counters: Arc::clone(&counters),
                started,
                history: History::default(),
            };
            // One after the other, and not all in one moment of each period.
            let first = period.map(|period| tokio::time::Instant::now() + period * number / clients);
            tasks.spawn(client.order_until(stop.clone(), first.zip(period)));
        }
        Self { tasks, stop, counters }
    }

    /// Orders that were acknowledged so far.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// They stop; each has its last answer first.
    ///
    /// # Errors
    /// One of them has none.
    pub(crate) async fn stop(mut self) -> anyhow::Result<History> {
        self.stop.cancel();
        let all = async {
            let mut history = History::default();
            while let Some(one) = self.tasks.join_next().await {
                history.extend(one.context("a client failed")?);
            }
            anyhow::Ok(history)
        };
        timeout(ANSWERS_WITHIN, all).await.with_context(|| format!("clients have no answer after {ANSWERS_WITHIN:?}"))?
    }
}

/// What was abandoned is asked for at last: whatever became of it, it has one outcome.
pub(crate) async fn ask_for_abandoned(
    history: &mut History,
    gateways: &[OrderServiceClient<Channel>],
    coupons: &CouponServiceClient<Channel>,
    started: Instant,
) {
    let counters = Arc::new(Counters::default());
    let (gateways, coupons) = (gateways.to_vec(), coupons.clone());
    let mut client = Client { gateways, at: 0, coupons, counters, started, history: History::default() };
    for request in &history.abandoned {
        if let Err(status) = client.create(request).await {
            client.history.problems.push(no_answer(&request.order_key, &status));
        }
    }
    client.history.latencies.clear();
    history.extend(client.history);
}

fn no_answer(order_key: &str, status: &Status) -> String {
    format!("order {order_key} got no answer: {}", explain::error(status))
}

/// What all clients share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// For keys that no two orders share.
    next: AtomicU64,
    /// Orders that were acknowledged.
    pub(crate) acknowledged: AtomicU64,
}

/// Whom a client asked, when, and when it had its answer; since the beginning.
#[derive(Clone, Copy, Debug)]
struct Asked {
    gateway: usize,
    sent: Duration,
    at: Duration,
}

/// One client.
#[derive(Debug)]
struct Client {
    gateways: Vec<OrderServiceClient<Channel>>,
    /// The gateway that it asks first.
    at: usize,
    coupons: CouponServiceClient<Channel>,
    counters: Arc<Counters>,
    started: Instant,
    history: History,
}

impl Client {
    /// Orders until it is told to stop, at this pace if there is one. What is under way then still gets its answer.
    async fn order_until(mut self, stop: CancellationToken, pace: Option<(tokio::time::Instant, Duration)>) -> History {
        let mut ticks = pace.map(|(first, period)| interval_at(first, period));
        if let Some(ticks) = &mut ticks {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        while !stop.is_cancelled() {
            if let Some(ticks) = &mut ticks {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = ticks.tick() => {}
                }
            }
            let number = self.counters.next.fetch_add(1, Ordering::Relaxed);
            let order_key = format!("witness-{number}");
            if let Err(status) = self.order(&order_key, number, Kind::picked(SystemEntropy.next_u64())).await {
                self.history.problems.push(no_answer(&order_key, &status));
            }
            // Orders are spread over the gateways, also over those that came back.
            self.at = (self.at + 1) % self.gateways.len();
        }
        self.history
    }

    async fn order(&mut self, order_key: &str, number: u64, kind: Kind) -> Result<(), Status> {
        let dice = SystemEntropy.next_u64();
        let user_id = format!("user-{}", dice % 100);
        let coupon_id = if kind == Kind::WithCoupon { self.issue(order_key, &user_id).await? } else { String::new() };
        let quantity = if kind == Kind::TooMany { TOO_MANY } else { 1 };
        let sku = if kind == Kind::Scarce { scarce_sku(number / ORDERS_OF_SCARCE) } else { picked_sku(dice / 100) };
        let lines = vec![OrderLine { sku, quantity }];
        let pay_by = SystemClock.now().plus(LEFT_FOR);
        let pay_by = (kind == Kind::HoldLeft).then(|| tcc_wire::timestamp_to_proto(pay_by));
        let request =
            CreateOrderRequest { order_key: order_key.to_owned(), user_id, lines, coupon_id, hold: kind.holds(), pay_by };
        if matches!(kind, Kind::TooMany | Kind::HoldCancel | Kind::HoldLeft) {
            self.history.never_confirmed.insert(order_key.to_owned());
        }
        let sent = Instant::now();
        match kind {
            Kind::AtOnce => self.at_once(&request).await?,
            Kind::Abandoned => return self.abandon(request).await,
            Kind::Plain
            | Kind::WithCoupon
            | Kind::Scarce
            | Kind::TooMany
            | Kind::HoldConfirm
            | Kind::HoldCancel
            | Kind::HoldLeft
            | Kind::Repeated => {}
        }
        let order = match self.create(&request).await {
            // Its time was over before a gateway could begin it.
            Err(status) if kind == Kind::HoldLeft && status.code() == Code::InvalidArgument && sent.elapsed() >= LEFT_FOR => {
                return Ok(());
            }
            answer => answer?,
        };
        self.acknowledged(sent);
        match kind {
            Kind::Plain | Kind::WithCoupon | Kind::Scarce | Kind::TooMany | Kind::HoldLeft | Kind::AtOnce | Kind::Abandoned => {
            }
            Kind::Repeated => {
                self.at = (self.at + 1) % self.gateways.len();
                self.create(&request).await?;
            }
            Kind::HoldConfirm | Kind::HoldCancel => self.settle(order, kind).await?,
        }
        Ok(())
    }

    fn acknowledged(&mut self, sent: Instant) {
        self.history.latencies.push(sent.elapsed());
        self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Every gateway is sent the same at the same time; who answers is noted.
    async fn at_once(&mut self, request: &CreateOrderRequest) -> Result<(), Status> {
        let (started, sent) = (self.started, self.started.elapsed());
        let calls = self.gateways.iter().cloned().map(|mut gateway| {
            let request = request.clone();
            async move {
                let answer = timeout(ATTEMPT_WITHIN, gateway.create_order(request)).await;
                (answer, started.elapsed())
            }
        });
        for (gateway, (answer, at)) in join_all(calls).await.into_iter().enumerate() {
            match answer {
                Ok(Ok(answer)) => {
                    let order = answer.into_inner().order.ok_or_else(no_order)?;
                    if order.status() != OrderStatus::Pending {
                        self.note(&request.order_key, &order, Asked { gateway, sent, at });
                    }
                }
                Ok(Err(status)) if !is_repeatable(&status) => return Err(status),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sends it and goes away, soon or at once.
    async fn abandon(&mut self, request: CreateOrderRequest) -> Result<(), Status> {
        let (began, sent) = (Instant::now(), self.started.elapsed());
        let mut gateway = self.gateways[self.at].clone();
        let answer = timeout(SystemEntropy.jitter(PATIENCE_MAX), gateway.create_order(request.clone())).await;
        match answer {
            Ok(Ok(answer)) => match answer.into_inner().order.ok_or_else(no_order)? {
                order if order.status() == OrderStatus::Pending => self.history.abandoned.push(request),
                order => {
                    let asked = Asked { gateway: self.at, sent, at: self.started.elapsed() };
                    self.note(&request.order_key, &order, asked);
                    self.acknowledged(began);
                }
            },
            Ok(Err(status)) if !is_repeatable(&status) => return Err(status),
            Ok(Err(_)) | Err(_) => self.history.abandoned.push(request),
        }
        Ok(())
    }

    async fn create(&mut self, request: &CreateOrderRequest) -> Result<Order, Status> {
        let create = |mut gateway: OrderServiceClient<Channel>| {
            let request = request.clone();
            async move { gateway.create_order(request).await.map(|answer| answer.into_inner().order) }
        };
        self.ask(&request.order_key, create).await
    }

    async fn settle(&mut self, order: Order, kind: Kind) -> Result<(), Status> {
        if order.status() != OrderStatus::Held {
            return Ok(());
        }
        let Order { order_id, order_key, .. } = order;
        // A client may well decide through another gateway than the one that it ordered at.
        self.at = (self.at + 1) % self.gateways.len();
        if kind == Kind::HoldConfirm {
            self.history.to_be_confirmed.insert(order_key.clone());
        }
        let decide = |mut gateway: OrderServiceClient<Channel>| {
            let order_id = order_id.clone();
            async move {
                if kind == Kind::HoldCancel {
                    return Ok(gateway.cancel_order(CancelOrderRequest { order_id }).await?.into_inner().order);
                }
                Ok(gateway.confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order)
            }
        };
        self.ask(&order_key, decide).await.map(drop)
    }

    /// Asks one gateway after the other until one answers, and notes the answer.
    async fn ask<A>(&mut self, order_key: &str, call: impl Fn(OrderServiceClient<Channel>) -> A) -> Result<Order, Status>
    where
        A: Future<Output = Result<Option<Order>, Status>>,
    {
        let give_up = Instant::now() + ANSWER_WITHIN;
        let mut asked = 0;
        loop {
            let sent = self.started.elapsed();
            let answer = timeout(ATTEMPT_WITHIN, call(self.gateways[self.at].clone())).await;
            let status = match answer {
                Ok(Ok(Some(order))) if order.status() != OrderStatus::Pending => {
                    self.note(order_key, &order, Asked { gateway: self.at, sent, at: self.started.elapsed() });
                    return Ok(order);
                }
                Ok(Ok(Some(_))) => Status::unavailable("the order is still pending"),
                Ok(Ok(None)) => return Err(no_order()),
                Ok(Err(status)) if !is_repeatable(&status) => return Err(status),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {ATTEMPT_WITHIN:?}")),
            };
            if Instant::now() >= give_up {
                return Err(status);
            }
            self.history.repeats += 1;
            self.at = (self.at + 1) % self.gateways.len();
            asked += 1;
            if asked % self.gateways.len() == 0 {
                sleep(SystemEntropy.jitter(PAUSE_MAX)).await;
            }
        }
    }

    fn note(&mut self, order_key: &str, order: &Order, asked: Asked) {
        let Asked { gateway, sent, at } = asked;
        let (order_id, status) = (order.order_id.clone(), order.status());
        if order.order_key != order_key || status == OrderStatus::Unspecified {
            self.history.problems.push(format!("whoever asked for {order_key} was told of {order:?}"));
        }
        let with_coupon = !order.coupon_id.is_empty();
        self.history.told.push(Told { order_key: order_key.to_owned(), order_id, status, gateway, with_coupon, sent, at });
    }

    async fn issue(&self, order_key: &str, user_id: &str) -> Result<String, Status> {
        let coupon_id = format!("c-{order_key}");
        let request = IssueCouponRequest {
            coupon_id: coupon_id.clone(),
            user_id: user_id.to_owned(),
            discount_minor: 500,
            expires_at: Some(tcc_wire::timestamp_to_proto(SystemClock.now().plus(COUPON_LIFE))),
        };
        repeat(|| {
            let (mut coupons, request) = (self.coupons.clone(), request.clone());
            async move { coupons.issue_coupon(request).await }
        })
        .await?;
        Ok(coupon_id)
    }
}

fn no_order() -> Status {
    Status::internal("the answer has no order")
}

fn sku(number: u64) -> String {
    format!("sku-{:02}", number % SKUS)
}

/// One of which there is more than any run orders.
pub(crate) fn plentiful_sku() -> String {
    sku(1)
}

/// Half of the orders are for one SKU.
fn picked_sku(dice: u64) -> String {
    if dice.is_multiple_of(2) { sku(0) } else { sku(dice / 2) }
}

fn scarce_sku(number: u64) -> String {
    format!("scarce-{:03}", number % SCARCE_SKUS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_a_hundred_and_every_kind_is_picked() {
        assert_eq!(Kind::ALL.map(Kind::share).iter().sum::<u64>(), 100);
        for kind in Kind::ALL {
            let picked = (0..100).filter(|dice| Kind::picked(*dice) == kind).count() as u64;
            assert_eq!(picked, kind.share(), "{kind:?}");
        }
    }
}

//! The clients: each places one order after the other, and repeats what is not answered at another gateway, under the same key,
//! until it is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tcc_client::is_repeatable;
use tcc_proto::{
    coupon::v1::{IssueCouponRequest, coupon_service_client::CouponServiceClient},
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, Order, OrderLine, OrderStatus,
        order_service_client::OrderServiceClient,
    },
};
use tcc_types::{Clock, Entropy, SystemClock, SystemEntropy};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use super::history::{History, Told};
use crate::{explain, harness::repeat};

/// SKUs to order.
pub(crate) const SKUS: u64 = 10;
/// More than there is of any SKU.
const TOO_MANY: i64 = 1_000_000_000;
/// A gateway that has not answered by then is taken for dead: the client goes to another.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);
/// A client gives up after this; that is told in the verdict.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// After all gateways were asked in vain.
const PAUSE_MAX: Duration = Duration::from_millis(300);
const COUPON_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// What a client wants of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Stock only.
    Plain,
    /// With a coupon of its own.
    WithCoupon,
    /// Asks for more than there is.
    TooMany,
    /// Held, then confirmed.
    HoldConfirm,
    /// Held, then cancelled.
    HoldCancel,
    /// Placed once more at another gateway after it was acknowledged.
    Repeated,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Plain, Self::WithCoupon, Self::TooMany, Self::HoldConfirm, Self::HoldCancel, Self::Repeated];

    /// Its share of a hundred orders.
    const fn share(self) -> u64 {
        match self {
            Self::Plain => 60,
            Self::WithCoupon => 12,
            Self::TooMany | Self::HoldConfirm => 8,
            Self::HoldCancel | Self::Repeated => 6,
        }
    }

    const fn holds(self) -> bool {
        match self {
            Self::HoldConfirm | Self::HoldCancel => true,
            Self::Plain | Self::WithCoupon | Self::TooMany | Self::Repeated => false,
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

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Counters {
    /// For keys that no two orders share.
    next: AtomicU64,
    /// Orders that were acknowledged.
    pub(crate) acknowledged: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(0), acknowledged: AtomicU64::new(0) })
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    gateways: Vec<OrderServiceClient<Channel>>,
    /// The gateway that it asks first.
    at: usize,
    coupons: CouponServiceClient<Channel>,
    counters: Arc<Counters>,
    started: Instant,
    history: History,
}

impl Client {
    pub(crate) fn new(
        number: usize,
        gateways: Vec<OrderServiceClient<Channel>>,
        coupons: CouponServiceClient<Channel>,
        counters: Arc<Counters>,
        started: Instant,
    ) -> Self {
        let at = number % gateways.len();
        Self { gateways, at, coupons, counters, started, history: History::default() }
    }

    /// Orders until it is told to stop, one order in each `pace` if there is one. What is under way then still gets its answer.
    pub(crate) async fn order_until(mut self, stop: CancellationToken, pace: Option<Duration>) -> History {
        let mut ticks = pace.map(interval);
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
            let order_key = format!("survive-{number}");
            if let Err(status) = self.order(&order_key, Kind::picked(SystemEntropy.next_u64())).await {
                self.history.problems.push(format!("order {order_key} got no answer: {}", explain::error(&status)));
            }
            // Orders are spread over the gateways, also over those that came back.
            self.at = (self.at + 1) % self.gateways.len();
        }
        self.history
    }

    async fn order(&mut self, order_key: &str, kind: Kind) -> Result<(), Status> {
        let dice = SystemEntropy.next_u64();
        let user_id = format!("user-{}", dice % 100);
        let coupon_id = if kind == Kind::WithCoupon { self.issue(order_key, &user_id).await? } else { String::new() };
        let quantity = if kind == Kind::TooMany { TOO_MANY } else { 1 };
        let line = OrderLine { sku: sku(dice / 100), quantity };
        let lines = vec![line];
        let hold = kind.holds();
        let request = CreateOrderRequest { order_key: order_key.to_owned(), user_id, lines, coupon_id, hold, pay_by: None };
        let sent = Instant::now();
        let order = self.create(&request).await?;
        self.history.latencies.push(sent.elapsed());
        self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
        match kind {
            Kind::Plain | Kind::WithCoupon | Kind::TooMany => {}
            Kind::Repeated => {
                self.at = (self.at + 1) % self.gateways.len();
                self.create(&request).await?;
            }
            Kind::HoldConfirm | Kind::HoldCancel => self.settle(order, kind).await?,
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
        let decide = |mut gateway: OrderServiceClient<Channel>| {
            let order_id = order_id.clone();
            async move {
                match kind {
                    Kind::HoldCancel => Ok(gateway.cancel_order(CancelOrderRequest { order_id }).await?.into_inner().order),
                    Kind::Plain | Kind::WithCoupon | Kind::TooMany | Kind::HoldConfirm | Kind::Repeated => {
                        Ok(gateway.confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order)
                    }
                }
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
            let gateway = self.gateways[self.at].clone();
            let answer = timeout(ATTEMPT_WITHIN, call(gateway)).await;
            let status = match answer {
                Ok(Ok(Some(order))) if order.status() != OrderStatus::Pending => {
                    self.note(order_key, &order);
                    return Ok(order);
                }
                Ok(Ok(Some(_))) => Status::unavailable("the order is still pending"),
                Ok(Ok(None)) => return Err(Status::internal("the answer has no order")),
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

    fn note(&mut self, order_key: &str, order: &Order) {
        let (order_id, status) = (order.order_id.clone(), order.status());
        self.history.told.push(Told { order_key: order_key.to_owned(), order_id, status, at: self.started.elapsed() });
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

/// The SKU of a number.
pub(crate) fn sku(number: u64) -> String {
    format!("sku-{:02}", number % SKUS)
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

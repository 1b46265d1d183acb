//! What the tests stand on: a cluster with quick retries, short ways to order, and an end at which the books must balance.
//!
//! A stage that is dropped before [`Stage::finish`] belongs to a failed test: it prints the ends of its processes' logs.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use prost::Name;
use prost_types::Any;
use serde_json::json;
use tcc_proto::{
    coupon::v1::{IssueCouponRequest, LockCoupon},
    inventory::v1::{AddStockRequest, GetStockRequest, ReserveStock, Stock, StockLine},
    order::v1::{CreateOrderRequest, Order, OrderLine},
    tcc::v1::{BranchSpec, SubmitRequest, TryRequest},
};
use tcc_types::{Clock, Entropy, Gid, SystemClock, SystemEntropy, Timestamp};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};
use tonic::Status;

use crate::harness::{Cluster, ClusterConfig, LOG_NAME, Scope};

/// Clusters at the same time, in one test process: each is three processes.
const CLUSTERS_MAX: usize = 2;
/// After faults have stopped, everything ends within this.
pub const QUIET_WITHIN: Duration = Duration::from_secs(90);
/// For conditions that tests wait for.
const CONDITION_WITHIN: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const COUPON_LIFE: Duration = Duration::from_secs(24 * 3_600);

static CLUSTERS: Semaphore = Semaphore::const_new(CLUSTERS_MAX);

/// A cluster of one test.
#[derive(Debug)]
pub struct Stage {
    cluster: Option<Cluster>,
    _permit: SemaphorePermit<'static>,
}

/// What most tests run on: the given binary's roles, and retries that do not keep a test waiting.
#[must_use]
pub fn quick(binary: &str) -> ClusterConfig {
    ClusterConfig {
        coordinator: json!({
            "retry_base_ms": 20,
            "retry_cap_ms": 250,
            "stuck_probe_ms": 250,
            "recovery_interval_ms": 100,
            "call_timeout_ms": 2_000,
            "try_for_ms": 30_000,
        }),
        ..ClusterConfig::temporary(PathBuf::from(binary))
    }
}

impl Stage {
    /// Starts a cluster, once there is room for one.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let permit = CLUSTERS.acquire().await?;
        Ok(Self { cluster: Some(Cluster::start(config).await?), _permit: permit })
    }

    /// Waits until everything has ended, and wants every rule to hold; then ends the processes gracefully.
    ///
    /// # Errors
    /// Something has not ended, a rule is broken, or a process ended badly.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        self.must_balance(Scope::AtRest).await?;
        self.stop().await
    }

    /// As [`Stage::finish`], after a test that called participants without a coordinator.
    ///
    /// # Errors
    /// As [`Stage::finish`].
    pub async fn finish_called_by_hand(mut self) -> anyhow::Result<()> {
        self.must_balance(Scope::AtRestCalledByHand).await?;
        self.stop().await
    }

    /// Waits until everything has ended, wants exactly one rule to be broken, and returns it.
    ///
    /// # Errors
    /// As [`Stage::finish`].
    pub async fn finish_with_one_broken_rule(mut self) -> anyhow::Result<String> {
        self.must_be_quiet().await?;
        let broken = self.books(Scope::AtRest).await?;
        ensure!(broken.len() == 1, "not one rule is broken: {broken:#?}");
        self.stop().await?;
        Ok(broken.concat())
    }

    /// Waits until everything has ended, and wants every rule to hold.
    ///
    /// # Errors
    /// Something has not ended, or a rule is broken.
    pub async fn must_balance(&self, scope: Scope) -> anyhow::Result<()> {
        self.must_be_quiet().await?;
        let mut broken = self.books(scope).await?;
        match scope {
            // The reconciler would list what nobody but the caller knows of.
            Scope::AtRestCalledByHand => {}
            Scope::Always | Scope::AtRest | Scope::AtRestOrdersOnly => broken.extend(self.disagreements_at_rest().await?),
        }
        ensure!(broken.is_empty(), "{} rules are broken:\n{}", broken.len(), broken.join("\n"));
        Ok(())
    }

    async fn must_be_quiet(&self) -> anyhow::Result<()> {
        self.quiet(QUIET_WITHIN).await?.map_err(|open| anyhow::anyhow!("not quiet after {QUIET_WITHIN:?}: {open}"))
    }

    // Only a stage whose stop succeeded is without its cluster when it is dropped.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let cluster = self.cluster.take().context("stopped already")?;
        cluster.stop().await
    }

    /// Puts pieces of a SKU on the shelf.
    ///
    /// # Errors
    /// The server's.
    pub async fn stock(&self, sku: &str, quantity: i64) -> Result<(), Status> {
        let request = AddStockRequest { receipt_id: format!("test-{sku}"), sku: sku.to_owned(), quantity };
        self.inventory().add_stock(request).await.map(|_| ())
    }

    /// Reads a SKU.
    ///
    /// # Errors
    /// The server's.
    pub async fn read_stock(&self, sku: &str) -> anyhow::Result<Stock> {
        let response = self.inventory().get_stock(GetStockRequest { sku: sku.to_owned() }).await?;
        response.into_inner().stock.context("no stock")
    }

    /// Issues a coupon that is good for a day.
    ///
    /// # Errors
    /// The server's.
    pub async fn coupon(&self, coupon_id: &str, user_id: &str) -> Result<(), Status> {
        self.coupon_until(coupon_id, user_id, SystemClock.now().plus(COUPON_LIFE)).await
    }

    /// Issues a coupon.
    ///
    /// # Errors
    /// The server's.
    pub async fn coupon_until(&self, coupon_id: &str, user_id: &str, expires_at: Timestamp) -> Result<(), Status> {
        let request = IssueCouponRequest {
            coupon_id: coupon_id.to_owned(),
            user_id: user_id.to_owned(),
            discount_minor: 500,
            expires_at: Some(tcc_wire::timestamp_to_proto(expires_at)),
        };
        self.coupons().issue_coupon(request).await.map(|_| ())
    }

    /// Places an order, once.
    ///
    /// # Errors
    /// The server's.
    pub async fn place(&self, request: CreateOrderRequest) -> Result<Order, Status> {
        let response = self.orders().create_order(request).await?;
        response.into_inner().order.ok_or_else(|| Status::internal("the answer has no order"))
    }
}

impl Deref for Stage {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match &self.cluster {
            Some(cluster) => cluster,
            None => unreachable!("a stage gives its cluster away only when it is consumed"),
        }
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Cluster {
        match &mut self.cluster {
            Some(cluster) => cluster,
            None => unreachable!("a stage gives its cluster away only when it is consumed"),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(cluster) = &self.cluster {
            eprintln!("{}", cluster.log_tails());
        }
    }
}

/// An order of alice's.
#[must_use]
pub fn order(key: &str, lines: &[(&str, i64)]) -> CreateOrderRequest {
    CreateOrderRequest {
        order_key: key.to_owned(),
        user_id: "alice".to_owned(),
        lines: lines.iter().map(|(sku, quantity)| OrderLine { sku: (*sku).to_owned(), quantity: *quantity }).collect(),
        coupon_id: String::new(),
        hold: false,
        pay_by: None,
    }
}

/// The same order with a coupon.
#[must_use]
pub fn with_coupon(order: CreateOrderRequest, coupon_id: &str) -> CreateOrderRequest {
    CreateOrderRequest { coupon_id: coupon_id.to_owned(), ..order }
}

/// The same order, held.
#[must_use]
pub fn held(order: CreateOrderRequest) -> CreateOrderRequest {
    CreateOrderRequest { hold: true, ..order }
}

/// The code of an order's refusal; empty if there is none.
#[must_use]
pub fn refusal_code(order: &Order) -> &str {
    order.refusal.as_ref().map(|refusal| refusal.code.as_str()).unwrap_or_default()
}

/// A new gid, as an initiator mints it.
#[must_use]
pub fn mint() -> String {
    Gid::mint(SystemClock.now(), &SystemEntropy).to_string()
}

/// A new text that no other call returns.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:016x}", SystemEntropy.next_u64())
}

/// A message as a payload.
#[must_use]
pub fn any<M: Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The payload that freezes pieces of one SKU.
#[must_use]
pub fn reserve(sku: &str, quantity: i64) -> Any {
    any(&ReserveStock { lines: vec![StockLine { sku: sku.to_owned(), quantity }] })
}

/// The payload that locks a coupon.
#[must_use]
pub fn lock(coupon_id: &str, user_id: &str) -> Any {
    any(&LockCoupon { coupon_id: coupon_id.to_owned(), user_id: user_id.to_owned() })
}

/// A branch at a participant.
#[must_use]
pub fn branch(branch_id: &str, participant: &str, payload: Any) -> BranchSpec {
    BranchSpec { branch_id: branch_id.to_owned(), participant: participant.to_owned(), payload: Some(payload) }
}

/// A whole transaction of these branches; everything else by default.
#[must_use]
pub fn submit(branches: Vec<BranchSpec>) -> SubmitRequest {
    SubmitRequest { branches, ..SubmitRequest::default() }
}

/// A Try as the cluster's coordinator would send it.
#[must_use]
pub fn try_request(gid: &str, branch_id: &str, payload: Any) -> TryRequest {
    let now = SystemClock.now();
    TryRequest {
        gid: gid.to_owned(),
        branch_id: branch_id.to_owned(),
        payload: Some(payload),
        not_after: Some(tcc_wire::timestamp_to_proto(now.plus(Duration::from_secs(60)))),
        ask_after: Some(tcc_wire::timestamp_to_proto(now.plus(Duration::from_secs(3_600)))),
        coordinator: LOG_NAME.to_owned(),
    }
}

/// An instant so long from now.
#[must_use]
pub fn in_time(from_now: Duration) -> prost_types::Timestamp {
    tcc_wire::timestamp_to_proto(SystemClock.now().plus(from_now))
}

/// An instant so long ago.
#[must_use]
pub fn ago(before: Duration) -> prost_types::Timestamp {
    tcc_wire::timestamp_to_proto(SystemClock.now().minus(before))
}

/// Asks again and again until the answer is there.
///
/// # Errors
/// The question's own, or no answer came for a minute.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let give_up = Instant::now() + CONDITION_WITHIN;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        ensure!(Instant::now() < give_up, "this did not happen within {CONDITION_WITHIN:?}: {what}");
        sleep(POLL_INTERVAL).await;
    }
}

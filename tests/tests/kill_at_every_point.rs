//! `kill -9` of the gateway at every point of a transaction's life: before and after each durable write and each call.
//!
//! The gateway is started such that it stands still when it reaches the point; there it is killed and brought back. Then
//! everything must end: the books balance, nothing is frozen, no row is tried, there is one legal outcome that stays, and what
//! was acknowledged before the kill is kept. In a second run the point is armed again after the kill, so that recovery, with a
//! client that repeats its request, is killed there too.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails its test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::future::try_join_all;
use tcc_cluster::{
    harness::{Role, order_with_retry, repeat},
    stage::{self, Stage, branch, eventually, held, lock, order, refusal_code, reserve, unique, with_coupon},
};
use tcc_coordinator::failpoint;
use tcc_proto::{
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, Order, OrderStatus,
        order_service_client::OrderServiceClient,
    },
    tcc::v1::{
        BeginRequest, ConfirmTransactionRequest, EnlistRequest, GetTransactionRequest, TransactionStatus,
        coordinator_client::CoordinatorClient,
    },
};
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Channel};

/// What is under way when the gateway is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scenario {
    /// Stock and a coupon, to be confirmed.
    WithCoupon,
    /// With a coupon, but more than there is: everything is released again.
    Refused,
    /// Held first, then confirmed.
    HoldConfirm,
    /// Held first, then cancelled.
    HoldCancel,
    /// Branches enlisted one by one at the coordinator, then confirmed.
    Enlisted,
    /// A hold that is confirmed while inventory is down: the transaction leaves memory and waits in the log.
    ConfirmedWhileDown,
}

impl Scenario {
    const ALL: [Self; 6] =
        [Self::WithCoupon, Self::Refused, Self::HoldConfirm, Self::HoldCancel, Self::Enlisted, Self::ConfirmedWhileDown];

    /// At which arrivals at the point to kill. A transaction's calls of one kind arrive one by one: at the last of them the
    /// others have been made.
    fn arrivals(self, point: &str) -> &'static [u32] {
        let is_call = ["try.", "confirm.", "cancel."].iter().any(|operation| point.starts_with(operation));
        match self {
            // Without inventory a gateway that has forgotten the votes cannot decide: the decision has to come before the kill.
            Self::ConfirmedWhileDown => match point {
                failpoint::DECIDE_AFTER
                | failpoint::CONFIRM_BEFORE
                | failpoint::CONFIRM_AFTER
                | failpoint::PARK_BEFORE
                | failpoint::PARK_AFTER => &[1],
                _ => &[],
            },
            _ if !is_call => &[1],
            Self::WithCoupon | Self::HoldConfirm | Self::HoldCancel => &[1, 3],
            Self::Refused | Self::Enlisted => &[1, 2],
        }
    }

    /// The only outcome that the end may have: status, and the refusal's code.
    fn outcome(self) -> (OrderStatus, &'static str) {
        match self {
            Self::WithCoupon | Self::HoldConfirm | Self::Enlisted | Self::ConfirmedWhileDown => (OrderStatus::Confirmed, ""),
            Self::Refused => (OrderStatus::Cancelled, "OUT_OF_STOCK"),
            Self::HoldCancel => (OrderStatus::Cancelled, "CANCEL_REQUESTED"),
        }
    }
}

/// The last thing that the client was told.
#[derive(Clone, Debug, Default)]
enum Told {
    /// Nothing yet.
    #[default]
    Nothing,
    /// An order.
    Order(Box<Order>),
    /// A transaction's gid and status.
    Transaction(String, TransactionStatus),
}

/// One client with one piece of work, which it repeats until it is answered.
#[derive(Clone)]
struct Client {
    scenario: Scenario,
    request: CreateOrderRequest,
    orders: OrderServiceClient<Channel>,
    coordinator: CoordinatorClient<Channel>,
    told: Arc<Mutex<Told>>,
}

impl Client {
    async fn new(stage: &Stage, scenario: Scenario) -> anyhow::Result<Self> {
        let coupon = unique("c");
        stage.coupon(&coupon, "alice").await?;
        let quantity = if scenario == Scenario::Refused { 1_000_000_000 } else { 2 };
        let request = with_coupon(order(&unique("k"), &[("apple", quantity)]), &coupon);
        let request = match scenario {
            Scenario::HoldConfirm | Scenario::HoldCancel | Scenario::ConfirmedWhileDown => held(request),
            Scenario::WithCoupon | Scenario::Refused | Scenario::Enlisted => request,
        };
        let told = Arc::default();
        Ok(Self { scenario, request, orders: stage.orders(), coordinator: stage.coordinator(), told })
    }

    fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    fn is_told(&self, told: Told) {
        *self.told.lock().unwrap() = told;
    }

    /// Does the whole work, as a client that knows nothing of what came before; each answer is remembered.
    async fn act(self) -> Result<(), Status> {
        if self.scenario == Scenario::Enlisted {
            return self.enlist().await;
        }
        let placed = match self.told() {
            Told::Order(held) if self.scenario == Scenario::ConfirmedWhileDown => *held,
            Told::Nothing | Told::Order(_) | Told::Transaction(..) => {
                order_with_retry(self.orders.clone(), &self.request).await?.0
            }
        };
        self.is_told(Told::Order(Box::new(placed.clone())));
        if placed.status() != OrderStatus::Held {
            return Ok(());
        }
        let order_id = placed.order_id;
        let cancels = self.scenario == Scenario::HoldCancel;
        let (decided, _) = repeat(|| {
            let (mut orders, order_id) = (self.orders.clone(), order_id.clone());
            async move {
                if cancels {
                    Ok(orders.cancel_order(CancelOrderRequest { order_id }).await?.into_inner().order)
                } else {
                    Ok(orders.confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order)
                }
            }
        })
        .await?;
        self.is_told(Told::Order(Box::new(decided.unwrap_or_default())));
        Ok(())
    }

    async fn enlist(&self) -> Result<(), Status> {
        let idempotency_key = self.request.order_key.clone();
        let begin = BeginRequest { idempotency_key, ..BeginRequest::default() };
        let (begun, _) = repeat(|| {
            let (mut coordinator, begin) = (self.coordinator.clone(), begin.clone());
            async move { coordinator.begin(begin).await }
        })
        .await?;
        let begun = begun.into_inner().transaction.unwrap_or_default();
        self.is_told(Told::Transaction(begun.gid.clone(), begun.status()));
        let branches =
            [branch("s", "inventory", reserve("apple", 2)), branch("c", "coupon", lock(&self.request.coupon_id, "alice"))];
        for one in branches {
            let enlist = EnlistRequest { gid: begun.gid.clone(), branch: Some(one) };
            match repeat(|| {
                let (mut coordinator, enlist) = (self.coordinator.clone(), enlist.clone());
                async move { coordinator.enlist(enlist).await }
            })
            .await
            {
                Ok(_) => {}
                // It was decided before the last kill.
                Err(status) if status.code() == Code::FailedPrecondition => {}
                Err(status) => return Err(status),
            }
        }
        let confirm = ConfirmTransactionRequest { gid: begun.gid.clone(), wait: 0 };
        let (decided, _) = repeat(|| {
            let (mut coordinator, confirm) = (self.coordinator.clone(), confirm.clone());
            async move { coordinator.confirm(confirm).await }
        })
        .await?;
        let decided = decided.into_inner().transaction.unwrap_or_default();
        self.is_told(Told::Transaction(decided.gid.clone(), decided.status()));
        Ok(())
    }

    /// What was acknowledged stands, before anybody asks for anything again. Returns it in words.
    async fn must_be_kept(&mut self) -> anyhow::Result<String> {
        match self.told() {
            Told::Nothing => Ok("nothing was acknowledged".to_owned()),
            Told::Order(told) => {
                let request = GetOrderRequest { order_id: told.order_id.clone() };
                let now = self.orders.get_order(request).await?.into_inner().order.unwrap_or_default();
                let kept = match told.status() {
                    // The decision that the client asked for may have been made since.
                    OrderStatus::Held => [OrderStatus::Held, self.scenario.outcome().0].contains(&now.status()),
                    OrderStatus::Confirmed | OrderStatus::Cancelled => {
                        (now.status(), refusal_code(&now)) == (told.status(), refusal_code(&told))
                    }
                    OrderStatus::Unspecified | OrderStatus::Pending => false,
                };
                anyhow::ensure!(kept, "acknowledged as {told:?}, and now {now:?}");
                Ok(format!("{:?} was acknowledged", told.status()))
            }
            Told::Transaction(gid, told) => {
                let now = self.coordinator.get(GetTransactionRequest { gid }).await?.into_inner().transaction;
                let now = now.unwrap_or_default().status();
                let decided = [TransactionStatus::Confirming, TransactionStatus::Confirmed];
                let kept = told == TransactionStatus::Trying || (decided.contains(&told) && decided.contains(&now));
                anyhow::ensure!(kept, "acknowledged as {told:?}, and now {now:?}");
                Ok(format!("{told:?} was acknowledged"))
            }
        }
    }

    /// The outcome after everything is the legal one, and the same on every question.
    async fn must_have_its_outcome(&mut self) -> anyhow::Result<()> {
        let (status, code) = self.scenario.outcome();
        match self.told() {
            Told::Nothing => anyhow::bail!("was never answered"),
            Told::Order(told) => {
                anyhow::ensure!((told.status(), refusal_code(&told)) == (status, code), "came back {told:?}");
                let request = GetOrderRequest { order_id: told.order_id.clone() };
                let now = self.orders.get_order(request).await?.into_inner().order.unwrap_or_default();
                anyhow::ensure!((now.status(), refusal_code(&now)) == (status, code), "at rest it is {now:?}");
            }
            Told::Transaction(gid, _) => {
                let now = self.coordinator.get(GetTransactionRequest { gid }).await?.into_inner().transaction;
                let now = now.unwrap_or_default();
                anyhow::ensure!(now.status() == TransactionStatus::Confirmed, "at rest it is {now:?}");
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_at_any_point_recovers_to_one_legal_outcome() -> anyhow::Result<()> {
    let reached = try_join_all(Scenario::ALL.map(kill_everywhere)).await?;
    let mut by_point: BTreeMap<&str, BTreeSet<Scenario>> = BTreeMap::new();
    let mut kills = 0;
    for (scenario, point, hits) in reached.into_iter().flatten() {
        by_point.entry(point).or_default().insert(scenario);
        kills += hits;
    }
    println!("\n{:<16} killed in", "point");
    for point in failpoint::ALL {
        println!("{point:<16} {:?}", by_point.get(point).cloned().unwrap_or_default());
    }
    println!(
        "{} points, {kills} kills. Checked after each: the books balance, nothing is frozen, no row is",
        failpoint::ALL.len()
    );
    println!("tried, one legal outcome that stays, and what was acknowledged before the kill is kept.");
    let missed: Vec<_> = failpoint::ALL.iter().filter(|point| !by_point.contains_key(**point)).collect();
    assert!(missed.is_empty(), "no scenario reaches {missed:?}");
    Ok(())
}

/// One scenario through every point, in a cluster of its own. Returns where the gateway was killed, and how often.
async fn kill_everywhere(scenario: Scenario) -> anyhow::Result<Vec<(Scenario, &'static str, u32)>> {
    let mut config = stage::quick(env!("CARGO_BIN_EXE_tcc-cluster"));
    if let Some(settings) = config.coordinator.as_object_mut() {
        settings.insert("park_after_attempts".to_owned(), 2.into());
        settings.insert("stuck_after_attempts".to_owned(), 2.into());
        // A hold's votes are remembered for as long as a test takes to kill inventory.
        settings.insert("idle_driver_ms".to_owned(), 60_000.into());
    }
    let mut stage = Stage::start(config).await?;
    stage.stock("apple", 1_000_000).await?;
    let mut reached = Vec::new();
    for point in failpoint::ALL {
        for arrival in scenario.arrivals(point) {
            let armed = format!("{point}#{arrival}");
            for times in [1, 2] {
                let where_to = || format!("{scenario:?}, killed at {armed}, at most {times} times");
                let killed = kill_at(&mut stage, scenario, &armed, times).await;
                let (hits, told) = killed.map_err(|error| error.context(where_to()))?;
                if hits == 0 {
                    break;
                }
                println!("{:<18} {armed:<18} killed {hits}x, {told}", format!("{scenario:?}"));
                reached.push((scenario, point, hits));
            }
        }
    }
    stage.finish().await?;
    Ok(reached)
}

/// Runs the scenario into the point, kills the gateway there, at most so many times, and checks what is left. Returns how often
/// it was killed there; 0: the scenario does not come there.
async fn kill_at(stage: &mut Stage, scenario: Scenario, armed: &str, times: u32) -> anyhow::Result<(u32, String)> {
    let mut client = Client::new(stage, scenario).await?;
    stage.kill(Role::Gateway).await?;
    let mut hits = 0;
    while hits < times {
        stage.restart_gateway_parking_at(armed).await?;
        if scenario == Scenario::ConfirmedWhileDown && hits == 0 {
            let placed = stage.place(client.request.clone()).await?;
            anyhow::ensure!(placed.status() == OrderStatus::Held, "came back {placed:?}");
            client.is_told(Told::Order(Box::new(placed)));
            stage.kill(Role::Inventory).await?;
        }
        let parked = parks(stage, &client, armed).await?;
        stage.kill(Role::Gateway).await?;
        if !parked {
            break;
        }
        hits += 1;
    }
    if scenario == Scenario::ConfirmedWhileDown {
        stage.restart(Role::Inventory).await?;
    }
    stage.restart(Role::Gateway).await?;
    let told = client.must_be_kept().await?;
    client.clone().act().await?;
    stage.must_balance(tcc_cluster::harness::Scope::AtRest).await?;
    client.must_have_its_outcome().await?;
    Ok((hits, told))
}

/// Lets the client work until the gateway stands still at the point, or everything has ended without it.
async fn parks(stage: &mut Stage, client: &Client, armed: &str) -> anyhow::Result<bool> {
    let mut working = JoinSet::new();
    working.spawn(client.clone().act());
    let parked = tokio::select! {
        point = stage.parked() => Some(point?),
        answer = working.join_next() => {
            answer.transpose()?.transpose()?;
            None
        }
    };
    let parked = match parked {
        Some(point) => Some(point),
        // Answered, but the second phase goes on: the point may still come.
        None => {
            let ended = came_to_rest(client);
            tokio::select! {
                point = stage.parked() => Some(point?),
                ended = ended => {
                    ended?;
                    None
                }
            }
        }
    };
    // An answer that was on its way when the gateway stood still counts as given, or not: both are true.
    working.shutdown().await;
    match parked {
        Some(point) => {
            anyhow::ensure!(point == armed, "stood still at {point}");
            Ok(true)
        }
        // The last point is passed a moment after the end can be read: an end on request waits for it.
        None => stage.parks_rather_than_ends().await,
    }
}

/// Waits until nothing more happens to the client's transaction.
async fn came_to_rest(client: &Client) -> anyhow::Result<()> {
    let gid = match client.told() {
        Told::Nothing => anyhow::bail!("was never answered"),
        Told::Order(order) => order.order_id,
        Told::Transaction(gid, _) => gid,
    };
    let mut coordinator = client.coordinator.clone();
    eventually("the transaction ends, or waits in the log", async || {
        // While the gateway stands still it does not answer; the caller notices that by itself.
        let Ok(response) = coordinator.get(GetTransactionRequest { gid: gid.clone() }).await else { return Ok(None) };
        let transaction = response.into_inner().transaction.unwrap_or_default();
        let waits = transaction.branches.iter().any(|branch| branch.stuck.is_some());
        Ok((waits || transaction.finished_at.is_some()).then_some(()))
    })
    .await
}

//! `kill -9` of the gateway at every point of a transaction's life: before and after each durable write and each call.
//!
//! The gateway is started such that it stands still when it reaches the point; there it is killed and brought back. Then
//! everything must end: the books balance, nothing is frozen, no row is tried, there is one legal outcome that stays, and what
//! was acknowledged before the kill is kept. In a second run the point is armed again after the kill, so that recovery, with a
//! client that repeats its request, is killed there too.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails its test")]

use std::{
    collections::BTreeMap,
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
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, GetOrderResponse, Order, OrderStatus,
        order_service_client::OrderServiceClient,
    },
    tcc::v1::{
        BeginRequest, ConfirmTransactionRequest, EnlistRequest, GetTransactionRequest, Transaction, TransactionStatus,
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

    /// The only outcome that the end may have: status, and the refusal's code.
    fn outcome(self) -> (OrderStatus, &'static str) {
        match self {
            Self::WithCoupon | Self::HoldConfirm | Self::Enlisted | Self::ConfirmedWhileDown => (OrderStatus::Confirmed, ""),
            Self::Refused => (OrderStatus::Cancelled, "OUT_OF_STOCK"),
            Self::HoldCancel => (OrderStatus::Cancelled, "CANCEL_REQUESTED"),
        }
    }
}

/// How often the gateway is killed at an arrival at a point, when it may be killed there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hits {
    /// The scenario does not come there.
    Never,
    /// What was durable at the kill is not done again.
    Once,
    /// Recovery, or the client's repeated request, comes there again.
    Twice,
    /// As before, or not: what is done at the same time may have made the decision durable before the kill.
    OnceOrTwice,
}

use Hits::{Never, Once, OnceOrTwice, Twice};

/// An arrival at a point, and how often it is a kill.
type Arrivals = &'static [(u32, Hits)];

const NOT_ASKED: Arrivals = &[];
const NEVER: Arrivals = &[(1, Never)];
const ONCE: Arrivals = &[(1, Once)];
const TWICE: Arrivals = &[(1, Twice)];
const FIRST_AND_2ND: Arrivals = &[(1, Twice), (2, Twice)];
const FIRST_AND_3RD: Arrivals = &[(1, Twice), (3, Twice)];
/// All Tries are sent together: at the second answer the refusal in the first one may be decided already.
const RACING_2ND: Arrivals = &[(1, Twice), (2, OnceOrTwice)];

/// Where each scenario is killed, in the order of [`Scenario::ALL`]: at which arrivals at the point, and how often. A
/// transaction's calls of one kind arrive one by one: at the last of them the others have been made.
///
/// `Never`, and why:
/// - enlist: orders give all their branches at the beginning.
/// - confirm: a cancelled transaction confirms nothing; cancel: a confirmed one cancels nothing.
/// - park: everybody answers, so that nothing leaves memory, and a hold stays in memory for longer than the test waits.
///
/// `Once`: the decision, and the end, are durable before the kill.
///
/// With inventory down there is no arrival to wait for (`NOT_ASKED`) at what comes before the kill of inventory (begin, try),
/// or is not reached without inventory (finish), or not at all (enlist, cancel). Nor is it killed before the decision: a gateway
/// that has forgotten the votes cannot decide without inventory. The later ones of its confirms are left to the other scenarios.
#[rustfmt::skip]
const EXPECTED: [(&str, [Arrivals; Scenario::ALL.len()]); failpoint::ALL.len()] = [
    //                           WithCoupon     Refused        HoldConfirm    HoldCancel     Enlisted       ConfirmedWhileDown
    (failpoint::BEGIN_BEFORE,   [TWICE,         TWICE,         TWICE,         TWICE,         TWICE,         NOT_ASKED]),
    (failpoint::BEGIN_AFTER,    [TWICE,         TWICE,         TWICE,         TWICE,         TWICE,         NOT_ASKED]),
    (failpoint::ENLIST_BEFORE,  [NEVER,         NEVER,         NEVER,         NEVER,         TWICE,         NOT_ASKED]),
    (failpoint::ENLIST_AFTER,   [NEVER,         NEVER,         NEVER,         NEVER,         TWICE,         NOT_ASKED]),
    (failpoint::TRY_BEFORE,     [FIRST_AND_3RD, FIRST_AND_2ND, FIRST_AND_3RD, FIRST_AND_3RD, FIRST_AND_2ND, NOT_ASKED]),
    (failpoint::TRY_AFTER,      [FIRST_AND_3RD, RACING_2ND,    FIRST_AND_3RD, FIRST_AND_3RD, FIRST_AND_2ND, NOT_ASKED]),
    (failpoint::DECIDE_BEFORE,  [TWICE,         TWICE,         TWICE,         TWICE,         TWICE,         NOT_ASKED]),
    (failpoint::DECIDE_AFTER,   [ONCE,          ONCE,          ONCE,          ONCE,          ONCE,          ONCE]),
    (failpoint::CONFIRM_BEFORE, [FIRST_AND_3RD, NEVER,         FIRST_AND_3RD, NEVER,         FIRST_AND_2ND, TWICE]),
    (failpoint::CONFIRM_AFTER,  [FIRST_AND_3RD, NEVER,         FIRST_AND_3RD, NEVER,         FIRST_AND_2ND, TWICE]),
    (failpoint::CANCEL_BEFORE,  [NEVER,         FIRST_AND_2ND, NEVER,         FIRST_AND_3RD, NEVER,         NOT_ASKED]),
    (failpoint::CANCEL_AFTER,   [NEVER,         FIRST_AND_2ND, NEVER,         FIRST_AND_3RD, NEVER,         NOT_ASKED]),
    (failpoint::PARK_BEFORE,    [NEVER,         NEVER,         NEVER,         NEVER,         NEVER,         TWICE]),
    (failpoint::PARK_AFTER,     [NEVER,         NEVER,         NEVER,         NEVER,         NEVER,         TWICE]),
    (failpoint::FINISH_BEFORE,  [TWICE,         TWICE,         TWICE,         TWICE,         TWICE,         NOT_ASKED]),
    (failpoint::FINISH_AFTER,   [ONCE,          ONCE,          ONCE,          ONCE,          ONCE,          NOT_ASKED]),
];

/// The kills in the run that kills at most once, and in the one that kills at most twice (none after a first without any).
type Kills = Vec<u32>;

impl Hits {
    /// As a run must have them.
    fn expected(self, actual: &Kills) -> Kills {
        match self {
            Never => vec![0],
            Once => vec![1, 1],
            Twice => vec![1, 2],
            OnceOrTwice if *actual == [1, 1] => vec![1, 1],
            OnceOrTwice => vec![1, 2],
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

    /// Repeats a read as any client must: a connection that was tried while the gateway was down may still tell its error.
    async fn get_order(&self, request: GetOrderRequest) -> Result<GetOrderResponse, Status> {
        let (read, _) = repeat(|| {
            let (mut orders, request) = (self.orders.clone(), request.clone());
            async move { orders.get_order(request).await }
        })
        .await?;
        Ok(read.into_inner())
    }

    async fn get_transaction(&self, gid: String) -> Result<Option<Transaction>, Status> {
        let (read, _) = repeat(|| {
            let (mut coordinator, gid) = (self.coordinator.clone(), gid.clone());
            async move { coordinator.get(GetTransactionRequest { gid }).await }
        })
        .await?;
        Ok(read.into_inner().transaction)
    }

    /// What was acknowledged stands, before anybody asks for anything again. Returns it in words.
    async fn must_be_kept(&mut self) -> anyhow::Result<String> {
        match self.told() {
            Told::Nothing => Ok("nothing was acknowledged".to_owned()),
            Told::Order(told) => {
                let request = GetOrderRequest { order_id: told.order_id.clone() };
                let now = self.get_order(request).await?.order.unwrap_or_default();
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
                let now = self.get_transaction(gid).await?;
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
                let now = self.get_order(request).await?.order.unwrap_or_default();
                anyhow::ensure!((now.status(), refusal_code(&now)) == (status, code), "at rest it is {now:?}");
            }
            Told::Transaction(gid, _) => {
                let now = self.get_transaction(gid).await?;
                let now = now.unwrap_or_default();
                anyhow::ensure!(now.status() == TransactionStatus::Confirmed, "at rest it is {now:?}");
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_at_any_point_recovers_to_one_legal_outcome() -> anyhow::Result<()> {
    let killed: BTreeMap<_, Kills> = try_join_all(Scenario::ALL.map(kill_everywhere)).await?.into_iter().flatten().collect();
    println!("\n{:<19} {:<15} {:>7}  kills, at most once and at most twice", "scenario", "point", "arrival");
    for ((scenario, point, arrival), kills) in &killed {
        println!("{:<19} {point:<15} {arrival:>7}  {kills:?}", format!("{scenario:?}"));
    }
    let places = killed.values().filter(|kills| **kills != [0]).count();
    let kills: u32 = killed.values().flatten().sum();
    println!(
        "{} points, {} scenarios, {places} places of {} were reached, {kills} kills. Checked after each run: the books balance,",
        failpoint::ALL.len(),
        Scenario::ALL.len(),
        killed.len()
    );
    println!("nothing is frozen, no row is tried, one legal outcome that stays, and what was acknowledged before is kept.");

    assert_eq!(EXPECTED.map(|(point, _)| point), failpoint::ALL, "the table leaves a point out");
    let nothing = Vec::new();
    let mut expected = BTreeMap::new();
    for (point, by_scenario) in EXPECTED {
        for (scenario, arrivals) in Scenario::ALL.into_iter().zip(by_scenario) {
            for (arrival, hits) in arrivals {
                let place = (scenario, point, *arrival);
                expected.insert(place, hits.expected(killed.get(&place).unwrap_or(&nothing)));
            }
        }
        let reached = killed.iter().any(|((_, at, _), kills)| *at == point && *kills != [0]);
        assert!(reached, "no scenario reaches {point}");
    }
    assert_eq!(killed, expected);
    Ok(())
}

/// A scenario, a point, and which arrival there.
type Place = (Scenario, &'static str, u32);

/// One scenario through every point, in a cluster of its own. Returns where the gateway was to be killed, and how often it was.
async fn kill_everywhere(scenario: Scenario) -> anyhow::Result<Vec<(Place, Kills)>> {
    let mut config = stage::quick(env!("CARGO_BIN_EXE_tcc-cluster"));
    if let Some(settings) = config.coordinator.as_object_mut() {
        settings.insert("park_after_attempts".to_owned(), 2.into());
        settings.insert("stuck_after_attempts".to_owned(), 2.into());
        // A hold's votes are remembered for as long as a test takes to kill inventory.
        settings.insert("idle_driver_ms".to_owned(), 60_000.into());
    }
    let mut stage = Stage::start(config).await?;
    stage.stock("apple", 1_000_000).await?;
    let mut places = Vec::new();
    for (point, by_scenario) in EXPECTED {
        let arrivals = Scenario::ALL.into_iter().zip(by_scenario).find(|(one, _)| *one == scenario);
        for (arrival, _) in arrivals.unwrap().1 {
            let armed = format!("{point}#{arrival}");
            let mut kills = Kills::new();
            for times in [1, 2] {
                let where_to = || format!("{scenario:?}, killed at {armed}, at most {times} times");
                let killed = kill_at(&mut stage, scenario, &armed, times).await;
                let (hits, told) = killed.map_err(|error| error.context(where_to()))?;
                println!("{:<18} {armed:<18} killed {hits}x, {told}", format!("{scenario:?}"));
                kills.push(hits);
                if hits == 0 {
                    break;
                }
            }
            places.push(((scenario, point, *arrival), kills));
        }
    }
    stage.finish().await?;
    Ok(places)
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
            let ended = came_to_rest(client, armed);
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
async fn came_to_rest(client: &Client, armed: &str) -> anyhow::Result<()> {
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
        // What waits in the log is taken up again and parks again, so that it is not at rest for who waits for that.
        let waits = !armed.starts_with("park.") && transaction.branches.iter().any(|branch| branch.stuck.is_some());
        Ok((waits || transaction.finished_at.is_some()).then_some(()))
    })
    .await
}

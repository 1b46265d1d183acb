//! Databases that lose commits, go away or fall silent while orders are under way. Nothing is restarted here: everybody goes on by
//! themselves.

use std::time::Duration;

use serde_json::json;
use tcc_cluster::{
    harness::{ClusterConfig, Harm, Owner, Party, Role, Scope, Store, Traffic, order_with_retry, repeat},
    stage::{Stage, eventually, held, order, with_coupon},
};
use tcc_proto::order::v1::{ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, Order, OrderStatus};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

use super::quick_with;

/// Orders under way while something breaks.
const LOAD: usize = 200;
/// Commits that get lost, one after the other.
const LOST: usize = 12;
/// Far more than any of it takes.
const WITHIN: Duration = Duration::from_secs(60);

/// A cluster that reaches its databases through proxies.
async fn linked(store: Store) -> anyhow::Result<Stage> {
    let config = ClusterConfig {
        store,
        linked: true,
        log: json!({ "connect_timeout_ms": 500, "write_timeout_ms": 1_000 }),
        participant: json!({ "transaction_ms_max": 1_000, "connection_wait_ms_max": 1_000, "lock_wait_ms_max": 500 }),
        ..quick_with(json!({ "probe_interval_ms": 100 }))
    };
    let stage = Stage::start(config).await?;
    stage.stock("apple", 10_000).await?;
    Ok(stage)
}

/// What becomes of everything between these databases and their owners.
fn set(stage: &Stage, owners: &[Owner], traffic: Traffic) {
    let links = owners.iter().flat_map(|owner| stage.links().to(Party::Database(*owner)));
    links.for_each(|link| link.proxy.set(traffic));
}

type Load = JoinSet<Result<Order, Status>>;

/// Orders that are repeated under their keys until they are answered; every fourth has a coupon.
async fn start_load(stage: &Stage) -> anyhow::Result<Load> {
    let mut load = JoinSet::new();
    for number in 0..LOAD {
        let key = format!("load-{number}");
        let mut request = order(&key, &[("apple", 1)]);
        if number % 4 == 0 {
            stage.coupon(&key, "alice").await?;
            request = with_coupon(request, &key);
        }
        let orders = stage.orders();
        let wait = Duration::from_millis(number as u64 * 10);
        load.spawn(async move {
            tokio::time::sleep(wait).await;
            order_with_retry(orders, &request).await.map(|(order, _)| order)
        });
    }
    Ok(load)
}

/// Loses a commit of one owner after the other, in turn before and after it has happened.
async fn lose(stage: &Stage, owners: &[Owner]) -> anyhow::Result<()> {
    for number in 0..LOST {
        let harm = if number % 2 == 0 { Harm::LosesCommitAnswer } else { Harm::LosesCommit };
        for link in stage.links().to(Party::Database(owners[number / 2 % owners.len()])) {
            timeout(WITHIN, link.proxy.harm(harm)).await??;
        }
    }
    Ok(())
}

/// Every order was answered, all alike, and each was paid once.
async fn all_confirmed_once(stage: Stage, mut load: Load) -> anyhow::Result<()> {
    let mut placed = 0;
    while let Some(answer) = load.join_next().await {
        let told = answer??;
        assert_eq!(told.status(), OrderStatus::Confirmed, "{told:?}");
        let request = GetOrderRequest { order_id: told.order_id.clone() };
        let now = stage.orders().get_order(request).await?.into_inner().order.unwrap();
        assert_eq!((now.status(), now.order_key), (OrderStatus::Confirmed, told.order_key));
        placed += 1;
    }
    assert_eq!(placed, LOAD);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, i64::try_from(LOAD)?);
    assert_eq!(stage.ledger().await?.orders.len(), LOAD, "an order was placed twice");
    stage.finish().await
}

async fn commits_of_the_log_whose_outcome_nobody_knows_lose_and_double_nothing(store: Store) -> anyhow::Result<()> {
    let stage = linked(store).await?;
    let load = start_load(&stage).await?;
    lose(&stage, &[Owner::Log]).await?;
    all_confirmed_once(stage, load).await
}

async fn commits_of_participants_whose_outcome_nobody_knows_lose_and_double_nothing(store: Store) -> anyhow::Result<()> {
    // The orders' own branches too: the gateway is their participant.
    let stage = linked(store).await?;
    let load = start_load(&stage).await?;
    lose(&stage, &[Owner::Coupon, Owner::Inventory, Owner::Orders]).await?;
    all_confirmed_once(stage, load).await
}

async fn health(stage: &Stage) -> anyhow::Result<ServingStatus> {
    let mut health = HealthClient::new(stage.channel(Role::Gateway));
    Ok(health.check(HealthCheckRequest::default()).await?.into_inner().status())
}

async fn until_health_says(stage: &Stage, status: ServingStatus) -> anyhow::Result<()> {
    eventually(&format!("health says {status:?}"), async || Ok((health(stage).await? == status).then_some(()))).await
}

fn says_try_later(error: &Status) {
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{error:?}");
}

/// The log's database is harmed like this: orders are refused with a hint, also the one that comes at once; then it is well again.
async fn is_refused_and_goes_on(store: Store, harm: Traffic) -> anyhow::Result<()> {
    const HARMED: [Owner; 2] = [Owner::Log, Owner::Orders];
    let stage = linked(store).await?;
    assert_eq!(health(&stage).await?, ServingStatus::Serving);
    let before = stage.place(order("k-before", &[("apple", 1)])).await?;
    let hold = stage.place(held(order("k-hold", &[("apple", 2)]))).await?;

    set(&stage, &HARMED, harm);
    let early: CreateOrderRequest = order("k-early", &[("apple", 4)]);
    says_try_later(&stage.place(early.clone()).await.unwrap_err());
    until_health_says(&stage, ServingStatus::NotServing).await?;
    let refused = order("k-refused", &[("apple", 8)]);
    says_try_later(&stage.place(refused.clone()).await.unwrap_err());

    set(&stage, &HARMED, Traffic::Flows);
    until_health_says(&stage, ServingStatus::Serving).await?;
    for request in [early, refused] {
        let (placed, _) = order_with_retry(stage.orders(), &request).await?;
        assert_eq!(placed.status(), OrderStatus::Confirmed, "{}", request.order_key);
    }
    // A connection that was cut may be found so only when it is used: that, too, is answered with a hint.
    let confirmed = repeat(|| async {
        let confirm = ConfirmOrderRequest { order_id: hold.order_id.clone() };
        Ok(stage.orders().confirm_order(confirm).await?.into_inner().order.unwrap())
    });
    assert_eq!(confirmed.await?.0.status(), OrderStatus::Confirmed);
    let read = repeat(|| async {
        let read = GetOrderRequest { order_id: before.order_id.clone() };
        Ok(stage.orders().get_order(read).await?.into_inner().order.unwrap())
    });
    assert_eq!(read.await?.0.status(), OrderStatus::Confirmed);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 1 + 2 + 4 + 8);
    stage.finish().await
}

async fn a_database_that_is_gone_is_told_by_health_and_hint_and_waited_for(store: Store) -> anyhow::Result<()> {
    is_refused_and_goes_on(store, Traffic::Cut).await
}

async fn a_database_that_is_silent_is_told_by_health_and_hint_and_waited_for(store: Store) -> anyhow::Result<()> {
    is_refused_and_goes_on(store, Traffic::Stalls).await
}

async fn a_participant_whose_database_is_silent_delays_orders_and_breaks_none(store: Store) -> anyhow::Result<()> {
    let stage = linked(store).await?;
    let hold = stage.place(held(order("k-hold", &[("apple", 2)]))).await?;
    set(&stage, &[Owner::Inventory], Traffic::Stalls);
    // Decided without inventory; its Confirm is sent again until inventory can.
    let confirm = ConfirmOrderRequest { order_id: hold.order_id };
    let confirmed = stage.orders().confirm_order(confirm).await?.into_inner().order.unwrap();
    assert_eq!(confirmed.status(), OrderStatus::Confirmed);
    let (orders, request) = (stage.orders(), order("k-during", &[("apple", 4)]));
    let mut during = JoinSet::new();
    during.spawn(async move { order_with_retry(orders, &request).await });
    eventually("an order waits for inventory", async || {
        Ok((stage.ledger().await.is_ok_and(|ledger| ledger.transactions.len() == 2)).then_some(()))
    })
    .await?;
    set(&stage, &[Owner::Inventory], Traffic::Flows);
    assert_eq!(during.join_next().await.unwrap()??.0.status(), OrderStatus::Confirmed);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2 + 4);
    stage.finish().await
}

on_each_server!(
    commits_of_the_log_whose_outcome_nobody_knows_lose_and_double_nothing,
    commits_of_participants_whose_outcome_nobody_knows_lose_and_double_nothing,
    a_database_that_is_gone_is_told_by_health_and_hint_and_waited_for,
    a_database_that_is_silent_is_told_by_health_and_hint_and_waited_for,
    a_participant_whose_database_is_silent_delays_orders_and_breaks_none,
);

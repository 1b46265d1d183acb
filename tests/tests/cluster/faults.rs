//! Processes that are killed, frozen, late or asked to end while orders are under way.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use serde_json::json;
use tcc_cluster::{
    harness::{ClusterConfig, Harm, Party, Role, Scope, order_with_retry},
    stage::{Stage, eventually, held, order, refusal_code, with_coupon},
};
use tcc_proto::{
    coupon::v1::CouponState,
    order::v1::{ConfirmOrderRequest, GetOrderRequest, Order, OrderStatus},
    tcc::v1::{ListTransactionsRequest, TransactionStatus},
};
use tokio::task::JoinSet;

use super::{quick_stage, quick_with};

/// Orders under way when something breaks.
const LOAD: usize = 120;

async fn one_with_status(stage: &Stage, status: TransactionStatus) -> anyhow::Result<()> {
    eventually("a transaction is under way", async || {
        let request = ListTransactionsRequest { statuses: vec![status.into()], ..ListTransactionsRequest::default() };
        let found = stage.coordinator().list(request).await?.into_inner().transactions;
        Ok((!found.is_empty()).then_some(()))
    })
    .await
}

async fn still_the_same(stage: &Stage, acknowledged: &[Order]) -> anyhow::Result<()> {
    for order in acknowledged {
        let now = stage.orders().get_order(GetOrderRequest { order_id: order.order_id.clone() }).await?.into_inner().order;
        let now = now.unwrap();
        assert_eq!((now.status(), refusal_code(&now)), (order.status(), refusal_code(order)), "{}", order.order_id);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_killed_in_the_middle_of_a_try_is_tried_again() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.coupon("c-1", "alice").await?;
    for role in [Role::Inventory, Role::Coupon] {
        // Frozen, the participant cannot answer: it is killed before any answer to the Try. Whether the call has left by then is
        // not known: what is shown is that the Try is sent again until the participant is back.
        stage.freeze(role)?;
        let mut call = JoinSet::new();
        let coupon = format!("c-{role}");
        if role == Role::Inventory {
            stage.coupon(&coupon, "alice").await?;
        }
        let coupon = if role == Role::Inventory { coupon } else { "c-1".to_owned() };
        let (orders, request) = (stage.orders(), with_coupon(order(&format!("k-{role}"), &[("apple", 2)]), &coupon));
        call.spawn(async move { order_with_retry(orders, &request).await });
        one_with_status(&stage, TransactionStatus::Trying).await?;
        stage.kill(role).await?;
        stage.restart(role).await?;
        let (placed, _) = call.join_next().await.unwrap()??;
        assert_eq!(placed.status(), OrderStatus::Confirmed, "{role}");
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 4);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_killed_in_the_middle_of_a_confirm_still_confirms() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    let placed = stage.place(held(order("k-1", &[("apple", 2)]))).await?;
    stage.freeze(Role::Inventory)?;
    let request = ConfirmOrderRequest { order_id: placed.order_id };
    let confirmed = stage.orders().confirm_order(request).await?.into_inner().order.unwrap();
    assert_eq!(confirmed.status(), OrderStatus::Confirmed, "the decision does not wait for a participant");
    one_with_status(&stage, TransactionStatus::Confirming).await?;
    stage.kill(Role::Inventory).await?;
    stage.restart(Role::Inventory).await?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_killed_under_load_lose_nothing() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 10_000).await?;
    let mut load = start_load(&stage).await?;
    let mut acknowledged = first_answers(&mut load, LOAD / 4).await?;
    for role in [Role::Inventory, Role::Coupon] {
        stage.kill(role).await?;
        stage.restart(role).await?;
    }
    acknowledged.extend(first_answers(&mut load, usize::MAX).await?);
    assert_eq!(acknowledged.len(), LOAD);
    assert!(acknowledged.iter().all(|order| order.status() == OrderStatus::Confirmed), "nothing was late");
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    still_the_same(&stage, &acknowledged).await?;
    all_spent(&stage).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_down_past_the_deadline_cancels_the_order() -> anyhow::Result<()> {
    let mut stage = Stage::start(quick_with(serde_json::json!({ "try_for_ms": 1_000, "hold_for_ms": 60_000 }))).await?;
    stage.stock("apple", 100).await?;
    stage.coupon("c-1", "alice").await?;
    stage.kill(Role::Inventory).await?;
    let placed = stage.place(with_coupon(order("k-1", &[("apple", 2)]), "c-1")).await?;
    assert_eq!((placed.status(), refusal_code(&placed)), (OrderStatus::Cancelled, "TIMED_OUT"));
    stage.restart(Role::Inventory).await?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.available, 100);
    // The coupon was locked in vain, and is free for the next order.
    let next = stage.place(with_coupon(order("k-2", &[("apple", 2)]), "c-1")).await?;
    assert_eq!(next.status(), OrderStatus::Confirmed);
    still_the_same(&stage, &[placed, next]).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_asked_to_end_under_load_loses_no_order() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 10_000).await?;
    let mut load = start_load(&stage).await?;
    let mut acknowledged = first_answers(&mut load, LOAD / 4).await?;
    let status = stage.terminate(Role::Gateway).await?;
    assert!(status.success(), "{status}");
    stage.restart(Role::Gateway).await?;
    acknowledged.extend(first_answers(&mut load, usize::MAX).await?);
    assert_eq!(acknowledged.len(), LOAD);
    assert!(acknowledged.iter().all(|order| order.status() == OrderStatus::Confirmed));
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    still_the_same(&stage, &acknowledged).await?;
    all_spent(&stage).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_asked_to_end_while_a_participant_is_down_ends_and_goes_on_later() -> anyhow::Result<()> {
    // It drains for less long than it would try, so that what is under way must be handed to its next start.
    let settings = serde_json::json!({ "park_after_attempts": 2, "stuck_after_attempts": 2 });
    let mut stage = Stage::start(tcc_cluster::harness::ClusterConfig { drain_ms: 500, ..quick_with(settings) }).await?;
    stage.stock("apple", 100).await?;
    let hold = stage.place(held(order("k-hold", &[("apple", 2)]))).await?;
    stage.kill(Role::Inventory).await?;
    let request = ConfirmOrderRequest { order_id: hold.order_id };
    let confirmed = stage.orders().confirm_order(request).await?.into_inner().order.unwrap();
    let mut undecided = JoinSet::new();
    let (orders, request) = (stage.orders(), order("k-undecided", &[("apple", 3)]));
    undecided.spawn(async move { order_with_retry(orders, &request).await });
    one_with_status(&stage, TransactionStatus::Trying).await?;
    let status = stage.terminate(Role::Gateway).await?;
    assert!(status.success(), "{status}");
    stage.restart(Role::Gateway).await?;
    stage.restart(Role::Inventory).await?;
    let (decided, _) = undecided.join_next().await.unwrap()??;
    assert_eq!((confirmed.status(), decided.status()), (OrderStatus::Confirmed, OrderStatus::Confirmed));
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    still_the_same(&stage, &[confirmed, decided]).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 5);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_under_load_recovers_every_order() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 10_000).await?;
    let mut load = start_load(&stage).await?;
    let mut acknowledged = first_answers(&mut load, LOAD / 4).await?;
    for _ in 0..2 {
        stage.kill(Role::Gateway).await?;
        stage.restart(Role::Gateway).await?;
    }
    acknowledged.extend(first_answers(&mut load, usize::MAX).await?);
    assert_eq!(acknowledged.len(), LOAD);
    assert!(acknowledged.iter().all(|order| order.status() == OrderStatus::Confirmed));
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    still_the_same(&stage, &acknowledged).await?;
    all_spent(&stage).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_once_comes_back_whole() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 10_000).await?;
    let hold = stage.place(held(order("k-hold", &[("apple", 7)]))).await?;
    let mut load = start_load(&stage).await?;
    let mut acknowledged = first_answers(&mut load, LOAD / 4).await?;
    for role in Role::ALL {
        stage.kill(role).await?;
    }
    for role in Role::ALL {
        stage.restart(role).await?;
    }
    acknowledged.extend(first_answers(&mut load, usize::MAX).await?);
    assert_eq!(acknowledged.len(), LOAD);
    // The hold waited through it, and is still there to be confirmed.
    let request = ConfirmOrderRequest { order_id: hold.order_id };
    let confirmed = stage.orders().confirm_order(request).await?.into_inner().order.unwrap();
    assert_eq!(confirmed.status(), OrderStatus::Confirmed);
    acknowledged.push(confirmed);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    still_the_same(&stage, &acknowledged).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_does_not_stop_its_order() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.freeze(Role::Inventory)?;
    let (mut orders, request) = (stage.orders(), order("k-1", &[("apple", 2)]));
    let mut call = JoinSet::new();
    let sent = request.clone();
    call.spawn(async move { orders.create_order(sent).await });
    one_with_status(&stage, TransactionStatus::Trying).await?;
    call.shutdown().await;
    stage.kill(Role::Inventory).await?;
    stage.restart(Role::Inventory).await?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2, "it went on without its caller");
    assert_eq!(stage.place(request).await?.status(), OrderStatus::Confirmed);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_participant_that_is_down_harms_no_order_without_coupon() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.kill(Role::Coupon).await?;
    let requests: Vec<_> = (0..10).map(|number| order(&format!("k-{number}"), &[("apple", 1)])).collect();
    let placed = join_all(requests.into_iter().map(|request| stage.place(request))).await;
    for order in placed {
        assert_eq!(order?.status(), OrderStatus::Confirmed);
    }
    stage.restart(Role::Coupon).await?;
    stage.finish().await
}

type Load = JoinSet<Result<Order, tonic::Status>>;

/// Orders that are repeated under their keys until they are answered; every other one has a coupon of its own.
async fn start_load(stage: &Stage) -> anyhow::Result<Load> {
    let coupons: Vec<String> = (0..LOAD).step_by(2).map(|number| format!("load-{number}")).collect();
    try_join_all(coupons.iter().map(|coupon| stage.coupon(coupon, "alice"))).await?;
    let mut load = JoinSet::new();
    for number in 0..LOAD {
        let orders = stage.orders();
        let key = format!("load-{number}");
        let request = order(&key, &[("apple", 1)]);
        let request = if number % 2 == 0 { with_coupon(request, &key) } else { request };
        // Spread a little, so that a kill meets orders in every phase.
        let wait = Duration::from_millis(number as u64 * 5);
        load.spawn(async move {
            tokio::time::sleep(wait).await;
            order_with_retry(orders, &request).await.map(|(order, _)| order)
        });
    }
    Ok(load)
}

/// The whole load was paid: each order took its piece, and every coupon was used.
async fn all_spent(stage: &Stage) -> anyhow::Result<()> {
    assert_eq!(stage.read_stock("apple").await?.sold, i64::try_from(LOAD)?);
    let coupons = stage.ledger().await?.coupons;
    let used = coupons.iter().filter(|coupon| coupon.state == CouponState::Used).count();
    assert_eq!((used, coupons.len()), (LOAD / 2, LOAD / 2));
    Ok(())
}

/// The next answers, at most so many.
async fn first_answers(load: &mut Load, count: usize) -> anyhow::Result<Vec<Order>> {
    let mut orders = Vec::new();
    while orders.len() < count {
        let Some(answer) = load.join_next().await else { break };
        orders.push(answer??);
    }
    Ok(orders)
}

// Nothing says that its other end is gone. Not given up, it would swallow every Try until the order's time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_silent_is_given_up_and_orders_go_on() -> anyhow::Result<()> {
    let settings = json!({ "call_timeout_ms": 1_000, "try_for_ms": 20_000 });
    let stage = Stage::start(ClusterConfig { linked: true, ..quick_with(settings) }).await?;
    stage.stock("apple", 100).await?;
    stage.place(order("k-before", &[("apple", 1)])).await?;
    let silenced: Vec<_> = stage.links().to(Party::Inventory).iter().map(|link| link.proxy.harm(Harm::Swallows)).collect();
    let (placed, _) = order_with_retry(stage.orders(), &order("k-after", &[("apple", 2)])).await?;
    assert_eq!(placed.status(), OrderStatus::Confirmed, "{placed:?}");
    for silenced in silenced {
        silenced.await?;
    }
    stage.finish().await
}

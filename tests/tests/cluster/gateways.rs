//! Several gateways on one log: whatever one of them began, any other reads, confirms, cancels, watches and takes over.

use std::time::Duration;

use futures::future::try_join_all;
use tcc_cluster::{
    harness::{ClusterConfig, Exited, Gateways, Party, Role, Scope, Store, order_at_any},
    stage::{Stage, branch, eventually, held, order, refusal_code, reserve, submit},
};
use tcc_proto::{
    order::v1::{CancelOrderRequest, ConfirmOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderStatus},
    tcc::v1::{
        BeginRequest, CancelTransactionRequest, ConfirmTransactionRequest, EnlistRequest, GetTransactionRequest, SubmitRequest,
        TransactionStatus, Wait, WatchTransactionRequest,
    },
};
use tokio::time::timeout;

use super::quick;

/// Far more than a lease and its takeover need.
const WITHIN: Duration = Duration::from_secs(60);

async fn three_on(store: Store) -> anyhow::Result<Stage> {
    let stage = Stage::start(ClusterConfig { store, gateways: 3, ..quick() }).await?;
    stage.stock("apple", 1_000).await?;
    Ok(stage)
}

async fn read_at(stage: &Stage, gateway: usize, order_id: &str) -> anyhow::Result<Order> {
    let request = GetOrderRequest { order_id: order_id.to_owned() };
    Ok(stage.orders_at(gateway).get_order(request).await?.into_inner().order.unwrap())
}

async fn status_at(stage: &Stage, gateway: usize, gid: &str) -> anyhow::Result<TransactionStatus> {
    let request = GetTransactionRequest { gid: gid.to_owned() };
    Ok(stage.coordinator_at(gateway).get(request).await?.into_inner().transaction.unwrap().status())
}

async fn an_order_of_one_gateway_is_every_gateways(store: Store) -> anyhow::Result<()> {
    let stage = three_on(store).await?;
    let request = order("k-1", &[("apple", 1)]);
    let placed = stage.orders_at(0).create_order(request.clone()).await?.into_inner().order.unwrap();
    assert_eq!(placed.status(), OrderStatus::Confirmed);
    for gateway in 0..3 {
        assert_eq!(read_at(&stage, gateway, &placed.order_id).await?.status(), OrderStatus::Confirmed);
        let again = stage.orders_at(gateway).create_order(request.clone()).await?.into_inner().order.unwrap();
        assert_eq!(again.order_id, placed.order_id, "gateway {gateway} made another order of the same key");
        let all = ListOrdersRequest { user_id: String::new(), page_size: 0, page_token: String::new() };
        assert_eq!(stage.orders_at(gateway).list_orders(all).await?.into_inner().orders.len(), 1);
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    stage.finish().await
}

async fn a_hold_of_one_gateway_is_decided_at_another(store: Store) -> anyhow::Result<()> {
    let stage = three_on(store).await?;
    let hold = |key: &str| held(order(key, &[("apple", 2)]));
    let paid = stage.orders_at(0).create_order(hold("k-1")).await?.into_inner().order.unwrap();
    let unpaid = stage.orders_at(0).create_order(hold("k-2")).await?.into_inner().order.unwrap();
    assert_eq!(read_at(&stage, 1, &paid.order_id).await?.status(), OrderStatus::Held);
    let confirm = ConfirmOrderRequest { order_id: paid.order_id.clone() };
    let cancel = CancelOrderRequest { order_id: unpaid.order_id.clone() };
    let confirmed = stage.orders_at(1).confirm_order(confirm).await?.into_inner().order.unwrap();
    let cancelled = stage.orders_at(2).cancel_order(cancel).await?.into_inner().order.unwrap();
    assert_eq!((confirmed.status(), cancelled.status()), (OrderStatus::Confirmed, OrderStatus::Cancelled));
    assert_eq!(refusal_code(&cancelled), "CANCEL_REQUESTED");
    for gateway in 0..3 {
        assert_eq!(read_at(&stage, gateway, &paid.order_id).await?.status(), OrderStatus::Confirmed);
        assert_eq!(read_at(&stage, gateway, &unpaid.order_id).await?.status(), OrderStatus::Cancelled);
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2);
    stage.finish().await
}

async fn confirm_at_one_and_cancel_at_another_end_in_one_outcome(store: Store) -> anyhow::Result<()> {
    let stage = three_on(store).await?;
    for number in 0..12 {
        let hold = held(order(&format!("k-{number}"), &[("apple", 1)]));
        let order_id = stage.orders_at(0).create_order(hold).await?.into_inner().order.unwrap().order_id;
        let (mut one, mut other) = (stage.orders_at(1), stage.orders_at(2));
        let (confirmed, cancelled) = tokio::join!(
            one.confirm_order(ConfirmOrderRequest { order_id: order_id.clone() }),
            other.cancel_order(CancelOrderRequest { order_id: order_id.clone() }),
        );
        let (one, other) = (confirmed?.into_inner().order.unwrap(), cancelled?.into_inner().order.unwrap());
        assert_eq!(one.status(), other.status());
        assert_eq!(read_at(&stage, 0, &order_id).await?.status(), one.status());
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    stage.finish().await
}

async fn a_transaction_is_begun_enlisted_watched_and_ended_at_different_gateways(store: Store) -> anyhow::Result<()> {
    let stage = three_on(store).await?;
    let gid = stage.coordinator_at(0).begin(BeginRequest::default()).await?.into_inner().transaction.unwrap().gid;
    for (gateway, name) in ["s-0", "s-1", "s-2"].into_iter().enumerate() {
        let request = EnlistRequest { gid: gid.clone(), branch: Some(branch(name, "inventory", reserve("apple", 1))) };
        stage.coordinator_at(gateway).enlist(request).await?;
    }
    assert_eq!(status_at(&stage, 1, &gid).await?, TransactionStatus::Trying);
    let watch = WatchTransactionRequest { gid: gid.clone() };
    let mut watched = stage.coordinator_at(2).watch(watch).await?.into_inner();
    let request = ConfirmTransactionRequest { gid: gid.clone(), wait: Wait::End.into() };
    let ended = stage.coordinator_at(1).confirm(request).await?.into_inner().transaction.unwrap();
    assert_eq!(ended.status(), TransactionStatus::Confirmed);
    // Told through a gateway that had no part in the end.
    let last = timeout(WITHIN, async {
        let mut last = None;
        while let Some(message) = watched.message().await? {
            last = Some(message.transaction.unwrap().status());
        }
        anyhow::Ok(last)
    });
    assert_eq!(last.await??, Some(TransactionStatus::Confirmed));

    let cancelled = stage.coordinator_at(0).begin(BeginRequest::default()).await?.into_inner().transaction.unwrap().gid;
    let request = EnlistRequest { gid: cancelled.clone(), branch: Some(branch("s", "inventory", reserve("apple", 1))) };
    stage.coordinator_at(1).enlist(request).await?;
    let request = CancelTransactionRequest { gid: cancelled.clone(), wait: Wait::End.into() };
    let ended = stage.coordinator_at(2).cancel(request).await?.into_inner().transaction.unwrap();
    assert_eq!(ended.status(), TransactionStatus::Cancelled);
    assert_eq!(status_at(&stage, 0, &cancelled).await?, TransactionStatus::Cancelled);
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 3);
    stage.finish().await
}

async fn what_a_killed_gateway_had_under_way_is_ended_by_the_others(store: Store) -> anyhow::Result<()> {
    let mut stage = three_on(store).await?;
    // Inventory does not answer, so that everything is under way when its gateway dies.
    stage.freeze(Role::Inventory)?;
    let gids: Vec<String> = (0..8).map(|_| tcc_cluster::stage::mint()).collect();
    let mut calls = tokio::task::JoinSet::new();
    for gid in &gids {
        let branches = vec![branch("s", "inventory", reserve("apple", 1))];
        let request = SubmitRequest { gid: gid.clone(), ..submit(branches) };
        let mut coordinator = stage.coordinator_at(2);
        calls.spawn(async move { coordinator.submit(request).await });
    }
    for gid in &gids {
        eventually("it is begun", async || Ok(status_at(&stage, 0, gid).await.ok())).await?;
    }
    stage.kill(Party::Gateway(2)).await?;
    stage.kill(Role::Inventory).await?;
    stage.restart(Role::Inventory).await?;
    for gid in &gids {
        let ended = eventually("another gateway ends it", async || {
            let status = status_at(&stage, 0, gid).await?;
            Ok(matches!(status, TransactionStatus::Confirmed | TransactionStatus::Cancelled).then_some(status))
        });
        assert_eq!(ended.await?, TransactionStatus::Confirmed);
    }
    calls.shutdown().await;
    stage.restart(Party::Gateway(2)).await?;
    assert_eq!(status_at(&stage, 2, &gids[0]).await?, TransactionStatus::Confirmed);
    stage.must_balance(Scope::AtRest).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 8);
    stage.finish().await
}

async fn orders_go_on_while_gateways_are_killed_and_asked_to_end(store: Store) -> anyhow::Result<()> {
    const ORDERS: usize = 120;
    let mut stage = three_on(store).await?;
    let gateways = Gateways::new(stage.all_orders());
    let mut load = tokio::task::JoinSet::new();
    for number in 0..ORDERS {
        let gateways = gateways.clone();
        load.spawn(async move {
            // Spread a little, so that each fault meets orders in every phase.
            tokio::time::sleep(Duration::from_millis(number as u64 * 10)).await;
            let request = order(&format!("k-{number}"), &[("apple", 1)]);
            order_at_any(&gateways, number, &request).await.map(|(order, _)| order)
        });
    }
    let mut acknowledged = Vec::new();
    while let Some(answer) = load.join_next().await {
        acknowledged.push(answer??);
        match acknowledged.len() {
            20 => stage.kill(Party::Gateway(0)).await?,
            40 => stage.restart(Party::Gateway(0)).await?,
            60 => assert!(stage.terminate(Party::Gateway(1)).await?.success()),
            80 => stage.restart(Party::Gateway(1)).await?,
            _ => {}
        }
    }
    assert_eq!(acknowledged.len(), ORDERS);
    assert!(acknowledged.iter().all(|order| order.status() == OrderStatus::Confirmed));
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, i64::try_from(ORDERS)?);
    stage.finish().await
}

// While it slept, others have decided what it holds in memory: what it still believes must not change that.
async fn a_gateway_that_was_frozen_does_no_harm_when_it_goes_on(store: Store) -> anyhow::Result<()> {
    let stage = three_on(store).await?;
    let hold = |number: u32| held(order(&format!("k-{number}"), &[("apple", 1)]));
    let holds = try_join_all((0..8).map(|number| stage.place(hold(number)))).await?;
    stage.freeze(Party::Gateway(0))?;
    for (number, one) in holds.iter().enumerate() {
        let order_id = one.order_id.clone();
        if number % 2 == 0 {
            let decided = stage.orders_at(1).confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order.unwrap();
            assert_eq!(decided.status(), OrderStatus::Confirmed);
        } else {
            let decided = stage.orders_at(2).cancel_order(CancelOrderRequest { order_id }).await?.into_inner().order.unwrap();
            assert_eq!(decided.status(), OrderStatus::Cancelled);
        }
    }
    stage.thaw(Party::Gateway(0))?;
    for (number, one) in holds.iter().enumerate() {
        // The other outcome, asked of the one that has slept: it gets what was decided.
        let order_id = one.order_id.clone();
        let (answer, expected) = if number % 2 == 0 {
            (stage.orders_at(0).cancel_order(CancelOrderRequest { order_id }).await?.into_inner().order, OrderStatus::Confirmed)
        } else {
            (
                stage.orders_at(0).confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order,
                OrderStatus::Cancelled,
            )
        };
        assert_eq!(answer.unwrap().status(), expected);
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 4);
    stage.finish().await
}

on_each_server!(
    an_order_of_one_gateway_is_every_gateways,
    a_hold_of_one_gateway_is_decided_at_another,
    confirm_at_one_and_cancel_at_another_end_in_one_outcome,
    a_transaction_is_begun_enlisted_watched_and_ended_at_different_gateways,
    what_a_killed_gateway_had_under_way_is_ended_by_the_others,
    orders_go_on_while_gateways_are_killed_and_asked_to_end,
    a_gateway_that_was_frozen_does_no_harm_when_it_goes_on,
);

#[tokio::test(flavor = "multi_thread")]
async fn several_gateways_on_sqlite_are_refused_before_anything_is_started() {
    let config = ClusterConfig { gateways: 2, ..quick() };
    let error = Stage::start(config).await.expect_err("SQLite has one gateway");
    assert!(error.downcast_ref::<Exited>().is_none(), "a process was started: {error:#}");
    assert!(format!("{error:#}").contains("one gateway at a time"), "{error:#}");
}

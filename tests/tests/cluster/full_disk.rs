//! Files that cannot be written any more while orders are under way, and can be again later.

use serde_json::json;
use tcc_cluster::{
    harness::{ClusterConfig, Role, Scope, order_with_retry},
    stage::{Stage, eventually, held, order},
};
use tcc_proto::{
    order::v1::{ConfirmOrderRequest, GetOrderRequest, OrderStatus},
    tcc::v1::{ListTransactionsRequest, TransactionStatus},
};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

use super::quick_with;

async fn stage() -> anyhow::Result<Stage> {
    let config = ClusterConfig { disks_may_fill: true, ..quick_with(json!({ "probe_interval_ms": 100 })) };
    let stage = Stage::start(config).await?;
    stage.stock("apple", 100).await?;
    Ok(stage)
}

async fn until_health_says(stage: &Stage, status: ServingStatus) -> anyhow::Result<()> {
    eventually(&format!("health says {status:?}"), async || {
        let mut health = HealthClient::new(stage.channel(Role::Gateway));
        let now = health.check(HealthCheckRequest::default()).await?.into_inner().status();
        Ok((now == status).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_disk_is_full_refuses_orders_and_goes_on_when_there_is_room() -> anyhow::Result<()> {
    let stage = stage().await?;
    let before = stage.place(order("k-before", &[("apple", 1)])).await?;
    let hold = stage.place(held(order("k-hold", &[("apple", 2)]))).await?;
    stage.limit_files(Role::Gateway, Some(1))?;
    for key in ["k-1", "k-2"] {
        let error = stage.place(order(key, &[("apple", 4)])).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{error:?}");
        until_health_says(&stage, ServingStatus::NotServing).await?;
    }
    // What was acknowledged can still be read.
    let read = GetOrderRequest { order_id: before.order_id };
    assert_eq!(stage.orders().get_order(read).await?.into_inner().order.unwrap().status(), OrderStatus::Confirmed);

    stage.limit_files(Role::Gateway, None)?;
    until_health_says(&stage, ServingStatus::Serving).await?;
    for key in ["k-1", "k-2"] {
        let (placed, _) = order_with_retry(stage.orders(), &order(key, &[("apple", 4)])).await?;
        assert_eq!(placed.status(), OrderStatus::Confirmed);
    }
    let confirm = ConfirmOrderRequest { order_id: hold.order_id };
    let confirmed = stage.orders().confirm_order(confirm).await?.into_inner().order.unwrap();
    assert_eq!(confirmed.status(), OrderStatus::Confirmed);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 1 + 2 + 4 + 4);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_whose_disk_is_full_delays_orders_and_breaks_none() -> anyhow::Result<()> {
    let stage = stage().await?;
    let hold = stage.place(held(order("k-hold", &[("apple", 2)]))).await?;
    stage.limit_files(Role::Inventory, Some(1))?;
    let confirm = ConfirmOrderRequest { order_id: hold.order_id };
    let confirmed = stage.orders().confirm_order(confirm).await?.into_inner().order.unwrap();
    assert_eq!(confirmed.status(), OrderStatus::Confirmed, "the decision does not wait for a participant");
    let (orders, request) = (stage.orders(), order("k-during", &[("apple", 4)]));
    let mut during = JoinSet::new();
    during.spawn(async move { order_with_retry(orders, &request).await });
    eventually("an order waits for inventory", async || {
        let request =
            ListTransactionsRequest { statuses: vec![TransactionStatus::Trying.into()], ..ListTransactionsRequest::default() };
        Ok((!stage.coordinator().list(request).await?.into_inner().transactions.is_empty()).then_some(()))
    })
    .await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 0, "inventory could write");
    stage.limit_files(Role::Inventory, None)?;
    assert_eq!(during.join_next().await.unwrap()??.0.status(), OrderStatus::Confirmed);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2 + 4);
    stage.finish().await
}

//! More than fits: it is refused at once, with the limit's name and a hint, and leaves nothing behind.

use futures::future::join_all;
use serde_json::json;
use tcc_cluster::{
    harness::{ClusterConfig, Owner, Party, Role, Scope, Store, Traffic, order_with_retry},
    stage::{Stage, eventually, order},
};
use tcc_proto::{
    order::v1::{CreateOrderRequest, OrderStatus},
    tcc::v1::{ListTransactionsRequest, TransactionStatus},
};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{quick, quick_with};

fn requests(count: usize) -> Vec<CreateOrderRequest> {
    (0..count).map(|number| order(&format!("k-{number}"), &[("apple", 1)])).collect()
}

/// RESOURCE_EXHAUSTED, the limit's name, and when to come again.
fn names_the_limit(error: &Status, limit: &str) {
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    let details = error.get_error_details();
    let named = details.quota_failure().is_some_and(|quota| quota.violations.iter().any(|one| one.subject == limit));
    assert!(named, "{error:?}");
    assert!(details.retry_info().is_some_and(|info| info.retry_delay.is_some()), "{error:?}");
}

async fn under_way(stage: &Stage) -> anyhow::Result<usize> {
    let statuses = vec![TransactionStatus::Trying.into()];
    let request = ListTransactionsRequest { statuses, ..ListTransactionsRequest::default() };
    Ok(stage.coordinator().list(request).await?.into_inner().transactions.len())
}

/// Each order, sent again until it is answered, is confirmed, once.
async fn all_confirmed_once(stage: Stage, requests: &[CreateOrderRequest]) -> anyhow::Result<()> {
    for answer in join_all(requests.iter().map(|request| order_with_retry(stage.orders(), request))).await {
        assert_eq!(answer?.0.status(), OrderStatus::Confirmed);
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, i64::try_from(requests.len())?);
    assert_eq!(stage.ledger().await?.transactions.len(), requests.len(), "what was refused was begun");
    stage.finish().await
}

async fn orders_above_the_number_in_flight_are_refused_at_once(store: Store) -> anyhow::Result<()> {
    const IN_FLIGHT_MAX: usize = 4;
    let config = quick_with(json!({ "transactions_in_flight_max": IN_FLIGHT_MAX }));
    let mut stage = Stage::start(ClusterConfig { store, ..config }).await?;
    stage.stock("apple", 100).await?;
    let requests = requests(IN_FLIGHT_MAX + 8);
    let (first, rest) = requests.split_at(IN_FLIGHT_MAX);
    // Frozen, inventory answers nobody: what is under way stays so.
    stage.freeze(Role::Inventory)?;
    let mut waiting = JoinSet::new();
    for request in first {
        let (orders, request) = (stage.orders(), request.clone());
        waiting.spawn(async move { order_with_retry(orders, &request).await });
    }
    eventually("as many as may be are under way", async || Ok((under_way(&stage).await? == IN_FLIGHT_MAX).then_some(())))
        .await?;
    for answer in join_all(rest.iter().map(|request| stage.place(request.clone()))).await {
        names_the_limit(&answer.unwrap_err(), "transactions_in_flight_max");
    }
    assert_eq!(under_way(&stage).await?, IN_FLIGHT_MAX, "a refused order was begun");
    stage.kill(Role::Inventory).await?;
    stage.restart(Role::Inventory).await?;
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer??.0.status(), OrderStatus::Confirmed);
    }
    all_confirmed_once(stage, &requests).await
}

async fn orders_above_the_queue_of_the_log_are_refused_at_once(store: Store) -> anyhow::Result<()> {
    const QUEUE_MAX: usize = 2;
    let config = ClusterConfig {
        store,
        linked: true,
        // Longer than the test looks on: what is stalled is not yet unknown.
        log: json!({ "write_queue_max": QUEUE_MAX, "write_timeout_ms": 20_000 }),
        ..quick()
    };
    let stage = Stage::start(config).await?;
    stage.stock("apple", 100).await?;
    stage.place(order("k-before", &[("apple", 1)])).await?;
    let to_the_log = stage.links().to(Party::Database(Owner::Log));
    to_the_log.iter().for_each(|link| link.proxy.set(Traffic::Stalls));
    let mut requests = requests(QUEUE_MAX + 20);
    let mut answers = JoinSet::new();
    for request in requests.iter().cloned() {
        let mut orders = stage.orders();
        answers.spawn(async move { orders.create_order(request).await });
    }
    // One batch is being written and the queue behind it is full: more than these cannot wait.
    for _ in 0..10 {
        let answer = answers.join_next().await.unwrap()?;
        names_the_limit(&answer.unwrap_err(), "write_queue_max");
    }
    to_the_log.iter().for_each(|link| link.proxy.set(Traffic::Flows));
    while let Some(answer) = answers.join_next().await {
        match answer? {
            Ok(placed) => assert_eq!(placed.into_inner().order.unwrap().status(), OrderStatus::Confirmed),
            Err(error) => assert_eq!(error.code(), Code::ResourceExhausted, "{error}"),
        }
    }
    requests.push(order("k-before", &[("apple", 1)]));
    all_confirmed_once(stage, &requests).await
}

async fn a_participant_with_little_room_makes_a_burst_wait_and_breaks_none(store: Store) -> anyhow::Result<()> {
    let participant = json!({ "operations_in_flight_max": 3, "tries_in_flight_max": 1 });
    let stage = Stage::start(ClusterConfig { store, participant, ..quick() }).await?;
    stage.stock("apple", 100).await?;
    all_confirmed_once(stage, &requests(40)).await
}

mod each_store {
    use super::{
        Store, a_participant_with_little_room_makes_a_burst_wait_and_breaks_none,
        orders_above_the_number_in_flight_are_refused_at_once,
    };

    on_each_store!(
        orders_above_the_number_in_flight_are_refused_at_once,
        a_participant_with_little_room_makes_a_burst_wait_and_breaks_none,
    );
}

on_each_server!(orders_above_the_queue_of_the_log_are_refused_at_once);

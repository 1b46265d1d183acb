//! Scenarios that frameworks of this kind are known to get wrong, on each database.

use futures::future::{join_all, try_join_all};
use serde_json::json;
use tcc_cluster::{
    harness::{ClusterConfig, Role, Scope, Store},
    stage::{Stage, eventually, held, mint, order, refusal_code, reserve, try_request, with_coupon},
};
use tcc_proto::{
    coupon::v1::{CouponState, GetCouponRequest},
    order::v1::{CancelOrderRequest, ConfirmOrderRequest, GetOrderRequest, OrderStatus},
    tcc::v1::{
        BranchRowStatus, CancelRequest, CancelTransactionRequest, ConfirmRequest, ConfirmTransactionRequest, RefusalReason,
        TransactionStatus, TryRequest, ViolationKind, Wait, cancel_response, confirm_response, try_response,
    },
};
use tonic::Code;

use super::{quick, quick_with};

/// Rounds of what is to race.
const ROUNDS: usize = 25;

async fn stage_on(store: Store) -> anyhow::Result<Stage> {
    let stage = Stage::start(ClusterConfig { store, ..quick() }).await?;
    stage.stock("apple", 10).await?;
    stage.coupon("c-1", "alice").await?;
    Ok(stage)
}

async fn send_try(stage: &Stage, request: &TryRequest) -> anyhow::Result<try_response::Outcome> {
    Ok(stage.participant(Role::Inventory).r#try(request.clone()).await?.into_inner().outcome.unwrap())
}

async fn confirm(stage: &Stage, request: &TryRequest) -> anyhow::Result<confirm_response::Outcome> {
    let request = ConfirmRequest { gid: request.gid.clone(), branch_id: request.branch_id.clone() };
    Ok(stage.participant(Role::Inventory).confirm(request).await?.into_inner().outcome.unwrap())
}

async fn cancel(stage: &Stage, request: &TryRequest) -> anyhow::Result<cancel_response::Outcome> {
    let TryRequest { gid, branch_id, not_after, .. } = request.clone();
    let request = CancelRequest { gid, branch_id, not_after };
    Ok(stage.participant(Role::Inventory).cancel(request).await?.into_inner().outcome.unwrap())
}

async fn a_confirm_after_a_cancel_and_a_late_try_takes_nobodys_stock(store: Store) -> anyhow::Result<()> {
    let stage = stage_on(store).await?;
    let others = try_request(&mint(), "s", reserve("apple", 4));
    assert!(matches!(send_try(&stage, &others).await?, try_response::Outcome::Reserved(_)));
    let late = try_request(&mint(), "s", reserve("apple", 4));
    assert!(matches!(cancel(&stage, &late).await?, cancel_response::Outcome::Done(_)));
    let try_response::Outcome::Refused(refused) = send_try(&stage, &late).await? else { panic!("it was not refused") };
    assert_eq!(refused.reason(), RefusalReason::Suspended);
    let confirm_response::Outcome::Violation(violation) = confirm(&stage, &late).await? else { panic!("it ran") };
    assert_eq!((violation.kind(), violation.row_status()), (ViolationKind::OtherOutcome, BranchRowStatus::Cancelled));
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (6, 4, 0), "the other order's reservation was touched");
    assert!(matches!(confirm(&stage, &others).await?, confirm_response::Outcome::Done(_)));
    assert_eq!(stage.read_stock("apple").await?.sold, 4);
    stage.finish_called_by_hand().await
}

async fn concurrent_repeated_cancels_release_once_and_no_deadlock_surfaces(store: Store) -> anyhow::Result<()> {
    let stage = stage_on(store).await?;
    for _ in 0..ROUNDS {
        let requests: Vec<TryRequest> = (0..2).map(|_| try_request(&mint(), "s", reserve("apple", 3))).collect();
        try_join_all(requests.iter().map(|request| send_try(&stage, request))).await?;
        assert_eq!(stage.read_stock("apple").await?.frozen, 6);
        // Several of each, all at once: an error of any kind fails the test.
        let cancels = requests.iter().cycle().take(8).map(|request| cancel(&stage, request));
        for answer in join_all(cancels).await {
            assert!(matches!(answer?, cancel_response::Outcome::Done(_)));
        }
        let apple = stage.read_stock("apple").await?;
        assert_eq!((apple.available, apple.frozen), (10, 0));
    }
    stage.finish_called_by_hand().await
}

async fn a_cancel_asked_while_confirm_is_slow_gets_the_decision(store: Store) -> anyhow::Result<()> {
    let mut stage = stage_on(store).await?;
    let order_id = stage.place(held(order("k-1", &[("apple", 2)]))).await?.order_id;
    // Frozen, inventory takes the Confirm and does not answer.
    stage.freeze(Role::Inventory)?;
    let confirmed = stage.orders().confirm_order(ConfirmOrderRequest { order_id: order_id.clone() }).await?.into_inner();
    assert_eq!(confirmed.order.unwrap().status(), OrderStatus::Confirmed);
    let late = stage.orders().cancel_order(CancelOrderRequest { order_id: order_id.clone() }).await?.into_inner();
    assert_eq!(late.order.unwrap().status(), OrderStatus::Confirmed);
    let abort = CancelTransactionRequest { gid: order_id, wait: Wait::Decision.into() };
    let told = stage.coordinator().cancel(abort).await?.into_inner().transaction.unwrap();
    assert_eq!(told.status(), TransactionStatus::Confirming);
    stage.kill(Role::Inventory).await?;
    stage.restart(Role::Inventory).await?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2);
    stage.finish().await
}

async fn a_confirm_of_an_unknown_transaction_is_refused(store: Store) -> anyhow::Result<()> {
    let stage = stage_on(store).await?;
    let gid = mint();
    let request = ConfirmTransactionRequest { gid: gid.clone(), wait: Wait::Decision.into() };
    assert_eq!(stage.coordinator().confirm(request).await.unwrap_err().code(), Code::NotFound);
    let request = ConfirmOrderRequest { order_id: gid.clone() };
    assert_eq!(stage.orders().confirm_order(request).await.unwrap_err().code(), Code::NotFound);
    let unknown = try_request(&gid, "s", reserve("apple", 1));
    let confirm_response::Outcome::Violation(violation) = confirm(&stage, &unknown).await? else { panic!("it ran") };
    assert_eq!(violation.kind(), ViolationKind::NoReservation);
    let ledger = stage.ledger().await?;
    assert!(ledger.transactions.is_empty() && ledger.stock_branches.is_empty(), "it left something: {ledger:?}");
    stage.finish().await
}

async fn a_failing_branch_does_not_hold_up_its_siblings(store: Store) -> anyhow::Result<()> {
    let mut stage = stage_on(store).await?;
    let order_id = stage.place(held(with_coupon(order("k-1", &[("apple", 2)]), "c-1"))).await?.order_id;
    stage.kill(Role::Inventory).await?;
    let confirmed = stage.orders().confirm_order(ConfirmOrderRequest { order_id: order_id.clone() }).await?.into_inner();
    assert_eq!(confirmed.order.unwrap().status(), OrderStatus::Confirmed);
    // While inventory is down, the others are settled.
    eventually("the coupon is used", async || {
        let coupon = stage.coupons().get_coupon(GetCouponRequest { coupon_id: "c-1".to_owned() }).await?.into_inner().coupon;
        Ok(coupon.is_some_and(|coupon| coupon.state() == CouponState::Used).then_some(()))
    })
    .await?;
    stage.restart(Role::Inventory).await?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2);
    stage.finish().await
}

async fn a_dead_clients_hold_is_released_at_its_deadline(store: Store) -> anyhow::Result<()> {
    let times = json!({ "try_for_ms": 1_000, "hold_for_ms": 3_000 });
    let mut stage = Stage::start(ClusterConfig { store, ..quick_with(times) }).await?;
    stage.stock("apple", 10).await?;
    let hold = stage.place(held(order("k-1", &[("apple", 5)]))).await?;
    assert_eq!(hold.status(), OrderStatus::Held);
    // The gateway that took it dies too, so that nobody has it in memory.
    stage.kill(Role::Gateway).await?;
    stage.restart(Role::Gateway).await?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (10, 0, 0));
    let now = stage.orders().get_order(GetOrderRequest { order_id: hold.order_id }).await?.into_inner().order.unwrap();
    assert_eq!((now.status(), refusal_code(&now)), (OrderStatus::Cancelled, "TIMED_OUT"));
    stage.finish().await
}

on_each_store!(
    a_confirm_after_a_cancel_and_a_late_try_takes_nobodys_stock,
    concurrent_repeated_cancels_release_once_and_no_deadlock_surfaces,
    a_cancel_asked_while_confirm_is_slow_gets_the_decision,
    a_confirm_of_an_unknown_transaction_is_refused,
    a_failing_branch_does_not_hold_up_its_siblings,
    a_dead_clients_hold_is_released_at_its_deadline,
);

//! The coordinator's database is lost while stock is frozen: participants ask, and release what nobody knows of any more.

use std::time::Instant;

use serde_json::json;
use tcc_cluster::{
    harness::{ClusterConfig, Owner, Role, Scope, Store},
    stage::{Stage, branch, eventually, held, lock, mint, order, reserve, submit, with_coupon},
};
use tcc_proto::{
    coupon::v1::{CouponState, GetCouponRequest},
    order::v1::{ConfirmOrderRequest, OrderStatus},
    tcc::v1::{SubmitRequest, Transaction, TransactionStatus},
};

use super::quick_with;

/// Until when a hold may wait for its decision; then, after the grace, participants ask.
const HOLD_FOR_MS: u64 = 2_000;
const ASK_GRACE_MS: u64 = 500;

async fn submitted(stage: &Stage, request: SubmitRequest) -> anyhow::Result<Transaction> {
    Ok(stage.coordinator().submit(request).await?.into_inner().transaction.unwrap())
}

async fn nothing_is_reserved(stage: &Stage) -> anyhow::Result<Option<()>> {
    let coupon = stage.coupons().get_coupon(GetCouponRequest { coupon_id: "c-1".to_owned() }).await?.into_inner().coupon;
    let locked = coupon.is_some_and(|coupon| coupon.state() == CouponState::Locked);
    Ok((stage.read_stock("apple").await?.frozen == 0 && !locked).then_some(()))
}

async fn reservations_of_a_log_that_was_wiped_are_released_and_stay_so(store: Store) -> anyhow::Result<()> {
    let times = json!({ "try_for_ms": 1_000, "hold_for_ms": HOLD_FOR_MS, "ask_grace_ms": ASK_GRACE_MS });
    let participant = json!({ "upkeep": { "sweep_interval_ms": 200, "sweep_backoff_ms_max": 1_000 } });
    let mut stage = Stage::start(ClusterConfig { store, participant, ..quick_with(times) }).await?;
    stage.stock("apple", 100).await?;
    stage.coupon("c-1", "alice").await?;
    let gid = mint();
    let branches = || vec![branch("s", "inventory", reserve("apple", 3)), branch("c", "coupon", lock("c-1", "alice"))];
    let request = SubmitRequest { gid: gid.clone(), hold: true, ..submit(branches()) };
    assert!(submitted(&stage, request.clone()).await?.held);
    let hold = stage.place(held(order("k-1", &[("apple", 5)]))).await?;
    assert_eq!((hold.status(), stage.read_stock("apple").await?.frozen), (OrderStatus::Held, 8));

    let held_at = Instant::now();
    stage.kill(Role::Gateway).await?;
    stage.wipe(Owner::Log).await?;
    stage.restart(Role::Gateway).await?;
    let back = Instant::now();
    eventually("everything is released", async || nothing_is_reserved(&stage).await).await?;
    println!(
        "{store}: nothing was frozen any more {} ms after the gateway was back, {} ms after the holds; those wait for {HOLD_FOR_MS} ms, \
         and the grace is {ASK_GRACE_MS} ms",
        back.elapsed().as_millis(),
        held_at.elapsed().as_millis()
    );

    // Whoever comes late with the same gid is told so, and no Try of it leaves: not even a branch that no participant has seen.
    let unseen = SubmitRequest { branches: vec![branch("unseen", "inventory", reserve("apple", 1))], ..request.clone() };
    for late in [request, unseen] {
        assert_eq!(submitted(&stage, late).await?.status(), TransactionStatus::Cancelled);
    }
    let confirm = ConfirmOrderRequest { order_id: hold.order_id };
    assert_eq!(stage.orders().confirm_order(confirm).await?.into_inner().order.unwrap().status(), OrderStatus::Cancelled);
    stage.must_balance(Scope::AtRest).await?;
    let rows = stage.ledger().await?.stock_branches;
    assert!(rows.iter().all(|row| row.branch_id != "unseen"), "a Try of it was sent: {rows:?}");
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (100, 0, 0));
    // The new log is as good as the old one.
    let next = stage.place(with_coupon(order("k-2", &[("apple", 7)]), "c-1")).await?;
    assert_eq!(next.status(), OrderStatus::Confirmed);
    stage.finish().await
}

on_each_store!(reservations_of_a_log_that_was_wiped_are_released_and_stay_so);

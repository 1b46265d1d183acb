//! Orders through the gateway, nothing broken.

use std::time::Duration;

use futures::future::try_join_all;
use tcc_cluster::{
    harness::{Role, Scope},
    stage::{self, Stage, eventually, held, order, refusal_code, with_coupon},
};
use tcc_proto::{
    coupon::v1::{CouponState, GetCouponRequest},
    order::v1::{
        CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderStatus,
    },
};
use tonic::{Code, Request};

use super::{quick_stage, quick_with};

async fn read(stage: &Stage, order_id: &str) -> anyhow::Result<Order> {
    let response = stage.orders().get_order(GetOrderRequest { order_id: order_id.to_owned() }).await?;
    Ok(response.into_inner().order.unwrap())
}

async fn coupon_state(stage: &Stage, coupon_id: &str) -> anyhow::Result<CouponState> {
    let response = stage.coupons().get_coupon(GetCouponRequest { coupon_id: coupon_id.to_owned() }).await?;
    Ok(response.into_inner().coupon.unwrap().state())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_order_is_confirmed_and_its_stock_sold() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 10).await?;
    stage.stock("pear", 10).await?;
    let placed = stage.place(order("k-1", &[("pear", 3), ("apple", 2)])).await?;
    assert_eq!(placed.status(), OrderStatus::Confirmed);
    assert_eq!((placed.order_key.as_str(), placed.user_id.as_str(), placed.lines.len()), ("k-1", "alice", 2));
    assert_eq!(read(&stage, &placed.order_id).await?.status(), OrderStatus::Confirmed);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.initial, apple.available, apple.frozen, apple.sold), (10, 8, 0, 2));
    let pear = stage.read_stock("pear").await?;
    assert_eq!((pear.available, pear.frozen, pear.sold), (7, 0, 3));
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_more_than_there_is_is_refused_and_releases_everything() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 10).await?;
    stage.stock("plum", 1).await?;
    stage.coupon("c-1", "alice").await?;
    let refused = stage.place(with_coupon(order("k-1", &[("apple", 2), ("plum", 2)]), "c-1")).await?;
    assert_eq!((refused.status(), refusal_code(&refused)), (OrderStatus::Cancelled, "OUT_OF_STOCK"));
    assert_eq!(refused.refusal.as_ref().unwrap().participant, "inventory");
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.available, 10, "a line that could be had was kept");
    assert_eq!(coupon_state(&stage, "c-1").await?, CouponState::Issued);
    let read = read(&stage, &refused.order_id).await?;
    assert_eq!((read.status(), refusal_code(&read)), (OrderStatus::Cancelled, "OUT_OF_STOCK"));
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_against_a_coupon_has_its_own_code() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.coupon("used", "alice").await?;
    stage.coupon("locked", "alice").await?;
    stage.coupon("foreign", "bob").await?;
    stage.coupon_until("expired", "alice", tcc_types::Timestamp::from_millis(1)).await?;
    let lines = [("apple", 1)];

    let used = stage.place(with_coupon(order("k-use", &lines), "used")).await?;
    assert_eq!((used.status(), used.discount_minor), (OrderStatus::Confirmed, 500));
    let locking = stage.place(held(with_coupon(order("k-lock", &lines), "locked"))).await?;
    assert_eq!(locking.status(), OrderStatus::Held);

    let cases = [("foreign", "NOT_OWNER"), ("used", "COUPON_USED"), ("locked", "COUPON_LOCKED"), ("expired", "COUPON_EXPIRED")];
    for (coupon, code) in cases {
        let refused = stage.place(with_coupon(order(&format!("k-{coupon}"), &lines), coupon)).await?;
        assert_eq!((refused.status(), refusal_code(&refused)), (OrderStatus::Cancelled, code), "{coupon}");
        assert_eq!(refused.refusal.unwrap().participant, "coupon", "{coupon}");
    }
    stage.orders().confirm_order(ConfirmOrderRequest { order_id: locking.order_id }).await?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2);
    assert_eq!(coupon_state(&stage, "foreign").await?, CouponState::Issued);
    assert_eq!(coupon_state(&stage, "locked").await?, CouponState::Used);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_returns_the_same_order() -> anyhow::Result<()> {
    let mut stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    let request = order("k-1", &[("apple", 1)]);
    let together = try_join_all((0..16).map(|_| stage.place(request.clone()))).await?;
    let first = &together[0];
    assert_eq!(first.status(), OrderStatus::Confirmed);
    assert!(together.iter().all(|one| (&one.order_id, one.status()) == (&first.order_id, first.status())), "{together:?}");

    stage.kill(Role::Gateway).await?;
    stage.restart(Role::Gateway).await?;
    let later = stage.place(request.clone()).await?;
    assert_eq!((&later.order_id, later.status()), (&first.order_id, OrderStatus::Confirmed));

    let refused = order("k-2", &[("apple", 1_000)]);
    let (one, other) = (stage.place(refused.clone()).await?, stage.place(refused).await?);
    assert_eq!((&one.order_id, refusal_code(&one)), (&other.order_id, refusal_code(&other)));

    let mut of_another = Request::new(request);
    of_another.metadata_mut().insert("tcc-initiator", "another-shop".parse()?);
    let another = stage.orders().create_order(of_another).await?.into_inner().order.unwrap();
    assert_ne!(another.order_id, first.order_id, "keys are scoped by their initiator");
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 2);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_for_another_order_is_an_error_and_starts_nothing() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.stock("pear", 100).await?;
    stage.coupon("c-1", "alice").await?;
    let request = order("k-1", &[("apple", 1)]);
    stage.place(request.clone()).await?;
    let others = [
        order("k-1", &[("apple", 2)]),
        order("k-1", &[("pear", 1)]),
        order("k-1", &[("apple", 1), ("pear", 1)]),
        CreateOrderRequest { user_id: "bob".to_owned(), ..request.clone() },
        with_coupon(request.clone(), "c-1"),
        held(request),
    ];
    for other in others {
        let error = stage.place(other.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists, "{other:?}: {error}");
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!((stage.read_stock("apple").await?.sold, stage.read_stock("pear").await?.sold), (1, 0));
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_order_waits_and_is_then_confirmed_or_cancelled() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    stage.coupon("c-1", "alice").await?;
    let paid = stage.place(held(with_coupon(order("k-1", &[("apple", 3)]), "c-1"))).await?;
    let dropped = stage.place(held(order("k-2", &[("apple", 4)]))).await?;
    assert_eq!((paid.status(), dropped.status()), (OrderStatus::Held, OrderStatus::Held));
    assert!(paid.pay_by.is_some());
    let apple = stage.read_stock("apple").await?;
    assert_eq!((apple.available, apple.frozen, apple.sold), (93, 7, 0));
    assert_eq!(coupon_state(&stage, "c-1").await?, CouponState::Locked);
    assert_eq!(stage.books(Scope::Always).await?, Vec::<String>::new());
    assert_eq!(read(&stage, &paid.order_id).await?.status(), OrderStatus::Held);

    let confirm = ConfirmOrderRequest { order_id: paid.order_id.clone() };
    let cancel = CancelOrderRequest { order_id: dropped.order_id.clone() };
    let mut orders = stage.orders();
    for _ in 0..2 {
        let confirmed = orders.confirm_order(confirm.clone()).await?.into_inner().order.unwrap();
        assert_eq!(confirmed.status(), OrderStatus::Confirmed);
        let cancelled = orders.cancel_order(cancel.clone()).await?.into_inner().order.unwrap();
        assert_eq!((cancelled.status(), refusal_code(&cancelled)), (OrderStatus::Cancelled, "CANCEL_REQUESTED"));
    }
    // Who asks for the other outcome gets the decision.
    let lost = orders.cancel_order(CancelOrderRequest { order_id: paid.order_id }).await?.into_inner().order.unwrap();
    assert_eq!(lost.status(), OrderStatus::Confirmed);
    let lost = orders.confirm_order(ConfirmOrderRequest { order_id: dropped.order_id }).await?.into_inner().order.unwrap();
    assert_eq!(lost.status(), OrderStatus::Cancelled);
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.sold, 3);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn confirming_and_cancelling_at_the_same_time_ends_in_one_outcome_for_both() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    for round in 0..10 {
        let order_id = stage.place(held(order(&format!("k-{round}"), &[("apple", 1)]))).await?.order_id;
        let (mut one, mut other) = (stage.orders(), stage.orders());
        let (confirmed, cancelled) = tokio::join!(
            one.confirm_order(ConfirmOrderRequest { order_id: order_id.clone() }),
            other.cancel_order(CancelOrderRequest { order_id: order_id.clone() }),
        );
        let (one, other) = (confirmed?.into_inner().order.unwrap(), cancelled?.into_inner().order.unwrap());
        assert_eq!(one.status(), other.status());
        assert_eq!(read(&stage, &order_id).await?.status(), one.status());
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_order_that_is_not_paid_for_in_time_is_cancelled() -> anyhow::Result<()> {
    let stage = Stage::start(quick_with(serde_json::json!({ "try_for_ms": 1_000 }))).await?;
    stage.stock("apple", 100).await?;
    let pay_by = stage::in_time(Duration::from_secs(10));
    let request = CreateOrderRequest { pay_by: Some(pay_by), ..held(order("k-1", &[("apple", 5)])) };
    let placed = stage.place(request.clone()).await?;
    assert_eq!((placed.status(), placed.pay_by), (OrderStatus::Held, Some(pay_by)));
    let cancelled = eventually("the hold times out", async || {
        let now = read(&stage, &placed.order_id).await?;
        Ok((now.status() != OrderStatus::Held).then_some(now))
    })
    .await?;
    assert_eq!((cancelled.status(), refusal_code(&cancelled)), (OrderStatus::Cancelled, "TIMED_OUT"));
    let order_id = placed.order_id.clone();
    let late = stage.orders().confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order.unwrap();
    assert_eq!(late.status(), OrderStatus::Cancelled);
    assert_eq!(stage.place(request).await?.status(), OrderStatus::Cancelled, "the key remembers it");
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("apple").await?.available, 100);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_piece_is_sold_once() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("last", 5).await?;
    let keys: Vec<String> = (0..40).map(|number| format!("k-{number}")).collect();
    let placed = try_join_all(keys.iter().map(|key| stage.place(order(key, &[("last", 1)])))).await?;
    let confirmed = placed.iter().filter(|order| order.status() == OrderStatus::Confirmed).count();
    assert_eq!(confirmed, 5);
    assert!(placed.iter().all(|one| one.status() == OrderStatus::Confirmed || refusal_code(one) == "OUT_OF_STOCK"));
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    assert_eq!(stage.read_stock("last").await?.sold, 5);
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_newest_first_page_by_page_and_by_user() -> anyhow::Result<()> {
    let stage = quick_stage().await?;
    stage.stock("apple", 100).await?;
    let mut placed = Vec::new();
    for number in 0..7 {
        let user_id = if number % 3 == 0 { "bob" } else { "alice" }.to_owned();
        let request = CreateOrderRequest { user_id, ..order(&format!("k-{number}"), &[("apple", 1)]) };
        placed.push(stage.place(request).await?.order_id);
    }
    // Order ids grow with the time of minting, but within a millisecond not with the order of minting.
    placed.sort();
    placed.reverse();
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListOrdersRequest { user_id: String::new(), page_size: 3, page_token };
        let page = stage.orders().list_orders(request).await?.into_inner();
        assert!(page.orders.len() <= 3);
        listed.extend(page.orders.into_iter().map(|order| order.order_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, placed);
    let request = ListOrdersRequest { user_id: "bob".to_owned(), page_size: 0, page_token: String::new() };
    let of_bob = stage.orders().list_orders(request).await?.into_inner();
    assert_eq!((of_bob.orders.len(), of_bob.next_page_token.as_str()), (3, ""));
    assert!(of_bob.orders.iter().all(|order| order.user_id == "bob"));
    stage.finish().await
}

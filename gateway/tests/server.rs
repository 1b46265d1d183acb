//! The whole gateway through real sockets, with participants that do as they are told.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use tcc_proto::{
    inventory::v1::{ReserveStock, StockLine},
    order::v1::{CreateOrderRequest, ListOrdersRequest, Order, OrderStatus, PlaceOrder},
    tcc::v1::{BranchSpec, ListTransactionsRequest, SubmitRequest, Transaction, TransactionStatus, Wait},
};
use tcc_types::{Clock, Gid, SystemClock, SystemEntropy};
use tcc_wire::timestamp_to_proto;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use self::support::{World, any, eventually, order};

fn refusal(order: &Order) -> (&str, &str) {
    order.refusal.as_ref().map_or(("", ""), |refusal| (&refusal.participant, &refusal.code))
}

fn resource(status: &Status) -> (String, String) {
    let info = status.get_error_details().resource_info().cloned().unwrap();
    (info.resource_type, info.resource_name)
}

async fn transactions(world: &World) -> Vec<Transaction> {
    world.coordinator().list(ListTransactionsRequest::default()).await.unwrap().into_inner().transactions
}

async fn pending(world: &World) -> Transaction {
    eventually("a transaction is trying", async || {
        transactions(world).await.into_iter().find(|one| one.status() == TransactionStatus::Trying)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_read_and_listed() {
    let world = World::start().await;
    let placed = world.create(CreateOrderRequest { coupon_id: "c-1".to_owned(), ..order("k-1", &["pear", "apple"]) });
    let placed = placed.await.unwrap();
    assert_eq!((placed.status(), placed.discount_minor), (OrderStatus::Confirmed, 500));
    assert_eq!((placed.order_key.as_str(), placed.user_id.as_str(), placed.coupon_id.as_str()), ("k-1", "ann", "c-1"));
    assert_eq!(placed.lines.iter().map(|line| line.sku.as_str()).collect::<Vec<_>>(), ["apple", "pear"]);
    let read = world.get(&placed.order_id).await.unwrap();
    assert_eq!(read, Order { discount_minor: 0, ..placed.clone() });
    let listed = world.list(ListOrdersRequest::default()).await.unwrap();
    assert_eq!((listed.orders, listed.next_page_token.as_str()), (vec![read], ""));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_comes_back_cancelled_with_its_refusal() {
    let world = World::start().await;
    let refused = world.create(order("k-1", &["apple", "sold-out"])).await.unwrap();
    assert_eq!((refused.status(), refusal(&refused)), (OrderStatus::Cancelled, ("inventory", "OUT_OF_STOCK")));
    let again = world.create(order("k-1", &["apple", "sold-out"])).await.unwrap();
    assert_eq!((again.order_id.as_str(), refusal(&again)), (refused.order_id.as_str(), refusal(&refused)));
    let read = world.get(&refused.order_id).await.unwrap();
    assert_eq!(read, refused);
    for order in world.list(ListOrdersRequest::default()).await.unwrap().orders {
        assert_eq!(order, refused);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_not_found_and_stays_so() {
    let world = World::start().await;
    for _ in 0..2 {
        let sku = world.create(order("k-1", &["apple", "unknown-a"])).await.unwrap_err();
        assert_eq!((sku.code(), resource(&sku)), (Code::NotFound, ("sku".to_owned(), "unknown-a".to_owned())));
        let coupon = CreateOrderRequest { coupon_id: "unknown-c".to_owned(), ..order("k-2", &["apple"]) };
        let coupon = world.create(coupon).await.unwrap_err();
        assert_eq!((coupon.code(), resource(&coupon)), (Code::NotFound, ("coupon".to_owned(), "unknown-c".to_owned())));
    }
    let nobody = Gid::mint(SystemClock.now(), &SystemEntropy).to_string();
    for error in [
        world.get(&nobody).await.unwrap_err(),
        world.confirm(&nobody).await.unwrap_err(),
        world.cancel(&nobody).await.unwrap_err(),
    ] {
        assert_eq!((error.code(), resource(&error)), (Code::NotFound, ("order".to_owned(), nobody.clone())));
        assert_eq!(error.get_error_details().error_info().unwrap().domain, "order.v1");
    }
    assert!(transactions(&world).await.iter().all(|one| one.gid != nobody), "asking for an unknown order wrote something");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_order_for_its_initiator() {
    let world = World::start().await;
    let first = world.create(order("k-1", &["apple", "pear"])).await.unwrap();
    let turned = world.create(order("k-1", &["pear", "apple"])).await.unwrap();
    assert_eq!(turned.order_id, first.order_id, "the order of lines is no part of an order");
    let other = world.create(order("k-1", &["apple"])).await.unwrap_err();
    assert_eq!((other.code(), resource(&other)), (Code::AlreadyExists, ("order".to_owned(), first.order_id.clone())));
    assert_eq!(other.get_error_details().error_info().unwrap().reason, "ORDER_KEY_REUSED");
    let mut elsewhere = Request::new(order("k-1", &["apple"]));
    elsewhere.metadata_mut().insert("tcc-initiator", "another".parse().unwrap());
    let elsewhere = world.orders().create_order(elsewhere).await.unwrap().into_inner().order.unwrap();
    assert_ne!(elsewhere.order_id, first.order_id);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_stays_held_until_it_is_confirmed_or_cancelled() {
    let mut world = World::start().await;
    let hold = |key: &str| CreateOrderRequest { hold: true, ..order(key, &["apple"]) };
    let paid = world.create(hold("k-1")).await.unwrap();
    let dropped = world.create(hold("k-2")).await.unwrap();
    assert_eq!((paid.status(), dropped.status()), (OrderStatus::Held, OrderStatus::Held));
    assert!(paid.pay_by.is_some());
    // Also after its driver, and then the whole gateway, has forgotten the votes.
    world.stop_gateway().await;
    world.start_gateway().await;
    assert_eq!(world.get(&paid.order_id).await.unwrap(), paid);
    // Newest first by their ids, which within a millisecond do not tell which was minted first.
    let mut both = [dropped.clone(), paid.clone()];
    both.sort_by(|one, other| other.order_id.cmp(&one.order_id));
    assert_eq!(world.list(ListOrdersRequest::default()).await.unwrap().orders, both);
    assert_eq!(world.create(hold("k-1")).await.unwrap(), paid);
    for _ in 0..2 {
        assert_eq!(world.confirm(&paid.order_id).await.unwrap().status(), OrderStatus::Confirmed);
        let cancelled = world.cancel(&dropped.order_id).await.unwrap();
        assert_eq!((cancelled.status(), refusal(&cancelled)), (OrderStatus::Cancelled, ("coordinator", "CANCEL_REQUESTED")));
        assert_eq!(cancelled.pay_by, None);
    }
    assert_eq!(world.cancel(&paid.order_id).await.unwrap().status(), OrderStatus::Confirmed);
    assert_eq!(world.confirm(&dropped.order_id).await.unwrap().status(), OrderStatus::Cancelled);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pay_by_out_of_reach_is_named_and_a_repeated_one_is_remembered() {
    let mut world = World::start().await;
    world.config.coordinator.try_for_ms = 2_000;
    world.config.coordinator.hold_for_ms = 2_000;
    world.stop_gateway().await;
    world.start_gateway().await;
    let hold = |key: &str, ms: i64| {
        let pay_by = SystemClock.now().as_millis() + ms;
        let pay_by = timestamp_to_proto(tcc_types::Timestamp::from_millis(pay_by));
        CreateOrderRequest { hold: true, pay_by: Some(pay_by), ..order(key, &["apple"]) }
    };
    for bad in [hold("k-1", -1_000), hold("k-1", 25 * 3_600_000)] {
        let error = world.create(bad).await.unwrap_err();
        let fields = error.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!((error.code(), fields.len(), fields[0].field.as_str()), (Code::InvalidArgument, 1, "pay_by"));
    }
    let soon = hold("k-2", 3_000);
    let placed = world.create(soon.clone()).await.unwrap();
    assert_eq!((placed.status(), placed.pay_by), (OrderStatus::Held, soon.pay_by));
    let timed_out = eventually("the hold times out", async || {
        Some(world.get(&placed.order_id).await.unwrap()).filter(|order| order.status() != OrderStatus::Held)
    })
    .await;
    assert_eq!((timed_out.status(), refusal(&timed_out)), (OrderStatus::Cancelled, ("coordinator", "TIMED_OUT")));
    assert_eq!(world.create(soon.clone()).await.unwrap(), timed_out, "the same request, too late to be begun");
    let other = CreateOrderRequest { lines: order("", &["pear"]).lines, ..soon };
    assert_eq!(world.create(other).await.unwrap_err().code(), Code::InvalidArgument, "another one is no repetition");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_order_is_pending_and_can_be_cancelled_by_somebody_else() {
    let world = World::start().await;
    world.stock_is_mute.store(true, Ordering::SeqCst);
    let mut orders = world.orders();
    let placing = tokio::task::JoinSet::from_iter([async move { orders.create_order(order("k-1", &["apple"])).await }]);
    let order_id = pending(&world).await.gid;
    let read = world.get(&order_id).await.unwrap();
    assert_eq!((read.status(), read.order_key.as_str(), read.lines.len()), (OrderStatus::Pending, "k-1", 1));
    let cancelled = world.cancel(&order_id).await.unwrap();
    assert_eq!((cancelled.status(), refusal(&cancelled)), (OrderStatus::Cancelled, ("coordinator", "CANCEL_REQUESTED")));
    let placed = placing.join_all().await.remove(0).unwrap().into_inner().order.unwrap();
    assert_eq!((placed.order_id.as_str(), placed.status()), (order_id.as_str(), OrderStatus::Cancelled), "the loser is told");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_no_order_is_not_found_as_one() {
    let world = World::start().await;
    let stock = ReserveStock { lines: vec![StockLine { sku: "apple".to_owned(), quantity: 1 }] };
    let spec = |branch_id: &str, participant: &str, payload| BranchSpec {
        branch_id: branch_id.to_owned(),
        participant: participant.to_owned(),
        payload: Some(payload),
    };
    for branch in [spec("order", "inventory", any(&stock)), spec("s", "inventory", any(&stock))] {
        let request = SubmitRequest { branches: vec![branch], wait: Wait::End.into(), ..SubmitRequest::default() };
        let ended = world.coordinator().submit(request).await.unwrap().into_inner().transaction.unwrap();
        for error in [world.get(&ended.gid).await, world.confirm(&ended.gid).await, world.cancel(&ended.gid).await] {
            assert_eq!(error.unwrap_err().code(), Code::NotFound);
        }
    }
    // An order without its stock is for nobody to make.
    let placing = PlaceOrder { user_id: "ann".to_owned(), ..PlaceOrder::default() };
    let request = SubmitRequest { branches: vec![spec("order", "order", any(&placing))], ..SubmitRequest::default() };
    let error = world.coordinator().submit(request).await.unwrap_err();
    let details = error.get_error_details();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "branches[0].participant");
    assert!(world.list(ListOrdersRequest::default()).await.unwrap().orders.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_of_a_request_is_named() {
    let world = World::start().await;
    let bad = CreateOrderRequest { user_id: "a b".to_owned(), pay_by: Some(Default::default()), ..order("a b", &["x", "x"]) };
    let mut request = Request::new(bad);
    request.metadata_mut().insert("tcc-initiator", "a b".parse().unwrap());
    let error = world.orders().create_order(request).await.unwrap_err();
    let fields: Vec<_> =
        error.get_error_details().bad_request().unwrap().field_violations.iter().map(|bad| bad.field.clone()).collect();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(fields, ["pay_by", "order_key", "user_id", "lines[1].sku", "tcc-initiator"]);
    assert!(transactions(&world).await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_newest_first() {
    let world = World::start().await;
    let mut placed = Vec::new();
    for number in 0..5 {
        placed.insert(0, world.create(order(&format!("k-{number}"), &["apple"])).await.unwrap().order_id);
    }
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = world.list(ListOrdersRequest { page_size: 2, page_token, ..Default::default() }).await.unwrap();
        listed.extend(page.orders.into_iter().map(|order| order.order_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, placed);
    let token = world.list(ListOrdersRequest { page_size: 2, ..Default::default() }).await.unwrap().next_page_token;
    let foreign = ListOrdersRequest { user_id: "bob".to_owned(), page_token: token, ..Default::default() };
    assert_eq!(world.list(foreign).await.unwrap_err().code(), Code::InvalidArgument);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gateway_lets_orders_end_and_begins_none() {
    let mut world = World::start().await;
    world.stock_is_mute.store(true, Ordering::SeqCst);
    let mut orders = world.orders();
    let placing = tokio::task::JoinSet::from_iter([async move { orders.create_order(order("k-1", &["apple"])).await }]);
    let order_id = pending(&world).await.gid;
    world.stopping();
    let address = world.address();
    eventually("nobody listens any more", async || tokio::net::TcpStream::connect(address).await.err()).await;
    assert_eq!(world.create(order("k-2", &["apple"])).await.unwrap_err().code(), Code::Unavailable);
    world.stock_is_mute.store(false, Ordering::SeqCst);
    let placed = placing.join_all().await.remove(0).unwrap().into_inner().order.unwrap();
    assert_eq!((placed.order_id.as_str(), placed.status()), (order_id.as_str(), OrderStatus::Confirmed));
    world.stop_gateway().await;
    world.start_gateway().await;
    assert_eq!(world.get(&order_id).await.unwrap().status(), OrderStatus::Confirmed);
    assert_eq!(transactions(&world).await.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_taken_up_by_the_next_start() {
    let mut world = World::start().await;
    world.config.drain_ms = 50;
    world.stop_gateway().await;
    world.start_gateway().await;
    world.stock_is_mute.store(true, Ordering::SeqCst);
    let mut orders = world.orders();
    let placing = tokio::task::JoinSet::from_iter([async move { orders.create_order(order("k-1", &["apple"])).await }]);
    let order_id = pending(&world).await.gid;
    world.stop_gateway().await;
    // The caller is cut or told to repeat; either way it does not know.
    assert!(placing.join_all().await.remove(0).is_err());
    world.stock_is_mute.store(false, Ordering::SeqCst);
    world.start_gateway().await;
    let placed = world.create(order("k-1", &["apple"])).await.unwrap();
    assert_eq!((placed.order_id.as_str(), placed.status()), (order_id.as_str(), OrderStatus::Confirmed));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_and_a_bad_setting_end_with_a_clear_error() {
    let world = World::start().await;
    let run = |config| tcc_gateway::run(config, |_| panic!("it started"), CancellationToken::new());
    let second = run(world.config.clone()).await.unwrap_err().to_string();
    assert!(second.contains("log.db") && second.contains("in use"), "{second}");
    let mut config = world.config.clone();
    config.log.database_url = "oracle://x".to_owned();
    config.coordinator.try_for_ms = 0;
    config.participants.values_mut().for_each(|one| one.endpoint = "nowhere".to_owned());
    let bad = run(config).await.unwrap_err().to_string();
    let names = ["log.database_url", "coordinator.try_for_ms", "participants.inventory", "participants.coupon"];
    assert!(names.iter().all(|name| bad.contains(name)), "{bad}");
    // The first one is none the worse for it.
    tokio::time::timeout(Duration::from_secs(30), world.create(order("k-1", &["apple"]))).await.unwrap().unwrap();
    world.stop().await;
}

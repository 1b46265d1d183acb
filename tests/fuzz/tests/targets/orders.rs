//! `order.v1.OrderService`: an order is taken exactly if its fields are as the contract says, and reads back as it was placed.

use std::{collections::HashSet, sync::Arc};

use prost::Message;
use tcc_coordinator::Config;
use tcc_database::memory::{Calm, Memory, MemoryDatabase};
use tcc_fuzz::{Shape, Target};
use tcc_gateway::{Gateway, memory::OrderTables};
use tcc_participant::{Options, Store};
use tcc_proto::order::v1::{
    CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderLine,
    order_service_client::OrderServiceClient,
};
use tcc_types::{FingerprintBuilder, SystemEntropy};
use tcc_wire::page;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{
    samples::{NOW, Still, at, gid, is_gid, is_instant, is_key, is_name, micros, tagged},
    services::{ask, log, refusal, registry, runtime},
};

const WORDS: [&str; 7] = ["apple", "bread", "ann", "c-1", "order-1", "019ca4c3-7400-7000-8000-000000000000", "AQ"];

const FIELDS: [&str; 9] =
    ["order_key", "user_id", "lines", "coupon_id", "pay_by", "order_id", "page_size", "page_token", "tcc-initiator"];

fn line(sku: &str, quantity: i64) -> OrderLine {
    OrderLine { sku: sku.to_owned(), quantity }
}

fn orders() -> Vec<Vec<u8>> {
    let plain = CreateOrderRequest {
        order_key: "order-1".to_owned(),
        user_id: "ann".to_owned(),
        lines: vec![line("bread", 2), line("apple", 1)],
        ..Default::default()
    };
    let coupon = CreateOrderRequest { order_key: "order-2".to_owned(), coupon_id: "c-1".to_owned(), ..plain.clone() };
    let held = CreateOrderRequest { order_key: "order-3".to_owned(), hold: true, pay_by: at(600), ..coupon.clone() };
    let id = || gid(5).to_string();
    let token = page::encode(&FingerprintBuilder::new("order.v1.ListOrders").text("ann").finish(), &id());
    vec![
        tagged(0, &plain),
        tagged(0, &coupon),
        tagged(0, &held),
        tagged(1, &GetOrderRequest { order_id: id() }),
        tagged(2, &ListOrdersRequest { user_id: "ann".to_owned(), page_size: 3, page_token: token }),
        tagged(2, &ListOrdersRequest { user_id: String::new(), page_size: 500, page_token: String::new() }),
        tagged(3, &CancelOrderRequest { order_id: id() }),
        tagged(4, &ConfirmOrderRequest { order_id: id() }),
    ]
}

/// Whether its fields are as the contract says.
fn is_order(request: &CreateOrderRequest) -> bool {
    let skus: HashSet<_> = request.lines.iter().map(|line| &line.sku).collect();
    let lines_fit = (1..=100).contains(&request.lines.len()) && skus.len() == request.lines.len();
    let each_fits = request.lines.iter().all(|line| is_name(&line.sku) && (1..=1_000_000_000).contains(&line.quantity));
    let pay_by_fits = request.pay_by.as_ref().is_none_or(|at| request.hold && is_instant(at));
    let coupon_fits = request.coupon_id.is_empty() || is_name(&request.coupon_id);
    is_key(&request.order_key) && is_name(&request.user_id) && lines_fit && each_fits && pay_by_fits && coupon_fits
}

/// Whether it can be paid in time. That of an order that is repeated may have passed.
fn is_timely(request: &CreateOrderRequest) -> bool {
    let ahead = |at: &prost_types::Timestamp| micros(at).saturating_sub(NOW.as_micros());
    request.pay_by.as_ref().is_none_or(|at| (1..=24 * 3_600_000_000).contains(&ahead(at)))
}

fn same_as_placed(request: &CreateOrderRequest, order: &Order) {
    assert!(is_gid(&order.order_id) && order.created_at.is_some_and(|at| is_instant(&at)), "{order:?}");
    assert_eq!(
        (&order.order_key, &order.user_id, &order.coupon_id),
        (&request.order_key, &request.user_id, &request.coupon_id)
    );
    let mut lines = request.lines.clone();
    lines.sort_by(|one, other| one.sku.cmp(&other.sku));
    assert_eq!(order.lines, lines);
}

#[test]
fn order_service() {
    let runtime = runtime();
    let memory = Memory::new(OrderTables::default());
    let of_gateway = memory.clone();
    let gateway = runtime
        .block_on(async move {
            let options = Options::default();
            let store =
                Store::<MemoryDatabase<OrderTables>>::in_memory(of_gateway, Arc::new(Calm), Arc::new(Still), &options).unwrap();
            let stop = CancellationToken::new();
            Gateway::start(log(), store, registry(), Config::default(), Arc::new(SystemEntropy), &stop).await
        })
        .unwrap();
    let mut client = OrderServiceClient::new(gateway.order_service());
    let mut keys = HashSet::new();
    let meets = [
        "create_order: accepted",
        "create_order: refused as AlreadyExists",
        "create_order: refused order_key",
        "create_order: refused user_id",
        "create_order: refused lines",
        "create_order: refused lines[].sku",
        "create_order: refused lines[].quantity",
        "create_order: refused coupon_id",
        "create_order: refused pay_by",
        "get_order: refused as NotFound",
        "get_order: refused order_id",
        "list_orders: accepted",
        "list_orders: refused page_token",
        "list_orders: refused page_size",
        "list_orders: refused user_id",
        "cancel_order: refused order_id",
        "confirm_order: refused order_id",
        "no message",
    ];
    let target =
        Target { name: "order_service", shape: Shape::Tagged, words: &WORDS, seeds: orders(), rounds: 6_000, meets: &meets };
    target.run(|input| {
        let (tag, input) = input.split_first().map_or((0, input), |(tag, rest)| (*tag, rest));
        match tag {
            0 => {
                let Ok(request) = CreateOrderRequest::decode(input) else { return "no message".into() };
                let (fits, timely) = (is_order(&request), is_timely(&request));
                let outcome = match runtime.block_on(client.create_order(request.clone())) {
                    Ok(answer) => {
                        let order = answer.into_inner().order.unwrap();
                        assert!(fits && (timely || keys.contains(&order.order_key)), "{request:?}");
                        keys.insert(order.order_key.clone());
                        same_as_placed(&request, &order);
                        let read = GetOrderRequest { order_id: order.order_id.clone() };
                        let read = runtime.block_on(client.get_order(read)).unwrap().into_inner().order.unwrap();
                        same_as_placed(&request, &read);
                        "create_order: accepted".into()
                    }
                    Err(status) => {
                        assert_eq!(status.code() == Code::InvalidArgument, !fits || !timely, "{status:?}: {request:?}");
                        refusal("create_order", &status, "order.v1", &FIELDS)
                    }
                };
                memory.visible().check().unwrap();
                outcome
            }
            1 => ask!(runtime, input, client.get_order(GetOrderRequest), "order.v1", &FIELDS, |_, _| ()),
            2 => ask!(runtime, input, client.list_orders(ListOrdersRequest), "order.v1", &FIELDS, |request, page| {
                let own = page.orders.iter().all(|order| [&*order.user_id, ""].contains(&&*request.user_id));
                assert!(own && page.orders.len() <= 500, "{request:?}");
            }),
            3 => ask!(runtime, input, client.cancel_order(CancelOrderRequest), "order.v1", &FIELDS, |_, _| ()),
            4 => ask!(runtime, input, client.confirm_order(ConfirmOrderRequest), "order.v1", &FIELDS, |_, _| ()),
            _ => "no call".into(),
        }
    });
}

//! Each field of each request.

use tcc_proto::order::v1::OrderLine;
use tcc_types::SystemEntropy;
use tcc_wire::timestamp_to_proto;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HORIZON: Horizon = Horizon { now: NOW, hold_for_ms_max: 60_000 };

fn good() -> CreateOrderRequest {
    CreateOrderRequest {
        order_key: "k-1".to_owned(),
        user_id: "ann".to_owned(),
        lines: vec![OrderLine { sku: "apple".to_owned(), quantity: 1 }],
        ..CreateOrderRequest::default()
    }
}

fn bad_fields(request: CreateOrderRequest, initiator: &str) -> Vec<String> {
    let checked = new_order(request, initiator.to_owned(), HORIZON);
    checked.map_or_else(|bad| bad.into_iter().map(|one| one.field).collect(), |_| Vec::new())
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    let mut at = timestamp_to_proto(NOW);
    at.seconds += seconds;
    Some(at)
}

#[test]
fn a_good_order_keeps_everything_it_says() {
    let request = CreateOrderRequest { hold: true, pay_by: at(30), coupon_id: "c-1".to_owned(), ..good() };
    let (placed, pay_by) = new_order(request, "shop".to_owned(), HORIZON).unwrap();
    assert_eq!((placed.order_key().as_str(), placed.initiator().as_str(), placed.user_id()), ("k-1", "shop", "ann"));
    assert_eq!((placed.coupon_id(), placed.hold(), placed.lines().len()), (Some("c-1"), true, 1));
    assert_eq!(pay_by, Some(NOW.plus(Duration::from_secs(30))));
}

#[test]
fn pay_by_is_for_held_orders_and_an_instant() {
    let no_instant = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 });
    let cases = [
        (CreateOrderRequest { pay_by: at(30), ..good() }, &["pay_by"][..]),
        (CreateOrderRequest { pay_by: no_instant, hold: true, ..good() }, &["pay_by"]),
        (CreateOrderRequest { pay_by: None, hold: true, ..good() }, &[]),
        // Alone, it may be the repetition of a request that was in time: the coordinator judges.
        (CreateOrderRequest { pay_by: at(-30), hold: true, ..good() }, &[]),
        (CreateOrderRequest { pay_by: at(61), hold: true, ..good() }, &[]),
        // With another bad field it is named along with it.
        (CreateOrderRequest { pay_by: at(0), hold: true, user_id: String::new(), ..good() }, &["user_id", "pay_by"]),
        (CreateOrderRequest { pay_by: at(61), hold: true, user_id: String::new(), ..good() }, &["user_id", "pay_by"]),
        (CreateOrderRequest { pay_by: at(60), hold: true, user_id: String::new(), ..good() }, &["user_id"]),
    ];
    for (request, fields) in cases {
        assert_eq!(bad_fields(request.clone(), "shop"), fields, "{request:?}");
    }
}

#[test]
fn every_bad_field_is_named_at_once() {
    let request = CreateOrderRequest {
        order_key: "a b".to_owned(),
        user_id: "a b".to_owned(),
        lines: vec![OrderLine { sku: "a b".to_owned(), quantity: 0 }],
        coupon_id: "a b".to_owned(),
        hold: false,
        pay_by: at(30),
    };
    let all = ["pay_by", "order_key", "user_id", "lines[0].sku", "lines[0].quantity", "coupon_id", "tcc-initiator"];
    assert_eq!(bad_fields(request, "a b"), all);
}

#[test]
fn the_initiator_comes_from_the_metadata() {
    let mut metadata = MetadataMap::new();
    assert_eq!(initiator(&metadata).unwrap().as_str(), "anonymous");
    metadata.insert(INITIATOR_KEY, "shop".parse().unwrap());
    assert_eq!(initiator(&metadata).unwrap().as_str(), "shop");
    metadata.insert(INITIATOR_KEY, "a b".parse().unwrap());
    assert_eq!(initiator(&metadata).map_err(|bad| bad.field), Err("tcc-initiator".to_owned()));
}

#[test]
fn an_order_id_is_named_as_such() {
    let gid = Gid::mint(NOW, &SystemEntropy);
    assert_eq!(order_id(&gid.to_string()), Ok(gid));
    for bad in ["", "x", "67e55044-10b1-426f-9247-bb680e5fe0c8"] {
        assert_eq!(order_id(bad).map_err(|bad| bad.field), Err("order_id".to_owned()), "{bad}");
    }
}

#[test]
fn a_page_has_a_default_a_limit_and_tokens_of_its_own() {
    let list = |user_id: &str, page_size, page_token: &str| {
        list_page(ListOrdersRequest { user_id: user_id.to_owned(), page_size, page_token: page_token.to_owned() })
    };
    let first = list("", 0, "").unwrap();
    assert_eq!((first.user_id, first.before, first.size), (None, None, 50));
    let gid = Gid::mint(NOW, &SystemEntropy);
    let token = page::encode(&list("ann", 500, "").unwrap().filter, &gid.to_string());
    let next = list("ann", 500, &token).unwrap();
    assert_eq!((next.user_id.as_deref(), next.before, next.size), (Some("ann"), Some(gid), 500));

    let fields = |page: Result<ListPage, Vec<Invalid>>| page.unwrap_err().into_iter().map(|bad| bad.field).collect::<Vec<_>>();
    assert_eq!(fields(list("bob", 0, &token)), ["page_token"], "of another filter");
    let no_id = page::encode(&list("ann", 0, "").unwrap().filter, "x");
    assert_eq!(fields(list("ann", 0, &no_id)), ["page_token"]);
    assert_eq!(fields(list("a b", 501, "garbage")), ["user_id", "page_size", "page_token"]);
}

//! The APIs of those who keep stock and coupons: what is accepted is counted once and within limits, and lists take their own tokens only.

use std::sync::Arc;

use tcc_coupon::{CouponApi, CouponDatabase, memory::CouponTables};
use tcc_database::memory::{Calm, Memory, MemoryDatabase};
use tcc_fuzz::{Shape, Target};
use tcc_inventory::{InventoryApi, STOCK_MAX, StockDatabase, memory::StockTables};
use tcc_participant::{Options, Store};
use tcc_proto::{
    coupon::v1::{
        GetCouponRequest, IssueCouponRequest, ListCouponsRequest, coupon_service_client::CouponServiceClient,
        coupon_service_server::CouponServiceServer,
    },
    inventory::v1::{
        AddStockRequest, GetStockRequest, ListStockRequest, SetStockBucketsRequest,
        inventory_service_client::InventoryServiceClient, inventory_service_server::InventoryServiceServer,
    },
};
use tcc_types::FingerprintBuilder;
use tcc_wire::page;

use super::{
    samples::{Still, at, is_instant, is_name, tagged},
    services::{ask, runtime},
};

const WORDS: [&str; 6] = ["apple", "bread", "r-1", "c-1", "ann", "AQ"];

const FIELDS: [&str; 10] = [
    "receipt_id",
    "sku",
    "quantity",
    "buckets",
    "page_size",
    "page_token",
    "coupon_id",
    "user_id",
    "discount_minor",
    "expires_at",
];

#[test]
fn inventory_service() {
    let runtime = runtime();
    let memory = Memory::new(StockTables::default());
    let store = runtime.block_on(async {
        Store::<MemoryDatabase<StockTables>>::in_memory(memory.clone(), Arc::new(Calm), Arc::new(Still), &Options::default())
            .unwrap()
    });
    let api = InventoryApi::new(MemoryDatabase::<StockTables>::books(store), 8);
    let mut client = InventoryServiceClient::new(InventoryServiceServer::new(api));
    let add = |receipt_id: &str, sku: &str, quantity| AddStockRequest {
        receipt_id: receipt_id.to_owned(),
        sku: sku.to_owned(),
        quantity,
    };
    let token = page::encode(&FingerprintBuilder::new("inventory.v1.ListStock").finish(), "apple");
    let seeds = vec![
        tagged(0, &add("r-1", "apple", 1_000_000_000)),
        tagged(0, &add("r-2", "bread", 1)),
        tagged(1, &SetStockBucketsRequest { sku: "apple".to_owned(), buckets: 64 }),
        tagged(2, &GetStockRequest { sku: "apple".to_owned() }),
        tagged(3, &ListStockRequest { page_size: 1, page_token: token }),
        tagged(3, &ListStockRequest { page_size: 1_000, page_token: String::new() }),
    ];
    let meets = [
        "add_stock: accepted",
        "add_stock: refused as AlreadyExists",
        "add_stock: refused receipt_id",
        "add_stock: refused sku",
        "add_stock: refused quantity",
        "set_stock_buckets: accepted",
        "set_stock_buckets: refused as NotFound",
        "set_stock_buckets: refused buckets",
        "set_stock_buckets: refused sku",
        "get_stock: accepted",
        "get_stock: refused as NotFound",
        "get_stock: refused sku",
        "list_stock: accepted",
        "list_stock: refused page_size",
        "list_stock: refused page_token",
        "no message",
    ];
    let target = Target { name: "inventory_service", shape: Shape::Tagged, words: &WORDS, seeds, rounds: 8_000, meets: &meets };
    target.run(|input| {
        let (tag, input) = input.split_first().map_or((0, input), |(tag, rest)| (*tag, rest));
        let outcome = match tag {
            0 => ask!(runtime, input, client.add_stock(AddStockRequest), "inventory.v1", &FIELDS, |request, answer| {
                assert!(is_name(&request.receipt_id) && is_name(&request.sku), "{request:?}");
                let stock = answer.stock.unwrap();
                assert!(
                    (1..=1_000_000_000).contains(&request.quantity) && (request.quantity..=STOCK_MAX).contains(&stock.initial)
                );
            }),
            1 => ask!(
                runtime,
                input,
                client.set_stock_buckets(SetStockBucketsRequest),
                "inventory.v1",
                &FIELDS,
                |request, answer| {
                    assert!((1..=64).contains(&request.buckets));
                    assert_eq!(answer.stock.unwrap().buckets, request.buckets);
                }
            ),
            2 => ask!(runtime, input, client.get_stock(GetStockRequest), "inventory.v1", &FIELDS, |_, _| ()),
            3 => ask!(runtime, input, client.list_stock(ListStockRequest), "inventory.v1", &FIELDS, |_, page| {
                assert!(page.stock.is_sorted_by(|one, other| one.sku < other.sku));
            }),
            _ => "no call".into(),
        };
        memory.visible().check().unwrap();
        outcome
    });
}

#[test]
fn coupon_service() {
    let runtime = runtime();
    let memory = Memory::new(CouponTables::default());
    let store = runtime.block_on(async {
        Store::<MemoryDatabase<CouponTables>>::in_memory(memory, Arc::new(Calm), Arc::new(Still), &Options::default()).unwrap()
    });
    let api = CouponApi::new(MemoryDatabase::<CouponTables>::books(store), 8);
    let mut client = CouponServiceClient::new(CouponServiceServer::new(api));
    let issue = |coupon_id: &str| IssueCouponRequest {
        coupon_id: coupon_id.to_owned(),
        user_id: "ann".to_owned(),
        discount_minor: 500,
        expires_at: at(600),
    };
    let token = page::encode(&FingerprintBuilder::new("coupon.v1.ListCoupons").text("ann").finish(), "c-1");
    let seeds = vec![
        tagged(0, &issue("c-1")),
        tagged(0, &issue("c-2")),
        tagged(1, &GetCouponRequest { coupon_id: "c-1".to_owned() }),
        tagged(2, &ListCouponsRequest { user_id: "ann".to_owned(), page_size: 1, page_token: token }),
        tagged(2, &ListCouponsRequest::default()),
    ];
    let meets = [
        "issue_coupon: accepted",
        "issue_coupon: refused as AlreadyExists",
        "issue_coupon: refused coupon_id",
        "issue_coupon: refused user_id",
        "issue_coupon: refused discount_minor",
        "issue_coupon: refused expires_at",
        "get_coupon: accepted",
        "get_coupon: refused as NotFound",
        "get_coupon: refused coupon_id",
        "list_coupons: accepted",
        "list_coupons: refused user_id",
        "list_coupons: refused page_size",
        "list_coupons: refused page_token",
        "no message",
    ];
    let target = Target { name: "coupon_service", shape: Shape::Tagged, words: &WORDS, seeds, rounds: 8_000, meets: &meets };
    target.run(|input| {
        let (tag, input) = input.split_first().map_or((0, input), |(tag, rest)| (*tag, rest));
        match tag {
            0 => ask!(runtime, input, client.issue_coupon(IssueCouponRequest), "coupon.v1", &FIELDS, |request, answer| {
                let coupon = answer.coupon.unwrap();
                assert!(
                    is_name(&request.coupon_id)
                        && is_name(&request.user_id)
                        && (1..=1_000_000_000).contains(&request.discount_minor)
                );
                assert!(request.expires_at.as_ref().is_some_and(is_instant), "{request:?}");
                assert_eq!((&coupon.coupon_id, &coupon.user_id), (&request.coupon_id, &request.user_id));
            }),
            1 => ask!(runtime, input, client.get_coupon(GetCouponRequest), "coupon.v1", &FIELDS, |_, _| ()),
            2 => ask!(runtime, input, client.list_coupons(ListCouponsRequest), "coupon.v1", &FIELDS, |request, page| {
                assert!(page.coupons.iter().all(|coupon| [&*coupon.user_id, ""].contains(&&*request.user_id)));
            }),
            _ => "no call".into(),
        }
    });
}

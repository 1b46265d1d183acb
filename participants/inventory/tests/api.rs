//! Inventory's API over books that answer what a test wants.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use tcc_inventory::{InventoryApi, Receipt, Received, Spread, Stock, StockBooks};
use tcc_proto::inventory::v1::{
    AddStockRequest, GetStockRequest, ListStockRequest, inventory_service_server::InventoryService,
};
use tonic::{Code, Request};

/// Never answers a delivery, and finds every row damaged.
struct Stuck;

impl StockBooks for Stuck {
    async fn receive(&self, _: &Receipt) -> Result<Received, sqlx::Error> {
        std::future::pending().await
    }

    async fn spread(&self, _: &Spread) -> Result<Option<Stock>, sqlx::Error> {
        std::future::pending().await
    }

    async fn get(&self, _: &str) -> Result<Option<Stock>, sqlx::Error> {
        Err(sqlx::Error::Decode("secret".into()))
    }

    async fn list(&self, _: Option<&str>, _: u32) -> Result<Vec<Stock>, sqlx::Error> {
        Err(sqlx::Error::PoolTimedOut)
    }
}

fn delivery() -> Request<AddStockRequest> {
    Request::new(AddStockRequest { receipt_id: "r1".to_owned(), sku: "apple".to_owned(), quantity: 1 })
}

#[tokio::test]
async fn one_delivery_too_many_is_refused_at_once() {
    let api = InventoryApi::new(Stuck, 1);
    tokio::select! {
        biased;
        answer = api.add_stock(delivery()) => panic!("the first one has the only place: {answer:?}"),
        answer = api.add_stock(delivery()) => {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("admin_calls_in_flight_max (1)"), "{status:?}");
        }
        () = std::future::ready(()) => panic!("the second one was let in"),
    }
    // The first call is gone, and its place is free.
    tokio::select! {
        biased;
        answer = api.add_stock(delivery()) => panic!("there was no place: {answer:?}"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_damaged_row_is_internal_and_a_database_that_does_not_answer_is_unavailable() {
    let api = InventoryApi::new(Stuck, 1);
    let damaged = api.get_stock(Request::new(GetStockRequest { sku: "apple".to_owned() })).await.unwrap_err();
    assert_eq!(damaged.code(), Code::Internal);
    assert!(!damaged.message().contains("secret"), "{damaged:?}");
    let busy = api.list_stock(Request::new(ListStockRequest::default())).await.unwrap_err();
    assert_eq!(busy.code(), Code::Unavailable);
}

//! The whole inventory server on every database, through real sockets.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use prost::{Message, Name};
use support::{Fresh, TestDatabase, on_every_database};
use tcc_inventory::{Config, run};
use tcc_proto::{
    inventory::v1::{
        AddStockRequest, GetStockRequest, ListStockRequest, ReserveStock, SetStockBucketsRequest, Stock, StockLine,
        inventory_service_client::InventoryServiceClient,
    },
    tcc::v1::{ConfirmRequest, TryRequest, participant_client::ParticipantClient, try_response::Outcome},
};
use tcc_types::{Clock, Gid, LogName, SystemClock, SystemEntropy};
use tcc_wire::timestamp_to_proto;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

on_every_database! { @sql
    stock_is_added_reserved_and_sold_and_a_restart_keeps_it,
    a_repeated_delivery_changes_nothing_and_a_reused_id_is_told,
    every_bad_field_is_named_and_the_server_goes_on,
    an_unknown_sku_is_not_found,
    pages_list_every_sku_once_in_order,
    a_sku_is_split_and_still_reads_as_one,
}

struct Running {
    inventory: InventoryServiceClient<Channel>,
    participant: ParticipantClient<Channel>,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(fresh: &Fresh) -> Self {
        let config = Config { listen: ([127, 0, 0, 1], 0).into(), database_url: fresh.url.clone(), ..Config::default() };
        let shutdown = CancellationToken::new();
        let (ready, address) = oneshot::channel();
        let ended = TaskTracker::new().spawn(run(config, |address| ready.send(address).unwrap(), shutdown.clone()));
        let endpoint = Channel::from_shared(format!("http://{}", address.await.unwrap())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let participant = ParticipantClient::new(channel.clone());
        Self { inventory: InventoryServiceClient::new(channel), participant, shutdown, ended }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        drop((self.inventory, self.participant));
        self.ended.await.unwrap().unwrap();
    }

    async fn add(&mut self, receipt_id: &str, sku: &str, quantity: i64) -> Result<Stock, Status> {
        let request = AddStockRequest { receipt_id: receipt_id.to_owned(), sku: sku.to_owned(), quantity };
        Ok(self.inventory.add_stock(request).await?.into_inner().stock.unwrap())
    }

    async fn get(&mut self, sku: &str) -> Result<Stock, Status> {
        let request = GetStockRequest { sku: sku.to_owned() };
        Ok(self.inventory.get_stock(request).await?.into_inner().stock.unwrap())
    }

    async fn split(&mut self, sku: &str, buckets: u32) -> Result<Stock, Status> {
        let request = SetStockBucketsRequest { sku: sku.to_owned(), buckets };
        Ok(self.inventory.set_stock_buckets(request).await?.into_inner().stock.unwrap())
    }

    async fn list(&mut self, page_size: u32, page_token: &str) -> Result<(Vec<String>, String), Status> {
        let request = ListStockRequest { page_size, page_token: page_token.to_owned() };
        let response = self.inventory.list_stock(request).await?.into_inner();
        Ok((response.stock.into_iter().map(|stock| stock.sku).collect(), response.next_page_token))
    }
}

fn bad_fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().domain, "inventory.v1");
    details.bad_request().unwrap().field_violations.iter().map(|bad| bad.field.clone()).collect()
}

async fn stock_is_added_reserved_and_sold_and_a_restart_keeps_it<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    let added = server.add("r1", "apple", 10).await.unwrap();
    assert_eq!((added.initial, added.available), (10, 10));
    assert!(added.updated_at.unwrap().seconds > 1_700_000_000);

    let gid = Gid::mint(SystemClock.now(), &SystemEntropy).to_string();
    let lines = vec![StockLine { sku: "apple".to_owned(), quantity: 4 }];
    let in_a_minute = timestamp_to_proto(SystemClock.now().plus(std::time::Duration::from_secs(60)));
    let mut payload = prost_types_any(&ReserveStock { lines });
    let request = |payload| TryRequest {
        gid: gid.clone(),
        branch_id: "stock".to_owned(),
        payload: Some(payload),
        not_after: Some(in_a_minute),
        ask_after: Some(in_a_minute),
        coordinator: "test".to_owned(),
    };
    let answer = server.participant.r#try(request(payload.clone())).await.unwrap().into_inner();
    assert!(matches!(answer.outcome, Some(Outcome::Reserved(_))), "{answer:?}");
    payload.value.clear();
    let answer = server.participant.r#try(request(payload)).await.unwrap().into_inner();
    assert!(matches!(answer.outcome, Some(Outcome::Violation(_))), "{answer:?}");
    server.stop().await;

    let mut server = Running::start(&fresh).await;
    let stock = server.get("apple").await.unwrap();
    assert_eq!((stock.initial, stock.available, stock.frozen, stock.sold), (10, 6, 4, 0));
    server.participant.confirm(ConfirmRequest { gid, branch_id: "stock".to_owned() }).await.unwrap();
    let stock = server.get("apple").await.unwrap();
    assert_eq!((stock.initial, stock.available, stock.frozen, stock.sold), (10, 6, 0, 4));
    server.stop().await;
}

fn prost_types_any<M: Message + Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

async fn a_repeated_delivery_changes_nothing_and_a_reused_id_is_told<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    let first = server.add("r1", "apple", 10).await.unwrap();
    assert_eq!(server.add("r1", "apple", 10).await.unwrap(), first);
    let status = server.add("r1", "apple", 11).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "RECEIPT_ID_REUSED");
    assert_eq!(details.resource_info().unwrap().resource_name, "r1");
    assert_eq!(server.get("apple").await.unwrap(), first);
}

async fn every_bad_field_is_named_and_the_server_goes_on<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    for (receipt_id, sku, quantity, fields) in [
        ("", "", 0, &["receipt_id", "sku", "quantity"][..]),
        ("r1", "two words", 1, &["sku"]),
        ("r 1", "apple", -1, &["receipt_id", "quantity"]),
        ("r1", "apple", 1_000_000_001, &["quantity"]),
        ("r1", "apple", i64::MAX, &["quantity"]),
        (&"r".repeat(65), "apple", 1, &["receipt_id"]),
    ] {
        assert_eq!(bad_fields(&server.add(receipt_id, sku, quantity).await.unwrap_err()), fields);
    }
    assert_eq!(bad_fields(&server.get("").await.unwrap_err()), ["sku"]);
    assert_eq!(bad_fields(&server.list(1_001, "elsewhere").await.unwrap_err()), ["page_size", "page_token"]);
    assert_eq!(server.list(0, "").await.unwrap(), (vec![], String::new()));
}

async fn a_sku_is_split_and_still_reads_as_one<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    let added = server.add("r1", "apple", 10).await.unwrap();
    assert_eq!(added.buckets, 1);
    let split = server.split("apple", 8).await.unwrap();
    assert_eq!((split.initial, split.available, split.buckets), (10, 10, 8));
    assert_eq!(server.get("apple").await.unwrap(), split);
    assert_eq!(server.list(0, "").await.unwrap().0, ["apple"]);
    for (sku, buckets, fields) in
        [("", 0, &["sku", "buckets"][..]), ("apple", 65, &["buckets"]), ("apple", 1 << 30, &["buckets"])]
    {
        assert_eq!(bad_fields(&server.split(sku, buckets).await.unwrap_err()), fields);
    }
    assert_eq!(server.split("pear", 2).await.unwrap_err().code(), Code::NotFound);
}

async fn an_unknown_sku_is_not_found<D: TestDatabase>() {
    let fresh = D::fresh();
    let status = Running::start(&fresh).await.get("apple").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let details = status.get_error_details();
    let resource = details.resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("sku", "apple"));
}

async fn pages_list_every_sku_once_in_order<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    for sku in ["c", "a", "e", "b", "d"] {
        server.add(&format!("r-{sku}"), sku, 1).await.unwrap();
    }
    let (mut skus, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = server.list(2, &token).await.unwrap();
        assert!(page.len() <= 2);
        skus.extend(page);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(skus, ["a", "b", "c", "d", "e"]);
    assert_eq!(server.list(5, "").await.unwrap().1, "");
}

#[tokio::test]
async fn a_wrong_setting_is_named() {
    let config = |database_url: &str| Config { database_url: database_url.to_owned(), ..Config::default() };
    let too_slow = tcc_participant::Options { transaction_ms_max: 0, ..tcc_participant::Options::default() };
    for (config, name) in [
        (config("oracle://user:secret@host/db"), "database_url"),
        (config("inventory.db"), "database_url"),
        (Config { participant: too_slow, ..Config::default() }, "participant.transaction_ms_max"),
    ] {
        let error = run(config, |_| panic!("it must not start"), CancellationToken::new()).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(name) && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_without_its_secret() {
    for scheme in ["postgres", "mysql"] {
        // Nobody listens on this port.
        let database_url = format!("{scheme}://user:secret@127.0.0.1:1/db");
        let participant = tcc_participant::Options { connection_wait_ms_max: 500, ..tcc_participant::Options::default() };
        let config = Config { database_url, participant, ..Config::default() };
        let error = run(config, |_| panic!("it must not start"), CancellationToken::new()).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("cannot open the database") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_no_address_is_named() {
    let coordinators = [("main", "127.0.0.1:50051"), ("other", "https://gateway:1")].map(|(name, endpoint)| {
        (LogName::new(name).unwrap(), tcc_participant::CoordinatorConfig::at(["http://127.0.0.1:50051", endpoint]))
    });
    let config = Config { coordinators: coordinators.into(), ..Config::default() };
    let error = run(config, |_| panic!("it must not start"), CancellationToken::new()).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("coordinators.main.endpoints[1]") && text.contains("coordinators.other.endpoints[1]"), "{text}");
}

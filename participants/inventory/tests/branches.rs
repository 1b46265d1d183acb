//! Inventory's branches on a real SQLite file, through the SDK.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::Duration;

use prost::{Message, Name};
use sqlx::Sqlite;
use tcc_inventory::{Inventory, Line, QUANTITY_MAX, Receipt, Received, STOCK_MAX, SqliteBooks, StockBooks};
use tcc_participant::{Engine, Options, Store};
use tcc_proto::inventory::v1::{ReserveStock, StockLine};
use tcc_types::{
    BranchId, BranchKey, CancelCall, Clock, ConfirmCall, Gid, LogName, Payload, Refusal, RefusalReason, SettleAnswer,
    SystemClock, SystemEntropy, Timestamp, TryAnswer, TryCall,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

struct World {
    store: Store<Sqlite>,
    engine: Engine<Inventory<Sqlite>>,
    books: SqliteBooks,
    _folder: TempDir,
}

impl World {
    async fn with(stock: &[(&str, i64)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/inventory.db", folder.path().display());
        let store = Store::<Sqlite>::open(&url, &Options::default()).await.unwrap();
        tcc_migrations::inventory::sqlite().run(store.write_pool()).await.unwrap();
        let books = SqliteBooks::new(store.clone());
        for (sku, quantity) in stock {
            let receipt = Receipt { id: format!("first-{sku}"), line: Line::new(*sku, *quantity).unwrap() };
            assert!(matches!(books.receive(&receipt).await, Ok(Received::Counted(_))));
        }
        Self { engine: Engine::new(Inventory::new(), store.clone()), store, books, _folder: folder }
    }

    async fn row(&self, sku: &str) -> (i64, i64, i64) {
        let stock = self.books.get(sku).await.unwrap().unwrap();
        assert_eq!(stock.available + stock.frozen + stock.sold, stock.initial);
        (stock.available, stock.frozen, stock.sold)
    }

    async fn reserve(&self, key: &BranchKey, lines: &[(&str, i64)]) -> TryAnswer {
        self.engine.try_branch(try_call(key, lines)).await.unwrap()
    }

    async fn refusal(&self, lines: &[(&str, i64)]) -> Refusal {
        match self.reserve(&key(), lines).await {
            TryAnswer::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    async fn confirm(&self, key: &BranchKey) -> SettleAnswer {
        self.engine.confirm(ConfirmCall { key: key.clone() }).await.unwrap()
    }

    async fn cancel(&self, key: &BranchKey) -> SettleAnswer {
        self.engine.cancel(CancelCall { key: key.clone(), not_after: in_a_minute() }).await.unwrap()
    }
}

fn in_a_minute() -> Timestamp {
    SystemClock.now().plus(Duration::from_secs(60))
}

fn key() -> BranchKey {
    BranchKey { gid: Gid::mint(SystemClock.now(), &SystemEntropy), branch: BranchId::new("stock").unwrap() }
}

fn try_call(key: &BranchKey, lines: &[(&str, i64)]) -> TryCall {
    let lines = lines.iter().map(|(sku, quantity)| StockLine { sku: (*sku).to_owned(), quantity: *quantity }).collect();
    let value = ReserveStock { lines }.encode_to_vec().into();
    TryCall {
        key: key.clone(),
        payload: Payload { type_url: ReserveStock::type_url(), value },
        not_after: in_a_minute(),
        ask_after: in_a_minute(),
        coordinator: LogName::new("test").unwrap(),
    }
}

#[tokio::test]
async fn confirm_turns_frozen_into_sold_and_cancel_gives_it_back() {
    let world = World::with(&[("apple", 10)]).await;
    let (one, other) = (key(), key());
    assert_eq!(world.reserve(&one, &[("apple", 3)]).await, TryAnswer::Reserved(None));
    assert_eq!(world.reserve(&other, &[("apple", 7)]).await, TryAnswer::Reserved(None));
    assert_eq!(world.row("apple").await, (0, 10, 0));
    for _ in 0..2 {
        assert_eq!(world.confirm(&one).await, SettleAnswer::Done);
        assert_eq!(world.cancel(&other).await, SettleAnswer::Done);
        assert_eq!(world.row("apple").await, (7, 0, 3));
    }
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

#[tokio::test]
async fn a_repeated_try_freezes_once() {
    let world = World::with(&[("apple", 10)]).await;
    let key = key();
    for _ in 0..3 {
        assert_eq!(world.reserve(&key, &[("apple", 3)]).await, TryAnswer::Reserved(None));
    }
    assert_eq!(world.row("apple").await, (7, 3, 0));
}

#[tokio::test]
async fn an_order_of_several_skus_is_frozen_and_settled_whole() {
    let world = World::with(&[("apple", 10), ("bread", 10), ("candy", 10)]).await;
    let (one, other) = (key(), key());
    world.reserve(&one, &[("candy", 1), ("apple", 2), ("bread", 3)]).await;
    world.reserve(&other, &[("bread", 7), ("candy", 9)]).await;
    assert_eq!(
        (world.row("apple").await, world.row("bread").await, world.row("candy").await),
        ((8, 2, 0), (0, 10, 0), (0, 10, 0))
    );
    world.confirm(&one).await;
    world.cancel(&other).await;
    assert_eq!(
        (world.row("apple").await, world.row("bread").await, world.row("candy").await),
        ((8, 0, 2), (7, 0, 3), (9, 0, 1))
    );
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_and_nothing_stays_frozen() {
    let world = World::with(&[("apple", 10), ("bread", 1)]).await;
    for (lines, code) in [
        (&[("apple", 11)][..], "OUT_OF_STOCK"),
        (&[("apple", 1), ("bread", 2)], "OUT_OF_STOCK"),
        (&[("bread", 1), ("apple", QUANTITY_MAX)], "OUT_OF_STOCK"),
        (&[("nothing", 1)], "UNKNOWN_SKU"),
        (&[("apple", 1), ("bread", 1), ("nothing", 1)], "UNKNOWN_SKU"),
    ] {
        let refusal = world.refusal(lines).await;
        assert_eq!((refusal.reason, refusal.code.as_str()), (RefusalReason::Business, code), "{lines:?}");
        assert_eq!((world.row("apple").await, world.row("bread").await), ((10, 0, 0), (1, 0, 0)), "{lines:?}");
    }
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

#[tokio::test]
async fn a_refused_order_stays_refused_when_stock_comes_and_its_cancel_is_done() {
    let world = World::with(&[("apple", 1)]).await;
    let key = key();
    assert!(matches!(world.reserve(&key, &[("apple", 5)]).await, TryAnswer::Refused(_)));
    let receipt = Receipt { id: "second".to_owned(), line: Line::new("apple", 100).unwrap() };
    world.books.receive(&receipt).await.unwrap();
    assert!(matches!(world.reserve(&key, &[("apple", 5)]).await, TryAnswer::Refused(_)));
    assert_eq!(world.cancel(&key).await, SettleAnswer::Done);
    assert_eq!(world.row("apple").await, (101, 0, 0));
}

#[tokio::test]
async fn a_bad_request_is_refused_with_the_field_that_is_wrong() {
    let world = World::with(&[("apple", 10)]).await;
    let many: Vec<_> = (0..101).map(|index| format!("sku-{index}")).collect();
    let many: Vec<_> = many.iter().map(|sku| (sku.as_str(), 1)).collect();
    for (lines, field) in [
        (&[][..], "lines:"),
        (&many, "lines:"),
        (&[("apple", 0)], "lines[0].quantity:"),
        (&[("apple", -1)], "lines[0].quantity:"),
        (&[("apple", i64::MIN)], "lines[0].quantity:"),
        (&[("apple", QUANTITY_MAX + 1)], "lines[0].quantity:"),
        (&[("apple", i64::MAX)], "lines[0].quantity:"),
        (&[("", 1)], "lines[0].sku:"),
        (&[("apple", 1), ("two words", 1)], "lines[1].sku:"),
        (&[("apple", 1), ("apple", 1)], "lines[1].sku:"),
    ] {
        let refusal = world.refusal(lines).await;
        assert_eq!(refusal.code, "BAD_REQUEST", "{field}");
        assert!(refusal.message.contains(field), "{field} {}", refusal.message);
    }
    assert_eq!(world.row("apple").await, (10, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_orders_at_once_never_oversell_and_the_books_balance() {
    let world = World::with(&[("hot", 100), ("side", 1_000)]).await;
    let mut orders = JoinSet::new();
    for index in 0..200_i64 {
        let engine = world.engine.clone();
        orders.spawn(async move {
            let key = key();
            let quantity = index % 3 + 1;
            // Half of them name the rows in the other order.
            let lines = [("hot", quantity), ("side", 1)];
            let lines = if index % 2 == 0 { lines } else { [lines[1], lines[0]] };
            let answer = engine.try_branch(try_call(&key, &lines)).await.unwrap();
            match answer {
                TryAnswer::Reserved(_) if index % 4 == 0 => {
                    engine.cancel(CancelCall { key, not_after: in_a_minute() }).await.unwrap();
                    (quantity, 0)
                }
                TryAnswer::Reserved(_) => {
                    engine.confirm(ConfirmCall { key }).await.unwrap();
                    (quantity, quantity)
                }
                TryAnswer::Refused(refusal) => {
                    assert_eq!(refusal.code, "OUT_OF_STOCK");
                    (0, 0)
                }
                TryAnswer::Violation(violation) => panic!("{violation}"),
            }
        });
    }
    let ends = orders.join_all().await;
    let (reserved, sold) = ends.into_iter().fold((0, 0), |sums, end| (sums.0 + end.0, sums.1 + end.1));
    assert_eq!(world.row("hot").await, (100 - sold, 0, sold));
    // Those that would confirm want 300 of 100 pieces, so some were refused; and to an order of at most 3 pieces that takes at
    // least 98 reserved ones.
    assert!(reserved >= 98, "{reserved}");
    let (_, frozen, side_sold) = world.row("side").await;
    assert!(frozen == 0 && side_sold > 0);
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

#[tokio::test]
async fn a_delivery_is_counted_once_and_its_id_is_not_for_another() {
    let world = World::with(&[]).await;
    let receipt = |id: &str, sku: &str, quantity| Receipt { id: id.to_owned(), line: Line::new(sku, quantity).unwrap() };
    for _ in 0..2 {
        let Received::Counted(stock) = world.books.receive(&receipt("r1", "apple", 5)).await.unwrap() else { panic!() };
        assert_eq!((stock.initial, stock.available), (5, 5));
    }
    for other in [receipt("r1", "apple", 6), receipt("r1", "bread", 5)] {
        assert_eq!(world.books.receive(&other).await.unwrap(), Received::OtherContent);
    }
    assert!(world.books.get("bread").await.unwrap().is_none());
    assert_eq!(world.row("apple").await, (5, 0, 0));
}

#[tokio::test]
async fn a_delivery_beyond_the_limit_is_not_counted_and_its_id_stays_free() {
    let world = World::with(&[("apple", 1)]).await;
    let fill = "UPDATE stock SET initial = ?1, available = ?1 WHERE sku = 'apple'";
    sqlx::query(fill).bind(STOCK_MAX - 1).execute(world.store.write_pool()).await.unwrap();
    let receipt = |quantity| Receipt { id: "r1".to_owned(), line: Line::new("apple", quantity).unwrap() };
    assert_eq!(world.books.receive(&receipt(2)).await.unwrap(), Received::TooMuch);
    assert!(matches!(world.books.receive(&receipt(1)).await.unwrap(), Received::Counted(stock) if stock.initial == STOCK_MAX));
}

#[tokio::test]
async fn the_database_itself_forbids_books_that_do_not_balance() {
    let world = World::with(&[("apple", 10)]).await;
    for statement in [
        "UPDATE stock SET available = -1, frozen = 11",
        "UPDATE stock SET available = 11, frozen = -1",
        "UPDATE stock SET available = 11, sold = -1",
        "UPDATE stock SET available = 9",
        "UPDATE stock SET sold = 1",
    ] {
        let error = sqlx::query(statement).execute(world.store.write_pool()).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_check_violation(), "{statement}: {error}");
    }
    assert_eq!(world.row("apple").await, (10, 0, 0));
}

#[tokio::test]
async fn a_confirm_whose_frozen_pieces_vanished_is_unknown_and_changes_nothing() {
    let world = World::with(&[("apple", 10), ("bread", 10)]).await;
    let key = key();
    world.reserve(&key, &[("apple", 3), ("bread", 3)]).await;
    let steal = "UPDATE stock SET frozen = 0, available = initial WHERE sku = 'bread'";
    sqlx::query(steal).execute(world.store.write_pool()).await.unwrap();
    assert!(world.engine.confirm(ConfirmCall { key: key.clone() }).await.is_err());
    assert_eq!((world.row("apple").await, world.row("bread").await), ((7, 3, 0), (10, 0, 0)));
    assert_eq!(world.store.count_tried().await.unwrap(), 1);
}

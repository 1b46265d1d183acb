//! Stock in memory: what a simulation reads of it and checks at each commit.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[allow(unused_imports, unused_macros, reason = "these are tests of one database")]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use support::{Dice, InMemory, TestDatabase, in_a_minute, key, receipt, try_call};
use tcc_inventory::{
    Inventory, Spread, StockBooks, StockDatabase,
    memory::{StockRow, StockTables},
};
use tcc_participant::{Engine, Options, Store, memory::Memory};
use tcc_types::{CancelCall, ConfirmCall, SettleAnswer, TryAnswer};
use tokio::task::JoinSet;

type Running = (Memory<StockTables>, Store<InMemory>, Engine<Inventory<InMemory>>);

async fn with(stock: &[(&str, i64, u32)]) -> Running {
    let fresh = InMemory::fresh();
    let store = InMemory::opened(&fresh, &Options::default()).await;
    let books = InMemory::books(store.clone());
    for (sku, quantity, buckets) in stock {
        books.receive(&receipt(sku, sku, *quantity)).await.unwrap();
        books.spread(&Spread::new(*sku, *buckets).unwrap()).await.unwrap().unwrap();
    }
    (fresh.memory, store.clone(), Engine::batched(Inventory::new(), store))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_books_hold_at_each_commit_while_orders_come_and_go() {
    let (memory, store, engine) = with(&[("hot", 50, 3), ("side", 400, 1)]).await;
    let commits = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&commits);
    memory.observe(Box::new(move |_, after| {
        seen.fetch_add(1, Ordering::SeqCst);
        after.check().unwrap();
    }));
    let mut orders = JoinSet::new();
    for order in 1..=150_u64 {
        let engine = engine.clone();
        orders.spawn(async move {
            let (key, mut dice) = (key(), Dice(order.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let quantity = i64::try_from(dice.roll(3)).unwrap() + 1;
            let answer = engine.try_branch(try_call(&key, &[("hot", quantity), ("side", 1)])).await.unwrap();
            let is_reserved = matches!(answer, TryAnswer::Reserved(_));
            let settled = match dice.roll(3) {
                0 if is_reserved => return quantity,
                1 if is_reserved => engine.confirm(ConfirmCall { key }).await,
                _ => engine.cancel(CancelCall { key, not_after: in_a_minute() }).await,
            };
            assert_eq!(settled.unwrap(), SettleAnswer::Done);
            0
        });
    }
    let frozen: i64 = orders.join_all().await.into_iter().sum();
    assert!(frozen > 0 && commits.load(Ordering::SeqCst) > 0);
    let tables = memory.durable();
    let hot = tables.stock.sku("hot").unwrap();
    assert_eq!((hot.rows.len(), hot.sums().initial, hot.sums().frozen), (3, 50, frozen));
    let held = tables.held().unwrap();
    assert_eq!(held.iter().filter(|((sku, _), _)| sku == "hot").map(|(_, pieces)| *pieces).sum::<i64>(), frozen);
    assert_eq!(u64::try_from(tables.branches.tried().count()).unwrap(), store.count_tried().await.unwrap());
    assert_eq!(
        tables.stock.receipts().map(|(id, line, _)| (id, line.quantity())).collect::<Vec<_>>(),
        [("hot", 50), ("side", 400)]
    );
}

#[tokio::test]
async fn books_that_do_not_hold_are_told() {
    let (memory, _, engine) = with(&[("apple", 10, 2)]).await;
    let one = key();
    assert!(matches!(engine.try_branch(try_call(&one, &[("apple", 3)])).await.unwrap(), TryAnswer::Reserved(_)));
    memory.visible().check().unwrap();
    let broken = |change: fn(&mut StockRow)| {
        let mut tables = memory.visible();
        let changed = tables.stock.change("apple", |rows| rows.rows.iter_mut().for_each(change));
        changed.unwrap();
        tables.check().unwrap_err()
    };
    let released = broken(|row| (row.available, row.frozen) = (row.available + row.frozen, 0));
    assert!(released.contains("the tried branches hold 3"), "{released}");
    let sold = broken(|row| (row.sold, row.frozen) = (row.frozen, 0));
    assert!(sold.contains("the tried branches hold 3"), "{sold}");
    let mut forgotten = memory.visible();
    forgotten.branches = Default::default();
    let forgotten = forgotten.check().unwrap_err();
    assert!(forgotten.contains("the tried branches hold 0"), "{forgotten}");
    let mut lost = memory.visible();
    lost.stock = Default::default();
    assert!(lost.check().unwrap_err().contains("is not there"));
}

#[tokio::test]
async fn the_tables_forbid_what_no_books_can_have() {
    let (memory, _, _) = with(&[("apple", 10, 2)]).await;
    let mut stock = memory.visible().stock;
    let before = stock.sku("apple").cloned();
    assert!(stock.change("apple", |rows| rows.buckets = 0).is_err());
    assert!(stock.change("apple", |rows| rows.buckets = 3).is_err());
    assert!(stock.change("apple", |rows| rows.rows.resize(65, StockRow::default())).is_err());
    assert!(stock.change("apple", |rows| rows.rows[0].available += 1).is_err());
    assert!(stock.change("apple", |rows| (rows.rows[0].frozen, rows.rows[0].sold) = (-1, 1)).is_err());
    assert_eq!(stock.sku("apple").cloned(), before);
    assert!(!stock.change("bread", |_| ()).unwrap());
}

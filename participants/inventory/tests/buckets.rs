//! Stock in buckets, on every database, through the SDK.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::sync::Arc;

use prost::Message;
use sqlx::{MySql, Postgres};
use support::{Dice, Fresh, InMemory, TestDatabase, in_a_minute, key, on_every_database, receipt, try_call};
use tcc_inventory::{BUCKETS_MAX, Inventory, Receipt, Received, STOCK_MAX, Spread, Stock, StockBooks, chosen, seed_of};
use tcc_participant::{Engine, Options, Place, Store};
use tcc_proto::inventory::v1::{ReserveStock, ReservedStock, StockLine};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, Refusal, SettleAnswer, TryAnswer};
use tokio::task::JoinSet;

on_every_database! {
    a_sku_has_one_bucket_until_it_is_given_more_and_reads_as_one,
    what_is_reserved_or_sold_stays_in_its_row_when_free_stock_is_spread,
    a_delivery_fills_the_emptiest_buckets_and_is_counted_once,
    a_delivery_is_bounded_by_the_sum_of_the_buckets,
    an_order_takes_from_the_bucket_of_its_key_where_several_write,
    five_are_three_and_two_and_the_last_piece_is_found_in_every_bucket,
    what_is_given_back_to_a_bucket_that_is_not_used_any_more_is_found,
    a_reservation_from_before_there_were_buckets_is_settled,
    orders_at_once_drain_a_sku_to_zero_while_it_is_spread_and_filled,
}

/// What only SQL can say.
mod by_sql {
    use super::{
        rows_from_before_there_were_buckets_are_in_the_first, support, the_database_itself_forbids_buckets_that_cannot_be,
    };

    support::on_every_database! { @sql
        rows_from_before_there_were_buckets_are_in_the_first,
        the_database_itself_forbids_buckets_that_cannot_be,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_drain_one_hot_sku_to_zero_in_memory() {
    two_instances_drain_one_hot_sku_to_zero::<InMemory>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_drain_one_hot_sku_to_zero_on_postgres() {
    two_instances_drain_one_hot_sku_to_zero::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_drain_one_hot_sku_to_zero_on_mysql() {
    two_instances_drain_one_hot_sku_to_zero::<MySql>().await;
}

struct World<D: TestDatabase> {
    store: Store<D>,
    engine: Engine<Inventory<D>>,
    books: Arc<D::Books>,
    fresh: Fresh,
}

impl<D: TestDatabase> World<D> {
    async fn with(sku: &str, quantity: i64, buckets: u32) -> Self {
        let fresh = D::fresh();
        let store = D::opened(&fresh, &Options::default()).await;
        let books = Arc::new(D::books(store.clone()));
        if quantity > 0 {
            books.receive(&receipt("first", sku, quantity)).await.unwrap();
            books.spread(&Spread::new(sku, buckets).unwrap()).await.unwrap().unwrap();
        }
        Self { engine: Engine::batched(Inventory::new(), store.clone()), store, books, fresh }
    }

    async fn execute(&self, statement: String) {
        D::execute(&self.store, statement).await.unwrap();
    }

    async fn spread(&self, sku: &str, buckets: u32) -> Stock {
        self.books.spread(&Spread::new(sku, buckets).unwrap()).await.unwrap().unwrap()
    }

    /// What is free in each of a SKU's rows.
    async fn free(&self, sku: &str) -> Vec<i64> {
        self.column(sku, "available").await
    }

    async fn column(&self, sku: &str, column: &str) -> Vec<i64> {
        let select = format!("SELECT {column} FROM stock WHERE sku = '{sku}' ORDER BY bucket");
        D::integers(&self.store, select).await.unwrap()
    }

    /// Empties a SKU's rows but for these pieces, which are all that there are then.
    async fn put(&self, sku: &str, free: &[i64]) {
        for (bucket, free) in free.iter().enumerate() {
            let set = "UPDATE stock SET frozen = 0, sold = 0";
            self.execute(format!("{set}, initial = {free}, available = {free} WHERE sku = '{sku}' AND bucket = {bucket}"))
                .await;
        }
    }

    async fn sums(&self, sku: &str) -> (i64, i64, i64) {
        let stock = self.books.get(sku).await.unwrap().unwrap();
        assert_eq!(stock.available + stock.frozen + stock.sold, stock.initial);
        (stock.available, stock.frozen, stock.sold)
    }

    async fn reserve(&self, key: &BranchKey, lines: &[(&str, i64)]) -> TryAnswer {
        self.engine.try_branch(try_call(key, lines)).await.unwrap()
    }

    async fn is_reserved(&self, key: &BranchKey, lines: &[(&str, i64)]) -> bool {
        match self.reserve(key, lines).await {
            TryAnswer::Reserved(_) => true,
            TryAnswer::Refused(Refusal { code, .. }) if code == "OUT_OF_STOCK" => false,
            other => panic!("{other:?}"),
        }
    }

    async fn confirm(&self, key: &BranchKey) {
        assert_eq!(self.engine.confirm(ConfirmCall { key: key.clone() }).await.unwrap(), SettleAnswer::Done);
    }

    async fn cancel(&self, key: &BranchKey) {
        let call = CancelCall { key: key.clone(), not_after: in_a_minute() };
        assert_eq!(self.engine.cancel(call).await.unwrap(), SettleAnswer::Done);
    }
}

async fn a_sku_has_one_bucket_until_it_is_given_more_and_reads_as_one<D: TestDatabase>() {
    let world = World::<D>::with("hot", 10, 1).await;
    assert_eq!(world.books.get("hot").await.unwrap().unwrap().buckets, 1);
    let stock = world.spread("hot", 4).await;
    assert_eq!((stock.initial, stock.available, stock.buckets), (10, 10, 4));
    assert_eq!(world.free("hot").await, [3, 3, 2, 2]);
    world.books.receive(&receipt("other", "cold", 1)).await.unwrap();
    let read = world.books.get("hot").await.unwrap().unwrap();
    let listed = world.books.list(None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|stock| stock.sku.as_str()).collect::<Vec<_>>(), ["cold", "hot"]);
    assert_eq!((&listed[1], &stock), (&read, &read));
    assert_eq!(world.books.list(None, 1).await.unwrap().len(), 1);
    assert_eq!(world.books.list(Some("cold"), 10).await.unwrap(), [read]);
    assert_eq!(world.books.spread(&Spread::new("nothing", 2).unwrap()).await.unwrap(), None);
    assert!(Spread::new("hot", 0).is_err() && Spread::new("hot", u32::from(BUCKETS_MAX) + 1).is_err());
    assert_eq!(world.spread("hot", BUCKETS_MAX.into()).await.buckets, BUCKETS_MAX);
    assert_eq!(world.free("hot").await.len(), usize::from(BUCKETS_MAX));
}

async fn what_is_reserved_or_sold_stays_in_its_row_when_free_stock_is_spread<D: TestDatabase>() {
    let world = World::<D>::with("hot", 12, 4).await;
    let keys: Vec<_> = (0..6).map(|_| key()).collect();
    for key in &keys {
        assert!(world.is_reserved(key, &[("hot", 1)]).await);
    }
    world.confirm(&keys[0]).await;
    let (frozen, sold) = (world.column("hot", "frozen").await, world.column("hot", "sold").await);
    assert_eq!(world.spread("hot", 2).await.buckets, 2);
    assert_eq!(world.free("hot").await, [3, 3, 0, 0]);
    assert_eq!((world.column("hot", "frozen").await, world.column("hot", "sold").await), (frozen, sold));
    assert_eq!(world.sums("hot").await, (6, 5, 1));
    for key in &keys[1..] {
        world.confirm(key).await;
    }
    assert_eq!(world.sums("hot").await, (6, 0, 6));
    assert_eq!(world.spread("hot", 3).await.buckets, 3);
    assert_eq!(world.free("hot").await, [2, 2, 2, 0]);
}

async fn a_delivery_fills_the_emptiest_buckets_and_is_counted_once<D: TestDatabase>() {
    let world = World::<D>::with("hot", 8, 4).await;
    world.put("hot", &[4, 0, 9, 1]).await;
    for _ in 0..2 {
        let Received::Counted(stock) = world.books.receive(&receipt("more", "hot", 6)).await.unwrap() else { panic!() };
        assert_eq!((stock.initial, stock.available, stock.buckets), (20, 20, 4));
        let free = world.free("hot").await;
        assert_eq!((free[2], free[0] + free[1] + free[3]), (9, 11));
        assert!(free[1] >= 3 && free[3] >= 3, "{free:?}");
    }
    let other = world.books.receive(&receipt("more", "hot", 7)).await.unwrap();
    assert_eq!(other, Received::OtherContent);
}

async fn a_delivery_is_bounded_by_the_sum_of_the_buckets<D: TestDatabase>() {
    let world = World::<D>::with("hot", 8, 2).await;
    world.put("hot", &[STOCK_MAX - 10, 4]).await;
    assert_eq!(world.books.receive(&receipt("a", "hot", 7)).await.unwrap(), Received::TooMuch);
    let Received::Counted(stock) = world.books.receive(&receipt("a", "hot", 6)).await.unwrap() else { panic!() };
    assert_eq!(stock.initial, STOCK_MAX);
    assert_eq!(world.books.receive(&receipt("b", "hot", 1)).await.unwrap(), Received::TooMuch);
}

async fn an_order_takes_from_the_bucket_of_its_key_where_several_write<D: TestDatabase>() {
    let world = World::<D>::with("hot", 400, 4).await;
    // The first one does not know of the buckets yet; its row tells.
    assert!(world.is_reserved(&key(), &[("hot", 1)]).await);
    assert_eq!(world.free("hot").await, [99, 100, 100, 100]);
    let mut expected = vec![99, 100, 100, 100];
    for _ in 0..12 {
        let key = key();
        assert!(world.is_reserved(&key, &[("hot", 5)]).await);
        // With one writer there is nobody to get out of the way of.
        let bucket = match D::PLACE {
            Place::Here => 0,
            Place::Server => chosen(seed_of(&key), 4),
        };
        expected[usize::from(bucket)] -= 5;
        assert_eq!(world.free("hot").await, expected);
    }
}

async fn five_are_three_and_two_and_the_last_piece_is_found_in_every_bucket<D: TestDatabase>() {
    let world = World::<D>::with("hot", 8, 4).await;
    world.put("hot", &[0, 3, 0, 2]).await;
    let five = key();
    assert!(!world.is_reserved(&key(), &[("hot", 6)]).await);
    assert!(world.is_reserved(&five, &[("hot", 5)]).await);
    assert!(!world.is_reserved(&key(), &[("hot", 1)]).await);
    assert_eq!(world.column("hot", "frozen").await, [0, 3, 0, 2]);
    world.cancel(&five).await;
    assert_eq!(world.free("hot").await, [0, 3, 0, 2]);
    for bucket in 0..4 {
        let free: Vec<_> = (0..4).map(|other| i64::from(other == bucket)).collect();
        world.put("hot", &free).await;
        let last = key();
        assert!(world.is_reserved(&last, &[("hot", 1)]).await);
        assert!(!world.is_reserved(&key(), &[("hot", 1)]).await);
        world.confirm(&last).await;
        assert_eq!(world.column("hot", "sold").await, free);
    }
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

async fn what_is_given_back_to_a_bucket_that_is_not_used_any_more_is_found<D: TestDatabase>() {
    let world = World::<D>::with("hot", 4, 4).await;
    let keys: Vec<_> = (0..4).map(|_| key()).collect();
    for key in &keys {
        assert!(world.is_reserved(key, &[("hot", 1)]).await);
    }
    world.spread("hot", 1).await;
    assert_eq!(world.column("hot", "frozen").await, [1, 1, 1, 1]);
    for key in &keys {
        world.cancel(key).await;
    }
    assert_eq!(world.free("hot").await, [1, 1, 1, 1]);
    let four = key();
    assert!(world.is_reserved(&four, &[("hot", 4)]).await);
    assert!(!world.is_reserved(&key(), &[("hot", 1)]).await);
    // Where an instance knows nothing of the buckets yet.
    world.cancel(&four).await;
    let new = Engine::batched(Inventory::new(), world.store.clone());
    assert!(matches!(new.try_branch(try_call(&key(), &[("hot", 4)])).await.unwrap(), TryAnswer::Reserved(_)));
}

async fn a_reservation_from_before_there_were_buckets_is_settled<D: TestDatabase>() {
    // As it was stored: what is all from the first bucket has not changed a byte.
    let lines = vec![StockLine { sku: "hot".to_owned(), quantity: 3 }];
    let old = ReserveStock { lines: lines.clone() }.encode_to_vec();
    assert_eq!(ReservedStock { lines, ..ReservedStock::default() }.encode_to_vec(), old);

    let world = World::<D>::with("hot", 8, 1).await;
    let (one, other) = (key(), key());
    assert!(world.is_reserved(&one, &[("hot", 3)]).await && world.is_reserved(&other, &[("hot", 3)]).await);
    world.spread("hot", 4).await;
    assert_eq!(world.column("hot", "frozen").await, [6, 0, 0, 0]);
    world.confirm(&one).await;
    world.cancel(&other).await;
    assert_eq!((world.column("hot", "frozen").await, world.column("hot", "sold").await), (vec![0; 4], vec![3, 0, 0, 0]));
    assert_eq!(world.sums("hot").await, (5, 0, 3));
}

async fn rows_from_before_there_were_buckets_are_in_the_first<D: TestDatabase>() {
    let fresh = D::fresh();
    let store = Store::<D>::open(&fresh.url, &Options::default()).await.unwrap();
    let mut before = D::migrator();
    before.migrations = before.migrations.iter().filter(|migration| migration.version == 1).cloned().collect::<Vec<_>>().into();
    store.migrate(before).await.unwrap();
    let stock = "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) VALUES ('apple', 10, 5, 3, 2, 7)";
    D::execute(&store, stock.to_owned()).await.unwrap();
    store.migrate(D::migrator()).await.unwrap();
    store.migrate(D::migrator()).await.unwrap();
    let books = D::books(store.clone());
    let stock = books.get("apple").await.unwrap().unwrap();
    assert_eq!((stock.initial, stock.available, stock.frozen, stock.sold, stock.buckets), (10, 5, 3, 2, 1));
    assert_eq!(stock.updated_at.as_micros(), 7);
    assert_eq!(D::integers(&store, "SELECT bucket + buckets_made FROM stock".to_owned()).await.unwrap(), [1]);
}

async fn the_database_itself_forbids_buckets_that_cannot_be<D: TestDatabase>() {
    let world = World::<D>::with("hot", 8, 2).await;
    for bad in ["bucket = 7", "buckets = 0", "buckets = 3", "buckets_made = 65", "initial = 9", "available = -1"] {
        let update = format!("UPDATE stock SET {bad} WHERE sku = 'hot' AND bucket = 1");
        assert!(D::execute(&world.store, update).await.is_err(), "{bad}");
    }
}

/// Orders until it is sold out; how many pieces were sold, and what the refused ones asked for at least.
async fn buy_all<D: TestDatabase>(engine: Engine<Inventory<D>>, mut dice: Dice) -> i64 {
    let (mut sold, mut refused) = (0, 0);
    // One that asks for a single piece is refused only where nothing is left.
    while refused == 0 {
        let key = key();
        let quantity = i64::try_from(dice.roll(5)).unwrap() + 1;
        match engine.try_branch(try_call(&key, &[("hot", quantity)])).await.unwrap() {
            TryAnswer::Reserved(_) if dice.roll(4) == 0 => {
                let call = CancelCall { key, not_after: in_a_minute() };
                assert_eq!(engine.cancel(call).await.unwrap(), SettleAnswer::Done);
            }
            TryAnswer::Reserved(_) => {
                assert_eq!(engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
                sold += quantity;
            }
            TryAnswer::Refused(refusal) => {
                assert_eq!(refusal.code, "OUT_OF_STOCK");
                if quantity == 1 {
                    refused += 1;
                }
            }
            TryAnswer::Violation(violation) => panic!("{violation:?}"),
        }
    }
    sold
}

async fn orders_at_once_drain_a_sku_to_zero_while_it_is_spread_and_filled<D: TestDatabase>() {
    let world = World::<D>::with("hot", 600, 4).await;
    let mut orders = JoinSet::new();
    for task in 1..=24_u64 {
        orders.spawn(buy_all(world.engine.clone(), Dice(task.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    }
    let mut delivered = 600;
    for (step, buckets) in [1, 8, 3, 16, 2, 5].into_iter().enumerate() {
        world.spread("hot", buckets).await;
        let more: Receipt = receipt(&format!("more-{step}"), "hot", 50);
        assert!(matches!(world.books.receive(&more).await.unwrap(), Received::Counted(_)));
        delivered += 50;
    }
    let mut sold: i64 = orders.join_all().await.into_iter().sum();
    // Some may have gone when a delivery was still to come, or when another one gave back.
    sold += buy_all(world.engine.clone(), Dice(77)).await;
    assert_eq!(world.sums("hot").await, (0, 0, sold));
    assert_eq!(sold, delivered);
    assert_eq!(world.free("hot").await, [0; 16]);
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

async fn two_instances_drain_one_hot_sku_to_zero<D: TestDatabase>() {
    const PIECES: usize = 1_000;
    for buckets in [1, 2, 7, 16] {
        let world = World::<D>::with("hot", i64::try_from(PIECES).unwrap(), buckets).await;
        let other = D::opened(&world.fresh, &Options::default()).await;
        let engines = [world.engine.clone(), Engine::batched(Inventory::new(), other)];
        // Nobody gives anything back, so that each refusal must be of what is truly sold out: as many are sold as there are.
        let mut orders = JoinSet::new();
        for order in 0..PIECES + 150 {
            let engine = engines[order % 2].clone();
            orders.spawn(async move {
                let key = key();
                match engine.try_branch(try_call(&key, &[("hot", 1)])).await.unwrap() {
                    TryAnswer::Reserved(_) => {
                        assert_eq!(engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
                        true
                    }
                    TryAnswer::Refused(refusal) => {
                        assert_eq!(refusal.code, "OUT_OF_STOCK");
                        false
                    }
                    TryAnswer::Violation(violation) => panic!("{violation:?}"),
                }
            });
        }
        let sold = orders.join_all().await.into_iter().filter(|sold| *sold).count();
        assert_eq!(sold, PIECES, "{buckets} buckets");
        assert_eq!(world.sums("hot").await, (0, 0, i64::try_from(PIECES).unwrap()));
        assert_eq!(world.free("hot").await, vec![0; usize::try_from(buckets).unwrap()]);
        let sold = world.column("hot", "sold").await;
        assert_eq!(world.column("hot", "initial").await, sold);
        assert_eq!(world.store.count_tried().await.unwrap(), 0);
    }
}

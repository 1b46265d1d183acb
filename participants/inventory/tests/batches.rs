//! Many operations of inventory in one local transaction, on every database.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use sqlx::{MySql, Postgres};
use support::{Dice, Fresh, InMemory, TestDatabase, in_a_minute, key, on_every_database, receipt, try_call};
use tcc_barrier::{Answer, Call};
use tcc_inventory::{Inventory, Spread, StockBooks};
use tcc_participant::{Engine, Options, Store, within};
use tcc_types::{BranchId, BranchKey, CancelCall, ConfirmCall, SettleAnswer, TryAnswer, TryCall};
use tokio::task::JoinSet;

on_every_database! {
    random_batches_answer_and_leave_what_their_operations_do_one_by_one,
    random_batches_on_buckets_answer_what_one_row_would,
    a_batch_on_one_sku_sells_its_last_pieces_to_the_first_in_order,
    a_batch_in_which_frozen_pieces_have_vanished_changes_nothing,
    a_batch_of_many_skus_is_settled_whole,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_with_batches_over_the_same_skus_balance_in_memory() {
    two_instances_with_batches_over_the_same_skus_balance::<InMemory>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_with_batches_over_the_same_skus_balance_on_postgres() {
    two_instances_with_batches_over_the_same_skus_balance::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_with_batches_over_the_same_skus_balance_on_mysql() {
    two_instances_with_batches_over_the_same_skus_balance::<MySql>().await;
}

const SKUS: [&str; 5] = ["apple", "bread", "candy", "dates", "hot"];

/// An operation.
#[derive(Clone, Debug)]
enum Operation {
    Try(TryCall),
    Confirm(ConfirmCall),
    Cancel(CancelCall),
}

impl Operation {
    fn confirm(key: &BranchKey) -> Self {
        Self::Confirm(ConfirmCall { key: key.clone() })
    }

    fn cancel(key: &BranchKey) -> Self {
        Self::Cancel(CancelCall { key: key.clone(), not_after: in_a_minute() })
    }

    fn call(&self) -> Call<'_> {
        match self {
            Self::Try(call) => Call::Try(call),
            Self::Confirm(call) => Call::Confirm(call),
            Self::Cancel(call) => Call::Cancel(call),
        }
    }
}

struct World<D: TestDatabase> {
    store: Store<D>,
    engine: Engine<Inventory<D>>,
    books: D::Books,
    fresh: Fresh,
}

impl<D: TestDatabase> World<D> {
    async fn with(stock: &[(&str, i64)]) -> Self {
        let fresh = D::fresh();
        let store = D::opened(&fresh, &Options::default()).await;
        let books = D::books(store.clone());
        for (sku, quantity) in stock {
            books.receive(&receipt(sku, sku, *quantity)).await.unwrap();
        }
        Self { engine: Engine::batched(Inventory::new(), store.clone()), store, books, fresh }
    }

    /// In one transaction, with the answers in the operations' order, which is that of their keys.
    async fn together(&self, operations: &[Operation]) -> Result<Vec<Answer>, within::Error> {
        let calls: Vec<_> = operations.iter().map(Operation::call).collect();
        let mut transaction = self.store.begin().await.unwrap();
        // One that has seen a batch before may expect refusals, and go another way; a new one never does.
        let (new, used) = (Inventory::<D>::new(), self.engine.participant());
        let inventory = if operations.len().is_multiple_of(2) { &new } else { used };
        let answers = within::batch(inventory, &mut transaction, &calls, &Options::default()).await?;
        transaction.commit().await.unwrap();
        Ok(answers)
    }

    /// Each alone: what settles first, as in a batch.
    async fn one_by_one(&self, operations: &[Operation]) -> Vec<Answer> {
        let mut answers = vec![None; operations.len()];
        for settles in [true, false] {
            for (operation, answer) in operations.iter().zip(&mut answers) {
                match operation.clone() {
                    Operation::Confirm(call) if settles => {
                        *answer = Some(Answer::Settled(self.engine.confirm(call).await.unwrap()));
                    }
                    Operation::Cancel(call) if settles => {
                        *answer = Some(Answer::Settled(self.engine.cancel(call).await.unwrap()));
                    }
                    Operation::Try(call) if !settles => {
                        *answer = Some(Answer::Tried(self.engine.try_branch(call).await.unwrap()));
                    }
                    Operation::Confirm(_) | Operation::Cancel(_) | Operation::Try(_) => {}
                }
            }
        }
        answers.into_iter().flatten().collect()
    }

    async fn row(&self, sku: &str) -> (i64, i64, i64) {
        let stock = self.books.get(sku).await.unwrap().unwrap();
        assert_eq!(stock.available + stock.frozen + stock.sold, stock.initial);
        (stock.available, stock.frozen, stock.sold)
    }

    async fn rows(&self) -> Vec<(i64, i64, i64)> {
        let mut rows = Vec::new();
        for sku in SKUS {
            rows.push(self.row(sku).await);
        }
        rows
    }
}

fn code(answer: &Answer) -> &str {
    match answer {
        Answer::Tried(TryAnswer::Reserved(_)) => "reserved",
        Answer::Tried(TryAnswer::Refused(refusal)) => &refusal.code,
        Answer::Tried(TryAnswer::Violation(_)) | Answer::Settled(SettleAnswer::Violation(_)) => "violation",
        Answer::Settled(SettleAnswer::Done) => "done",
    }
}

/// Lines of an order, now and then bad ones.
fn some_lines(dice: &mut Dice) -> Vec<(&'static str, i64)> {
    let quantity = i64::try_from(dice.roll(4)).unwrap() + 1;
    let mut lines: Vec<_> = (0..=dice.roll(3)).map(|step| (SKUS[(dice.roll(2) + step * 2) % 5], quantity)).collect();
    match dice.roll(12) {
        0 => lines.push(("nothing", 1)),
        1 => lines.push(("apple", 0)),
        2 => lines.push(("hot", 1_000)),
        _ => lines.push(("hot", 1)),
    }
    lines.sort_unstable();
    lines.dedup_by_key(|(sku, _)| *sku);
    lines
}

async fn random_batches_answer_and_leave_what_their_operations_do_one_by_one<D: TestDatabase>() {
    random_batches::<D>([1; 5]).await;
}

async fn random_batches_on_buckets_answer_what_one_row_would<D: TestDatabase>() {
    random_batches::<D>([2, 1, 8, 3, 5]).await;
}

async fn random_batches<D: TestDatabase>(buckets: [u32; 5]) {
    let stock = SKUS.map(|sku| (sku, if sku == "hot" { 60 } else { 25 }));
    let (alone, together) = (World::<D>::with(&stock).await, World::<D>::with(&stock).await);
    for (sku, buckets) in SKUS.into_iter().zip(buckets) {
        together.books.spread(&Spread::new(sku, buckets).unwrap()).await.unwrap();
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut tried: Vec<TryCall> = Vec::new();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..12 {
        // Some of those before: settled, settled again (the same way or the other), or tried again.
        let mut operations: Vec<Operation> = Vec::new();
        for call in &tried {
            match dice.roll(8) {
                0..=2 => operations.push(Operation::confirm(&call.key)),
                3 | 4 => operations.push(Operation::cancel(&call.key)),
                5 => operations.push(Operation::Try(call.clone())),
                _ => {}
            }
        }
        for _ in 0..16 {
            let call = try_call(&key(), &some_lines(&mut dice));
            match dice.roll(10) {
                0 => operations.push(Operation::cancel(&call.key)),
                1 => operations.push(Operation::confirm(&call.key)),
                _ => operations.push(Operation::Try(call.clone())),
            }
            tried.push(call);
        }
        operations.sort_by(|one, other| one.call().key().cmp(other.call().key()));
        let expected = alone.one_by_one(&operations).await;
        assert_eq!(together.together(&operations).await.unwrap(), expected);
        assert_eq!(together.rows().await, alone.rows().await);
        expected.iter().for_each(|answer| *seen.entry(code(answer).to_owned()).or_default() += 1);
    }
    assert_eq!(together.store.count_tried().await.unwrap(), alone.store.count_tried().await.unwrap());
    let all = ["BAD_REQUEST", "OUT_OF_STOCK", "SUSPENDED", "UNKNOWN_SKU", "done", "reserved", "violation"];
    assert_eq!(seen.keys().collect::<Vec<_>>(), all, "{seen:?}");
}

/// Orders in the order of their keys.
fn orders(wanted: &[&[(&str, i64)]]) -> Vec<Operation> {
    orders_of(&keys(wanted.len()), wanted)
}

fn orders_of(keys: &[BranchKey], wanted: &[&[(&str, i64)]]) -> Vec<Operation> {
    keys.iter().zip(wanted).map(|(key, lines)| Operation::Try(try_call(key, lines))).collect()
}

/// New ones, in their order.
fn keys(count: usize) -> Vec<BranchKey> {
    let mut keys: Vec<_> = (0..count).map(|_| key()).collect();
    keys.sort();
    keys
}

async fn a_batch_on_one_sku_sells_its_last_pieces_to_the_first_in_order<D: TestDatabase>() {
    let world = World::<D>::with(&[("hot", 5), ("side", 100)]).await;
    let keys = keys(8);
    let wanted: [&[_]; 6] = [
        &[("hot", 2)],
        &[("hot", 4), ("side", 1)],
        &[("hot", 2), ("side", 1)],
        &[("hot", 1), ("nothing", 1)],
        &[("hot", 1)],
        &[("hot", 1)],
    ];
    let operations = orders_of(&keys, &wanted);
    let answers = world.together(&operations).await.unwrap();
    let codes: Vec<_> = answers.iter().map(code).collect();
    assert_eq!(codes, ["reserved", "OUT_OF_STOCK", "reserved", "UNKNOWN_SKU", "reserved", "OUT_OF_STOCK"]);
    assert_eq!((world.row("hot").await, world.row("side").await), ((0, 5, 0), (99, 1, 0)));
    // What one gives back, another gets, in the same transaction; and what is refused stays so.
    let mut next = orders_of(&keys[6..], &[&[("hot", 2)], &[("hot", 1)]]);
    next.extend([Operation::cancel(&keys[0]), Operation::confirm(&keys[2]), operations[1].clone()]);
    next.sort_by(|one, other| one.call().key().cmp(other.call().key()));
    let answers = world.together(&next).await.unwrap();
    let codes: Vec<_> = answers.iter().map(code).collect();
    assert_eq!(codes, ["done", "OUT_OF_STOCK", "done", "reserved", "OUT_OF_STOCK"]);
    assert_eq!((world.row("hot").await, world.row("side").await), ((0, 3, 2), (99, 0, 1)));
}

async fn a_batch_in_which_frozen_pieces_have_vanished_changes_nothing<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10), ("bread", 10)]).await;
    let placed = orders(&[&[("apple", 3)], &[("bread", 3)]]);
    world.together(&placed).await.unwrap();
    let steal = "UPDATE stock SET frozen = 0, available = initial WHERE sku = 'bread'";
    D::execute(&world.store, steal.to_owned()).await.unwrap();
    let confirms: Vec<_> = placed.iter().map(|operation| Operation::confirm(operation.call().key())).collect();
    let error = world.together(&confirms).await.unwrap_err();
    assert!(error.to_string().contains("sku bread: fewer than 3 pieces are frozen"), "{error}");
    assert_eq!((world.row("apple").await, world.row("bread").await), ((7, 3, 0), (10, 0, 0)));
    assert_eq!(world.store.count_tried().await.unwrap(), 2);
    // Alone, the one that can be had is.
    let key = placed[0].call().key().clone();
    assert_eq!(world.engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
}

async fn a_batch_of_many_skus_is_settled_whole<D: TestDatabase>() {
    let skus: Vec<_> = (0..300).map(|number| format!("{number:0>64}")).collect();
    let world = World::<D>::with(&skus.iter().map(|sku| (sku.as_str(), 10)).collect::<Vec<_>>()).await;
    let mut wanted: Vec<Vec<_>> = skus.chunks(75).map(|skus| skus.iter().map(|sku| (sku.as_str(), 3)).collect()).collect();
    wanted.extend_from_within(1..3);
    let placed = orders(&wanted.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let answers = world.together(&placed).await.unwrap();
    assert!(answers.iter().all(|answer| code(answer) == "reserved"), "{answers:?}");
    let settles = placed.iter().enumerate().map(|(index, operation)| match index {
        0 | 1 => Operation::cancel(operation.call().key()),
        _ => Operation::confirm(operation.call().key()),
    });
    let answers = world.together(&settles.collect::<Vec<_>>()).await.unwrap();
    assert!(answers.iter().all(|answer| code(answer) == "done"), "{answers:?}");
    for (index, sku) in skus.iter().enumerate() {
        let sold = [0, 3, 6, 3][index / 75];
        assert_eq!(world.row(sku).await, (10 - sold, 0, sold), "{sku}");
    }
}

/// Places and ends orders; what they sold of each. No operation may be answered *unknown*.
async fn place_random_orders<D: TestDatabase>(engine: Engine<Inventory<D>>, mut dice: Dice) -> [i64; 5] {
    let mut sold = [0; 5];
    for _ in 0..6 {
        let (key, lines) = (BranchKey { branch: BranchId::new("stock").unwrap(), ..key() }, some_lines(&mut dice));
        let reserved = matches!(engine.try_branch(try_call(&key, &lines)).await.unwrap(), TryAnswer::Reserved(_));
        if reserved && dice.roll(2) == 0 {
            assert_eq!(engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
            for (sku, quantity) in lines {
                sold[SKUS.iter().position(|known| *known == sku).unwrap()] += quantity;
            }
        } else {
            let cancelled = engine.cancel(CancelCall { key, not_after: in_a_minute() }).await;
            assert_eq!(cancelled.unwrap(), SettleAnswer::Done);
        }
    }
    sold
}

async fn two_instances_with_batches_over_the_same_skus_balance<D: TestDatabase>() {
    two_instances_with_batches::<D>(1).await;
    two_instances_with_batches::<D>(4).await;
}

async fn two_instances_with_batches<D: TestDatabase>(buckets: u32) {
    let world = World::<D>::with(&SKUS.map(|sku| (sku, 300))).await;
    for sku in SKUS {
        world.books.spread(&Spread::new(sku, buckets).unwrap()).await.unwrap();
    }
    let other = D::opened(&world.fresh, &Options::default()).await;
    let engines = [world.engine.clone(), Engine::batched(Inventory::new(), other)];
    let mut orders = JoinSet::new();
    for task in 1..=160_u64 {
        let engine = engines[usize::try_from(task % 2).unwrap()].clone();
        orders.spawn(place_random_orders(engine, Dice(task.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    }
    let mut sold = [0; 5];
    for of_one_task in orders.join_all().await {
        sold.iter_mut().zip(of_one_task).for_each(|(sum, sold)| *sum += sold);
    }
    for (sku, sold) in SKUS.into_iter().zip(sold) {
        assert!(sold > 0);
        assert_eq!(world.row(sku).await, (300 - sold, 0, sold), "{sku}");
    }
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

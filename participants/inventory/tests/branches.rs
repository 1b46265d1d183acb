//! Inventory's branches on every database, through the SDK.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::sync::Arc;

use support::{Dice, Fresh, TestDatabase, in_a_minute, key, on_every_database, receipt, try_call};
use tcc_inventory::{Inventory, LINES_MAX, QUANTITY_MAX, Receipt, Received, STOCK_MAX, StockBooks};
use tcc_participant::{Engine, Options, Store};
use tcc_types::{BranchId, BranchKey, CancelCall, ConfirmCall, Refusal, RefusalReason, SettleAnswer, TryAnswer};
use tokio::task::JoinSet;

on_every_database! {
    confirm_turns_frozen_into_sold_and_cancel_gives_it_back,
    a_repeated_try_freezes_once,
    an_order_of_several_skus_is_frozen_and_settled_whole,
    what_cannot_be_had_is_refused_and_nothing_stays_frozen,
    a_refused_order_stays_refused_when_stock_comes_and_its_cancel_is_done,
    a_bad_request_is_refused_with_the_field_that_is_wrong,
    many_orders_at_once_never_oversell_and_the_books_balance,
    a_delivery_is_counted_once_and_its_id_is_not_for_another,
    a_delivery_beyond_the_limit_is_not_counted_and_its_id_stays_free,
    the_database_itself_forbids_books_that_do_not_balance,
    a_confirm_whose_frozen_pieces_vanished_is_unknown_and_changes_nothing,
    reports_of_one_delivery_at_once_count_it_once,
    deliveries_of_a_new_sku_at_once_are_all_counted,
    an_id_that_two_deliveries_have_at_once_is_for_one_of_them,
    deliveries_at_once_are_counted_as_far_as_there_is_room,
    random_orders_and_deliveries_at_once_balance_and_nobody_is_told_of_a_deadlock,
    skus_are_listed_in_the_order_of_their_bytes,
    the_longest_names_and_the_most_lines_fit,
}

struct World<D: TestDatabase> {
    store: Store<D>,
    engine: Engine<Inventory<D>>,
    books: Arc<D::Books>,
    _fresh: Fresh,
}

impl<D: TestDatabase> World<D> {
    async fn with(stock: &[(&str, i64)]) -> Self {
        let fresh = D::fresh();
        let store = D::opened(&fresh, &Options::default()).await;
        let books = Arc::new(D::books(store.clone()));
        for (sku, quantity) in stock {
            assert!(matches!(books.receive(&receipt(&format!("first-{sku}"), sku, *quantity)).await, Ok(Received::Counted(_))));
        }
        Self { engine: Engine::batched(Inventory::new(), store.clone()), store, books, _fresh: fresh }
    }

    /// What somebody does to the tables beside the framework.
    async fn execute(&self, statement: &str) -> Result<(), sqlx::Error> {
        D::execute(&self.store, statement.to_owned()).await
    }

    /// Leaves room for this many pieces more.
    async fn fill(&self, sku: &str, room: i64) {
        let pieces = STOCK_MAX - room;
        let fill = format!("UPDATE stock SET initial = {pieces}, available = {pieces} WHERE sku = '{sku}'");
        self.execute(&fill).await.unwrap();
    }

    /// What becomes of deliveries that come in at once, in their order.
    async fn receive_at_once(&self, receipts: Vec<Receipt>) -> Vec<Received> {
        let reports = receipts.into_iter().enumerate().map(|(index, receipt)| {
            let books = self.books.clone();
            async move { (index, books.receive(&receipt).await.unwrap()) }
        });
        let mut ends = reports.collect::<JoinSet<_>>().join_all().await;
        ends.sort_by_key(|(index, _)| *index);
        ends.into_iter().map(|(_, received)| received).collect()
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

async fn confirm_turns_frozen_into_sold_and_cancel_gives_it_back<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10)]).await;
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

async fn a_repeated_try_freezes_once<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10)]).await;
    let key = key();
    for _ in 0..3 {
        assert_eq!(world.reserve(&key, &[("apple", 3)]).await, TryAnswer::Reserved(None));
    }
    assert_eq!(world.row("apple").await, (7, 3, 0));
}

async fn an_order_of_several_skus_is_frozen_and_settled_whole<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10), ("bread", 10), ("candy", 10)]).await;
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

async fn what_cannot_be_had_is_refused_and_nothing_stays_frozen<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10), ("bread", 1)]).await;
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

async fn a_refused_order_stays_refused_when_stock_comes_and_its_cancel_is_done<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 1)]).await;
    let key = key();
    assert!(matches!(world.reserve(&key, &[("apple", 5)]).await, TryAnswer::Refused(_)));
    world.books.receive(&receipt("second", "apple", 100)).await.unwrap();
    assert!(matches!(world.reserve(&key, &[("apple", 5)]).await, TryAnswer::Refused(_)));
    assert_eq!(world.cancel(&key).await, SettleAnswer::Done);
    assert_eq!(world.row("apple").await, (101, 0, 0));
}

async fn a_bad_request_is_refused_with_the_field_that_is_wrong<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10)]).await;
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

async fn many_orders_at_once_never_oversell_and_the_books_balance<D: TestDatabase>() {
    let world = World::<D>::with(&[("hot", 100), ("side", 1_000)]).await;
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

async fn a_delivery_is_counted_once_and_its_id_is_not_for_another<D: TestDatabase>() {
    let world = World::<D>::with(&[]).await;
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

async fn a_delivery_beyond_the_limit_is_not_counted_and_its_id_stays_free<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 1)]).await;
    world.fill("apple", 1).await;
    assert_eq!(world.books.receive(&receipt("r1", "apple", 2)).await.unwrap(), Received::TooMuch);
    let counted = world.books.receive(&receipt("r1", "apple", 1)).await.unwrap();
    assert!(matches!(counted, Received::Counted(stock) if stock.initial == STOCK_MAX));
}

async fn the_database_itself_forbids_books_that_do_not_balance<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10)]).await;
    for statement in [
        "UPDATE stock SET available = -1, frozen = 11",
        "UPDATE stock SET available = 11, frozen = -1",
        "UPDATE stock SET available = 11, sold = -1",
        "UPDATE stock SET available = 9",
        "UPDATE stock SET sold = 1",
    ] {
        let error = world.execute(statement).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_check_violation(), "{statement}: {error}");
    }
    assert_eq!(world.row("apple").await, (10, 0, 0));
}

async fn a_confirm_whose_frozen_pieces_vanished_is_unknown_and_changes_nothing<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 10), ("bread", 10)]).await;
    let key = key();
    world.reserve(&key, &[("apple", 3), ("bread", 3)]).await;
    let steal = "UPDATE stock SET frozen = 0, available = initial WHERE sku = 'bread'";
    world.execute(steal).await.unwrap();
    assert!(world.engine.confirm(ConfirmCall { key: key.clone() }).await.is_err());
    assert_eq!((world.row("apple").await, world.row("bread").await), ((7, 3, 0), (10, 0, 0)));
    assert_eq!(world.store.count_tried().await.unwrap(), 1);
}

async fn reports_of_one_delivery_at_once_count_it_once<D: TestDatabase>() {
    let world = World::<D>::with(&[]).await;
    for round in 1..=10 {
        let report = receipt(&format!("r{round}"), "apple", 5);
        for received in world.receive_at_once(vec![report; 6]).await {
            assert!(matches!(received, Received::Counted(stock) if stock.initial == round * 5));
        }
    }
    assert_eq!(world.row("apple").await, (50, 0, 0));
}

async fn deliveries_of_a_new_sku_at_once_are_all_counted<D: TestDatabase>() {
    let world = World::<D>::with(&[]).await;
    for round in 0..10 {
        let sku = format!("new-{round}");
        let receipts = (0..6).map(|number| receipt(&format!("r{round}-{number}"), &sku, 1)).collect();
        let mut seen: Vec<_> = Vec::new();
        for received in world.receive_at_once(receipts).await {
            let Received::Counted(stock) = received else { panic!("{received:?}") };
            seen.push(stock.initial);
        }
        // One after the other, whatever their order.
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    }
}

async fn an_id_that_two_deliveries_have_at_once_is_for_one_of_them<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 1), ("bread", 1)]).await;
    let (mut apples, mut breads) = (1, 1);
    for round in 0..10 {
        let id = format!("r{round}");
        let (apple, bread) = (receipt(&id, "apple", 5), receipt(&id, "bread", 7));
        let mut ends = world.receive_at_once([vec![apple; 3], vec![bread; 3]].concat()).await;
        let of_bread = ends.split_off(3);
        let counted = |ends: &[Received]| ends.iter().all(|end| matches!(end, Received::Counted(_)));
        let refused = |ends: &[Received]| ends.iter().all(|end| *end == Received::OtherContent);
        if counted(&ends) {
            assert!(refused(&of_bread), "{of_bread:?}");
            apples += 5;
        } else {
            assert!(refused(&ends) && counted(&of_bread), "{ends:?} {of_bread:?}");
            breads += 7;
        }
    }
    assert_eq!((world.row("apple").await, world.row("bread").await), ((apples, 0, 0), (breads, 0, 0)));
}

async fn deliveries_at_once_are_counted_as_far_as_there_is_room<D: TestDatabase>() {
    let world = World::<D>::with(&[("apple", 1)]).await;
    world.fill("apple", 3).await;
    let receipts = (0..6).map(|number| receipt(&format!("r{number}"), "apple", 1)).collect();
    let ends = world.receive_at_once(receipts).await;
    assert_eq!(ends.iter().filter(|end| **end == Received::TooMuch).count(), 3, "{ends:?}");
    assert_eq!(world.row("apple").await, (STOCK_MAX, 0, 0));
}

const FEW: [&str; 4] = ["apple", "bread", "candy", "dates"];

/// Places and ends orders, one after the other; what they sold of each. No operation may be answered *unknown*.
async fn place_random_orders<D: TestDatabase>(engine: Engine<Inventory<D>>, mut dice: Dice) -> [i64; 4] {
    let mut sold = [0; 4];
    for _ in 0..20 {
        let (first, quantity) = (dice.roll(4), i64::try_from(dice.roll(3)).unwrap() + 1);
        let mut wanted: Vec<_> = (0..=dice.roll(4)).map(|step| (first + step) % 4).collect();
        if dice.roll(2) == 0 {
            wanted.reverse();
        }
        let lines: Vec<_> = wanted.iter().map(|index| (FEW[*index], quantity)).collect();
        let key = key();
        let answer = engine.try_branch(try_call(&key, &lines)).await.unwrap();
        let confirm = match answer {
            TryAnswer::Reserved(_) => dice.roll(2) == 0,
            TryAnswer::Refused(refusal) => {
                assert_eq!(refusal.code, "OUT_OF_STOCK");
                false
            }
            TryAnswer::Violation(violation) => panic!("{violation}"),
        };
        if confirm {
            assert_eq!(engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
            wanted.iter().for_each(|index| sold[*index] += quantity);
        } else {
            let cancelled = engine.cancel(CancelCall { key, not_after: in_a_minute() }).await;
            assert_eq!(cancelled.unwrap(), SettleAnswer::Done);
        }
    }
    sold
}

async fn random_orders_and_deliveries_at_once_balance_and_nobody_is_told_of_a_deadlock<D: TestDatabase>() {
    let world = World::<D>::with(&FEW.map(|sku| (sku, 150))).await;
    let mut orders = JoinSet::new();
    for task in 1..=16_u64 {
        orders.spawn(place_random_orders(world.engine.clone(), Dice(task.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    }
    let deliveries = FEW.iter().flat_map(|sku| (0..10).map(move |number| receipt(&format!("more-{sku}-{number}"), sku, 1)));
    let received = world.receive_at_once(deliveries.collect()).await;
    assert!(received.iter().all(|received| matches!(received, Received::Counted(_))), "{received:?}");
    let mut sold = [0; 4];
    for of_one_task in orders.join_all().await {
        sold.iter_mut().zip(of_one_task).for_each(|(sum, sold)| *sum += sold);
    }
    for (sku, sold) in FEW.into_iter().zip(sold) {
        assert!(sold > 0);
        assert_eq!(world.row(sku).await, (160 - sold, 0, sold), "{sku}");
    }
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

async fn skus_are_listed_in_the_order_of_their_bytes<D: TestDatabase>() {
    let in_order = ["-", ".", "0", "A", "A-b", "A.b", "A0", "AB", "Aa", "B", "_", "a", "a-", "aA", "a_", "aa", "b"];
    let stock: Vec<_> = in_order.iter().rev().map(|sku| (*sku, 1)).collect();
    let world = World::<D>::with(&stock).await;
    for (index, sku) in in_order.iter().enumerate() {
        let after: Vec<_> = world.books.list(Some(sku), 100).await.unwrap().into_iter().map(|stock| stock.sku).collect();
        assert_eq!(after, in_order[index + 1..], "after {sku}");
        // "a" and "A" are two.
        assert_eq!(world.books.get(sku).await.unwrap().unwrap().sku, *sku);
    }
    let first: Vec<_> = world.books.list(None, 2).await.unwrap().into_iter().map(|stock| stock.sku).collect();
    assert_eq!(first, in_order[..2]);
}

async fn the_longest_names_and_the_most_lines_fit<D: TestDatabase>() {
    let skus: Vec<_> = (0..LINES_MAX).map(|number| format!("{number:0>64}")).collect();
    let world = World::<D>::with(&[]).await;
    let receipts = skus.iter().map(|sku| receipt(sku, sku, QUANTITY_MAX)).collect();
    let received = world.receive_at_once(receipts).await;
    assert!(received.iter().all(|received| matches!(received, Received::Counted(_))), "{received:?}");
    let key = BranchKey { branch: BranchId::new("b".repeat(64)).unwrap(), ..key() };
    let lines: Vec<_> = skus.iter().map(|sku| (sku.as_str(), QUANTITY_MAX)).collect();
    assert_eq!(world.reserve(&key, &lines).await, TryAnswer::Reserved(None));
    assert_eq!(world.confirm(&key).await, SettleAnswer::Done);
    for sku in &skus {
        assert_eq!(world.row(sku).await, (0, 0, QUANTITY_MAX));
    }
}

//! Many at once are what each would be alone.

use proptest::prelude::*;

use super::*;
use crate::{
    memory::{Memory, Row, lines},
    release, reserve, spend,
};

fn tries(wanted: &[&[(&str, i64)]]) -> Operations {
    Operations { tries: wanted.iter().map(|wanted| lines(wanted)).collect(), ..Operations::default() }
}

fn codes(outcomes: &[Reservation]) -> Vec<&str> {
    let code = |outcome| match outcome {
        &Reservation::Frozen => "frozen",
        Reservation::Refused(refusal) => refusal.code.as_str(),
    };
    outcomes.iter().map(code).collect()
}

/// One after the other, as they have their effects.
async fn one_by_one(store: &mut Memory, operations: &Operations) -> Result<Vec<Reservation>, String> {
    for lines in &operations.spends {
        spend(store, lines).await.map_err(|error| error.to_string())?;
    }
    for lines in &operations.releases {
        release(store, lines).await.map_err(|error| error.to_string())?;
    }
    let mut outcomes = Vec::new();
    for lines in &operations.tries {
        let before = store.rows.clone();
        let Ok(outcome) = reserve(store, lines).await;
        if outcome != Reservation::Frozen {
            // As the SDK does.
            store.rows = before;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

#[tokio::test]
async fn operations_on_one_sku_are_one_row_change() {
    let mut store = Memory::with(&[("hot", 100)]);
    store.rows.insert("hot".to_owned(), Row { available: 100, frozen: 9, sold: 0 });
    let operations = Operations {
        spends: vec![lines(&[("hot", 4)])],
        releases: vec![lines(&[("hot", 5)])],
        tries: vec![lines(&[("hot", 1)]); 50],
    };
    let outcomes = run(&mut store, &operations, true).await.unwrap();
    assert_eq!(outcomes, vec![Reservation::Frozen; 50]);
    assert_eq!((store.row("hot"), store.writes), ((55, 50, 4), 1));
}

#[tokio::test]
async fn the_first_come_get_the_last_pieces_and_the_rest_is_refused() {
    let mut store = Memory::with(&[("hot", 5)]);
    let operations = tries(&[&[("hot", 2)], &[("hot", 4)], &[("hot", 2)], &[("hot", 2)], &[("hot", 1)]]);
    let outcomes = run(&mut store, &operations, true).await.unwrap();
    assert_eq!(codes(&outcomes), ["frozen", "OUT_OF_STOCK", "frozen", "OUT_OF_STOCK", "frozen"]);
    assert_eq!((store.row("hot"), store.writes), ((0, 5, 0), 1));
}

#[tokio::test]
async fn an_order_that_is_refused_takes_nothing_from_those_behind_it() {
    let mut store = Memory::with(&[("a", 5), ("b", 1)]);
    let operations = tries(&[&[("a", 5), ("b", 2)], &[("a", 5), ("nil", 1)], &[("a", 5), ("b", 1)]]);
    let outcomes = run(&mut store, &operations, true).await.unwrap();
    assert_eq!(codes(&outcomes), ["OUT_OF_STOCK", "UNKNOWN_SKU", "frozen"]);
    assert_eq!((store.row("a"), store.row("b")), ((0, 5, 0), (0, 1, 0)));
}

#[tokio::test]
async fn what_is_released_can_be_reserved_in_the_same_batch_and_an_unchanged_row_is_not_written() {
    let mut store = Memory::default();
    store.rows.insert("a".to_owned(), Row { available: 0, frozen: 3, sold: 0 });
    let operations = Operations { releases: vec![lines(&[("a", 3)])], ..tries(&[&[("a", 3)], &[("a", 1)]]) };
    let outcomes = run(&mut store, &operations, true).await.unwrap();
    assert_eq!(codes(&outcomes), ["frozen", "OUT_OF_STOCK"]);
    assert_eq!((store.row("a"), store.writes), ((0, 3, 0), 0));
}

#[tokio::test]
async fn what_is_not_frozen_fails_all_although_a_try_would_freeze_enough() {
    let mut store = Memory::with(&[("a", 9)]);
    for (spends, releases) in [(vec![lines(&[("a", 1)])], vec![]), (vec![], vec![lines(&[("a", 1)])])] {
        let operations = Operations { spends, releases, ..tries(&[&[("a", 5)]]) };
        assert!(matches!(run(&mut store, &operations, true).await, Err(SettleError::NotFrozen { .. })));
        assert_eq!((store.row("a"), store.writes), ((9, 0, 0), 0));
    }
}

#[tokio::test]
async fn rows_are_taken_in_sku_order_each_once() {
    let mut store = Memory::with(&[("a", 9), ("b", 9), ("c", 9)]);
    let operations = tries(&[&[("c", 1), ("a", 1)], &[("b", 1)], &[("c", 1), ("b", 1)]]);
    run(&mut store, &operations, true).await.unwrap();
    assert_eq!(store.touched, ["a", "b", "c"]);
}

#[tokio::test]
async fn without_operations_nothing_is_asked() {
    let mut store = Memory::default();
    assert_eq!(run(&mut store, &Operations::default(), true).await.unwrap(), []);
    assert!(store.touched.is_empty());
}

/// SKUs that exist, and one that does not.
const SKUS: [&str; 5] = ["a", "b", "c", "d", "nil"];

fn some_lines() -> impl Strategy<Value = Lines> {
    proptest::collection::btree_map(0..SKUS.len(), 1..5_i64, 1..4)
        .prop_map(|wanted| lines(&wanted.into_iter().map(|(sku, quantity)| (SKUS[sku], quantity)).collect::<Vec<_>>()))
}

fn some_operations() -> impl Strategy<Value = Operations> {
    let (settled, tried) = (|| proptest::collection::vec(some_lines(), 0..4), proptest::collection::vec(some_lines(), 0..12));
    (settled(), settled(), tried).prop_map(|(spends, releases, tries)| Operations { spends, releases, tries })
}

/// What branches hold is frozen, now and then with too little, and some of it for nobody here.
fn some_stock(operations: &Operations, available: [i64; 4], extra: [i64; 4]) -> Memory {
    let mut store = Memory::default();
    for (index, sku) in SKUS[..4].iter().enumerate() {
        let held = operations.spends.iter().chain(&operations.releases).flatten().filter(|line| line.sku() == *sku);
        let frozen = (held.map(Line::quantity).sum::<i64>() + extra[index]).max(0);
        store.rows.insert((*sku).to_owned(), Row { available: available[index], frozen, sold: 7 });
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_ends_as_its_operations_one_by_one(
        operations in some_operations(),
        available in prop::array::uniform4(0..12_i64),
        extra in prop::array::uniform4(prop_oneof![1 => Just(-1_i64), 40 => 0..3_i64]),
    ) {
        // An unknown SKU cannot have been reserved.
        let known = |lines: &Lines| lines.iter().all(|line| line.sku() != "nil");
        let mut operations = operations;
        operations.spends.retain(known);
        operations.releases.retain(known);

        let before = some_stock(&operations, available, extra);
        let (mut alone, mut together) = (before.clone(), before.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (expected, outcome) = runtime.block_on(async {
            (one_by_one(&mut alone, &operations).await, run(&mut together, &operations, true).await)
        });
        match (expected, outcome) {
            (Ok(expected), Ok(outcome)) => {
                prop_assert_eq!(outcome, expected);
                prop_assert_eq!(&together.rows, &alone.rows);
                let changed = before.rows.iter().filter(|(sku, row)| together.rows[*sku] != **row).count();
                prop_assert_eq!(together.writes, changed);
            }
            (Err(_), Err(_)) => prop_assert_eq!(&together.rows, &before.rows),
            (expected, outcome) => prop_assert!(false, "{:?} {:?}", expected, outcome.map_err(|error| error.to_string())),
        }
    }
}

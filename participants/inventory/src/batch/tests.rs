//! Many at once are what each would be alone.

use proptest::prelude::*;

use super::*;
use crate::{
    memory::watched::{Memory, Row, held, lines},
    release, reserve, spend,
};

fn tries(wanted: &[&[(&str, i64)]]) -> Operations {
    Operations { tries: wanted.iter().map(|wanted| lines(wanted)).collect(), ..Operations::default() }
}

fn code(outcome: &Reservation) -> &str {
    match outcome {
        Reservation::Frozen(_) => "frozen",
        Reservation::Refused(refusal) => &refusal.code,
    }
}

fn codes(outcomes: &[Reservation]) -> Vec<&str> {
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
        let before = store.skus.clone();
        let Ok(outcome) = reserve(store, lines, &mut Aim::default()).await;
        if matches!(outcome, Reservation::Refused(_)) {
            // As the SDK does.
            store.skus = before;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

#[tokio::test]
async fn operations_on_one_sku_are_one_row_change() {
    let mut store = Memory::with(&[("hot", 100)]);
    store.put("hot", vec![Row { available: 100, frozen: 9, ..Row::default() }]);
    let operations = Operations {
        spends: vec![held(&[("hot", 4)])],
        releases: vec![held(&[("hot", 5)])],
        tries: vec![lines(&[("hot", 1)]); 50],
    };
    let outcomes = run(&mut store, &operations, &mut Aim::default(), true).await.unwrap();
    assert_eq!(codes(&outcomes), ["frozen"; 50]);
    assert_eq!((store.row("hot"), store.writes), ((55, 50, 4), 1));
}

#[tokio::test]
async fn the_first_come_get_the_last_pieces_and_the_rest_is_refused() {
    let mut store = Memory::with(&[("hot", 5)]);
    let operations = tries(&[&[("hot", 2)], &[("hot", 4)], &[("hot", 2)], &[("hot", 2)], &[("hot", 1)]]);
    let outcomes = run(&mut store, &operations, &mut Aim::default(), true).await.unwrap();
    assert_eq!(codes(&outcomes), ["frozen", "OUT_OF_STOCK", "frozen", "OUT_OF_STOCK", "frozen"]);
    assert_eq!((store.row("hot"), store.writes), ((0, 5, 0), 1));
}

#[tokio::test]
async fn an_order_that_is_refused_takes_nothing_from_those_behind_it() {
    let mut store = Memory::with(&[("a", 5), ("b", 1)]);
    let operations = tries(&[&[("a", 5), ("b", 2)], &[("a", 5), ("nil", 1)], &[("a", 5), ("b", 1)]]);
    let outcomes = run(&mut store, &operations, &mut Aim::default(), true).await.unwrap();
    assert_eq!(codes(&outcomes), ["OUT_OF_STOCK", "UNKNOWN_SKU", "frozen"]);
    assert_eq!((store.row("a"), store.row("b")), ((0, 5, 0), (0, 1, 0)));
}

#[tokio::test]
async fn what_is_released_can_be_reserved_in_the_same_batch_and_an_unchanged_row_is_not_written() {
    let mut store = Memory::default();
    store.put("a", vec![Row { frozen: 3, ..Row::default() }]);
    let operations = Operations { releases: vec![held(&[("a", 3)])], ..tries(&[&[("a", 3)], &[("a", 1)]]) };
    let outcomes = run(&mut store, &operations, &mut Aim::default(), true).await.unwrap();
    assert_eq!(codes(&outcomes), ["frozen", "OUT_OF_STOCK"]);
    assert_eq!((store.row("a"), store.writes), ((0, 3, 0), 0));
}

#[tokio::test]
async fn what_is_not_frozen_fails_all_although_a_try_would_freeze_enough() {
    let mut store = Memory::with(&[("a", 9)]);
    for (spends, releases) in [(vec![held(&[("a", 1)])], vec![]), (vec![], vec![held(&[("a", 1)])])] {
        let operations = Operations { spends, releases, ..tries(&[&[("a", 5)]]) };
        assert!(matches!(run(&mut store, &operations, &mut Aim::default(), true).await, Err(SettleError::NotFrozen { .. })));
        assert_eq!((store.row("a"), store.writes), ((9, 0, 0), 0));
    }
}

#[tokio::test]
async fn rows_are_taken_in_sku_order_each_once() {
    let mut store = Memory::with(&[("a", 9), ("b", 9), ("c", 9)]);
    let operations = tries(&[&[("c", 1), ("a", 1)], &[("b", 1)], &[("c", 1), ("b", 1)]]);
    run(&mut store, &operations, &mut Aim::default(), true).await.unwrap();
    assert_eq!(store.touched.iter().map(|(sku, _)| sku.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test]
async fn without_operations_nothing_is_asked() {
    let mut store = Memory::default();
    assert_eq!(run(&mut store, &Operations::default(), &mut Aim::default(), true).await.unwrap(), []);
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
    (settled(), settled(), tried).prop_map(|(spends, releases, tries)| Operations {
        spends: spends.into_iter().map(Reserved::from).collect(),
        releases: releases.into_iter().map(Reserved::from).collect(),
        tries,
    })
}

/// What branches hold is frozen, now and then with too little, and some of it for nobody here.
fn some_stock(operations: &Operations, available: [i64; 4], extra: [i64; 4]) -> Memory {
    let mut store = Memory::default();
    for (index, sku) in SKUS[..4].iter().enumerate() {
        let held = operations.settled().filter(|share| share.sku == *sku);
        let frozen = (held.map(|share| share.quantity).sum::<i64>() + extra[index]).max(0);
        store.put(sku, vec![Row { available: available[index], frozen, sold: 7, ..Row::default() }]);
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
        let known = |reserved: &Reserved| reserved.shares().all(|share| share.sku != "nil");
        let mut operations = operations;
        operations.spends.retain(known);
        operations.releases.retain(known);

        let before = some_stock(&operations, available, extra);
        let (mut alone, mut together) = (before.clone(), before.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (expected, outcome) = runtime.block_on(async {
            (one_by_one(&mut alone, &operations).await, run(&mut together, &operations, &mut Aim::default(), true).await)
        });
        match (expected, outcome) {
            (Ok(expected), Ok(outcome)) => {
                prop_assert_eq!(outcome, expected);
                prop_assert_eq!(&together.skus, &alone.skus);
                let changed = before.skus.iter().filter(|(sku, row)| together.skus[*sku] != **row).count();
                prop_assert_eq!(together.writes, changed);
            }
            (Err(_), Err(_)) => prop_assert_eq!(&together.skus, &before.skus),
            (expected, outcome) => prop_assert!(false, "{:?} {:?}", expected, outcome.map_err(|error| error.to_string())),
        }
    }
}

#[tokio::test]
async fn a_batch_takes_all_from_one_bucket_and_settles_what_is_stored() {
    let mut store = Memory::with_buckets(&[("hot", vec![50; 4])]);
    let mut aim = Aim::default();
    aim.learn("hot", 4, 4);
    let operations = tries(&[&[("hot", 1)][..]; 30]);
    let outcomes = run(&mut store, &operations, &mut aim, true).await.unwrap();
    assert_eq!((codes(&outcomes), store.writes, store.touched.len()), (vec!["frozen"; 30], 1, 1));
    let split = |outcome: Reservation| match outcome {
        Reservation::Frozen(split) => Reserved::new(lines(&[("hot", 1)]), split).unwrap(),
        Reservation::Refused(refusal) => panic!("{refusal:?}"),
    };
    let mut spends: Vec<_> = outcomes.into_iter().map(split).collect();
    let releases = spends.split_off(10);
    let settle = Operations { spends, releases, tries: Vec::new() };
    run(&mut store, &settle, &mut Aim::default(), true).await.unwrap();
    assert_eq!((store.row("hot"), store.writes), ((190, 0, 10), 2));
}

#[tokio::test]
async fn a_bucket_that_runs_out_is_followed_by_the_fullest_and_each_row_is_written_once() {
    let mut store = Memory::with_buckets(&[("hot", vec![3, 1, 9, 2])]);
    let mut aim = Aim::default();
    let outcomes = run(&mut store, &tries(&[&[("hot", 2)][..]; 6]), &mut aim, true).await.unwrap();
    assert_eq!(codes(&outcomes), ["frozen"; 6]);
    assert_eq!(store.row("hot"), (3, 12, 0));
    assert_eq!(store.writes, store.available("hot").iter().zip([3, 1, 9, 2]).filter(|(now, before)| **now != *before).count());
    // The rows beside the first are out of order: they are not waited for.
    assert_eq!(store.locked_at_once, [("hot".to_owned(), 1), ("hot".to_owned(), 2), ("hot".to_owned(), 3)]);
    // Now it knows that one bucket will not do, and locks all of them at once and in order.
    (store.locked_at_once, store.touched) = Default::default();
    let outcomes = run(&mut store, &tries(&[&[("hot", 3)], &[("hot", 1)]]), &mut aim, true).await.unwrap();
    assert_eq!(codes(&outcomes), ["frozen", "OUT_OF_STOCK"]);
    assert_eq!((store.locked_at_once.len(), store.touched.len()), (0, 4));
}

/// Each SKU in buckets, with their sums as the unbucketed model has them; what is frozen is in the first.
fn in_buckets(model: &Memory, cuts: &[[u8; 3]; 4]) -> Memory {
    let mut store = Memory::default();
    for ((sku, of_model), cuts) in model.skus.iter().zip(cuts) {
        let row = of_model.rows[0];
        let mut rows = vec![Row { available: 0, ..row }];
        let mut left = row.available;
        for cut in cuts {
            let part = left * i64::from(*cut) / 100;
            left -= part;
            rows.push(Row { available: part, ..Row::default() });
        }
        rows[0].available = left;
        let made = usize::from(cuts[0] % 4) + 1;
        let surplus: i64 = rows.drain(made..).map(|row| row.available).sum();
        rows[0].available += surplus;
        store.put(sku, rows);
        store.skus.get_mut(sku).unwrap().buckets = cuts[1] % u8::try_from(made).unwrap() + 1;
    }
    store
}

/// A hint that may be right, wrong or none.
fn some_aim(hints: &[(u8, u8, bool); 4], seed: u64) -> Aim {
    let mut aim = Aim::seeded(seed);
    for (sku, (buckets, made, everywhere)) in SKUS.iter().zip(hints) {
        aim.learn(sku, *buckets, (*made).max(*buckets));
        if *everywhere {
            aim.look_everywhere(sku);
        }
    }
    aim
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buckets_change_neither_an_answer_nor_a_sum(
        operations in some_operations(),
        available in prop::array::uniform4(0..12_i64),
        cuts in prop::array::uniform4(prop::array::uniform3(0..=100_u8)),
        hints in prop::array::uniform4((1..6_u8, 1..6_u8, any::<bool>())),
        (seed, hinted) in (any::<u64>(), any::<bool>()),
    ) {
        let known = |reserved: &Reserved| reserved.shares().all(|share| share.sku != "nil");
        let mut operations = operations;
        operations.spends.retain(known);
        operations.releases.retain(known);
        let mut model = some_stock(&operations, available, [1; 4]);
        let mut store = in_buckets(&model, &cuts);
        let mut aim = if hinted { some_aim(&hints, seed) } else { Aim::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (expected, outcomes) = runtime.block_on(async {
            (one_by_one(&mut model, &operations).await.unwrap(), run(&mut store, &operations, &mut aim, true).await.unwrap())
        });
        prop_assert_eq!(codes(&outcomes), codes(&expected));
        for (sku, of_model) in &model.skus {
            prop_assert_eq!(store.skus[sku].sums(), of_model.sums());
            prop_assert!(store.skus[sku].rows.iter().all(|row| row.available >= 0 && row.frozen >= 0));
        }
        // What each branch is told to hold is frozen in exactly these rows.
        let mut held = Operations::default();
        for (lines, outcome) in operations.tries.iter().zip(outcomes) {
            if let Reservation::Frozen(split) = outcome {
                held.releases.push(Reserved::new(lines.clone(), split).unwrap());
            }
        }
        prop_assert!(runtime.block_on(run(&mut store, &held, &mut Aim::default(), true)).is_ok());
        for (sku, of_model) in &store.skus {
            prop_assert_eq!(of_model.sums().frozen, 1, "{}", sku);
        }
    }

    #[test]
    fn one_by_one_or_at_once_every_last_piece_is_sold_and_no_more(
        free in prop::collection::vec(0..5_i64, 1..10), seed in any::<u64>(), quantity in 1..4_i64, together in any::<bool>(),
    ) {
        let mut store = Memory::with_buckets(&[("hot", free.clone())]);
        let sum: i64 = free.iter().sum();
        let line = [("hot", quantity)];
        let wanted = [&line[..]; 24];
        let mut aim = Aim::seeded(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcomes = runtime.block_on(async {
            if together {
                return run(&mut store, &tries(&wanted), &mut aim, true).await.unwrap();
            }
            let mut outcomes = Vec::new();
            for lines in &tries(&wanted).tries {
                outcomes.push(reserve(&mut store, lines, &mut aim).await.unwrap());
            }
            outcomes
        });
        let sold = outcomes.iter().filter(|outcome| matches!(outcome, Reservation::Frozen(_))).count();
        prop_assert_eq!(i64::try_from(sold).unwrap(), (sum / quantity).min(24));
        prop_assert_eq!(store.row("hot").1, i64::try_from(sold).unwrap() * quantity);
    }
}

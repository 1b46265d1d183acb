//! One operation at a time.

use super::*;
use crate::memory::watched::{Memory, Row, held, lines};

async fn tried(store: &mut Memory, wanted: &[(&str, i64)]) -> Result<Reserved, String> {
    let before = store.skus.clone();
    let lines = lines(wanted);
    match reserve(store, &lines, &mut Aim::default()).await {
        Ok(Reservation::Frozen(split)) => Ok(Reserved::new(lines, split).unwrap()),
        Ok(Reservation::Refused(refusal)) => {
            // As its transaction does.
            store.skus = before;
            Err(refusal.code)
        }
    }
}

async fn refusal(store: &mut Memory, wanted: &[(&str, i64)]) -> String {
    tried(store, wanted).await.unwrap_err()
}

fn touched(store: &Memory) -> Vec<&str> {
    store.touched.iter().map(|(sku, _)| sku.as_str()).collect()
}

#[tokio::test]
async fn a_reservation_is_spent_or_released() {
    let mut store = Memory::with(&[("a", 10)]);
    assert_eq!(tried(&mut store, &[("a", 3)]).await, Ok(held(&[("a", 3)])));
    assert_eq!(store.row("a"), (7, 3, 0));
    spend(&mut store, &held(&[("a", 3)])).await.unwrap();
    assert_eq!(store.row("a"), (7, 0, 3));
    tried(&mut store, &[("a", 7)]).await.unwrap();
    release(&mut store, &held(&[("a", 7)])).await.unwrap();
    assert_eq!(store.row("a"), (7, 0, 3));
}

#[tokio::test]
async fn rows_are_taken_in_sku_order_whatever_the_order_of_the_lines() {
    let mut store = Memory::with(&[("a", 9), ("b", 9), ("c", 9)]);
    tried(&mut store, &[("c", 1), ("a", 1), ("b", 1)]).await.unwrap();
    assert_eq!(touched(&store), ["a", "b", "c"]);
}

#[tokio::test]
async fn the_first_line_that_cannot_be_had_says_why_and_no_row_after_it_is_touched() {
    let mut store = Memory::with(&[("a", 9), ("b", 9), ("c", 1), ("d", 9)]);
    assert_eq!(refusal(&mut store, &[("a", 1), ("b", 9), ("c", 2), ("d", 1)]).await, "OUT_OF_STOCK");
    assert_eq!(touched(&store), ["a", "b", "c"]);
    assert_eq!(refusal(&mut store, &[("a", 1), ("c", 2), ("nil", 1)]).await, "OUT_OF_STOCK");
    assert_eq!(refusal(&mut store, &[("a", 1), ("nil", 1)]).await, "UNKNOWN_SKU");
    assert_eq!(store.row("a"), (9, 0, 0));
}

#[tokio::test]
async fn settling_what_is_not_frozen_is_an_error() {
    let mut store = Memory::with(&[("a", 9)]);
    assert!(matches!(spend(&mut store, &held(&[("a", 1)])).await, Err(SettleError::NotFrozen { .. })));
    assert!(matches!(release(&mut store, &held(&[("b", 1)])).await, Err(SettleError::NotFrozen { .. })));
    assert_eq!(store.row("a"), (9, 0, 0));
}

#[tokio::test]
async fn sold_out_of_one_bucket_is_sold_out_without_a_lock() {
    let mut store = Memory::with(&[("a", 2)]);
    assert_eq!(refusal(&mut store, &[("a", 3)]).await, "OUT_OF_STOCK");
    assert_eq!(store.touched.len(), 1);
}

#[tokio::test]
async fn five_can_be_three_and_two_and_are_settled_where_they_were_taken() {
    for confirm in [true, false] {
        let mut store = Memory::with_buckets(&[("a", vec![0, 2, 0, 3])]);
        let reserved = tried(&mut store, &[("a", 5)]).await.unwrap();
        let shares: Vec<_> = reserved.shares().map(|share| (share.bucket, share.quantity)).collect();
        assert_eq!(shares, [(1, 2), (3, 3)]);
        assert_eq!(store.row("a"), (0, 5, 0));
        if confirm {
            spend(&mut store, &reserved).await.unwrap();
            assert_eq!(store.row("a"), (0, 0, 5));
        } else {
            release(&mut store, &reserved).await.unwrap();
            assert_eq!(store.available("a"), [0, 2, 0, 3]);
        }
    }
}

#[tokio::test]
async fn the_last_piece_is_found_in_whichever_bucket_it_is() {
    for place in 0..8 {
        let mut free = vec![0; 8];
        free[place] = 1;
        let mut store = Memory::with_buckets(&[("a", free)]);
        tried(&mut store, &[("a", 1)]).await.unwrap();
        assert_eq!(store.row("a"), (0, 1, 0));
        assert_eq!(refusal(&mut store, &[("a", 1)]).await, "OUT_OF_STOCK");
    }
}

#[tokio::test]
async fn what_is_left_in_a_bucket_that_is_no_longer_used_is_found() {
    let mut store = Memory::with_buckets(&[("a", vec![0, 0, 4])]);
    store.skus.get_mut("a").unwrap().buckets = 1;
    tried(&mut store, &[("a", 4)]).await.unwrap();
    assert_eq!(refusal(&mut store, &[("a", 1)]).await, "OUT_OF_STOCK");
}

#[tokio::test]
async fn the_rest_of_the_rows_is_locked_without_waiting_first_and_then_all_of_them_in_order() {
    let mut store = Memory::with_buckets(&[("a", vec![1, 0, 1])]);
    let mut aim = Aim::default();
    let two = lines(&[("a", 2)]);
    reserve(&mut store, &two, &mut aim).await.unwrap();
    // The first row first (it says how many there are), out of order after it.
    assert!(!store.locked_at_once.is_empty());
    // Which is what it would do first if it had to run anew.
    store.locked_at_once.clear();
    store.touched.clear();
    assert!(matches!(reserve(&mut store, &two, &mut aim).await, Ok(Reservation::Refused(_))));
    assert!(store.locked_at_once.is_empty());
    assert_eq!(store.touched, [("a".to_owned(), 0), ("a".to_owned(), 1), ("a".to_owned(), 2)]);
}

#[tokio::test]
async fn a_branch_chooses_its_bucket_by_its_key_and_takes_all_from_it() {
    use tcc_types::{BranchId, BranchKey, Gid, SystemEntropy, Timestamp};
    let aims = crate::aim::Aims::default();
    let mut taken = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let key = BranchKey { gid: Gid::mint(Timestamp::EPOCH, &SystemEntropy), branch: BranchId::new("b").unwrap() };
        let mut aim = aims.of_one(&key, ["a"].into_iter());
        aim.learn("a", 4, 4);
        let mut store = Memory::default();
        store.put("a", vec![Row { available: 5, ..Row::default() }; 4]);
        let chosen = crate::chosen(crate::seed_of(&key), 4);
        assert!(matches!(reserve(&mut store, &lines(&[("a", 5)]), &mut aim).await, Ok(Reservation::Frozen(_))));
        assert_eq!(store.touched, [("a".to_owned(), chosen)]);
        taken.insert(chosen);
    }
    assert_eq!(taken.len(), 4);
}

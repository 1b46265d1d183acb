//! What is remembered, and what becomes of it.

use tcc_types::{BranchId, Gid, SystemEntropy, Timestamp};

use super::*;

fn key() -> BranchKey {
    BranchKey { gid: Gid::mint(Timestamp::EPOCH, &SystemEntropy), branch: BranchId::new("b").unwrap() }
}

fn levels(available: i64, buckets: u8) -> Levels {
    Levels { available, frozen: 0, buckets, made: buckets }
}

#[test]
fn of_a_sku_with_one_bucket_nothing_is_remembered() {
    let aims = Aims::default();
    let mut aim = aims.of_one(&key(), ["a"].into_iter());
    aim.learn("a", 1, 1);
    aim.look_everywhere("a");
    aim.found("a", 5, [(0, levels(1, 1))].into_iter());
    assert_eq!(aim.look("a"), Look::In(0));
    aims.remember(aim);
    assert!(aims.known.lock().unwrap().is_empty());
}

#[test]
fn batches_side_by_side_look_in_neighbouring_buckets() {
    let aims = Aims::default();
    let mut aim = aims.of_batch(&key(), ["a"].into_iter());
    aim.learn("a", 8, 8);
    let first = aim.bucket("a");
    aims.remember(aim);
    let second = aims.of_batch(&key(), ["a"].into_iter()).bucket("a");
    let third = aims.of_batch(&key(), ["a"].into_iter()).bucket("a");
    assert_eq!((second, third), ((first + 1) % 8, first));
}

#[test]
fn after_a_look_everywhere_the_fullest_is_next_if_it_has_as_much_again() {
    let aims = Aims::default();
    for (free, wanted, next) in [([1, 9, 9, 2], 9, Some(1)), ([0, 0, 0, 3], 3, Some(3)), ([0, 0, 0, 3], 4, None)] {
        let mut aim = aims.of_batch(&key(), ["a"].into_iter());
        aim.learn("a", 4, 4);
        aim.look_everywhere("a");
        assert_eq!(aim.look("a"), Look::Everywhere(4));
        aim.found("a", wanted, (0..4).zip(free.map(|free| levels(free, 4))));
        assert_eq!(aim.look("a"), next.map_or(Look::Everywhere(4), Look::In));
    }
}

#[test]
fn what_is_only_settled_changes_nothing_that_is_remembered_but_the_number_of_buckets() {
    let aims = Aims::default();
    let look = |aims: &Aims| aims.of_batch(&key(), ["a"].into_iter()).look("a");
    let settle = |aims: &Aims, buckets| {
        let mut aim = Aim::default();
        aim.learn("a", buckets, 8);
        aims.remember(aim);
    };
    settle(&aims, 4);
    assert!(matches!(look(&aims), Look::In(_)));
    let mut aim = aims.of_batch(&key(), ["a"].into_iter());
    aim.look_everywhere("a");
    aims.remember(aim);
    settle(&aims, 4);
    assert_eq!(look(&aims), Look::Everywhere(8));
    settle(&aims, 2);
    assert!(matches!(look(&aims), Look::In(0 | 1)));
}

#[test]
fn only_so_many_skus_are_remembered() {
    let aims = Aims::default();
    for number in 0..=REMEMBERED_MAX {
        let sku = format!("s{number}");
        let mut aim = aims.of_one(&key(), [sku.as_str()].into_iter());
        aim.learn(&sku, 2, 2);
        aims.remember(aim);
    }
    assert_eq!(aims.known.lock().unwrap().len(), REMEMBERED_MAX);
}

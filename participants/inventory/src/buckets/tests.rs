//! Where pieces are taken from, and where they are put.

use proptest::prelude::*;

use super::*;
use crate::memory::watched::lines;

fn line(quantity: i64) -> Line {
    Line::new("a", quantity).unwrap()
}

fn taken(free: &[i64], quantity: i64) -> Option<Vec<(u8, i64)>> {
    let free = free.iter().enumerate().map(|(bucket, free)| (u8::try_from(bucket).unwrap(), *free));
    take(&line(quantity), free).map(|taken| taken.into_iter().map(|taken| (taken.bucket, taken.quantity)).collect())
}

#[test]
fn all_is_from_the_fullest_bucket_if_that_has_enough() {
    assert_eq!(taken(&[3, 7, 7, 5], 6), Some(vec![(1, 6)]));
    assert_eq!(taken(&[2, 0, 3], 5), Some(vec![(0, 2), (2, 3)]));
    assert_eq!(taken(&[2, 0, 3], 6), None);
    assert_eq!(taken(&[], 1), None);
}

#[test]
fn a_delivery_fills_the_emptiest_first() {
    assert_eq!(poured(&[0], 5), [5]);
    assert_eq!(poured(&[4, 0, 9], 5), [0, 5, 0]);
    assert_eq!(poured(&[0, 0, 0, 0], 6).iter().sum::<i64>(), 6);
    assert_eq!(poured(&[10, 0], 3), [0, 3]);
}

#[test]
fn what_is_free_is_spread_over_the_buckets_that_are_used() {
    assert_eq!(spread(10, 4, 4), [3, 3, 2, 2]);
    assert_eq!(spread(10, 3, 5), [4, 3, 3, 0, 0]);
    assert_eq!(spread(0, 1, 2), [0, 0]);
}

#[test]
fn shares_that_are_not_their_line_are_not_taken() {
    let taken =
        |shares: &[(u8, i64)]| shares.iter().map(|(bucket, quantity)| Taken { bucket: *bucket, quantity: *quantity }).collect();
    let reserved = |shares: &[(u8, i64)]| Reserved::new(lines(&[("a", 5)]), Split(vec![taken(shares)]));
    assert!(reserved(&[(1, 2), (3, 3)]).is_ok() && reserved(&[]).is_ok() && reserved(&[(63, 5)]).is_ok());
    for bad in [&[(1, 2), (3, 2)][..], &[(3, 2), (1, 3)], &[(1, 2), (1, 3)], &[(64, 5)], &[(1, 0), (2, 5)], &[(1, 6), (2, -1)]]
    {
        assert!(reserved(bad).is_err(), "{bad:?}");
    }
    assert!(Reserved::new(lines(&[("a", 5)]), Split(vec![Vec::new(), taken(&[(1, 1)])])).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_taken_is_there_and_nothing_is_refused_that_is(
        free in prop::collection::vec(0..6_i64, 1..12), quantity in 1..40_i64,
    ) {
        match taken(&free, quantity) {
            Some(taken) => {
                prop_assert_eq!(taken.iter().map(|(_, quantity)| quantity).sum::<i64>(), quantity);
                prop_assert!(taken.iter().all(|(bucket, quantity)| (1..=free[usize::from(*bucket)]).contains(quantity)));
                prop_assert!(taken.is_sorted_by(|one, other| one.0 < other.0));
            }
            None => prop_assert!(free.iter().sum::<i64>() < quantity),
        }
    }

    #[test]
    fn a_delivery_is_poured_whole_and_levels(available in prop::collection::vec(0..50_i64, 1..12), quantity in 1..200_i64) {
        let shares = poured(&available, quantity);
        prop_assert_eq!(shares.iter().sum::<i64>(), quantity);
        prop_assert!(shares.iter().all(|share| *share >= 0));
        let after: Vec<_> = available.iter().zip(&shares).map(|(available, share)| available + share).collect();
        let lowest = after.iter().min().unwrap();
        for (after, share) in after.iter().zip(&shares) {
            prop_assert!(*share == 0 || *after <= lowest + 1, "{:?} {:?}", available, shares);
        }
    }

    #[test]
    fn all_that_is_free_is_spread(free in 0..1_000_i64, buckets in 1..=BUCKETS_MAX, more in 0..5_u8) {
        let spread = spread(free, buckets, buckets + more);
        prop_assert_eq!(spread.iter().sum::<i64>(), free);
        let used = &spread[..usize::from(buckets)];
        prop_assert!(used.iter().max().unwrap() - used.iter().min().unwrap() <= 1);
        prop_assert!(spread[usize::from(buckets)..].iter().all(|free| *free == 0));
    }
}

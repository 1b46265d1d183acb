//! Many at once are what each would be alone.

use proptest::prelude::*;
use tcc_types::{SystemEntropy, Timestamp};

use super::*;
use crate::{
    lock,
    memory::watched::{Memory, gid, row},
    release, spend,
};

fn claim(coupon_id: &str, user_id: &str) -> Claim {
    Claim::new(coupon_id, user_id).unwrap()
}

fn code(outcome: &Locking) -> &str {
    match outcome {
        Locking::Locked { .. } => "locked",
        Locking::Refused(refusal) => &refusal.code,
    }
}

/// One after the other, as they have their effects.
async fn one_by_one(store: &mut Memory, operations: &Operations) -> Result<Vec<Locking>, String> {
    for (id, gid) in &operations.spends {
        spend(store, id, *gid).await.map_err(|error| error.to_string())?;
    }
    for (id, gid) in &operations.releases {
        release(store, id, *gid).await.map_err(|error| error.to_string())?;
    }
    let mut outcomes = Vec::new();
    for (claim, gid) in &operations.tries {
        let Ok(outcome) = lock(store, claim, *gid).await;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

#[tokio::test]
async fn of_two_tries_of_one_coupon_the_first_wins() {
    let mut store = Memory::with("c1", CouponState::Issued, false);
    let (one, other) = (gid(), gid());
    let operations = Operations { tries: vec![(claim("c1", "u1"), one), (claim("c1", "u1"), other)], ..Operations::default() };
    let outcomes = run(&mut store, &operations).await.unwrap();
    assert_eq!(outcomes.iter().map(code).collect::<Vec<_>>(), ["locked", "COUPON_LOCKED"]);
    assert_eq!((store.rows["c1"].gid, store.writes), (Some(one), 1));
}

#[tokio::test]
async fn a_coupon_that_is_given_back_goes_to_the_next_in_one_write() {
    let mut store = Memory::with("c1", CouponState::Locked, false);
    let (holder, next) = (store.rows["c1"].gid.unwrap(), gid());
    let operations = Operations {
        releases: vec![("c1".to_owned(), holder)],
        tries: vec![(claim("c1", "u1"), next)],
        ..Operations::default()
    };
    run(&mut store, &operations).await.unwrap();
    assert_eq!((store.rows["c1"].state, store.rows["c1"].gid, store.writes), (CouponState::Locked, Some(next), 1));
}

#[tokio::test]
async fn one_that_ends_as_it_was_is_not_written() {
    let mut store = Memory::with("c1", CouponState::Locked, false);
    let holder = store.rows["c1"].gid.unwrap();
    let operations = Operations {
        releases: vec![("c1".to_owned(), holder)],
        tries: vec![(claim("c1", "u1"), holder), (claim("c1", "u2"), gid()), (claim("nil", "u1"), gid())],
        ..Operations::default()
    };
    let outcomes = run(&mut store, &operations).await.unwrap();
    assert_eq!(outcomes.iter().map(code).collect::<Vec<_>>(), ["locked", "NOT_OWNER", "UNKNOWN_COUPON"]);
    assert_eq!(store.writes, 0);
}

#[tokio::test]
async fn coupons_are_held_in_the_order_of_their_ids_each_once() {
    let mut store = Memory::default();
    let tries = ["c", "a", "b", "a"].map(|id| (claim(id, "u1"), gid())).to_vec();
    run(&mut store, &Operations { tries, ..Operations::default() }).await.unwrap();
    assert_eq!(store.held, [["a", "b", "c"]]);
    run(&mut store, &Operations::default()).await.unwrap();
    assert_eq!(store.held.len(), 1);
}

const IDS: [&str; 4] = ["a", "b", "c", "nil"];
const USERS: [&str; 2] = ["u1", "u2"];

fn gids() -> Vec<Gid> {
    (0..6).map(|ms| Gid::mint(Timestamp::from_millis(1_790_000_000_000 + ms), &SystemEntropy)).collect()
}

fn some_row() -> impl Strategy<Value = (usize, bool, usize, usize)> {
    (0..2_usize, any::<bool>(), prop_oneof![3 => Just(0_usize), 3 => Just(1), 1 => Just(2)], 0..3_usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_ends_as_its_operations_one_by_one(
        rows in prop::array::uniform3(some_row()),
        settles in prop::array::uniform3(0..4_usize),
        stranger in prop::option::weighted(0.05, 0..3_usize),
        tries in proptest::collection::vec((0..4_usize, 0..2_usize, 0..6_usize), 0..8),
    ) {
        let gids = gids();
        let mut before = Memory::default();
        let mut operations = Operations::default();
        for ((id, (user, expired, state, holder)), settle) in IDS.into_iter().zip(rows).zip(settles) {
            let state = CouponState::ALL[state];
            let gid = (state != CouponState::Issued).then_some(gids[holder]);
            before.rows.insert(id.to_owned(), row(id, USERS[user], expired, state, gid));
            match (state, settle) {
                (CouponState::Locked, 0) => operations.spends.push((id.to_owned(), gids[holder])),
                (CouponState::Locked, 1) => operations.releases.push((id.to_owned(), gids[holder])),
                (CouponState::Issued | CouponState::Locked | CouponState::Used, _) => {}
            }
        }
        // Now and then one that does not hold what it says.
        if let Some(coupon) = stranger {
            operations.releases.push((IDS[coupon].to_owned(), gids[5]));
        }
        operations.tries = tries.into_iter().map(|(id, user, gid)| (claim(IDS[id], USERS[user]), gids[gid])).collect();

        let (mut alone, mut together) = (before.clone(), before.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (expected, outcome) = runtime.block_on(async {
            (one_by_one(&mut alone, &operations).await, run(&mut together, &operations).await)
        });
        match (expected, outcome) {
            (Ok(expected), Ok(outcome)) => {
                prop_assert_eq!(outcome, expected);
                prop_assert_eq!(&together.rows, &alone.rows);
                let changed = before.rows.iter().filter(|(id, row)| together.rows[*id] != **row).count();
                prop_assert_eq!(together.writes, changed);
            }
            (Err(_), Err(_)) => prop_assert_eq!(&together.rows, &before.rows),
            (expected, outcome) => prop_assert!(false, "{:?} {:?}", expected, outcome.map_err(|error| error.to_string())),
        }
    }
}

//! The decisions on an in-process store.

use super::*;
use crate::memory::watched::{Memory, gid};

async fn refusal(store: &mut Memory, coupon_id: &str, user_id: &str) -> String {
    match lock(store, &Claim::new(coupon_id, user_id).unwrap(), gid()).await.unwrap() {
        Locking::Locked { .. } => panic!("not refused"),
        Locking::Refused(refusal) => refusal.code,
    }
}

#[tokio::test]
async fn a_locked_coupon_is_used_or_released_by_its_transaction_only() {
    let mut store = Memory::with("c1", CouponState::Issued, false);
    let (claim, mine) = (Claim::new("c1", "u1").unwrap(), gid());
    assert_eq!(lock(&mut store, &claim, mine).await, Ok(Locking::Locked { discount_minor: 500 }));
    assert!(matches!(spend(&mut store, "c1", gid()).await, Err(SettleError::NotLocked { .. })));
    assert!(matches!(release(&mut store, "c1", gid()).await, Err(SettleError::NotLocked { .. })));
    release(&mut store, "c1", mine).await.unwrap();
    assert_eq!((store.rows["c1"].state, store.rows["c1"].gid), (CouponState::Issued, None));
    lock(&mut store, &claim, mine).await.unwrap();
    spend(&mut store, "c1", mine).await.unwrap();
    assert_eq!((store.rows["c1"].state, store.rows["c1"].gid), (CouponState::Used, Some(mine)));
    assert!(matches!(release(&mut store, "c1", mine).await, Err(SettleError::NotLocked { .. })));
}

#[tokio::test]
async fn the_first_reason_that_holds_is_given() {
    assert_eq!(refusal(&mut Memory::default(), "c1", "u1").await, "UNKNOWN_COUPON");
    for (state, expired, own, foreign) in [
        (CouponState::Used, true, "COUPON_USED", "NOT_OWNER"),
        (CouponState::Used, false, "COUPON_USED", "NOT_OWNER"),
        (CouponState::Locked, true, "COUPON_LOCKED", "NOT_OWNER"),
        (CouponState::Locked, false, "COUPON_LOCKED", "NOT_OWNER"),
        (CouponState::Issued, true, "COUPON_EXPIRED", "NOT_OWNER"),
    ] {
        let mut store = Memory::with("c1", state, expired);
        let before = store.rows.clone();
        assert_eq!(refusal(&mut store, "c1", "u1").await, own, "{state:?}");
        assert_eq!(refusal(&mut store, "c1", "u2").await, foreign, "{state:?}");
        assert_eq!(store.rows, before);
    }
}

#[tokio::test]
async fn a_coupon_that_became_free_between_the_lock_and_the_look_is_locked_again() {
    let mut store = Memory { missed_locks: ATTEMPTS_MAX - 1, ..Memory::with("c1", CouponState::Issued, false) };
    let claim = Claim::new("c1", "u1").unwrap();
    assert_eq!(lock(&mut store, &claim, gid()).await, Ok(Locking::Locked { discount_minor: 500 }));
    let mut store = Memory { missed_locks: ATTEMPTS_MAX, ..Memory::with("c1", CouponState::Issued, false) };
    assert_eq!(refusal(&mut store, "c1", "u1").await, "COUPON_LOCKED");
}

#[test]
fn every_bad_id_is_named() {
    let fields: Vec<_> = Claim::new("", "no good").unwrap_err().into_iter().map(|bad| bad.field).collect();
    assert_eq!(fields, ["coupon_id", "user_id"]);
}

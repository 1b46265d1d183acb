//! Coupons in memory: what a simulation reads of them and checks at each commit.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[allow(unused_imports, unused_macros, reason = "these are tests of one database")]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use support::{Dice, InMemory, TestDatabase, coupon, in_a_minute, key, try_call};
use tcc_coupon::{CouponBooks, CouponDatabase, CouponState, Coupons, memory::CouponTables};
use tcc_participant::{Engine, Options, memory::Memory};
use tcc_types::{CancelCall, ConfirmCall, SettleAnswer, TryAnswer};
use tokio::task::JoinSet;

const COUPONS: [&str; 4] = ["c1", "c2", "c3", "c4"];

async fn running() -> (Memory<CouponTables>, Engine<Coupons<InMemory>>) {
    let fresh = InMemory::fresh();
    let store = InMemory::opened(&fresh, &Options::default()).await;
    for id in COUPONS {
        InMemory::books(store.clone()).issue(&coupon(id, "u1", in_a_minute())).await.unwrap();
    }
    (fresh.memory, Engine::batched(Coupons::new(), store))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_books_hold_at_each_commit_while_coupons_are_passed_on() {
    let (memory, engine) = running().await;
    let commits = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&commits);
    memory.observe(Box::new(move |_, after| {
        seen.fetch_add(1, Ordering::SeqCst);
        after.check().unwrap();
    }));
    let mut orders = JoinSet::new();
    for order in 1..=150_u64 {
        let engine = engine.clone();
        orders.spawn(async move {
            let (key, mut dice) = (key(), Dice(order.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            // The last one is kept by whoever gets it.
            let id = COUPONS[dice.roll(4)];
            let answer = engine.try_branch(try_call(&key, id, "u1")).await.unwrap();
            let is_locked = matches!(answer, TryAnswer::Reserved(_));
            if is_locked && id == "c4" {
                return;
            }
            let settled = if is_locked && dice.roll(10) == 0 {
                engine.confirm(ConfirmCall { key }).await
            } else {
                engine.cancel(CancelCall { key, not_after: in_a_minute() }).await
            };
            assert_eq!(settled.unwrap(), SettleAnswer::Done);
        });
    }
    orders.join_all().await;
    assert!(commits.load(Ordering::SeqCst) > 0);
    let tables = memory.durable();
    let kept = tables.coupons.coupon("c4").unwrap();
    assert_eq!(kept.state, CouponState::Locked);
    assert_eq!(tables.held().unwrap().into_iter().collect::<Vec<_>>(), [("c4".to_owned(), kept.gid.unwrap())]);
    assert_eq!(tables.coupons.coupons().map(|coupon| coupon.issued.coupon_id.as_str()).collect::<Vec<_>>(), COUPONS);
}

#[tokio::test]
async fn books_that_do_not_hold_are_told() {
    let (memory, engine) = running().await;
    let one = key();
    assert!(matches!(engine.try_branch(try_call(&one, "c1", "u1")).await.unwrap(), TryAnswer::Reserved(_)));
    memory.visible().check().unwrap();
    let changed = |state, gid| {
        let mut tables = memory.visible();
        assert!(tables.coupons.change("c1", |coupon| (coupon.state, coupon.gid) = (state, gid)).unwrap());
        tables.check()
    };
    assert!(changed(CouponState::Issued, None).is_err());
    assert!(changed(CouponState::Used, Some(one.gid)).is_err());
    assert!(changed(CouponState::Locked, Some(key().gid)).is_err());
    changed(CouponState::Locked, Some(one.gid)).unwrap();
    let mut forgotten = memory.visible();
    forgotten.branches = Default::default();
    assert!(forgotten.check().is_err());
    let mut lost = memory.visible();
    lost.coupons = Default::default();
    assert!(lost.check().unwrap_err().contains("is not there"));
}

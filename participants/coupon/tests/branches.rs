//! Coupon's branches on a real SQLite file, through the SDK.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::Duration;

use prost::{Message, Name};
use sqlx::Sqlite;
use tcc_coupon::{Coupon, CouponBooks, CouponState, Coupons, Issued, NewCoupon, SqliteBooks};
use tcc_participant::{Engine, Options, Store};
use tcc_proto::coupon::v1::{LockCoupon, LockedCoupon};
use tcc_types::{
    BranchId, BranchKey, CancelCall, Clock, ConfirmCall, Gid, LogName, Payload, RefusalReason, SettleAnswer, SystemClock,
    SystemEntropy, Timestamp, TryAnswer, TryCall,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

struct World {
    store: Store<Sqlite>,
    engine: Engine<Coupons<Sqlite>>,
    books: SqliteBooks,
    _folder: TempDir,
}

impl World {
    /// With the coupon `c1` of `u1`, worth 500.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/coupon.db", folder.path().display());
        let store = Store::<Sqlite>::open(&url, &Options::default()).await.unwrap();
        tcc_migrations::coupon::sqlite().run(store.write_pool()).await.unwrap();
        let world = Self {
            engine: Engine::new(Coupons::new(), store.clone()),
            books: SqliteBooks::new(store.clone()),
            store,
            _folder: folder,
        };
        world.issue("c1", "u1", in_a_minute()).await;
        world
    }

    async fn issue(&self, coupon_id: &str, user_id: &str, expires_at: Timestamp) {
        assert!(matches!(self.books.issue(&coupon(coupon_id, user_id, expires_at)).await.unwrap(), Issued::Done(_)));
    }

    async fn state(&self, coupon_id: &str) -> (CouponState, Option<Gid>) {
        let coupon = self.books.get(coupon_id).await.unwrap().unwrap();
        (coupon.state, coupon.gid)
    }

    async fn lock(&self, key: &BranchKey, coupon_id: &str, user_id: &str) -> TryAnswer {
        self.engine.try_branch(try_call(key, coupon_id, user_id)).await.unwrap()
    }

    async fn refusal(&self, coupon_id: &str, user_id: &str) -> (RefusalReason, String) {
        match self.lock(&key(), coupon_id, user_id).await {
            TryAnswer::Refused(refusal) => (refusal.reason, refusal.code),
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

fn in_a_minute() -> Timestamp {
    SystemClock.now().plus(Duration::from_secs(60))
}

fn a_minute_ago() -> Timestamp {
    SystemClock.now().minus(Duration::from_secs(60))
}

fn coupon(coupon_id: &str, user_id: &str, expires_at: Timestamp) -> NewCoupon {
    NewCoupon { coupon_id: coupon_id.to_owned(), user_id: user_id.to_owned(), discount_minor: 500, expires_at }
}

fn key() -> BranchKey {
    BranchKey { gid: Gid::mint(SystemClock.now(), &SystemEntropy), branch: BranchId::new("coupon").unwrap() }
}

fn try_call(key: &BranchKey, coupon_id: &str, user_id: &str) -> TryCall {
    let value = LockCoupon { coupon_id: coupon_id.to_owned(), user_id: user_id.to_owned() }.encode_to_vec().into();
    TryCall {
        key: key.clone(),
        payload: Payload { type_url: LockCoupon::type_url(), value },
        not_after: in_a_minute(),
        ask_after: in_a_minute(),
        coordinator: LogName::new("test").unwrap(),
    }
}

fn assert_output(answer: &TryAnswer, coupon_id: &str) {
    let TryAnswer::Reserved(Some(output)) = answer else { panic!("{answer:?}") };
    assert_eq!(output.type_url, "type.googleapis.com/coupon.v1.LockedCoupon");
    let expected = LockedCoupon { coupon_id: coupon_id.to_owned(), discount_minor: 500 };
    assert_eq!(LockedCoupon::decode(output.value.clone()).unwrap(), expected);
}

#[tokio::test]
async fn a_locked_coupon_remembers_its_transaction_and_is_used_by_confirm() {
    let world = World::new().await;
    let key = key();
    for _ in 0..2 {
        assert_output(&world.lock(&key, "c1", "u1").await, "c1");
        assert_eq!(world.state("c1").await, (CouponState::Locked, Some(key.gid)));
    }
    for _ in 0..2 {
        assert_eq!(world.confirm(&key).await, SettleAnswer::Done);
        assert_eq!(world.state("c1").await, (CouponState::Used, Some(key.gid)));
    }
    assert!(matches!(world.cancel(&key).await, SettleAnswer::Violation(_)));
    assert_eq!(world.state("c1").await, (CouponState::Used, Some(key.gid)));
}

#[tokio::test]
async fn a_cancelled_coupon_is_free_for_the_next_order() {
    let world = World::new().await;
    let (first, second) = (key(), key());
    world.lock(&first, "c1", "u1").await;
    for _ in 0..2 {
        assert_eq!(world.cancel(&first).await, SettleAnswer::Done);
        assert_eq!(world.state("c1").await, (CouponState::Issued, None));
    }
    assert_output(&world.lock(&second, "c1", "u1").await, "c1");
    // A cancel that comes again, late, must not release what another order has locked since.
    assert_eq!(world.cancel(&first).await, SettleAnswer::Done);
    assert_eq!(world.state("c1").await, (CouponState::Locked, Some(second.gid)));
}

#[tokio::test]
async fn every_reason_to_refuse_has_its_code_and_changes_nothing() {
    let world = World::new().await;
    world.issue("old", "u1", a_minute_ago()).await;
    for (id, used) in [("used", true), ("locked", false)] {
        world.issue(id, "u1", in_a_minute()).await;
        let key = key();
        world.lock(&key, id, "u1").await;
        if used {
            world.confirm(&key).await;
        }
    }
    let before = world.books.list(None, None, 100).await.unwrap();
    for (coupon_id, user_id, code) in [
        ("nothing", "u1", "UNKNOWN_COUPON"),
        ("c1", "u2", "NOT_OWNER"),
        ("used", "u2", "NOT_OWNER"),
        ("old", "u2", "NOT_OWNER"),
        ("used", "u1", "COUPON_USED"),
        ("locked", "u1", "COUPON_LOCKED"),
        ("old", "u1", "COUPON_EXPIRED"),
        ("", "u1", "BAD_REQUEST"),
        ("c1", "two words", "BAD_REQUEST"),
    ] {
        let expected = (RefusalReason::Business, code.to_owned());
        assert_eq!(world.refusal(coupon_id, user_id).await, expected, "{coupon_id} {user_id}");
    }
    assert_eq!(world.books.list(None, None, 100).await.unwrap(), before);
    assert_eq!(world.store.count_tried().await.unwrap(), 1);
}

#[tokio::test]
async fn a_coupon_that_expires_while_locked_can_still_be_used_or_given_back() {
    let world = World::new().await;
    world.issue("c2", "u1", in_a_minute()).await;
    let (one, other) = (key(), key());
    world.lock(&one, "c1", "u1").await;
    world.lock(&other, "c2", "u1").await;
    let expire = sqlx::query("UPDATE coupons SET expires_at = ?1").bind(a_minute_ago().as_micros());
    expire.execute(world.store.write_pool()).await.unwrap();
    assert_eq!(world.confirm(&one).await, SettleAnswer::Done);
    assert_eq!(world.cancel(&other).await, SettleAnswer::Done);
    assert_eq!(world.state("c1").await, (CouponState::Used, Some(one.gid)));
    assert_eq!(world.state("c2").await, (CouponState::Issued, None));
    assert_eq!(world.refusal("c2", "u1").await.1, "COUPON_EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_orders_that_race_for_one_coupon_exactly_one_gets_it() {
    let world = World::new().await;
    for round in 0..20 {
        let id = format!("race-{round}");
        world.issue(&id, "u1", in_a_minute()).await;
        let mut orders = JoinSet::new();
        for _ in 0..2 + round % 5 {
            let (engine, id) = (world.engine.clone(), id.clone());
            orders.spawn(async move {
                let key = key();
                (key.gid, engine.try_branch(try_call(&key, &id, "u1")).await.unwrap())
            });
        }
        let mut winners = Vec::new();
        for (gid, answer) in orders.join_all().await {
            match answer {
                TryAnswer::Reserved(_) => winners.push(gid),
                TryAnswer::Refused(refusal) => assert_eq!(refusal.code, "COUPON_LOCKED"),
                TryAnswer::Violation(violation) => panic!("{violation}"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(world.state(&id).await, (CouponState::Locked, Some(winners[0])));
    }
}

#[tokio::test]
async fn two_branches_of_one_transaction_do_not_share_a_coupon() {
    let world = World::new().await;
    let one = key();
    let other = BranchKey { branch: BranchId::new("again").unwrap(), ..one.clone() };
    assert_output(&world.lock(&one, "c1", "u1").await, "c1");
    let TryAnswer::Refused(refusal) = world.lock(&other, "c1", "u1").await else { panic!() };
    assert_eq!(refusal.code, "COUPON_LOCKED");
    // The refused branch holds nothing, so its Cancel releases nothing.
    assert_eq!(world.cancel(&other).await, SettleAnswer::Done);
    assert_eq!(world.state("c1").await, (CouponState::Locked, Some(one.gid)));
}

#[tokio::test]
async fn a_confirm_whose_lock_vanished_is_unknown_and_changes_nothing() {
    let world = World::new().await;
    let key = key();
    world.lock(&key, "c1", "u1").await;
    sqlx::query("UPDATE coupons SET state = 1, gid = NULL").execute(world.store.write_pool()).await.unwrap();
    assert!(world.engine.confirm(ConfirmCall { key: key.clone() }).await.is_err());
    assert_eq!(world.state("c1").await, (CouponState::Issued, None));
    assert_eq!(world.store.count_tried().await.unwrap(), 1);
}

#[tokio::test]
async fn issuing_again_changes_nothing_and_tells_other_fields_apart() {
    let world = World::new().await;
    let expires_at = in_a_minute();
    let issued = coupon("c2", "u1", expires_at);
    world.books.issue(&issued).await.unwrap();
    let key = key();
    world.lock(&key, "c2", "u1").await;
    let expected = Coupon { issued: issued.clone(), state: CouponState::Locked, gid: Some(key.gid) };
    assert_eq!(world.books.issue(&issued).await.unwrap(), Issued::Done(expected));
    for other in [
        coupon("c2", "u2", expires_at),
        coupon("c2", "u1", expires_at.plus(Duration::from_micros(1))),
        NewCoupon { discount_minor: 501, ..issued },
    ] {
        assert_eq!(world.books.issue(&other).await.unwrap(), Issued::OtherFields);
    }
}

#[tokio::test]
async fn the_database_itself_forbids_a_lock_without_a_transaction() {
    let world = World::new().await;
    for statement in [
        "UPDATE coupons SET state = 2",
        "UPDATE coupons SET state = 3",
        "UPDATE coupons SET gid = 'x'",
        "UPDATE coupons SET state = 4, gid = 'x'",
        "UPDATE coupons SET discount_minor = 0",
    ] {
        let error = sqlx::query(statement).execute(world.store.write_pool()).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_check_violation(), "{statement}: {error}");
    }
}

//! Coupon's branches on every database, through the SDK.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use prost::Message;
use support::{Fresh, TestDatabase, a_minute_ago, coupon, in_a_minute, key, on_every_database, try_call};
use tcc_coupon::{Coupon, CouponBooks, CouponState, Coupons, Issued, NewCoupon};
use tcc_participant::{Engine, Options, Store};
use tcc_proto::coupon::v1::LockedCoupon;
use tcc_types::{BranchId, BranchKey, CancelCall, ConfirmCall, Gid, RefusalReason, SettleAnswer, Timestamp, TryAnswer};
use tokio::task::JoinSet;

on_every_database! {
    a_locked_coupon_remembers_its_transaction_and_is_used_by_confirm,
    a_cancelled_coupon_is_free_for_the_next_order,
    every_reason_to_refuse_has_its_code_and_changes_nothing,
    a_coupon_that_expires_while_locked_can_still_be_used_or_given_back,
    of_many_orders_that_race_for_one_coupon_exactly_one_gets_it,
    two_branches_of_one_transaction_do_not_share_a_coupon,
    a_confirm_whose_lock_vanished_is_unknown_and_changes_nothing,
    issuing_again_changes_nothing_and_tells_other_fields_apart,
    the_database_itself_forbids_a_lock_without_a_transaction,
    issues_of_one_id_at_once_issue_one_coupon,
    coupons_are_listed_in_the_order_of_their_bytes,
    the_longest_names_fit,
    a_coupon_that_many_orders_pass_on_is_used_once,
}

struct World<D: TestDatabase> {
    store: Store<D>,
    engine: Engine<Coupons<D>>,
    books: Arc<D::Books>,
    _fresh: Fresh,
}

impl<D: TestDatabase> World<D> {
    /// With the coupon `c1` of `u1`, worth 500.
    async fn new() -> Self {
        let fresh = D::fresh();
        let store = D::opened(&fresh, &Options::default()).await;
        let books = Arc::new(D::books(store.clone()));
        let world = Self { engine: Engine::batched(Coupons::new(), store.clone()), store, books, _fresh: fresh };
        world.issue("c1", "u1", in_a_minute()).await;
        world
    }

    /// What somebody does to the tables beside the framework.
    async fn execute(&self, statement: &str) -> Result<(), sqlx::Error> {
        D::execute(&self.store, statement.to_owned()).await
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

fn assert_output(answer: &TryAnswer, coupon_id: &str) {
    let TryAnswer::Reserved(Some(output)) = answer else { panic!("{answer:?}") };
    assert_eq!(output.type_url, "type.googleapis.com/coupon.v1.LockedCoupon");
    let expected = LockedCoupon { coupon_id: coupon_id.to_owned(), discount_minor: 500 };
    assert_eq!(LockedCoupon::decode(output.value.clone()).unwrap(), expected);
}

async fn a_locked_coupon_remembers_its_transaction_and_is_used_by_confirm<D: TestDatabase>() {
    let world = World::<D>::new().await;
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

async fn a_cancelled_coupon_is_free_for_the_next_order<D: TestDatabase>() {
    let world = World::<D>::new().await;
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

async fn every_reason_to_refuse_has_its_code_and_changes_nothing<D: TestDatabase>() {
    let world = World::<D>::new().await;
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

async fn a_coupon_that_expires_while_locked_can_still_be_used_or_given_back<D: TestDatabase>() {
    let world = World::<D>::new().await;
    world.issue("c2", "u1", in_a_minute()).await;
    let (one, other) = (key(), key());
    world.lock(&one, "c1", "u1").await;
    world.lock(&other, "c2", "u1").await;
    world.execute(&format!("UPDATE coupons SET expires_at = {}", a_minute_ago().as_micros())).await.unwrap();
    assert_eq!(world.confirm(&one).await, SettleAnswer::Done);
    assert_eq!(world.cancel(&other).await, SettleAnswer::Done);
    assert_eq!(world.state("c1").await, (CouponState::Used, Some(one.gid)));
    assert_eq!(world.state("c2").await, (CouponState::Issued, None));
    assert_eq!(world.refusal("c2", "u1").await.1, "COUPON_EXPIRED");
}

async fn of_many_orders_that_race_for_one_coupon_exactly_one_gets_it<D: TestDatabase>() {
    let world = World::<D>::new().await;
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

async fn two_branches_of_one_transaction_do_not_share_a_coupon<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let one = key();
    let other = BranchKey { branch: BranchId::new("again").unwrap(), ..one.clone() };
    assert_output(&world.lock(&one, "c1", "u1").await, "c1");
    let TryAnswer::Refused(refusal) = world.lock(&other, "c1", "u1").await else { panic!() };
    assert_eq!(refusal.code, "COUPON_LOCKED");
    // The refused branch holds nothing, so its Cancel releases nothing.
    assert_eq!(world.cancel(&other).await, SettleAnswer::Done);
    assert_eq!(world.state("c1").await, (CouponState::Locked, Some(one.gid)));
}

async fn a_confirm_whose_lock_vanished_is_unknown_and_changes_nothing<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let key = key();
    world.lock(&key, "c1", "u1").await;
    world.execute("UPDATE coupons SET state = 1, gid = NULL").await.unwrap();
    assert!(world.engine.confirm(ConfirmCall { key: key.clone() }).await.is_err());
    assert_eq!(world.state("c1").await, (CouponState::Issued, None));
    assert_eq!(world.store.count_tried().await.unwrap(), 1);
}

async fn issuing_again_changes_nothing_and_tells_other_fields_apart<D: TestDatabase>() {
    let world = World::<D>::new().await;
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

async fn the_database_itself_forbids_a_lock_without_a_transaction<D: TestDatabase>() {
    let world = World::<D>::new().await;
    for statement in [
        "UPDATE coupons SET state = 2",
        "UPDATE coupons SET state = 3",
        "UPDATE coupons SET gid = 'x'",
        "UPDATE coupons SET state = 4, gid = 'x'",
        "UPDATE coupons SET discount_minor = 0",
    ] {
        let error = world.execute(statement).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_check_violation(), "{statement}: {error}");
    }
}

async fn issues_of_one_id_at_once_issue_one_coupon<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let expires_at = in_a_minute();
    for round in 0..10 {
        let issues = (0..6).map(|number| {
            let (books, user_id) = (world.books.clone(), if number % 2 == 0 { "u1" } else { "u2" });
            let coupon = coupon(&format!("new-{round}"), user_id, expires_at);
            async move { (user_id, books.issue(&coupon).await.unwrap()) }
        });
        let mut owners = Vec::new();
        for (user_id, issued) in issues.collect::<JoinSet<_>>().join_all().await {
            match issued {
                Issued::Done(coupon) => {
                    assert_eq!(coupon.issued.user_id, user_id);
                    owners.push(user_id);
                }
                Issued::OtherFields => {}
            }
        }
        assert!(owners.len() == 3 && owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    }
}

async fn a_coupon_that_many_orders_pass_on_is_used_once<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let mut orders = JoinSet::new();
    for number in 0..8 {
        let engine = world.engine.clone();
        orders.spawn(async move {
            // Most give it back and want it again; one of the eight uses it when it gets it.
            for _ in 0..15 {
                let key = key();
                if let TryAnswer::Refused(refusal) = engine.try_branch(try_call(&key, "c1", "u1")).await.unwrap() {
                    assert!(matches!(refusal.code.as_str(), "COUPON_LOCKED" | "COUPON_USED"), "{refusal:?}");
                } else if number == 0 {
                    engine.confirm(ConfirmCall { key: key.clone() }).await.unwrap();
                    return Some(key.gid);
                } else {
                    let cancelled = engine.cancel(CancelCall { key, not_after: in_a_minute() }).await;
                    assert_eq!(cancelled.unwrap(), SettleAnswer::Done);
                }
            }
            None
        });
    }
    let user = orders.join_all().await.into_iter().flatten().next();
    let expected = if user.is_some() { (CouponState::Used, user) } else { (CouponState::Issued, None) };
    assert_eq!(world.state("c1").await, expected);
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

async fn coupons_are_listed_in_the_order_of_their_bytes<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let in_order = ["-", ".", "0", "A", "A-b", "A.b", "A0", "AB", "Aa", "B", "_", "a", "a-", "aA", "a_", "aa", "b"];
    for coupon_id in in_order.iter().rev() {
        world.issue(coupon_id, "U1", in_a_minute()).await;
    }
    let ids = |coupons: Vec<Coupon>| coupons.into_iter().map(|coupon| coupon.issued.coupon_id).collect::<Vec<_>>();
    // "U1" is not "u1".
    for (index, coupon_id) in in_order.iter().enumerate() {
        let after = ids(world.books.list(Some("U1"), Some(coupon_id), 100).await.unwrap());
        assert_eq!(after, in_order[index + 1..], "after {coupon_id}");
    }
    assert_eq!(ids(world.books.list(Some("U1"), None, 3).await.unwrap()), in_order[..3]);
    let all = ids(world.books.list(None, None, 100).await.unwrap());
    let before_c1 = in_order.len();
    assert_eq!((&all[..before_c1], &all[before_c1..]), (&in_order.map(str::to_owned)[..], &["c1".to_owned()][..]));
}

async fn the_longest_names_fit<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let (coupon_id, user_id) = ("C".repeat(64), "U".repeat(64));
    world.issue(&coupon_id, &user_id, Timestamp::MAX).await;
    let key = key();
    assert_output(&world.lock(&key, &coupon_id, &user_id).await, &coupon_id);
    assert_eq!(world.state(&coupon_id).await, (CouponState::Locked, Some(key.gid)));
    assert_eq!(world.books.get(&coupon_id).await.unwrap().unwrap().issued.expires_at, Timestamp::MAX);
}

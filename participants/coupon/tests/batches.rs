//! Many operations of coupon in one local transaction, on every database.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use sqlx::{MySql, Postgres};
use support::{Dice, Fresh, InMemory, TestDatabase, a_minute_ago, coupon, in_a_minute, key, on_every_database, try_call};
use tcc_barrier::{Answer, Call};
use tcc_coupon::{CouponBooks, CouponState, Coupons};
use tcc_participant::{Engine, Options, Store, within};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, Gid, SettleAnswer, TryAnswer, TryCall};
use tokio::task::JoinSet;

on_every_database! {
    random_batches_answer_and_leave_what_their_operations_do_one_by_one,
    a_coupon_goes_to_the_first_in_order_and_then_to_the_next,
    a_batch_in_which_a_lock_has_vanished_changes_nothing,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_with_batches_over_the_same_coupons_use_each_once_in_memory() {
    two_instances_with_batches_over_the_same_coupons_use_each_once::<InMemory>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_with_batches_over_the_same_coupons_use_each_once_on_postgres() {
    two_instances_with_batches_over_the_same_coupons_use_each_once::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_with_batches_over_the_same_coupons_use_each_once_on_mysql() {
    two_instances_with_batches_over_the_same_coupons_use_each_once::<MySql>().await;
}

const COUPONS: [&str; 8] = ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "old"];

/// An operation.
#[derive(Clone, Debug)]
enum Operation {
    Try(TryCall),
    Confirm(ConfirmCall),
    Cancel(CancelCall),
}

impl Operation {
    fn confirm(key: &BranchKey) -> Self {
        Self::Confirm(ConfirmCall { key: key.clone() })
    }

    fn cancel(key: &BranchKey) -> Self {
        Self::Cancel(CancelCall { key: key.clone(), not_after: in_a_minute() })
    }

    fn call(&self) -> Call<'_> {
        match self {
            Self::Try(call) => Call::Try(call),
            Self::Confirm(call) => Call::Confirm(call),
            Self::Cancel(call) => Call::Cancel(call),
        }
    }
}

struct World<D: TestDatabase> {
    store: Store<D>,
    engine: Engine<Coupons<D>>,
    books: D::Books,
    fresh: Fresh,
}

impl<D: TestDatabase> World<D> {
    /// With coupons of `u1`, the last of which has expired.
    async fn new() -> Self {
        let fresh = D::fresh();
        let store = D::opened(&fresh, &Options::default()).await;
        let books = D::books(store.clone());
        for id in COUPONS {
            let expires_at = if id == "old" { a_minute_ago() } else { in_a_minute() };
            books.issue(&coupon(id, "u1", expires_at)).await.unwrap();
        }
        Self { engine: Engine::batched(Coupons::new(), store.clone()), store, books, fresh }
    }

    /// In one transaction, with the answers in the operations' order, which is that of their keys.
    async fn together(&self, operations: &[Operation]) -> Result<Vec<Answer>, within::Error> {
        let calls: Vec<_> = operations.iter().map(Operation::call).collect();
        let mut transaction = self.store.begin().await.unwrap();
        let answers = within::batch(&Coupons::<D>::new(), &mut transaction, &calls, &Options::default()).await?;
        transaction.commit().await.unwrap();
        Ok(answers)
    }

    /// Each alone: what settles first, as in a batch.
    async fn one_by_one(&self, operations: &[Operation]) -> Vec<Answer> {
        let mut answers = vec![None; operations.len()];
        for settles in [true, false] {
            for (operation, answer) in operations.iter().zip(&mut answers) {
                match operation.clone() {
                    Operation::Confirm(call) if settles => {
                        *answer = Some(Answer::Settled(self.engine.confirm(call).await.unwrap()));
                    }
                    Operation::Cancel(call) if settles => {
                        *answer = Some(Answer::Settled(self.engine.cancel(call).await.unwrap()));
                    }
                    Operation::Try(call) if !settles => {
                        *answer = Some(Answer::Tried(self.engine.try_branch(call).await.unwrap()));
                    }
                    Operation::Confirm(_) | Operation::Cancel(_) | Operation::Try(_) => {}
                }
            }
        }
        answers.into_iter().flatten().collect()
    }

    async fn states(&self) -> Vec<(CouponState, Option<Gid>)> {
        let coupons = self.books.list(None, None, 100).await.unwrap();
        coupons.into_iter().map(|coupon| (coupon.state, coupon.gid)).collect()
    }

    async fn state(&self, coupon_id: &str) -> (CouponState, Option<Gid>) {
        let coupon = self.books.get(coupon_id).await.unwrap().unwrap();
        (coupon.state, coupon.gid)
    }
}

fn code(answer: &Answer) -> &str {
    match answer {
        Answer::Tried(TryAnswer::Reserved(_)) => "reserved",
        Answer::Tried(TryAnswer::Refused(refusal)) => &refusal.code,
        Answer::Tried(TryAnswer::Violation(_)) | Answer::Settled(SettleAnswer::Violation(_)) => "violation",
        Answer::Settled(SettleAnswer::Done) => "done",
    }
}

/// Whose coupon and which, now and then a wrong one.
fn some_claim(dice: &mut Dice) -> (&'static str, &'static str) {
    match dice.roll(20) {
        0 => ("nothing", "u1"),
        1 => ("c1", "u2"),
        2 => ("two words", "u1"),
        3 => ("old", "u1"),
        _ => (COUPONS[dice.roll(7)], "u1"),
    }
}

async fn random_batches_answer_and_leave_what_their_operations_do_one_by_one<D: TestDatabase>() {
    let (alone, together) = (World::<D>::new().await, World::<D>::new().await);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut tried: Vec<TryCall> = Vec::new();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..15 {
        // Some of those before: settled, settled again (the same way or the other), or tried again.
        let mut operations: Vec<Operation> = Vec::new();
        for call in &tried {
            match dice.roll(40) {
                0 => operations.push(Operation::confirm(&call.key)),
                1..=25 => operations.push(Operation::cancel(&call.key)),
                26 => operations.push(Operation::Try(call.clone())),
                _ => {}
            }
        }
        for _ in 0..10 {
            let (coupon_id, user_id) = some_claim(&mut dice);
            let call = try_call(&key(), coupon_id, user_id);
            match dice.roll(10) {
                0 => operations.push(Operation::cancel(&call.key)),
                1 => operations.push(Operation::confirm(&call.key)),
                _ => operations.push(Operation::Try(call.clone())),
            }
            tried.push(call);
        }
        operations.sort_by(|one, other| one.call().key().cmp(other.call().key()));
        let expected = alone.one_by_one(&operations).await;
        assert_eq!(together.together(&operations).await.unwrap(), expected);
        assert_eq!(together.states().await, alone.states().await);
        expected.iter().for_each(|answer| *seen.entry(code(answer).to_owned()).or_default() += 1);
    }
    assert_eq!(together.store.count_tried().await.unwrap(), alone.store.count_tried().await.unwrap());
    let all = [
        "BAD_REQUEST",
        "COUPON_EXPIRED",
        "COUPON_LOCKED",
        "COUPON_USED",
        "NOT_OWNER",
        "SUSPENDED",
        "UNKNOWN_COUPON",
        "done",
        "reserved",
        "violation",
    ];
    assert_eq!(seen.keys().collect::<Vec<_>>(), all, "{seen:?}");
}

/// Claims of coupons of `u1`, in the order of their keys.
fn claims(coupon_ids: &[&str]) -> Vec<Operation> {
    claims_of(&keys(coupon_ids.len()), coupon_ids)
}

fn claims_of(keys: &[BranchKey], coupon_ids: &[&str]) -> Vec<Operation> {
    keys.iter().zip(coupon_ids).map(|(key, id)| Operation::Try(try_call(key, id, "u1"))).collect()
}

/// New ones, in their order.
fn keys(count: usize) -> Vec<BranchKey> {
    let mut keys: Vec<_> = (0..count).map(|_| key()).collect();
    keys.sort();
    keys
}

async fn a_coupon_goes_to_the_first_in_order_and_then_to_the_next<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let keys = keys(7);
    let placed = claims_of(&keys, &["c1", "c2", "c1", "old"]);
    let answers = world.together(&placed).await.unwrap();
    assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), ["reserved", "reserved", "COUPON_LOCKED", "COUPON_EXPIRED"]);
    assert_eq!(world.state("c1").await, (CouponState::Locked, Some(keys[0].gid)));
    // The first gives it back, and the next gets it, in the same transaction; and what is refused stays so.
    let mut next = claims_of(&keys[4..], &["c1", "c1", "c2"]);
    let winner = next[0].call().key().gid;
    next.extend([Operation::cancel(&keys[0]), Operation::confirm(&keys[1]), placed[2].clone()]);
    next.sort_by(|one, other| one.call().key().cmp(other.call().key()));
    let answers = world.together(&next).await.unwrap();
    let codes: Vec<_> = answers.iter().map(code).collect();
    assert_eq!(codes, ["done", "done", "COUPON_LOCKED", "reserved", "COUPON_LOCKED", "COUPON_USED"]);
    assert_eq!(world.state("c1").await, (CouponState::Locked, Some(winner)));
    assert_eq!(world.state("c2").await, (CouponState::Used, Some(keys[1].gid)));
}

async fn a_batch_in_which_a_lock_has_vanished_changes_nothing<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let placed = claims(&["c1", "c2"]);
    world.together(&placed).await.unwrap();
    let steal = "UPDATE coupons SET state = 1, gid = NULL WHERE coupon_id = 'c2'";
    D::execute(&world.store, steal.to_owned()).await.unwrap();
    let confirms: Vec<_> = placed.iter().map(|operation| Operation::confirm(operation.call().key())).collect();
    let error = world.together(&confirms).await.unwrap_err();
    assert!(error.to_string().contains("coupon c2 is not locked by"), "{error}");
    let key = placed[0].call().key().clone();
    assert_eq!(world.state("c1").await, (CouponState::Locked, Some(key.gid)));
    assert_eq!(world.store.count_tried().await.unwrap(), 2);
    // Alone, the one that can be had is.
    assert_eq!(world.engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
}

/// Wants coupons until it has used one; most are given back. No operation may be answered *unknown*.
async fn want_coupons<D: TestDatabase>(engine: Engine<Coupons<D>>, mut dice: Dice) -> Vec<(&'static str, Gid)> {
    let mut used = Vec::new();
    for _ in 0..8 {
        let (key, coupon_id) = (key(), COUPONS[dice.roll(7)]);
        let reserved = matches!(engine.try_branch(try_call(&key, coupon_id, "u1")).await.unwrap(), TryAnswer::Reserved(_));
        if reserved && dice.roll(8) == 0 {
            used.push((coupon_id, key.gid));
            assert_eq!(engine.confirm(ConfirmCall { key }).await.unwrap(), SettleAnswer::Done);
        } else {
            let cancelled = engine.cancel(CancelCall { key, not_after: in_a_minute() }).await;
            assert_eq!(cancelled.unwrap(), SettleAnswer::Done);
        }
    }
    used
}

async fn two_instances_with_batches_over_the_same_coupons_use_each_once<D: TestDatabase>() {
    let world = World::<D>::new().await;
    let other = D::opened(&world.fresh, &Options::default()).await;
    let engines = [world.engine.clone(), Engine::batched(Coupons::new(), other)];
    let mut orders = JoinSet::new();
    for task in 1..=120_u64 {
        let engine = engines[usize::try_from(task % 2).unwrap()].clone();
        orders.spawn(want_coupons(engine, Dice(task.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    }
    let used: Vec<_> = orders.join_all().await.into_iter().flatten().collect();
    for id in &COUPONS[..7] {
        let users: Vec<_> = used.iter().filter(|(used, _)| used == id).map(|(_, gid)| *gid).collect();
        match world.state(id).await {
            (CouponState::Used, Some(gid)) => assert_eq!(users, [gid]),
            (state, gid) => assert_eq!((state, gid, users.len()), (CouponState::Issued, None, 0), "{id}"),
        }
    }
    assert!(!used.is_empty());
    assert_eq!(world.store.count_tried().await.unwrap(), 0);
}

//! Whole transactions through the handle: every way they can go, on a real log, with participants that lose answers.

use std::{sync::atomic::Ordering, time::Duration};

use crate::support::{World, branch, order, quick, shop};
use tcc_coordinator::{
    Begin, CancelCause, Config, EnlistAnswer, Error, ListFilter, Outcome, OutcomeQuery, StuckKind, Submit, TryOrder, TxView,
    Wait, Warrant,
};
use tcc_types::{BranchId, BranchKey, BranchRowStatus, Gid, IdempotencyKey, LogName, SystemEntropy, TxStatus};
use tokio_stream::StreamExt;

fn key(text: &str) -> Option<IdempotencyKey> {
    Some(IdempotencyKey::new(text).unwrap())
}

fn warrant() -> Warrant {
    Warrant { actor: "ops".to_owned(), reason: "the participant was restored".to_owned() }
}

fn branch_key(view: &TxView, name: &str) -> BranchKey {
    BranchKey { gid: view.gid, branch: BranchId::new(name).unwrap() }
}

fn row_statuses(world: &World, view: &TxView) -> [Option<BranchRowStatus>; 2] {
    ["stock", "coupon"].map(|name| world.fake(name).row(view, name))
}

const BOTH_CONFIRMED: [Option<BranchRowStatus>; 2] = [Some(BranchRowStatus::Confirmed), Some(BranchRowStatus::Confirmed)];
const BOTH_CANCELLED: [Option<BranchRowStatus>; 2] = [Some(BranchRowStatus::Cancelled), Some(BranchRowStatus::Cancelled)];

/// Waits until a stuck branch is on the list.
async fn until_stuck(world: &World) {
    while world.coordinator.list_stuck(None, None, 10).await.unwrap().items.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for the end by watching, as any client may.
async fn until_ended(world: &World, gid: Gid) -> TxView {
    let mut views = world.coordinator.watch(gid).await.unwrap();
    let mut last = None;
    while let Some(view) = views.next().await {
        last = Some(view);
    }
    last.unwrap().unwrap()
}

#[tokio::test]
async fn every_branch_is_confirmed_when_all_said_yes() {
    let world = World::start(quick()).await;
    let view = world.coordinator.submit(order()).await.unwrap();
    assert_eq!(view.status, TxStatus::Confirmed);
    assert_eq!(row_statuses(&world, &view), BOTH_CONFIRMED);
    assert_eq!(world.fake("stock").ops("stock"), ["try", "confirm"]);
    assert_eq!(world.coordinator.get(view.gid).await.unwrap().status, TxStatus::Confirmed);
}

#[tokio::test]
async fn one_refusal_cancels_the_others_and_says_why() {
    let world = World::start(quick()).await;
    *world.fake("coupon").refuses.lock().unwrap() = true;
    let view = world.coordinator.submit(order()).await.unwrap();
    assert_eq!(view.status, TxStatus::Cancelled);
    assert_eq!(row_statuses(&world, &view), [Some(BranchRowStatus::Cancelled), Some(BranchRowStatus::Refused)]);
    assert_eq!(world.fake("coupon").ops("coupon"), ["try"]);
    let stored = world.coordinator.get(view.gid).await.unwrap();
    let Some(CancelCause::Refused { branch, refusal, .. }) = stored.cause else { panic!("{stored:?}") };
    assert_eq!((branch.as_str(), refusal.code.as_str()), ("coupon", "SOLD_OUT"));
}

#[tokio::test]
async fn lost_answers_are_asked_for_again() {
    let world = World::start(quick()).await;
    world.fake("stock").loses.store(3, Ordering::SeqCst);
    let view = world.coordinator.submit(order()).await.unwrap();
    assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
}

#[tokio::test]
async fn a_participant_that_never_answers_cancels_the_transaction_at_its_deadline() {
    let world = World::start(Config { try_for_ms: 80, ..quick() }).await;
    world.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let view = world.coordinator.submit(Submit { wait: Wait::Decision, ..order() }).await.unwrap();
    assert_eq!((view.status, view.cause), (TxStatus::Cancelling, Some(CancelCause::TimedOut)));
    world.fake("stock").loses.store(0, Ordering::SeqCst);
    let view = until_ended(&world, view.gid).await;
    assert_eq!(row_statuses(&world, &view), BOTH_CANCELLED);
}

#[tokio::test]
async fn the_same_key_joins_and_another_request_under_it_is_refused() {
    let world = World::start(quick()).await;
    let keyed = Submit { key: key("order-1"), ..order() };
    let (first, second) = tokio::join!(world.coordinator.submit(keyed.clone()), world.coordinator.submit(keyed.clone()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.gid, first.status), (second.gid, TxStatus::Confirmed));
    let other = Submit { branches: vec![branch("stock")], ..keyed };
    assert_eq!(world.coordinator.submit(other).await, Err(Error::KeyReused { gid: first.gid }));
    let again = Submit { gid: Some(first.gid), branches: vec![branch("stock")], ..order() };
    assert_eq!(world.coordinator.submit(again).await, Err(Error::GidReused { gid: first.gid }));
    // A key that it was not begun with, which would not find it later.
    let late = Submit { gid: Some(first.gid), key: key("order-2"), ..order() };
    assert_eq!(world.coordinator.submit(late.clone()).await, Err(Error::GidReused { gid: first.gid }));
    let without = world.coordinator.submit(Submit { key: None, ..late }).await.unwrap();
    assert_eq!(without.gid, first.gid);
    let all = world.coordinator.list(ListFilter::default(), None, 10).await.unwrap();
    assert_eq!((all.items.len(), all.more), (1, false));
}

#[tokio::test]
async fn a_repeated_request_joins_although_its_deadlines_have_passed() {
    let world = World::start(quick()).await;
    let soon = world.coordinator.now().plus(Duration::from_millis(100));
    let keyed = Submit { key: key("order-1"), try_until: Some(soon), ..order() };
    let first = world.coordinator.submit(keyed.clone()).await.unwrap();
    while world.coordinator.now() <= soon {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let again = world.coordinator.submit(keyed.clone()).await.unwrap();
    assert_eq!((again.gid, again.status), (first.gid, TxStatus::Confirmed));
    // Nobody has begun this one.
    let fresh = world.coordinator.submit(Submit { key: key("order-2"), ..keyed }).await.unwrap_err();
    assert!(matches!(&fresh, Error::Invalid(bad) if bad[0].field == "try_until"), "{fresh:?}");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_driven_transaction() {
    let world = World::start(quick()).await;
    for attempt in 0..20 {
        let name = format!("order-{attempt}");
        let coordinator = world.coordinator.clone();
        let submit = Submit { key: key(&name), ..order() };
        let call = tokio::spawn(async move { coordinator.submit(submit).await });
        tokio::time::sleep(Duration::from_micros(200 * attempt)).await;
        call.abort();
        let _ = call.await;
    }
    let mut gids = Vec::new();
    for view in world.coordinator.list(ListFilter::default(), None, 50).await.unwrap().items {
        gids.push(view.gid);
    }
    for gid in gids {
        assert_eq!(until_ended(&world, gid).await.status, TxStatus::Confirmed);
    }
}

#[tokio::test]
async fn a_driver_that_panics_is_replaced() {
    let world = World::start(quick()).await;
    world.fake("coupon").panics.store(true, Ordering::SeqCst);
    let view = world.coordinator.submit(order()).await.unwrap();
    assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
    let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
    world.fake("stock").panics.store(true, Ordering::SeqCst);
    assert_eq!(world.coordinator.confirm(held.gid, Wait::End).await.unwrap().status, TxStatus::Confirmed);
}

#[tokio::test]
async fn no_request_is_lost_between_a_driver_that_leaves_and_the_next() {
    let world = World::start(Config { idle_driver_ms: 0, ..quick() }).await;
    for _ in 0..100 {
        let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
        let view = world.coordinator.confirm(held.gid, Wait::End).await.unwrap();
        assert_eq!(view.status, TxStatus::Confirmed);
    }
}

#[tokio::test]
async fn a_hold_waits_and_is_confirmed_on_request() {
    let world = World::start(quick()).await;
    let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
    assert!(held.held && held.status == TxStatus::Trying, "{held:?}");
    let view = world.coordinator.confirm(held.gid, Wait::End).await.unwrap();
    assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
    let view = world.coordinator.cancel(held.gid, shop(), Wait::End).await.unwrap();
    assert_eq!(view.status, TxStatus::Confirmed);
}

#[tokio::test]
async fn a_hold_survives_a_restart_and_is_then_confirmed() {
    let mut world = World::start(quick()).await;
    let held = world.coordinator.submit(Submit { hold: true, key: key("h"), ..order() }).await.unwrap();
    world.restart().await;
    // Joining it asks for its votes anew.
    let joined = world.coordinator.submit(Submit { hold: true, key: key("h"), ..order() }).await.unwrap();
    assert!(joined.held && joined.gid == held.gid, "{joined:?}");
    world.restart().await;
    let view = world.coordinator.confirm(held.gid, Wait::End).await.unwrap();
    assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
}

#[tokio::test]
async fn a_hold_that_nobody_confirms_is_released_also_when_it_left_memory() {
    let world = World::start(Config { idle_driver_ms: 0, ..quick() }).await;
    let decide_by = world.coordinator.now().plus(Duration::from_millis(150));
    let held = world.coordinator.submit(Submit { hold: true, decide_by: Some(decide_by), ..order() }).await.unwrap();
    let view = until_ended(&world, held.gid).await;
    assert_eq!((view.status, view.cause.clone()), (TxStatus::Cancelled, Some(CancelCause::TimedOut)));
    assert_eq!(row_statuses(&world, &view), BOTH_CANCELLED);
}

#[tokio::test]
async fn branches_are_enlisted_one_by_one_and_confirmed_together() {
    let world = World::start(quick()).await;
    let begin = Begin { initiator: shop(), gid: None, key: None, decide_by: None };
    let view = world.coordinator.begin(begin).await.unwrap();
    let empty = world.coordinator.confirm(view.gid, Wait::End).await.unwrap_err();
    assert!(matches!(empty, Error::Precondition { reason: "NO_BRANCHES", .. }), "{empty:?}");
    for name in ["stock", "coupon", "stock"] {
        let (answer, _) = world.coordinator.enlist(view.gid, branch(name)).await.unwrap();
        assert_eq!(answer, EnlistAnswer::Reserved(Some(branch(name).payload)));
    }
    let mut other = branch("stock");
    other.payload.type_url.push('X');
    assert!(matches!(world.coordinator.enlist(view.gid, other).await, Err(Error::BranchReused { .. })));
    let view = world.coordinator.confirm(view.gid, Wait::End).await.unwrap();
    assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
    assert!(matches!(world.coordinator.enlist(view.gid, branch("late")).await, Err(Error::Invalid(_))));
    let mut late = branch("stock");
    late.branch = BranchId::new("late").unwrap();
    assert!(matches!(world.coordinator.enlist(view.gid, late).await, Err(Error::Precondition { reason: "NOT_OPEN", .. })));
    // What was enlisted still gets its answer; only what its Try returned is no longer known.
    let (answer, _) = world.coordinator.enlist(view.gid, branch("stock")).await.unwrap();
    assert!(matches!(answer, EnlistAnswer::Reserved(_)), "{answer:?}");
}

#[tokio::test]
async fn a_branch_that_another_gateway_enlisted_is_never_left_out() {
    let world = World::start(quick()).await;
    for confirm in [true, false] {
        let begin = Begin { initiator: shop(), gid: None, key: None, decide_by: None };
        let gid = world.coordinator.begin(begin).await.unwrap().gid;
        world.coordinator.enlist(gid, branch("stock")).await.unwrap();
        world.log.enlist(gid, branch("coupon"), 64).await.unwrap();
        let view = if confirm {
            world.coordinator.confirm(gid, Wait::End).await.unwrap()
        } else {
            world.coordinator.cancel(gid, shop(), Wait::End).await.unwrap()
        };
        assert_eq!(row_statuses(&world, &view), if confirm { BOTH_CONFIRMED } else { BOTH_CANCELLED });
    }
}

#[tokio::test]
async fn an_enlisted_branch_that_refuses_cancels_the_transaction() {
    let world = World::start(quick()).await;
    *world.fake("coupon").refuses.lock().unwrap() = true;
    let view = world.coordinator.begin(Begin { initiator: shop(), gid: None, key: None, decide_by: None }).await.unwrap();
    world.coordinator.enlist(view.gid, branch("stock")).await.unwrap();
    let (answer, _) = world.coordinator.enlist(view.gid, branch("coupon")).await.unwrap();
    assert!(matches!(answer, EnlistAnswer::Refused(_)), "{answer:?}");
    let view = until_ended(&world, view.gid).await;
    assert_eq!(world.fake("stock").row(&view, "stock"), Some(BranchRowStatus::Cancelled));
}

#[tokio::test]
async fn an_open_transaction_survives_a_restart_between_its_branches() {
    let mut world = World::start(quick()).await;
    let view = world.coordinator.begin(Begin { initiator: shop(), gid: None, key: None, decide_by: None }).await.unwrap();
    world.coordinator.enlist(view.gid, branch("stock")).await.unwrap();
    world.restart().await;
    world.coordinator.enlist(view.gid, branch("coupon")).await.unwrap();
    let view = world.coordinator.confirm(view.gid, Wait::End).await.unwrap();
    assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
}

#[tokio::test]
async fn cancelling_an_unknown_gid_keeps_its_submit_from_starting_anything() {
    let world = World::start(quick()).await;
    let gid = Gid::mint(world.coordinator.now(), &SystemEntropy);
    let view = world.coordinator.cancel(gid, shop(), Wait::End).await.unwrap();
    assert_eq!(view.status, TxStatus::Cancelled);
    let view = world.coordinator.submit(Submit { gid: Some(gid), ..order() }).await.unwrap();
    assert_eq!(view.status, TxStatus::Cancelled);
    assert!(world.fake("stock").seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn tries_in_order_stop_at_the_first_refusal() {
    let world = World::start(quick()).await;
    *world.fake("stock").refuses.lock().unwrap() = true;
    let view = world.coordinator.submit(Submit { try_order: TryOrder::Sequential, ..order() }).await.unwrap();
    assert_eq!(view.status, TxStatus::Cancelled);
    assert_eq!(world.fake("coupon").ops("coupon"), ["cancel"]);
}

#[tokio::test]
async fn a_crashed_coordinators_work_is_carried_on_by_the_next() {
    let mut world = World::start(Config { try_for_ms: 60_000, ..quick() }).await;
    world.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let coordinator = world.coordinator.clone();
    let submitted = tokio::spawn(async move { coordinator.submit(Submit { key: key("k"), ..order() }).await });
    while world.fake("stock").seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    world.restart().await;
    assert!(submitted.await.unwrap().is_err_and(|error| error.is_retryable()));
    world.fake("stock").loses.store(0, Ordering::SeqCst);
    let view = world.coordinator.submit(Submit { key: key("k"), ..order() }).await.unwrap();
    assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
}

#[tokio::test]
async fn a_decision_that_cannot_be_carried_out_is_stuck_listed_and_ends_by_itself_later() {
    let world = World::start(quick()).await;
    let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
    world.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    world.coordinator.confirm(held.gid, Wait::Decision).await.unwrap();
    until_stuck(&world).await;
    let stuck = world.coordinator.list_stuck(None, None, 10).await.unwrap().items.remove(0);
    assert_eq!((stuck.key.branch.as_str(), stuck.stuck.kind), ("stock", StuckKind::Unreachable));
    world.fake("stock").loses.store(0, Ordering::SeqCst);
    let view = until_ended(&world, held.gid).await;
    assert_eq!(row_statuses(&world, &view), BOTH_CONFIRMED);
    assert!(world.coordinator.list_stuck(None, None, 10).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_lost_reservation_is_tried_anew_on_an_operators_order() {
    let world = World::start(quick()).await;
    let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
    world.fake("stock").forget(&held, "stock");
    world.coordinator.confirm(held.gid, Wait::Decision).await.unwrap();
    until_stuck(&world).await;
    let coupon = world.coordinator.try_anew(branch_key(&held, "coupon"), warrant()).await.unwrap_err();
    assert!(matches!(coupon, Error::Precondition { .. }), "{coupon:?}");
    world.coordinator.try_anew(branch_key(&held, "stock"), warrant()).await.unwrap();
    let view = until_ended(&world, held.gid).await;
    assert_eq!(row_statuses(&world, &view), BOTH_CONFIRMED);
    let audit = world.coordinator.list_audit(Some(held.gid), None, 10).await.unwrap().items;
    assert_eq!(audit.iter().map(|record| record.entry.actor.as_str()).collect::<Vec<_>>(), ["ops"]);
}

#[tokio::test]
async fn a_branch_settled_outside_ends_the_transaction() {
    let world = World::start(quick()).await;
    let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
    let unstuck = world.coordinator.mark_settled(branch_key(&held, "stock"), warrant()).await.unwrap_err();
    assert!(matches!(unstuck, Error::Precondition { reason: "NOTHING_TO_SETTLE", .. }), "{unstuck:?}");
    world.fake("stock").forget(&held, "stock");
    world.coordinator.confirm(held.gid, Wait::Decision).await.unwrap();
    until_stuck(&world).await;
    world.coordinator.mark_settled(branch_key(&held, "stock"), warrant()).await.unwrap();
    assert_eq!(until_ended(&world, held.gid).await.status, TxStatus::Confirmed);
}

#[tokio::test]
async fn outcomes_tell_participants_what_became_of_their_rows() {
    let world = World::start(quick()).await;
    let confirmed = world.coordinator.submit(order()).await.unwrap();
    let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
    let unknown = BranchKey { gid: Gid::mint(world.coordinator.now(), &SystemEntropy), branch: BranchId::new("x").unwrap() };
    let ask = |key: BranchKey, row_status| OutcomeQuery { key, row_status, not_after: world.coordinator.now() };
    let queries = [
        ask(branch_key(&confirmed, "stock"), BranchRowStatus::Tried),
        ask(branch_key(&confirmed, "stock"), BranchRowStatus::Confirmed),
        ask(branch_key(&confirmed, "other"), BranchRowStatus::Tried),
        ask(branch_key(&held, "stock"), BranchRowStatus::Tried),
        ask(unknown.clone(), BranchRowStatus::Confirmed),
        ask(unknown.clone(), BranchRowStatus::Tried),
    ];
    let main = LogName::new("main").unwrap();
    let outcomes = world.coordinator.outcomes(&main, &queries).await.unwrap();
    assert_eq!(outcomes[..3], [Outcome::Confirmed, Outcome::Finished, Outcome::Cancelled]);
    assert!(matches!(outcomes[3], Outcome::AskAgain { .. }), "{outcomes:?}");
    assert_eq!(outcomes[4..], [Outcome::Forgotten, Outcome::Cancelled]);
    // Rows that contradict their transaction: such witnesses are never called finished.
    let against = [
        ask(branch_key(&confirmed, "stock"), BranchRowStatus::Cancelled),
        ask(branch_key(&confirmed, "other"), BranchRowStatus::Confirmed),
        ask(unknown.clone(), BranchRowStatus::Confirmed),
        ask(unknown.clone(), BranchRowStatus::Cancelled),
    ];
    let outcomes = world.coordinator.outcomes(&main, &against).await.unwrap();
    assert_eq!(outcomes, [Outcome::Confirmed, Outcome::Cancelled, Outcome::Cancelled, Outcome::Finished]);
    let late = world.coordinator.submit(Submit { gid: Some(unknown.gid), ..order() }).await.unwrap();
    assert_eq!(late.status, TxStatus::Cancelled);
    let other = LogName::new("other").unwrap();
    assert_eq!(world.coordinator.outcomes(&other, &queries[..1]).await.unwrap(), [Outcome::NotMine]);
    assert!(matches!(world.coordinator.outcomes(&main, &[]).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_full_house_refuses_what_begins_and_lets_the_rest_go_on() {
    let config = Config { transactions_in_flight_max: 1, idle_driver_ms: 60_000, try_for_ms: 60_000, ..quick() };
    let world = World::start(config).await;
    let held = world.coordinator.submit(Submit { hold: true, ..order() }).await.unwrap();
    world.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let coordinator = world.coordinator.clone();
    let slow = tokio::spawn(async move { coordinator.submit(order()).await });
    while world.fake("stock").ops("stock").len() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = world.coordinator.submit(order()).await.unwrap_err();
    assert_eq!(refused, Error::Exhausted { limit_name: "transactions_in_flight_max", limit: 1 });
    world.fake("stock").loses.store(0, Ordering::SeqCst);
    assert_eq!(world.coordinator.confirm(held.gid, Wait::End).await.unwrap().status, TxStatus::Confirmed);
    assert_eq!(slow.await.unwrap().unwrap().status, TxStatus::Confirmed);
}

#[tokio::test]
async fn many_transactions_at_once_all_end_although_answers_are_lost() {
    let world = World::start(quick()).await;
    world.fake("stock").loses.store(300, Ordering::SeqCst);
    let submits = (0..200).map(|_| {
        let coordinator = world.coordinator.clone();
        tokio::spawn(async move { coordinator.submit(order()).await.unwrap() })
    });
    for submitted in submits.collect::<Vec<_>>() {
        let view = submitted.await.unwrap();
        assert_eq!((view.status, row_statuses(&world, &view)), (TxStatus::Confirmed, BOTH_CONFIRMED));
    }
}

#[tokio::test]
async fn a_closing_coordinator_begins_nothing() {
    let world = World::start(quick()).await;
    world.coordinator.shutdown(Duration::from_secs(1)).await;
    assert_eq!(world.coordinator.submit(order()).await, Err(Error::Draining));
}

//! What a participant does about reservations that nobody settles: every answer and its effect, batches, silence, failures, and
//! races with the coordinator's own calls. Each case panics where the contract is broken.

use std::{sync::Arc, time::Duration};

use tcc_types::{BranchRowStatus, LogName, Op, Outcome, SettleAnswer, Timestamp, TryCall};
use tokio::task::JoinSet;

use super::{Answers, Bench, BenchDatabase, Effects, Fault, Fixed, Fixture, State};
use crate::{
    BranchRow, UpkeepOptions,
    upkeep::sweeper::{Sweeper, Swept},
};

const TRIED: Option<BranchRowStatus> = Some(BranchRowStatus::Tried);
const CONFIRMED: Option<BranchRowStatus> = Some(BranchRowStatus::Confirmed);
const CANCELLED: Option<BranchRowStatus> = Some(BranchRowStatus::Cancelled);
const NO_JITTER: Fixed = Fixed(0);
const ALL_JITTER: Fixed = Fixed(u64::MAX);

fn log_name(name: &str) -> LogName {
    LogName::new(name).expect("it is well-formed")
}

/// The test participant whose sweeps come so seldom that what is put off does not come back within a case.
fn seldom<D: BenchDatabase>(f: &Fixture<D>, change: impl FnOnce(&mut UpkeepOptions)) -> Fixture<D> {
    f.limited(|options| {
        options.upkeep.sweep_interval_ms = 600_000;
        options.upkeep.sweep_backoff_ms_max = 600_000;
        change(&mut options.upkeep);
    })
}

fn sweeper<D: BenchDatabase>(f: &Fixture<D>, answers: &Answers, entropy: Fixed) -> Sweeper<Bench<D>, Answers> {
    Sweeper::new(f.engine.clone(), Arc::new(answers.clone()), Arc::new(entropy))
}

/// A reservation of the given coordinator that is past its `ask_after`; the lower `age`, the longer.
async fn in_doubt_of<D: BenchDatabase>(f: &Fixture<D>, coordinator: &str, age: i64) -> TryCall {
    let call = TryCall { ask_after: Timestamp::from_millis(1 + age), coordinator: log_name(coordinator), ..f.new_call() };
    f.assert_yes(f.try_branch(&call).await);
    call
}

async fn in_doubt<D: BenchDatabase>(f: &Fixture<D>) -> TryCall {
    in_doubt_of(f, "conformance", 0).await
}

async fn row_of<D: BenchDatabase>(f: &Fixture<D>, call: &TryCall) -> BranchRow {
    f.store().branch_row(&call.key).await.expect("the row is read").expect("there is a row")
}

async fn ask_after<D: BenchDatabase>(f: &Fixture<D>, call: &TryCall) -> Timestamp {
    row_of(f, call).await.ask_after.expect("it was tried")
}

async fn now<D: BenchDatabase>(f: &Fixture<D>) -> Timestamp {
    f.store().now().await.expect("the clock is read")
}

/// Confirmed and Cancelled.
pub async fn a_decision_is_carried_out_on_a_reservation_in_doubt<D: BenchDatabase>(f: Fixture<D>) {
    let answers = Answers::default();
    let (confirmed, cancelled) = (in_doubt(&f).await, in_doubt(&f).await);
    answers.set(&confirmed.key, Outcome::Confirmed);
    answers.set(&cancelled.key, Outcome::Cancelled);
    let mut sweeper = sweeper(&f, &answers, NO_JITTER);
    assert_eq!(sweeper.sweep().await, Swept { confirmed: 1, cancelled: 1, ..Swept::default() });
    f.assert_branch(&confirmed, CONFIRMED, Effects::SPENT).await;
    f.assert_branch(&cancelled, CANCELLED, Effects::RELEASED).await;
    assert_eq!(sweeper.sweep().await, Swept::default());
    let asked = answers.script().asked.clone();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].0, confirmed.coordinator);
    for query in &asked[0].1 {
        let call = if query.key == confirmed.key { &confirmed } else { &cancelled };
        assert_eq!((&query.key, query.row_status, query.not_after), (&call.key, BranchRowStatus::Tried, call.not_after));
    }
}

/// Neither is in doubt.
pub async fn what_is_settled_or_may_still_be_decided_is_not_asked_about<D: BenchDatabase>(f: Fixture<D>) {
    let answers = Answers::default();
    for state in State::ALL {
        f.branch_in(state).await;
    }
    let settled = in_doubt(&f).await;
    assert_eq!(f.cancel(&settled).await, SettleAnswer::Done);
    assert_eq!(sweeper(&f, &answers, NO_JITTER).sweep().await, Swept::default());
    assert_eq!(answers.sizes(), [0; 0]);
}

/// AskAgain: not before its instant, not all at once, and not for ever.
pub async fn a_coordinator_that_still_decides_says_when_to_ask_again<D: BenchDatabase>(f: Fixture<D>) {
    let (interval, longest) = (Duration::from_secs(600), Duration::from_secs(7_200));
    let f = seldom(&f, |upkeep| upkeep.ask_again_ms_max = 7_200_000);
    for (entropy, jitter) in [(NO_JITTER, Duration::ZERO), (ALL_JITTER, interval)] {
        let answers = Answers::default();
        let calls = [in_doubt(&f).await, in_doubt(&f).await, in_doubt(&f).await];
        let began = now(&f).await;
        let soon = began.plus(Duration::from_secs(3_600));
        let instants = [soon, Timestamp::from_millis(1), Timestamp::MAX];
        for (call, at) in calls.iter().zip(instants) {
            answers.set(&call.key, Outcome::AskAgain { at });
        }
        let mut sweeper = sweeper(&f, &answers, entropy);
        assert_eq!(sweeper.sweep().await, Swept { postponed: 3, ..Swept::default() });
        let ended = now(&f).await;
        assert_eq!(ask_after(&f, &calls[0]).await, soon.plus(jitter));
        for (call, pause) in [(&calls[1], interval), (&calls[2], longest)] {
            let at = ask_after(&f, call).await;
            assert!(
                began.plus(pause + jitter) <= at && at <= ended.plus(pause + jitter),
                "{at} after {pause:?} and {jitter:?}"
            );
        }
        for call in &calls {
            f.assert_branch(call, TRIED, Effects::RESERVED).await;
        }
        assert_eq!(sweeper.sweep().await, Swept::default(), "it was asked again before its time");
    }
}

/// Forgotten: the reservation stays, is listed, and is asked about again later.
pub async fn a_forgotten_reservation_is_listed_until_it_is_settled<D: BenchDatabase>(f: Fixture<D>) {
    let f = seldom(&f, |upkeep| upkeep.forgotten_probe_ms = 7_200_000);
    let answers = Answers::default();
    let calls = [in_doubt(&f).await, in_doubt(&f).await];
    for call in &calls {
        answers.set(&call.key, Outcome::Forgotten);
    }
    let mut sweeper = sweeper(&f, &answers, NO_JITTER);
    let began = now(&f).await;
    assert_eq!(sweeper.sweep().await, Swept { postponed: 2, forgotten: 2, ..Swept::default() });
    let ended = now(&f).await;
    for call in &calls {
        f.assert_branch(call, TRIED, Effects::RESERVED).await;
        let row = row_of(&f, call).await;
        let (at, forgotten_at) = (row.ask_after.expect("it was tried"), row.forgotten_at.expect("it is kept"));
        let probe = Duration::from_secs(7_200);
        assert!(began.plus(probe) <= at && at <= ended.plus(probe), "{at}");
        assert!(began <= forgotten_at && forgotten_at <= ended, "{forgotten_at}");
    }
    let listed = async || {
        let rows = f.store().forgotten(None, 10).await.expect("they are listed");
        rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    let mut keys = calls.clone().map(|call| call.key);
    keys.sort();
    assert_eq!(listed().await, keys);

    // Asked again, the coordinator may know after all; an operator may also settle it.
    answers.set(&calls[0].key, Outcome::Confirmed);
    f.store().postpone(&calls[0].key, Timestamp::from_millis(1), false).await.expect("it is put off");
    assert_eq!(sweeper.sweep().await, Swept { confirmed: 1, ..Swept::default() });
    assert_eq!(listed().await, [calls[1].key.clone()]);
    assert_eq!(f.cancel(&calls[1]).await, SettleAnswer::Done);
    assert_eq!(listed().await, []);
}

/// NotMine, Finished for a row that is tried, and a coordinator that is not configured: nothing may be concluded.
pub async fn strange_answers_keep_the_reservation_and_are_asked_again<D: BenchDatabase>(f: Fixture<D>) {
    let f = seldom(&f, |upkeep| upkeep.ask_again_ms = 1_800_000);
    let answers = Answers::default();
    let calls = [in_doubt(&f).await, in_doubt(&f).await, in_doubt_of(&f, "stranger", 0).await];
    answers.set(&calls[0].key, Outcome::NotMine);
    answers.set(&calls[1].key, Outcome::Finished);
    answers.script().unknown.insert(log_name("stranger"));
    let began = now(&f).await;
    let mut sweeper = sweeper(&f, &answers, NO_JITTER);
    assert_eq!(sweeper.sweep().await, Swept { postponed: 3, ..Swept::default() });
    let (ended, again) = (now(&f).await, Duration::from_secs(1_800));
    for call in &calls {
        f.assert_branch(call, TRIED, Effects::RESERVED).await;
        let at = ask_after(&f, call).await;
        assert!(began.plus(again) <= at && at <= ended.plus(again), "{at}");
        assert_eq!(row_of(&f, call).await.forgotten_at, None);
    }
    assert_eq!(sweeper.sweep().await, Swept::default());
}

/// A full batch is followed by the next one at once.
pub async fn many_rows_in_doubt_are_asked_about_in_batches<D: BenchDatabase>(f: Fixture<D>) {
    let f = seldom(&f, |upkeep| upkeep.sweep_batch_max = 10);
    let answers = Answers::default();
    let mut calls = Vec::new();
    for nth in 0..25 {
        let call = in_doubt(&f).await;
        answers.set(&call.key, if nth % 2 == 0 { Outcome::Confirmed } else { Outcome::Cancelled });
        calls.push(call);
    }
    let swept = sweeper(&f, &answers, NO_JITTER).sweep().await;
    assert_eq!(swept, Swept { confirmed: 13, cancelled: 12, ..Swept::default() });
    assert_eq!(answers.sizes(), [10, 10, 5]);
    for (nth, call) in calls.iter().enumerate() {
        let (status, effects) = if nth % 2 == 0 { (CONFIRMED, Effects::SPENT) } else { (CANCELLED, Effects::RELEASED) };
        f.assert_branch(call, status, effects).await;
    }
}

/// No answer: nothing changes, and the coordinator is left in peace for a while.
pub async fn without_an_answer_rows_stay_as_they_are<D: BenchDatabase>(f: Fixture<D>) {
    let f = seldom(&f, |_| ());
    let answers = Answers::default();
    let calls = [in_doubt(&f).await, in_doubt(&f).await];
    for call in &calls {
        answers.set(&call.key, Outcome::Cancelled);
    }
    let left = Swept { left: 2, ..Swept::default() };
    let (mut patient, mut eager) = (sweeper(&f, &answers, ALL_JITTER), sweeper(&f, &answers, NO_JITTER));

    answers.script().silent.insert(log_name("conformance"));
    assert_eq!(patient.sweep().await, left);
    assert_eq!(patient.sweep().await, left);
    assert_eq!(answers.sizes(), [2], "it was asked again at once");
    assert_eq!(eager.sweep().await, left);

    // An answer that has not one outcome for each query is none.
    answers.script().silent.clear();
    answers.script().short = true;
    assert_eq!(eager.sweep().await, left);
    for call in &calls {
        f.assert_branch(call, TRIED, Effects::RESERVED).await;
        assert_eq!(ask_after(&f, call).await, call.ask_after);
    }

    answers.script().short = false;
    assert_eq!(eager.sweep().await, Swept { cancelled: 2, ..Swept::default() });
    assert_eq!(answers.sizes(), [2; 4]);
}

/// Rows of a lost coordinator fill whole batches, and are the longest overdue.
pub async fn a_silent_coordinator_keeps_no_others_rows_waiting<D: BenchDatabase>(f: Fixture<D>) {
    let f = seldom(&f, |upkeep| upkeep.sweep_batch_max = 4);
    let answers = Answers::default();
    answers.script().silent.insert(log_name("lost"));
    let mut lost = Vec::new();
    for age in 0..10 {
        lost.push(in_doubt_of(&f, "lost", age).await);
    }
    let mut found = Vec::new();
    for age in 20..23 {
        let call = in_doubt_of(&f, "conformance", age).await;
        answers.set(&call.key, Outcome::Confirmed);
        found.push(call);
    }
    let swept = sweeper(&f, &answers, ALL_JITTER).sweep().await;
    assert_eq!(swept, Swept { confirmed: 3, postponed: 10, ..Swept::default() });
    for call in &lost {
        f.assert_branch(call, TRIED, Effects::RESERVED).await;
    }
    for call in &found {
        f.assert_branch(call, CONFIRMED, Effects::SPENT).await;
    }
    let asked = answers.script().asked.iter().filter(|(coordinator, _)| coordinator.as_str() == "lost").count();
    assert_eq!(asked, 1, "the lost coordinator was asked more than once in one sweep");
}

/// A handler that fails: its row is put off, so that it is not the head of every batch.
pub async fn a_row_that_cannot_be_settled_does_not_come_back_at_once<D: BenchDatabase>(f: Fixture<D>) {
    let f = seldom(&f, |upkeep| upkeep.sweep_batch_max = 1);
    let answers = Answers::default();
    let mut calls = Vec::new();
    for age in 0..3 {
        let call = in_doubt_of(&f, "conformance", age).await;
        answers.set(&call.key, Outcome::Cancelled);
        calls.push(call);
    }
    f.bench.inject(Op::Cancel, Fault::Fail);
    let mut sweeper = sweeper(&f, &answers, NO_JITTER);
    assert_eq!(sweeper.sweep().await, Swept { cancelled: 2, postponed: 1, ..Swept::default() });
    f.assert_branch(&calls[0], TRIED, Effects::RESERVED).await;
    f.assert_branch(&calls[1], CANCELLED, Effects::RELEASED).await;
    f.assert_branch(&calls[2], CANCELLED, Effects::RELEASED).await;
    assert!(ask_after(&f, &calls[0]).await > now(&f).await);
    f.store().postpone(&calls[0].key, Timestamp::from_millis(1), false).await.expect("it is put off");
    assert_eq!(sweeper.sweep().await, Swept { cancelled: 1, ..Swept::default() });
    f.assert_branch(&calls[0], CANCELLED, Effects::RELEASED).await;
}

/// The engine's limits hold for sweeps too.
pub async fn a_full_engine_leaves_rows_for_the_next_sweep<D: BenchDatabase>(f: Fixture<D>) {
    let f = f.limited(|options| {
        (options.operations_in_flight_max, options.tries_in_flight_max) = (1, 1);
        options.upkeep.sweep_batch_max = 1;
    });
    let answers = Answers::default();
    let call = in_doubt(&f).await;
    answers.set(&call.key, Outcome::Confirmed);
    f.bench.inject(Op::Try, Fault::Wait);
    let mut waiting = JoinSet::new();
    let (other, occupied) = (f.new_call(), f.clone());
    waiting.spawn(async move { occupied.try_branch(&other).await });
    f.bench.until_one_waits().await;
    let mut sweeper = sweeper(&f, &answers, NO_JITTER);
    assert_eq!(sweeper.sweep().await, Swept { left: 1, ..Swept::default() });
    assert_eq!(ask_after(&f, &call).await, call.ask_after);
    f.bench.open_gate();
    waiting.join_all().await;
    assert_eq!(sweeper.sweep().await, Swept { confirmed: 1, ..Swept::default() });
    f.assert_branch(&call, CONFIRMED, Effects::SPENT).await;
}

/// Two instances sweep while the coordinator delivers the same decisions itself.
pub async fn sweeps_race_with_the_coordinators_own_calls_and_each_effect_happens_once<D: BenchDatabase>(f: Fixture<D>) {
    const BRANCHES: usize = 120;
    let f = f.limited(|options| options.upkeep.sweep_batch_max = 16);
    let answers = Answers::default();
    let mut calls = Vec::new();
    for nth in 0..BRANCHES {
        let call = in_doubt(&f).await;
        answers.set(&call.key, if nth % 2 == 0 { Outcome::Confirmed } else { Outcome::Cancelled });
        calls.push(call);
    }
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let mut sweeper = sweeper(&f, &answers, NO_JITTER);
        tasks.spawn(async move {
            let _ = sweeper.sweep().await;
        });
    }
    let (deliverer, delivered) = (f.clone(), calls.clone());
    tasks.spawn(async move {
        // From the other end, so that they meet.
        for (nth, call) in delivered.iter().enumerate().rev() {
            let settled = if nth % 2 == 0 { deliverer.confirm(call).await } else { deliverer.cancel(call).await };
            assert_eq!(settled, SettleAnswer::Done);
        }
    });
    tasks.join_all().await;
    for (nth, call) in calls.iter().enumerate() {
        let (status, effects) = if nth % 2 == 0 { (CONFIRMED, Effects::SPENT) } else { (CANCELLED, Effects::RELEASED) };
        f.assert_branch(call, status, effects).await;
    }
}

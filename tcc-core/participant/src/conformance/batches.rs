//! The barrier's statements over many branches at once, statement by statement, and what becomes of batches that fail. Each case panics where the contract is broken.

use bytes::Bytes;
use futures::future::join_all;
use tcc_barrier::{Answer, BarrierStore, Call, Error, Kept, Request, Row, Step, steps};
use tcc_types::{
    BranchKey, BranchRowStatus, CancelCall, Decision, Op, Payload, Refusal, SettleAnswer, Timestamp, TryAnswer, TryCall,
};
use tokio::task::JoinSet;

use super::{BenchDatabase, Effects, Fault, Fixture, State};
use crate::{Barrier, BranchRow, Store, Transaction, Unknown};

const TRIED: Option<BranchRowStatus> = Some(BranchRowStatus::Tried);
const CANCELLED: Option<BranchRowStatus> = Some(BranchRowStatus::Cancelled);

/// What [`Call`] borrows.
enum Owned {
    Try(TryCall),
    Cancel(CancelCall),
}

impl Owned {
    fn call(&self) -> Call<'_> {
        match self {
            Self::Try(call) => Call::Try(call),
            Self::Cancel(call) => Call::Cancel(call),
        }
    }
}

async fn begun<D: BenchDatabase>(f: &Fixture<D>) -> Transaction<D> {
    f.store().begin().await.expect("it begins")
}

async fn committed<D: BenchDatabase>(transaction: Transaction<D>) {
    transaction.commit().await.expect("it commits");
}

/// New branches, in the order of their keys.
fn new_calls<D: BenchDatabase>(f: &Fixture<D>, count: usize) -> Vec<TryCall> {
    sorted((0..count).map(|_| f.new_call()).collect())
}

fn sorted(mut calls: Vec<TryCall>) -> Vec<TryCall> {
    calls.sort_by(|one, other| one.key.cmp(&other.key));
    calls
}

/// A branch in each state, two that have no row, and one of those late; in the order of their keys. `None` is no row.
async fn one_of_each<D: BenchDatabase>(f: &Fixture<D>) -> Vec<(TryCall, Option<State>)> {
    let mut branches = vec![(f.new_call(), None), (f.new_late_call(), None)];
    for state in State::ALL {
        branches.push((f.branch_in(state).await, Some(state)));
    }
    branches.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
    branches
}

async fn row<D: BenchDatabase>(f: &Fixture<D>, key: &BranchKey) -> Option<BranchRow> {
    f.store().branch_row(key).await.expect("the row is read")
}

async fn rows<D: BenchDatabase>(f: &Fixture<D>, branches: &[(TryCall, Option<State>)]) -> Vec<Option<BranchRow>> {
    let mut rows = Vec::new();
    for (call, _) in branches {
        rows.push(row(f, &call.key).await);
    }
    rows
}

/// [`Database::insert_tried`](crate::Database::insert_tried).
pub async fn a_batch_of_tries_inserts_what_is_new_and_in_time<D: BenchDatabase>(f: Fixture<D>) {
    let (branches, other) = (one_of_each(&f).await, f.branch_in(State::Tried).await);
    let (before, of_other) = (rows(&f, &branches).await, row(&f, &other.key).await);
    let calls: Vec<_> = branches.iter().map(|(call, _)| call).collect();
    let is_new = |(call, state): &(TryCall, Option<State>)| state.is_none() && call.not_after > Timestamp::from_millis(1);
    let expected: Vec<bool> = branches.iter().map(is_new).collect();
    for round in 0..2 {
        let mut transaction = begun(&f).await;
        let inserted = D::insert_tried(&mut transaction, &calls).await.expect("it inserts");
        assert_eq!(inserted, if round == 0 { expected.clone() } else { vec![false; calls.len()] });
        committed(transaction).await;
        for (((call, _), before), is_new) in branches.iter().zip(&before).zip(&expected) {
            let after = row(&f, &call.key).await;
            if !is_new {
                assert_eq!(&after, before, "another row changed");
                continue;
            }
            let after = after.expect("there is a row");
            assert_eq!((after.status, after.empty), (BranchRowStatus::Tried, false));
            assert_eq!(
                (after.type_url.as_ref(), after.coordinator.as_ref()),
                (Some(&call.payload.type_url), Some(&call.coordinator))
            );
            assert_eq!((after.not_after, after.ask_after), (call.not_after, Some(call.ask_after)));
            assert!(after.created_at <= after.changed_at && after.changed_at <= call.not_after, "{after:?}");
        }
    }
    assert_eq!(row(&f, &other.key).await, of_other);

    // As many late ones as there are rows in the way: however a database counts, the sum tells nothing.
    let mut mixed: Vec<(TryCall, bool)> = new_calls(&f, 3).into_iter().map(|call| (call, true)).collect();
    for _ in 0..3 {
        mixed.push((f.new_late_call(), false));
        mixed.push((f.branch_in(State::Tried).await, false));
    }
    mixed.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
    let (calls, expected): (Vec<_>, Vec<_>) = mixed.iter().map(|(call, is_new)| (call, *is_new)).unzip();
    let mut transaction = begun(&f).await;
    assert_eq!(D::insert_tried(&mut transaction, &calls).await.expect("it inserts"), expected);
    committed(transaction).await;
}

/// [`Database::settle_tried`](crate::Database::settle_tried) and [`Database::check_same`](crate::Database::check_same).
pub async fn a_batch_of_settles_changes_what_is_tried_and_hands_back_what_each_reserved<D: BenchDatabase>(f: Fixture<D>) {
    let mut branches = one_of_each(&f).await;
    // Six more are tried, and each has reserved something else; one of them nothing, and one what is no text.
    let calls = new_calls(&f, 6);
    let reserved = [&b"a"[..], b"", b"\x00\xff'\\\"", b"d", b"e", b"f"].map(Bytes::from_static);
    let kept: Vec<_> =
        calls.iter().zip(&reserved).map(|(call, reserved)| Kept { key: &call.key, reserved, output: None }).collect();
    let mut transaction = begun(&f).await;
    let inserted = D::insert_tried(&mut transaction, &calls.iter().collect::<Vec<_>>()).await.expect("it inserts");
    assert_eq!(inserted, [true; 6]);
    D::keep_reserved(&mut transaction, &kept).await.expect("they are kept");
    committed(transaction).await;
    branches.extend(calls.iter().map(|call| (call.clone(), None)));
    branches.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));

    let (before, other) = (rows(&f, &branches).await, f.branch_in(State::Tried).await);
    let of_other = row(&f, &other.key).await;
    let decisions = [Decision::Confirm, Decision::Cancel, Decision::Cancel];
    let settles: Vec<_> =
        branches.iter().zip(decisions.into_iter().cycle()).map(|((call, _), decision)| (&call.key, decision)).collect();
    let mut transaction = begun(&f).await;
    D::enter(&mut transaction).await.expect("it is entered");
    let settled = D::settle_tried(&mut transaction, &settles).await.expect("it settles");
    assert_eq!(settled.len(), settles.len());
    D::check_same(&mut transaction).await.expect("it is still open");
    assert_eq!(D::settle_tried(&mut transaction, &settles).await.expect("it settles nothing"), vec![None; settles.len()]);
    committed(transaction).await;
    for (((key, decision), settled), before) in settles.into_iter().zip(settled).zip(before) {
        let after = row(&f, key).await;
        if before.as_ref().map(|row| row.status) != TRIED {
            assert_eq!((settled, &after), (None, &before), "a row that was not tried");
            continue;
        }
        let settled = settled.expect("it was tried");
        if let Some(mine) = calls.iter().position(|call| call.key == *key) {
            assert_eq!(settled, reserved[mine], "what another reserved");
        }
        let (before, after) = (before.expect("it was tried"), after.expect("there is a row"));
        let status = match decision {
            Decision::Confirm => BranchRowStatus::Confirmed,
            Decision::Cancel => BranchRowStatus::Cancelled,
        };
        assert!(after.changed_at >= before.changed_at, "{after:?}");
        assert_eq!(after, BranchRow { status, changed_at: after.changed_at, ..before });
    }
    assert_eq!(row(&f, &other.key).await, of_other, "a row of nobody's");
}

/// [`Database::insert_cancelled`](crate::Database::insert_cancelled).
pub async fn a_batch_of_empty_rollbacks_inserts_where_there_is_no_row<D: BenchDatabase>(f: Fixture<D>) {
    let branches = one_of_each(&f).await;
    let before = rows(&f, &branches).await;
    let cancels: Vec<_> = branches.iter().map(|(call, _)| Fixture::<D>::cancel_of(call)).collect();
    let expected: Vec<bool> = branches.iter().map(|(_, state)| state.is_none()).collect();
    for round in 0..2 {
        let mut transaction = begun(&f).await;
        let inserted = D::insert_cancelled(&mut transaction, &cancels.iter().collect::<Vec<_>>()).await.expect("it inserts");
        assert_eq!(inserted, if round == 0 { expected.clone() } else { vec![false; cancels.len()] });
        committed(transaction).await;
        for ((cancel, before), is_new) in cancels.iter().zip(&before).zip(&expected) {
            let after = row(&f, &cancel.key).await;
            if *is_new {
                let after = after.expect("there is a row");
                assert_eq!((after.status, after.empty, after.not_after), (BranchRowStatus::Cancelled, true, cancel.not_after));
            } else {
                assert_eq!(&after, before, "another row changed");
            }
        }
    }
}

/// [`Database::look`](crate::Database::look).
pub async fn a_look_at_many_answers_for_each_in_the_order_of_the_question<D: BenchDatabase>(f: Fixture<D>) {
    let branches = one_of_each(&f).await;
    let keys: Vec<_> = branches.iter().map(|(call, _)| &call.key).collect();
    let before = f.store().now().await.expect("the clock is read");
    let mut transaction = begun(&f).await;
    let look = D::look(&mut transaction, &keys).await.expect("it looks");
    transaction.rollback().await.expect("it rolls back");
    assert!(before <= look.now && look.now <= f.store().now().await.expect("the clock is read"), "{look:?}");
    assert_eq!(look.rows.len(), keys.len());
    for ((call, state), found) in branches.iter().zip(look.rows) {
        let status = state.map(|state| match state {
            State::Tried => BranchRowStatus::Tried,
            State::Refused => BranchRowStatus::Refused,
            State::Confirmed => BranchRowStatus::Confirmed,
            State::Cancelled | State::EmptyRollback => BranchRowStatus::Cancelled,
        });
        assert_eq!(found.as_ref().map(Row::status), status);
        let request = found.as_ref().and_then(Row::request);
        let is_known = !matches!(state, None | Some(State::EmptyRollback));
        assert_eq!(request, is_known.then(|| Request::from(call)).as_ref());
    }
}

/// [`Database::keep_reserved`](crate::Database::keep_reserved) and [`Database::keep_refusals`](crate::Database::keep_refusals).
pub async fn a_batch_keeps_what_each_of_its_branches_was_answered<D: BenchDatabase>(f: Fixture<D>) {
    let calls = new_calls(&f, 8);
    let output = |n: u8| Payload { type_url: format!("t/{n}"), value: Bytes::from(vec![n, 0, 0xff]) };
    let outputs = [Some(output(0)), None, Some(Payload { type_url: "empty".to_owned(), value: Bytes::new() }), Some(output(3))];
    let reserved = Bytes::from_static(b"kept");
    let kept: Vec<_> = calls
        .iter()
        .zip(&outputs)
        .map(|(call, output)| Kept { key: &call.key, reserved: &reserved, output: output.as_ref() })
        .collect();
    let refusals = [("ONE", "Über 💶 'quoted' \\ \"twice\""), ("TWO", ""), ("THREE", "\u{10ffff}\n\r\t"), ("FOUR", "%_ 4")];
    let refusals = refusals.map(|(code, message)| Refusal::business(code, message));
    let refused: Vec<_> = calls[4..].iter().map(|call| &call.key).zip(&refusals).collect();
    let mut transaction = begun(&f).await;
    D::insert_tried(&mut transaction, &calls.iter().collect::<Vec<_>>()).await.expect("it inserts");
    D::keep_reserved(&mut transaction, &kept).await.expect("they are kept");
    D::keep_refusals(&mut transaction, &refused).await.expect("they are kept");
    committed(transaction).await;

    let owned: Vec<_> = calls.into_iter().map(Owned::Try).collect();
    let repeated: Vec<_> = owned.iter().map(Owned::call).collect();
    let mut transaction = begun(&f).await;
    let steps = steps(&mut Barrier::<D>::new(&mut transaction), &repeated).await.expect("they are answered");
    committed(transaction).await;
    let yes = outputs.into_iter().map(TryAnswer::Reserved);
    let expected: Vec<_> =
        yes.chain(refusals.map(TryAnswer::Refused)).map(|answer| Step::Answer(Answer::Tried(answer))).collect();
    assert_eq!(steps, expected);
}

/// The handler ended the transaction, or somebody deleted what nobody may.
pub async fn what_a_batch_keeps_of_a_row_that_is_not_there_is_an_error<D: BenchDatabase>(f: Fixture<D>) {
    let calls = new_calls(&f, 6);
    let (reserved, refusal) = (Bytes::new(), Refusal::business("NO", "no"));
    let kept: Vec<_> = calls.iter().map(|call| Kept { key: &call.key, reserved: &reserved, output: None }).collect();
    let refused: Vec<_> = calls.iter().map(|call| (&call.key, &refusal)).collect();
    for refuses in [false, true] {
        let mut transaction = begun(&f).await;
        let inserted = D::insert_tried(&mut transaction, &[&calls[0], &calls[5]]).await.expect("it inserts");
        assert_eq!(inserted, [true, true]);
        let failed = if refuses {
            D::keep_refusals(&mut transaction, &refused).await
        } else {
            D::keep_reserved(&mut transaction, &kept).await
        };
        assert!(failed.is_err(), "nobody noticed that a row is missing");
        transaction.rollback().await.expect("it rolls back");
    }
    for call in &calls {
        f.assert_branch(call, None, Effects::NONE).await;
    }
}

/// Batches that hold the same branches, each with the other kind of operation, over and over.
pub async fn batches_that_meet_crosswise_end<D: BenchDatabase>(f: Fixture<D>) {
    const ROUNDS: usize = 16;
    const BRANCHES: usize = 8;
    let mut attempts = 0;
    for _ in 0..ROUNDS {
        let calls = new_calls(&f, BRANCHES);
        let (mut racing, mut answers) = (JoinSet::new(), Vec::new());
        for tries in 0..2 {
            let batch: Vec<_> = calls
                .iter()
                .enumerate()
                .map(|(place, call)| match place % 2 == tries {
                    true => Owned::Try(call.clone()),
                    false => Owned::Cancel(Fixture::<D>::cancel_of(call)),
                })
                .collect();
            let store = f.store().clone();
            racing.spawn(async move { run_until_it_commits(&store, &batch).await });
        }
        for (attempted, answered) in racing.join_all().await {
            attempts += attempted;
            answers.extend(answered);
        }
        // Whoever came first: a Cancel has been done, and no Try after it.
        let done = answers.iter().filter(|answer| **answer == Answer::Settled(SettleAnswer::Done)).count();
        assert_eq!((answers.len(), done), (2 * BRANCHES, BRANCHES), "{answers:?}");
        for call in &calls {
            let status = row(&f, &call.key).await.map(|row| row.status);
            assert_eq!(status, CANCELLED, "of {}", call.key);
        }
    }
    println!("crosswise: {ROUNDS} rounds of 2 batches, {attempts} attempts");
}

/// A batch without business, anew wherever the database asks for that and in no other case. How often it ran, and its answers.
async fn run_until_it_commits<D: BenchDatabase>(store: &Store<D>, batch: &[Owned]) -> (usize, Vec<Answer>) {
    const ATTEMPTS_MAX: usize = 50;
    for attempt in 1..=ATTEMPTS_MAX {
        match run::<D>(store, batch).await {
            Ok(answers) => return (attempt, answers),
            Err(error) => {
                let retryable = error.as_database_error().is_some_and(D::is_retryable);
                assert!(retryable, "not to be run anew: {error}");
            }
        }
    }
    panic!("a batch did not commit in {ATTEMPTS_MAX} attempts");
}

async fn run<D: BenchDatabase>(store: &Store<D>, batch: &[Owned]) -> Result<Vec<Answer>, sqlx::Error> {
    let calls: Vec<_> = batch.iter().map(Owned::call).collect();
    let mut transaction = store.begin().await?;
    let mut barrier = Barrier::<D>::new(&mut transaction);
    let steps = steps(&mut barrier, &calls).await.map_err(|error| match error {
        Error::Store(error) => error,
        other => panic!("{other}"),
    })?;
    let reserved = Bytes::from_static(b"kept");
    let new = calls.iter().zip(&steps).filter(|(_, step)| matches!(step, Step::Reserve));
    let kept: Vec<_> = new.map(|(call, _)| Kept { key: call.key(), reserved: &reserved, output: None }).collect();
    if !kept.is_empty() {
        barrier.keep_reserved(&kept).await?;
    }
    transaction.commit().await?;
    let answers = steps.into_iter().map(|step| match step {
        Step::Reserve => Answer::Tried(TryAnswer::Reserved(None)),
        Step::Apply(handed_back) => {
            assert_eq!(handed_back, reserved);
            Answer::Settled(SettleAnswer::Done)
        }
        Step::Answer(answer) => answer,
    });
    Ok(answers.collect())
}

/// Puts operations in while the only worker is busy, so that they wait together, and lets it go on.
async fn all_at_once<D: BenchDatabase, T>(
    f: &Fixture<D>,
    operations: impl IntoIterator<Item = impl Future<Output = T>>,
) -> Vec<T> {
    f.bench.inject(Op::Try, Fault::Wait);
    let (busy, call) = (f.clone(), f.new_call());
    let mut worker = JoinSet::new();
    worker.spawn(async move { busy.try_branch(&call).await });
    f.bench.until_one_waits().await;
    // An operation waits in the queue once it was polled, and the gate opens after that.
    let (answers, ()) = futures::join!(join_all(operations), async { f.bench.open_gate() });
    worker.join_all().await;
    answers
}

/// A branch whose row is damaged shares batches with others: it fails alone, each time, and they do not notice.
pub async fn a_branch_that_always_fails_fails_no_other<D: BenchDatabase>(f: Fixture<D>) {
    const OTHERS: usize = 20;
    let f = f.limited(|options| (options.batches_in_flight_max, options.write_connections_max) = (1, 1));
    let damaged = f.branch_in(State::Tried).await;
    let mut transaction = f.store().begin().await.expect("it begins");
    let kept = Kept { key: &damaged.key, reserved: &Bytes::from_static(b"\xff"), output: None };
    D::keep_reserved(&mut transaction, &[kept]).await.expect("it keeps");
    transaction.commit().await.expect("it commits");
    for _ in 0..2 {
        let mut calls = vec![damaged.clone()];
        for _ in 0..OTHERS {
            calls.push(f.branch_in(State::Tried).await);
        }
        let answers = all_at_once(&f, calls.iter().map(|call| f.engine.confirm(Fixture::<D>::confirm_of(call)))).await;
        assert_eq!(answers[0], Err(Unknown::Failed));
        assert_eq!(answers[1..], vec![Ok(SettleAnswer::Done); OTHERS]);
        for call in &calls[1..] {
            f.assert_branch(call, Some(BranchRowStatus::Confirmed), Effects::SPENT).await;
        }
        f.assert_branch(&damaged, Some(BranchRowStatus::Tried), Effects::RESERVED).await;
    }
}

/// A handler that panics once in the middle of a batch: whatever else is in it is carried out, once.
pub async fn a_panic_in_a_batch_costs_nobody_an_effect<D: BenchDatabase>(f: Fixture<D>) {
    costs_nobody_an_effect(f, Fault::Panic).await;
}

/// The same with a handler that does not notice that the database has ended the transaction: the handlers after it work outside of it.
pub async fn a_lost_transaction_in_a_batch_costs_nobody_an_effect<D: BenchDatabase>(f: Fixture<D>) {
    costs_nobody_an_effect(f, Fault::LoseTransaction).await;
}

async fn costs_nobody_an_effect<D: BenchDatabase>(f: Fixture<D>, fault: Fault) {
    let f = f.limited(|options| (options.batches_in_flight_max, options.write_connections_max) = (1, 1));
    let calls: Vec<_> = (0..9).map(|_| f.new_call()).collect();
    let answers = all_at_once(&f, calls.iter().map(|call| f.engine.try_branch(call.clone()))).await;
    answers.into_iter().for_each(|answer| f.assert_yes(answer.expect("it is answered")));
    f.bench.inject(Op::Confirm, fault);
    let answers = all_at_once(&f, calls.iter().map(|call| f.engine.confirm(Fixture::<D>::confirm_of(call)))).await;
    for (call, answer) in calls.iter().zip(answers) {
        // Alone it is unknown to the one that it hit, who sends it again.
        if answer.is_err() {
            assert_eq!(f.confirm(call).await, SettleAnswer::Done);
        }
        f.assert_branch(call, Some(BranchRowStatus::Confirmed), Effects::SPENT).await;
    }
}

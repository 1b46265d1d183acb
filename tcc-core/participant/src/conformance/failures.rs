//! Handlers that refuse half-way, fail, panic or hang; calls that are dropped; limits. Each case panics where the contract is
//! broken.

use tcc_types::{BranchRowStatus, Op, Refusal, SettleAnswer, TryAnswer};
use tokio::task::JoinSet;

use super::{BenchDatabase, Effects, Fault, Fixture, State};
use crate::Unknown;

const TRIED: Option<BranchRowStatus> = Some(BranchRowStatus::Tried);
const REFUSED: Option<BranchRowStatus> = Some(BranchRowStatus::Refused);
const CONFIRMED: Option<BranchRowStatus> = Some(BranchRowStatus::Confirmed);
const CANCELLED: Option<BranchRowStatus> = Some(BranchRowStatus::Cancelled);

/// The row stays, the business is undone.
pub async fn what_a_handler_changed_before_it_refuses_is_rolled_back<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::Refuse);
    let refusal = Refusal::business("INJECTED", "injected refusal");
    assert_eq!(f.try_branch(&call).await, TryAnswer::Refused(refusal));
    f.assert_branch(&call, REFUSED, Effects::NONE).await;
    assert_eq!(f.books().await.available, Fixture::<D>::INITIAL);
}

/// A failed Try leaves no row; the next one is the first.
pub async fn a_handler_that_fails_is_unknown_and_leaves_nothing_behind<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::Fail);
    assert_eq!(f.engine.try_branch(call.clone()).await, Err(Unknown::Failed));
    f.assert_branch(&call, None, Effects::NONE).await;
    f.assert_yes(f.try_branch(&call).await);
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
}

/// A panic is one branch's affair.
pub async fn a_handler_that_panics_is_unknown_and_harms_no_other_branch<D: BenchDatabase>(f: Fixture<D>) {
    let (call, other) = (f.new_call(), f.branch_in(State::Tried).await);
    f.bench.inject(Op::Try, Fault::Panic);
    assert_eq!(f.engine.try_branch(call.clone()).await, Err(Unknown::Panicked));
    f.assert_branch(&call, None, Effects::NONE).await;
    assert_eq!(f.confirm(&other).await, SettleAnswer::Done);
    f.assert_branch(&other, CONFIRMED, Effects::SPENT).await;
    f.assert_yes(f.try_branch(&call).await);
    for (op, status, effects) in [(Op::Confirm, CONFIRMED, Effects::SPENT), (Op::Cancel, CANCELLED, Effects::RELEASED)] {
        let call = f.branch_in(State::Tried).await;
        let settle = async || match op {
            Op::Confirm => f.engine.confirm(Fixture::<D>::confirm_of(&call)).await,
            Op::Try | Op::Cancel => f.engine.cancel(Fixture::<D>::cancel_of(&call)).await,
        };
        f.bench.inject(op, Fault::Panic);
        assert_eq!(settle().await, Err(Unknown::Panicked));
        f.assert_branch(&call, TRIED, Effects::RESERVED).await;
        assert_eq!(settle().await, Ok(SettleAnswer::Done));
        f.assert_branch(&call, status, effects).await;
    }
}

/// The local transaction's time limit.
pub async fn a_handler_that_hangs_is_rolled_back_at_the_limit<D: BenchDatabase>(f: Fixture<D>) {
    let impatient = f.limited(|options| options.transaction_ms_max = 100);
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::Hang);
    let answer = impatient.engine.try_branch(call.clone()).await;
    assert_eq!(answer, Err(Unknown::TooSlow { transaction_ms_max: 100 }));
    f.assert_branch(&call, None, Effects::NONE).await;
    f.assert_yes(f.try_branch(&call).await);
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
}

/// Confirm is sent until it succeeds.
pub async fn a_failed_confirm_keeps_the_reservation_until_it_succeeds<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Tried).await;
    for _ in 0..3 {
        f.bench.inject(Op::Confirm, Fault::Fail);
        assert_eq!(f.engine.confirm(Fixture::<D>::confirm_of(&call)).await, Err(Unknown::Failed));
        f.assert_branch(&call, TRIED, Effects::RESERVED).await;
    }
    assert_eq!(f.confirm(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CONFIRMED, Effects::SPENT).await;
}

/// Cancel is sent until it succeeds.
pub async fn a_failed_cancel_keeps_the_reservation_until_it_succeeds<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.branch_in(State::Tried).await;
    for _ in 0..3 {
        f.bench.inject(Op::Cancel, Fault::Fail);
        assert_eq!(f.engine.cancel(Fixture::<D>::cancel_of(&call)).await, Err(Unknown::Failed));
        f.assert_branch(&call, TRIED, Effects::RESERVED).await;
    }
    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CANCELLED, Effects::RELEASED).await;
}

/// The handler should have handed the error on; what was rolled back is not answered as done all the same.
pub async fn a_handler_that_ignores_the_end_of_its_transaction_is_unknown<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::LoseTransaction);
    assert_eq!(f.engine.try_branch(call.clone()).await, Err(Unknown::Failed));
    f.assert_branch(&call, None, Effects::NONE).await;
    f.assert_yes(f.try_branch(&call).await);
    let other = f.branch_in(State::Tried).await;
    f.bench.inject(Op::Confirm, Fault::LoseTransaction);
    assert_eq!(f.engine.confirm(Fixture::<D>::confirm_of(&call)).await, Err(Unknown::Failed));
    f.bench.inject(Op::Cancel, Fault::LoseTransaction);
    assert_eq!(f.engine.cancel(Fixture::<D>::cancel_of(&other)).await, Err(Unknown::Failed));
    for call in [&call, &other] {
        f.assert_branch(call, TRIED, Effects::RESERVED).await;
    }
    assert_eq!(f.confirm(&call).await, SettleAnswer::Done);
    f.assert_branch(&call, CONFIRMED, Effects::SPENT).await;
    assert_eq!(f.cancel(&other).await, SettleAnswer::Done);
    f.assert_branch(&other, CANCELLED, Effects::RELEASED).await;
}

/// Starts a Try whose handler waits, and drops the call while it does.
async fn drop_a_waiting_try<D: BenchDatabase>(f: &Fixture<D>, call: &tcc_types::TryCall) {
    let mut calls = JoinSet::new();
    let (engine, delivered) = (f.engine.clone(), call.clone());
    let running = calls.spawn(async move { engine.try_branch(delivered).await });
    f.bench.until_one_waits().await;
    running.abort();
    let ended = calls.join_next().await.expect("there is one");
    assert!(ended.is_err_and(|error| error.is_cancelled()), "the call was not dropped");
    f.bench.open_gate();
}

/// The caller goes away, the transaction does not.
pub async fn a_dropped_call_runs_to_its_end<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::Wait);
    drop_a_waiting_try(&f, &call).await;
    // The repeated Try waits for the transaction of the first, and finds its row.
    f.assert_yes(f.try_branch(&call).await);
    assert_eq!(f.bench.handled(), 1, "the dropped call's transaction did not end");
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
}

/// The caller goes away, and then the handler fails.
pub async fn a_dropped_call_whose_handler_fails_leaves_nothing_behind<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::WaitThenFail);
    drop_a_waiting_try(&f, &call).await;
    f.assert_yes(f.try_branch(&call).await);
    assert_eq!(f.bench.handled(), 2, "the dropped call's transaction was not rolled back");
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
}

/// The limit of operations in flight.
pub async fn more_operations_than_the_limit_are_refused_at_once<D: BenchDatabase>(f: Fixture<D>) {
    let f = f.limited(|options| (options.operations_in_flight_max, options.tries_in_flight_max) = (1, 1));
    let (first, second) = (f.new_call(), f.new_call());
    f.bench.inject(Op::Try, Fault::Wait);
    let mut calls = JoinSet::new();
    let (engine, delivered) = (f.engine.clone(), first.clone());
    calls.spawn(async move { engine.try_branch(delivered).await });
    f.bench.until_one_waits().await;
    let refused = |limit_name| Unknown::Overloaded { limit_name, limit: 1 };
    assert_eq!(f.engine.try_branch(second.clone()).await, Err(refused("tries_in_flight_max")));
    let settled = f.engine.cancel(Fixture::<D>::cancel_of(&second)).await;
    assert_eq!(settled, Err(refused("operations_in_flight_max")));
    f.bench.open_gate();
    let answer = calls.join_next().await.expect("there is one").expect("it ends").expect("it is answered");
    f.assert_yes(answer);
    f.assert_branch(&second, None, Effects::NONE).await;
    f.assert_yes(f.try_branch(&second).await);
}

/// The room that is kept for what settles.
pub async fn as_many_tries_as_may_be_leave_room_to_settle<D: BenchDatabase>(f: Fixture<D>) {
    let tried = f.branch_in(State::Tried).await;
    let f = f.limited(|options| (options.operations_in_flight_max, options.tries_in_flight_max) = (2, 1));
    let (first, second) = (f.new_call(), f.new_call());
    f.bench.inject(Op::Try, Fault::Wait);
    let mut calls = JoinSet::new();
    let (engine, delivered) = (f.engine.clone(), first.clone());
    calls.spawn(async move { engine.try_branch(delivered).await.map(|_| ()) });
    f.bench.until_one_waits().await;
    let refused = Err(Unknown::Overloaded { limit_name: "tries_in_flight_max", limit: 1 });
    assert_eq!(f.engine.try_branch(second).await, refused);
    // It is let in, and waits for the connection until the gate is open.
    let confirm = f.engine.confirm(Fixture::<D>::confirm_of(&tried));
    let (settled, ()) = tokio::join!(confirm, async { f.bench.open_gate() });
    assert_eq!(settled, Ok(SettleAnswer::Done));
    calls.join_next().await.expect("there is one").expect("it ends").expect("it is answered");
    f.assert_branch(&tried, CONFIRMED, Effects::SPENT).await;
}

/// The graceful end.
pub async fn a_closed_engine_ends_what_is_under_way_and_takes_no_more<D: BenchDatabase>(f: Fixture<D>) {
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::Wait);
    let mut calls = JoinSet::new();
    let (engine, delivered) = (f.engine.clone(), call.clone());
    calls.spawn(async move { engine.try_branch(delivered).await });
    f.bench.until_one_waits().await;
    let mut closing = JoinSet::new();
    let engine = f.engine.clone();
    closing.spawn(async move { engine.close().await });
    f.bench.open_gate();
    let answer = calls.join_next().await.expect("there is one").expect("it ends").expect("it is answered");
    f.assert_yes(answer);
    closing.join_next().await.expect("there is one").expect("closing ends");
    assert_eq!(f.engine.try_branch(call).await, Err(Unknown::ShuttingDown));
}

/// The bound on what Try answers.
pub async fn an_oversized_output_is_unknown_and_reserves_nothing<D: BenchDatabase>(f: Fixture<D>) {
    let f = f.limited(|options| options.payload_bytes_max = 1_000);
    let call = f.new_call();
    f.bench.inject(Op::Try, Fault::Output(1_000));
    assert_eq!(f.engine.try_branch(call.clone()).await, Err(Unknown::Failed));
    f.assert_branch(&call, None, Effects::NONE).await;
    f.bench.inject(Op::Try, Fault::Output(900));
    assert!(matches!(f.try_branch(&call).await, TryAnswer::Reserved(Some(_))));
    f.assert_branch(&call, TRIED, Effects::RESERVED).await;
}

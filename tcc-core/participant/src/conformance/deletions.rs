//! Which rows retention deletes, and what can never come of it: a late Try that gets in, a repeated Confirm that is a violation.
//! Each case panics where the contract is broken.

use std::{sync::Arc, time::Duration};

use tcc_types::{BranchRowStatus, Gid, LogName, Outcome, Refusal, SettleAnswer, SystemEntropy, Timestamp, TryAnswer, TryCall};

use super::{Answers, BenchDatabase, Effects, Fault, Fixture, State};
use crate::upkeep::retention::{Retention, Walked};

const DAY: Duration = Duration::from_secs(86_400);
/// What [`crate::UpkeepOptions`] says by default.
const RETENTION: Duration = Duration::from_secs(7 * 86_400);

fn retention<D: BenchDatabase>(f: &Fixture<D>, answers: &Answers) -> Retention<D, Answers> {
    Retention::new(f.store().clone(), Some(Arc::new(answers.clone())))
}

async fn now<D: BenchDatabase>(f: &Fixture<D>) -> Timestamp {
    f.store().now().await.expect("the clock is read")
}

async fn is_there<D: BenchDatabase>(f: &Fixture<D>, call: &TryCall) -> bool {
    f.store().branch_row(&call.key).await.expect("the row is read").is_some()
}

/// A branch in that state whose gid was minted long before the retention, with these times. The call has its `not_after`.
async fn old_branch<D: BenchDatabase>(f: &Fixture<D>, state: State, not_after: Timestamp, changed_at: Timestamp) -> TryCall {
    let mut call = f.new_call();
    call.key.gid = Gid::mint(now(f).await.minus(30 * DAY), &SystemEntropy);
    match state {
        State::Tried | State::Confirmed | State::Cancelled => f.assert_yes(f.try_branch(&call).await),
        State::Refused => {
            f.bench.inject(tcc_types::Op::Try, Fault::Refuse);
            assert!(matches!(f.try_branch(&call).await, TryAnswer::Refused(_)));
        }
        State::EmptyRollback => {}
    }
    match state {
        State::Tried | State::Refused => {}
        State::Confirmed => assert_eq!(f.confirm(&call).await, SettleAnswer::Done),
        State::Cancelled | State::EmptyRollback => assert_eq!(f.cancel(&call).await, SettleAnswer::Done),
    }
    D::set_times(f.store(), &call.key, not_after, changed_at).await.expect("its times are set");
    TryCall { not_after, ..call }
}

/// Old enough in every respect.
async fn ancient<D: BenchDatabase>(f: &Fixture<D>, state: State) -> TryCall {
    let at = now(f).await.minus(RETENTION + DAY);
    old_branch(f, state, at, at).await
}

fn effects_of(state: State) -> Effects {
    match state {
        State::Tried => Effects::RESERVED,
        State::Refused | State::EmptyRollback => Effects::NONE,
        State::Confirmed => Effects::SPENT,
        State::Cancelled => Effects::RELEASED,
    }
}

/// Every state, with each of its times old or young, and each thing that the coordinator may say of it.
pub async fn no_deletion_lets_a_late_try_in_or_makes_a_repeated_confirm_a_violation<D: BenchDatabase>(f: Fixture<D>) {
    let at = now(&f).await;
    // Old, and just not old enough.
    let times = [at.minus(RETENTION + DAY), at.minus(RETENTION - Duration::from_secs(600))];
    let outcomes = [Outcome::Finished, Outcome::Forgotten, Outcome::Confirmed, Outcome::AskAgain { at }];
    for state in State::ALL {
        for (not_after, changed_at) in [0, 1].into_iter().flat_map(|one| [0, 1].map(|other| (times[one], times[other]))) {
            for outcome in outcomes {
                let answers = Answers::default();
                let call = old_branch(&f, state, not_after, changed_at).await;
                // Nobody is asked about anything but confirmed rows: the script has no answer for others.
                if state == State::Confirmed {
                    answers.set(&call.key, outcome);
                }
                retention(&f, &answers).walk().await;

                let old = not_after == times[0] && changed_at == times[0];
                let over = matches!(outcome, Outcome::Finished | Outcome::Forgotten);
                let deleted = match state {
                    State::Tried => false,
                    State::Refused | State::Cancelled | State::EmptyRollback => old,
                    State::Confirmed => old && over,
                };
                let what = format!("{state:?}, not_after {not_after}, changed_at {changed_at}, {outcome:?}");
                assert_eq!(is_there(&f, &call).await, !deleted, "{what}");

                // A coordinator that says Finished or Forgotten sends no Confirm any more; any other one finds what it left.
                if state == State::Confirmed && !over {
                    assert_eq!(f.confirm(&call).await, SettleAnswer::Done, "{what}");
                }
                let handled = f.bench.handled();
                match (f.try_branch(&call).await, state) {
                    (answer, _) if deleted => assert_eq!(answer, TryAnswer::Refused(Refusal::late()), "{what}"),
                    (answer, State::Tried | State::Confirmed) => f.assert_yes(answer),
                    (answer, State::Refused) => assert!(matches!(answer, TryAnswer::Refused(_)), "{what}: {answer:?}"),
                    (answer, State::Cancelled | State::EmptyRollback) => {
                        assert_eq!(answer, TryAnswer::Refused(Refusal::suspended()), "{what}");
                    }
                }
                assert_eq!(f.bench.handled(), handled, "{what}: a late Try reached the handler");
                assert_eq!(D::effects(f.store(), &call.key).await.expect("the ledger is read"), effects_of(state), "{what}");
                // Out of the next round's way.
                if state == State::Tried {
                    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
                }
                D::set_times(f.store(), &call.key, at, at).await.expect("its times are set");
            }
        }
    }
    f.books().await;
}

/// What comes after a deletion is as if the branch had never been, and too late.
pub async fn a_cancel_after_a_deletion_is_done_and_releases_nothing_more<D: BenchDatabase>(f: Fixture<D>) {
    for state in [State::Refused, State::Cancelled, State::EmptyRollback] {
        let call = ancient(&f, state).await;
        assert_eq!(retention(&f, &Answers::default()).walk().await.deleted, 1, "{state:?}");
        assert_eq!(f.cancel(&call).await, SettleAnswer::Done, "{state:?}");
        f.assert_branch(&call, Some(BranchRowStatus::Cancelled), effects_of(state)).await;
    }
}

/// Confirmed rows wait for the coordinator's word, however old they are.
pub async fn a_confirmed_row_is_kept_until_its_coordinator_says_that_it_is_over<D: BenchDatabase>(f: Fixture<D>) {
    let answers = Answers::default();
    let at = now(&f).await;
    let call = ancient(&f, State::Confirmed).await;
    let name = LogName::new("conformance").expect("it is well-formed");
    for outcome in [Outcome::Confirmed, Outcome::Cancelled, Outcome::AskAgain { at }, Outcome::NotMine] {
        answers.set(&call.key, outcome);
        assert_eq!(retention(&f, &answers).walk().await.deleted, 0, "{outcome:?}");
    }
    answers.set(&call.key, Outcome::Finished);
    answers.script().silent.insert(name.clone());
    assert_eq!(retention(&f, &answers).walk().await.deleted, 0, "no answer");
    answers.script().silent.clear();
    answers.script().unknown.insert(name);
    assert_eq!(retention(&f, &answers).walk().await.deleted, 0, "nobody to ask");
    answers.script().unknown.clear();
    answers.script().short = true;
    assert_eq!(retention(&f, &answers).walk().await.deleted, 0, "an answer that does not match");
    answers.script().short = false;
    assert_eq!(Retention::<D, Answers>::new(f.store().clone(), None).walk().await.deleted, 0, "no source");
    f.assert_branch(&call, Some(BranchRowStatus::Confirmed), Effects::SPENT).await;
    for (_, queries) in &answers.script().asked {
        assert_eq!(queries.len(), 1);
        assert_eq!((&queries[0].key, queries[0].row_status), (&call.key, BranchRowStatus::Confirmed));
        assert_eq!(queries[0].not_after, call.not_after);
    }
    assert_eq!(retention(&f, &answers).walk().await.deleted, 1);
    assert!(!is_there(&f, &call).await);
}

/// A walk takes bounded steps, goes on after each, and asks a coordinator that does not answer once.
pub async fn a_walk_looks_at_everything_old_in_bounded_steps<D: BenchDatabase>(f: Fixture<D>) {
    let f = f.limited(|options| options.upkeep.retention_batch_max = 10);
    let answers = Answers::default();
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    for nth in 0..35 {
        match nth % 5 {
            0 => {
                let call = ancient(&f, State::Confirmed).await;
                answers.set(&call.key, Outcome::Confirmed);
                staying.push(call);
            }
            1 => {
                let call = ancient(&f, State::Confirmed).await;
                answers.set(&call.key, Outcome::Finished);
                going.push(call);
            }
            2 => staying.push(ancient(&f, State::Tried).await),
            3 => going.push(ancient(&f, State::Cancelled).await),
            _ => going.push(ancient(&f, State::Refused).await),
        }
    }
    // Young transactions are not even looked at.
    let young = f.branch_in(State::Cancelled).await;
    assert_eq!(retention(&f, &answers).walk().await, Walked { seen: 35, deleted: 21, pages: 4 });
    let sizes = answers.sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 14, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
    for call in &going {
        assert!(!is_there(&f, call).await);
    }
    for call in staying.iter().chain([&young]) {
        assert!(is_there(&f, call).await);
    }

    let silent = answers.script().asked.len();
    answers.script().silent.insert(young.coordinator.clone());
    assert_eq!(retention(&f, &answers).walk().await, Walked { seen: 14, deleted: 0, pages: 2 });
    assert_eq!(answers.script().asked.len(), silent + 1);
    f.books().await;
}

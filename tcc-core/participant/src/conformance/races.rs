//! Hundreds of branches, each with its operations delivered from six tasks at once, while somebody watches the books. Each case
//! panics where the contract is broken.

use std::sync::Arc;

use tcc_types::{BranchRowStatus, Op, Refusal, SettleAnswer, TryAnswer, TryCall, ViolationKind};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{BenchDatabase, Effects, Fault, Fixture, State};
use crate::Unknown;

/// Branches of each case.
pub const BRANCHES: usize = 700;
/// Branches that race at the same time.
const BRANCHES_AT_ONCE: usize = 16;

/// What one of a branch's six tasks delivers.
#[derive(Clone, Copy, Debug)]
enum Delivery {
    Try,
    /// Waits for a yes (as a coordinator does); none comes if the business refuses.
    ConfirmAfterYes,
    ConfirmAtOnce,
    Cancel,
}

#[derive(Debug)]
enum Answer {
    Try(TryAnswer),
    Confirm(SettleAnswer),
    Cancel(SettleAnswer),
    /// Nothing was sent.
    Nothing,
}

async fn deliver<D: BenchDatabase>(f: Fixture<D>, call: Arc<TryCall>, delivery: Delivery) -> Answer {
    match delivery {
        Delivery::Try => Answer::Try(f.try_branch(&call).await),
        Delivery::ConfirmAtOnce => Answer::Confirm(f.confirm(&call).await),
        Delivery::Cancel => Answer::Cancel(f.cancel(&call).await),
        Delivery::ConfirmAfterYes => match f.try_branch(&call).await {
            TryAnswer::Reserved(_) => Answer::Confirm(f.confirm(&call).await),
            TryAnswer::Refused(_) | TryAnswer::Violation(_) => Answer::Nothing,
        },
    }
}

/// Delivers all at once, each time in another order.
async fn race_one<D: BenchDatabase>(f: Fixture<D>, nth: usize, mix: [Delivery; 6]) -> (Arc<TryCall>, Vec<Answer>) {
    let call = Arc::new(f.new_call());
    let mut tasks = JoinSet::new();
    for place in 0..mix.len() {
        // Five is prime to six... and so is one: every start and both directions come by.
        let stride = if nth.is_multiple_of(2) { 1 } else { 5 };
        let delivery = mix[(nth / 2 + place * stride) % mix.len()];
        tasks.spawn(deliver(f.clone(), call.clone(), delivery));
    }
    (call, tasks.join_all().await)
}

/// Races many branches, and watches the books while they do. Every answer goes through `check`.
async fn race<D: BenchDatabase>(f: &Fixture<D>, mix: [Delivery; 6], check: impl Fn(&Answer)) -> Vec<Arc<TryCall>> {
    let over = CancellationToken::new();
    let mut watcher = JoinSet::new();
    watcher.spawn({
        let (f, over) = (f.clone(), over.clone());
        async move {
            let mut looks = 0_u32;
            while !over.is_cancelled() {
                f.books().await;
                looks += 1;
                tokio::task::yield_now().await;
            }
            looks
        }
    });
    let mut racing = JoinSet::new();
    let mut calls = Vec::new();
    let mut nth = 0;
    while nth < BRANCHES || !racing.is_empty() {
        while nth < BRANCHES && racing.len() < BRANCHES_AT_ONCE {
            racing.spawn(race_one(f.clone(), nth, mix));
            nth += 1;
        }
        let (call, answers) = racing.join_next().await.expect("there is one").expect("no task panics");
        answers.iter().for_each(&check);
        calls.push(call);
    }
    over.cancel();
    let looks = watcher.join_next().await.expect("there is one").expect("the books balanced at every look");
    assert!(looks > 0, "nobody looked at the books");
    told(f, calls.len(), mix.len());
    calls
}

/// Says how often a local transaction was rerun because of a conflict. One that could not be hidden would have been answered as
/// unknown, and no case goes on after such an answer.
fn told<D: BenchDatabase>(f: &Fixture<D>, branches: usize, tasks: usize) {
    println!("race: {branches} branches, {tasks} tasks each, retries {}", f.engine.retries());
}

/// Delivers the branches' Cancels, each from several tasks at once.
async fn cancel_at_once<D: BenchDatabase>(f: &Fixture<D>, calls: &[TryCall]) {
    const TASKS: usize = 4;
    for calls in calls.chunks(BRANCHES_AT_ONCE) {
        let mut tasks = JoinSet::new();
        for call in calls.iter().flat_map(|call| std::iter::repeat_n(call, TASKS)) {
            let (f, call) = (f.clone(), call.clone());
            tasks.spawn(async move { f.cancel(&call).await });
        }
        assert!(tasks.join_all().await.iter().all(|answer| *answer == SettleAnswer::Done));
    }
    told(f, calls.len(), TASKS);
}

/// A Cancel that was delivered several times, and all at once.
pub async fn concurrent_repeated_cancels_of_a_tried_branch_release_once<D: BenchDatabase>(f: Fixture<D>) {
    let mut calls = Vec::new();
    for _ in 0..BRANCHES / 7 {
        calls.push(f.branch_in(State::Tried).await);
    }
    cancel_at_once(&f, &calls).await;
    for call in &calls {
        f.assert_branch(call, Some(BranchRowStatus::Cancelled), Effects::RELEASED).await;
    }
    let books = f.books().await;
    assert_eq!((books.available, books.frozen), (Fixture::<D>::INITIAL, 0));
}

/// The same before any Try.
pub async fn concurrent_cancels_of_an_unknown_branch_record_one_empty_rollback<D: BenchDatabase>(f: Fixture<D>) {
    let calls: Vec<_> = std::iter::repeat_with(|| f.new_call()).take(BRANCHES / 7).collect();
    cancel_at_once(&f, &calls).await;
    for call in &calls {
        assert_eq!(f.try_branch(call).await, TryAnswer::Refused(Refusal::suspended()));
        f.assert_branch(call, Some(BranchRowStatus::Cancelled), Effects::NONE).await;
    }
}

/// Several deliveries wait for a Try that holds the row and then rolls back: the row that they waited for never was.
pub async fn deliveries_that_wait_for_a_try_that_fails_are_all_answered<D: BenchDatabase>(f: Fixture<D>) {
    const BRANCHES: usize = 30;
    let mut empty = 0;
    for _ in 0..BRANCHES {
        let call = f.new_call();
        f.bench.inject(Op::Try, Fault::WaitThenFail);
        let mut first = JoinSet::new();
        let (engine, delivered) = (f.engine.clone(), call.clone());
        first.spawn(async move { engine.try_branch(delivered).await });
        f.bench.until_one_waits().await;
        let mut waiting = JoinSet::new();
        for place in 0..6 {
            let (f, call) = (f.clone(), call.clone());
            waiting.spawn(async move {
                if place % 2 == 0 {
                    f.try_branch(&call).await;
                } else {
                    assert_eq!(f.cancel(&call).await, SettleAnswer::Done);
                }
            });
        }
        tokio::task::yield_now().await;
        f.bench.open_gate();
        assert_eq!(first.join_all().await, [Err(Unknown::Failed)]);
        waiting.join_all().await;
        assert_eq!(agree(&f, &call).await, Some(BranchRowStatus::Cancelled));
        let row = f.store().branch_row(&call.key).await.expect("the row is read").expect("there is a row");
        empty += u32::from(row.empty);
    }
    told(&f, BRANCHES, 7);
    println!("{empty} of them ended as an empty rollback");
    let books = f.books().await;
    assert_eq!((books.available, books.frozen), (Fixture::<D>::INITIAL, 0));
}

/// What the row says must be what the ledger says. Returns the status.
async fn agree<D: BenchDatabase>(f: &Fixture<D>, call: &TryCall) -> Option<BranchRowStatus> {
    let status = f.store().branch_row(&call.key).await.expect("the row is read").map(|row| row.status);
    let effects = D::effects(f.store(), &call.key).await.expect("the ledger is read");
    match status {
        None | Some(BranchRowStatus::Refused) => assert_eq!(effects, Effects::NONE, "{}", call.key),
        Some(BranchRowStatus::Tried) => assert_eq!(effects, Effects::RESERVED, "{}", call.key),
        Some(BranchRowStatus::Confirmed) => assert_eq!(effects, Effects::SPENT, "{}", call.key),
        Some(BranchRowStatus::Cancelled) => {
            assert!(effects == Effects::RELEASED || effects == Effects::NONE, "{}: {effects:?}", call.key);
        }
    }
    status
}

/// Four Tries and two Confirms after a yes: what a coordinator sends when all say yes, and all of it twice.
pub async fn racing_tries_and_confirms_spend_once<D: BenchDatabase>(f: Fixture<D>) {
    use Delivery::{ConfirmAfterYes, Try};
    let mix = [Try, ConfirmAfterYes, Try, ConfirmAfterYes, Try, Try];
    let calls = race(&f, mix, |answer| match answer {
        Answer::Try(TryAnswer::Reserved(_)) | Answer::Confirm(SettleAnswer::Done) | Answer::Nothing => {}
        Answer::Try(TryAnswer::Refused(refusal)) => assert_eq!(refusal.code, "OUT_OF_STOCK"),
        Answer::Try(TryAnswer::Violation(_)) | Answer::Confirm(SettleAnswer::Violation(_)) | Answer::Cancel(_) => {
            panic!("{answer:?} among lawful deliveries")
        }
    })
    .await;
    let mut confirmed = 0;
    for call in &calls {
        match agree(&f, call).await {
            Some(BranchRowStatus::Confirmed) => confirmed += 1,
            Some(BranchRowStatus::Refused) => {}
            status @ (None | Some(BranchRowStatus::Tried | BranchRowStatus::Cancelled)) => panic!("{} is {status:?}", call.key),
        }
    }
    let books = f.books().await;
    assert_eq!((books.frozen, books.sold), (0, confirmed * Fixture::<D>::PIECES));
    assert_eq!(confirmed, Fixture::<D>::INITIAL / Fixture::<D>::PIECES, "everything that can be sold is sold, and no more");
}

/// Three Tries and three Cancels: what a coordinator sends when it gives up.
pub async fn racing_tries_and_cancels_release_once<D: BenchDatabase>(f: Fixture<D>) {
    use Delivery::{Cancel, Try};
    let mix = [Try, Cancel, Try, Cancel, Try, Cancel];
    let calls = race(&f, mix, |answer| match answer {
        Answer::Try(TryAnswer::Reserved(_)) | Answer::Cancel(SettleAnswer::Done) => {}
        Answer::Try(TryAnswer::Refused(refusal)) => {
            assert!(*refusal == Refusal::suspended() || refusal.code == "OUT_OF_STOCK", "{refusal:?}");
        }
        Answer::Try(TryAnswer::Violation(_))
        | Answer::Cancel(SettleAnswer::Violation(_))
        | Answer::Confirm(_)
        | Answer::Nothing => {
            panic!("{answer:?} among lawful deliveries")
        }
    })
    .await;
    let (mut released, mut empty) = (0, 0);
    for call in &calls {
        match agree(&f, call).await {
            Some(BranchRowStatus::Cancelled) => {
                let row = f.store().branch_row(&call.key).await.expect("the row is read").expect("there is a row");
                if row.empty { empty += 1 } else { released += 1 }
            }
            Some(BranchRowStatus::Refused) => {}
            status @ (None | Some(BranchRowStatus::Tried | BranchRowStatus::Confirmed)) => panic!("{} is {status:?}", call.key),
        }
    }
    assert!(released > 0 && empty > 0, "no race: {released} released, {empty} empty rollbacks");
    let books = f.books().await;
    assert_eq!((books.available, books.frozen), (Fixture::<D>::INITIAL, 0));
}

/// Two of each at once, which no coordinator sends: violations are told, and yet nothing happens twice or both.
pub async fn racing_all_three_never_confirms_and_cancels<D: BenchDatabase>(f: Fixture<D>) {
    use Delivery::{Cancel, ConfirmAtOnce, Try};
    let mix = [Try, ConfirmAtOnce, Cancel, Try, ConfirmAtOnce, Cancel];
    let violations = std::cell::Cell::new(0_u32);
    let calls = race(&f, mix, |answer| match answer {
        Answer::Try(TryAnswer::Reserved(_) | TryAnswer::Refused(_)) => {}
        Answer::Confirm(SettleAnswer::Done) | Answer::Cancel(SettleAnswer::Done) => {}
        Answer::Confirm(SettleAnswer::Violation(violation)) => {
            assert!(matches!(violation.kind, ViolationKind::NoReservation | ViolationKind::OtherOutcome), "{violation:?}");
            violations.set(violations.get() + 1);
        }
        Answer::Cancel(SettleAnswer::Violation(violation)) => {
            assert_eq!(violation.row_status, Some(BranchRowStatus::Confirmed), "{violation:?}");
            violations.set(violations.get() + 1);
        }
        Answer::Try(TryAnswer::Violation(_)) | Answer::Nothing => panic!("{answer:?}"),
    })
    .await;
    let (mut confirmed, mut cancelled) = (0, 0);
    for call in &calls {
        match agree(&f, call).await {
            Some(BranchRowStatus::Confirmed) => confirmed += 1,
            Some(BranchRowStatus::Cancelled) => cancelled += 1,
            Some(BranchRowStatus::Refused) => {}
            status @ (None | Some(BranchRowStatus::Tried)) => panic!("{} is {status:?} after its Cancel", call.key),
        }
    }
    assert!(confirmed > 0 && cancelled > 0, "no race: {confirmed} confirmed, {cancelled} cancelled");
    assert!(violations.get() > 0, "not one violation was told");
    assert_eq!(f.books().await.sold, confirmed * Fixture::<D>::PIECES);
}

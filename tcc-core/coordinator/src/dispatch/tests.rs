//! Merged calls to fake participants on this machine: what is sent together, what alone, and what never twice.

mod fake;

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::join_all};
use prost::Message;
use tcc_proto::tcc::v1::{self as proto, batch_result::Outcome};
use tcc_service::telemetry::{self, Telemetry};
use tcc_types::{BranchId, BranchKey, Entropy, Gid, LogName, Op, Payload, SystemEntropy, Timestamp};
use tcc_wire::Operation;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinSet};
use tonic::Status;
use tracing::Instrument;

use self::fake::{Fake, Reply, Then, done, until};
use super::{
    batch::send_one_by_one,
    merge::{Fate, Queued},
    *,
};

const NEVER_MS: u64 = 60_000;

fn key(branch: &str) -> BranchKey {
    let entropy: &dyn Entropy = &SystemEntropy;
    let gid = Gid::mint(Timestamp::from_millis(1_790_000_000_000), entropy);
    BranchKey { gid, branch: BranchId::new(branch).unwrap() }
}

fn confirm(branch: &str) -> ConfirmCall {
    ConfirmCall { key: key(branch) }
}

fn try_of(key: BranchKey, bytes: usize) -> TryCall {
    TryCall {
        key,
        payload: Payload { type_url: "t".to_owned(), value: Bytes::from(vec![0; bytes]) },
        not_after: Timestamp::MAX,
        ask_after: Timestamp::MAX,
        coordinator: LogName::new("main").unwrap(),
    }
}

fn endpoint(fake: &Fake, change: impl FnOnce(&mut EndpointConfig)) -> Arc<GrpcEndpoint> {
    let mut config = EndpointConfig::at(fake.address());
    change(&mut config);
    Arc::new(GrpcEndpoint::new(&config).unwrap())
}

/// One message at a time, however long it takes.
fn one_by_one(config: &mut EndpointConfig) {
    config.batches_in_flight_max = 1;
    config.batch_patience_ms = NEVER_MS;
}

async fn confirm_all(endpoint: &GrpcEndpoint, branches: &[&str]) -> Vec<Result<SettleAnswer, Unknown>> {
    join_all(branches.iter().map(|branch| endpoint.confirm(confirm(branch)))).await
}

/// Calls whose answers are awaited later.
type Calls = JoinSet<Result<SettleAnswer, Unknown>>;

fn spawn_confirm(calls: &mut Calls, endpoint: &Arc<GrpcEndpoint>, branch: &str) {
    let (endpoint, call) = (Arc::clone(endpoint), confirm(branch));
    calls.spawn(async move { endpoint.confirm(call).await });
}

/// Occupies the endpoint with two calls that wait at the fake's gate, so that whatever comes next is queued. Only for
/// [`one_by_one`].
async fn occupy(calls: &mut Calls, endpoint: &Arc<GrpcEndpoint>, fake: &Fake) {
    fake.close_gate();
    for (index, branch) in ["first", "second"].into_iter().enumerate() {
        spawn_confirm(calls, endpoint, branch);
        until(|| fake.alone().len() == index + 1).await;
    }
}

/// Until so many are queued: one of them is in the merger's hand.
async fn until_queued(endpoint: &GrpcEndpoint, queued: usize) {
    until(|| endpoint.queued() + 1 == queued).await;
}

async fn all_done(calls: Calls) {
    for answer in calls.join_all().await {
        assert_eq!(answer, Ok(SettleAnswer::Done));
    }
}

#[tokio::test]
async fn calls_at_the_same_time_share_messages() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |_| ());
    let answers = join_all((0..100).map(|_| endpoint.confirm(confirm("b")))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(SettleAnswer::Done)), "{answers:?}");
    let stats = endpoint.stats().unwrap();
    assert_eq!(stats.operations, 100);
    assert!(stats.messages <= 20, "{stats:?}");
    assert_eq!(fake.in_batches() + fake.alone().len(), 100);
    let name = ParticipantName::new("stock").unwrap();
    let registry = Registry::default().with(name.clone(), endpoint);
    assert_eq!(registry.stats(), BTreeMap::from([(name, stats)]));
}

#[tokio::test]
async fn calls_one_after_the_other_go_by_their_own_calls() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |_| ());
    let key = key("b");
    let reserved = endpoint.try_branch(try_of(key.clone(), 1)).await;
    assert_eq!(reserved, Ok(TryAnswer::Reserved(None)));
    assert_eq!(endpoint.confirm(ConfirmCall { key: key.clone() }).await, Ok(SettleAnswer::Done));
    let cancel = CancelCall { key: key.clone(), not_after: Timestamp::MAX };
    assert_eq!(endpoint.cancel(cancel).await, Ok(SettleAnswer::Done));
    assert_eq!(fake.batches().len(), 0);
    assert_eq!(fake.alone(), [(key.clone(), Op::Try), (key.clone(), Op::Confirm), (key, Op::Cancel)]);
}

#[tokio::test]
async fn a_plain_participant_is_asked_for_a_batch_once_in_a_while() {
    let fake = Fake::serve(|_| Err(Status::unimplemented(""))).await;
    let endpoint = endpoint(&fake, |config| config.plain_recheck_ms = NEVER_MS);
    for _ in 0..3 {
        all_answer(&endpoint, 20).await;
    }
    assert!((1..=2).contains(&fake.batches().len()), "only what was under way: {:?}", fake.batches());
    assert_eq!(fake.alone().len(), 60, "each once");

    let impatient = self::endpoint(&fake, |config| config.plain_recheck_ms = 1);
    all_answer(&impatient, 20).await;
    let asked = fake.batches().len();
    until(|| !impatient.is_plain()).await;
    all_answer(&impatient, 20).await;
    assert!(fake.batches().len() > asked, "it is asked again");
}

async fn all_answer(endpoint: &GrpcEndpoint, count: usize) {
    for answer in join_all((0..count).map(|_| endpoint.confirm(confirm("b")))).await {
        assert_eq!(answer, Ok(SettleAnswer::Done));
    }
}

#[tokio::test]
async fn a_bad_result_concerns_its_operation_only() {
    let fake = Fake::serve(|operations| {
        let mut reply = Reply::default();
        for operation in operations {
            let mut result = fake::done_result(operation);
            match operation.key().branch.as_str() {
                "empty" => result.outcome = None,
                "other" => result.outcome = Some(Outcome::Tried(proto::TryResponse::default())),
                "unknown" => result.outcome = Some(Outcome::Unknown("too slow".to_owned())),
                "silent" => continue,
                "nameless" => result.operation = 0,
                "misnamed" => {
                    result.operation = proto::OperationKind::Cancel.into();
                    result.outcome = Some(Outcome::Cancelled(tcc_wire::cancel_response(SettleAnswer::Done)));
                }
                "twice" => {
                    reply.results.push(result.clone());
                    result.outcome = Some(Outcome::Unknown("the second result".to_owned()));
                }
                "beside" => {
                    let foreign = Operation::Confirm(confirm("foreign"));
                    reply.results.push(fake::done_result(&foreign));
                }
                _ => {}
            }
            reply.results.push(result);
        }
        Ok(reply)
    })
    .await;
    let endpoint = endpoint(&fake, one_by_one);
    let mut calls = Calls::new();
    occupy(&mut calls, &endpoint, &fake).await;
    let branches = ["empty", "good", "other", "unknown", "silent", "nameless", "misnamed", "twice", "beside"];
    let answered = {
        let endpoint = Arc::clone(&endpoint);
        let asked = async move { confirm_all(&endpoint, &branches).await };
        let mut asking = JoinSet::new();
        asking.spawn(asked);
        asking
    };
    until_queued(&endpoint, branches.len()).await;
    fake.open_gate();
    let answers = answered.join_all().await.remove(0);
    all_done(calls).await;
    for (branch, answer) in branches.into_iter().zip(answers) {
        match branch {
            "good" | "twice" | "beside" => assert_eq!(answer, Ok(SettleAnswer::Done), "{branch}"),
            "unknown" => assert_eq!(answer, Err(Unknown("too slow".to_owned()))),
            _ => assert!(answer.is_err(), "{branch}: {answer:?}"),
        }
    }
    assert_eq!((fake.batches().len(), fake.in_batches(), fake.alone().len()), (1, branches.len(), 2), "nothing is sent again");
}

/// Sends five operations as one batch to a participant that answers it like this; gives what became of them.
async fn five_in_a_batch(fake: &Fake) -> Vec<Result<SettleAnswer, Unknown>> {
    let endpoint = endpoint(fake, one_by_one);
    let mut occupied = Calls::new();
    occupy(&mut occupied, &endpoint, fake).await;
    let mut calls = Calls::new();
    for branch in ["a", "b", "c", "d", "e"] {
        spawn_confirm(&mut calls, &endpoint, branch);
    }
    until_queued(&endpoint, 5).await;
    fake.open_gate();
    all_done(occupied).await;
    let answers = calls.join_all().await;
    assert_eq!((fake.batches().len(), fake.in_batches()), (1, 5), "it is one batch");
    answers
}

#[tokio::test]
async fn a_batch_that_may_itself_be_to_blame_is_sent_again_one_by_one() {
    for status in [
        Status::invalid_argument("operations[3]"),
        Status::out_of_range("too long"),
        Status::resource_exhausted("too many"),
        Status::internal("a defect"),
        Status::unknown("?"),
        Status::failed_precondition("a proxy"),
    ] {
        let refuses = status.clone();
        let fake = Fake::serve(move |_| Err(refuses.clone())).await;
        for answer in five_in_a_batch(&fake).await {
            assert_eq!(answer, Ok(SettleAnswer::Done), "{status:?}");
        }
        let mut alone = fake.alone();
        assert_eq!(alone.len(), 2 + 5, "{status:?}");
        alone.sort();
        alone.dedup();
        assert_eq!(alone.len(), 2 + 5, "each once: {status:?}");
    }
}

#[tokio::test]
async fn what_was_answered_before_a_batch_failed_is_not_sent_again() {
    let fake = Fake::serve(|operations| {
        let results = operations.iter().take(2).map(fake::done_result).collect();
        Ok(Reply { results, then: Then::Fail(Status::internal("a defect")) })
    })
    .await;
    for answer in five_in_a_batch(&fake).await {
        assert_eq!(answer, Ok(SettleAnswer::Done));
    }
    let alone: BTreeSet<_> = fake.alone().into_iter().collect();
    assert_eq!(alone.len(), 2 + 3);
    assert!(fake.batches()[0].iter().take(2).all(|answered| !alone.contains(answered)));
}

#[tokio::test]
async fn a_participant_that_cannot_answer_leaves_all_unknown_and_is_sent_nothing_again() {
    for status in [Status::unavailable("down"), Status::cancelled("a timeout"), Status::deadline_exceeded("slow")] {
        let fails = status.clone();
        let fake = Fake::serve(move |_| Err(fails.clone())).await;
        for answer in five_in_a_batch(&fake).await {
            assert!(answer.unwrap_err().0.contains(status.message()));
        }
        assert_eq!(fake.alone().len(), 2, "{status:?}");
    }
}

#[test]
fn a_lost_connection_leaves_all_unknown_and_nothing_is_sent_again() {
    let theirs = Runtime::new().unwrap();
    let hang = |_: &[Operation]| Ok(Reply { results: Vec::new(), then: Then::Hang });
    let fake = theirs.block_on(Fake::serve(hang));
    fake.close_gate();
    Runtime::new().unwrap().block_on(async {
        let endpoint = endpoint(&fake, |_| ());
        let mut calls = Calls::new();
        for _ in 0..10 {
            spawn_confirm(&mut calls, &endpoint, "b");
        }
        until(|| fake.in_batches() + fake.alone().len() == 10).await;
        until(|| fake.hanging() == fake.batches().len()).await;
        assert!(fake.hanging() > 0);
        theirs.shutdown_background();
        for answer in calls.join_all().await {
            assert!(answer.is_err(), "{answer:?}");
        }
        assert_eq!(endpoint.stats().unwrap().operations, 10);
    });
}

#[tokio::test]
async fn what_a_participant_swallows_holds_nobody_back_and_is_let_go_with_its_callers() {
    let fake = Fake::serve(|operations| {
        let (swallowed, others): (Vec<_>, Vec<_>) = operations.iter().partition(|one| one.key().branch.as_str() == "swallowed");
        let then = if swallowed.is_empty() { Then::End } else { Then::Hang };
        Ok(Reply { results: others.into_iter().map(fake::done_result).collect(), then })
    })
    .await;
    let endpoint = endpoint(&fake, |config| {
        config.batches_in_flight_max = 1;
        config.batch_patience_ms = 1;
    });
    fake.close_gate();
    let mut blocked = Calls::new();
    spawn_confirm(&mut blocked, &endpoint, "blocked");
    until(|| fake.alone().len() == 1).await;
    let mut swallowed = Calls::new();
    for _ in 0..3 {
        spawn_confirm(&mut swallowed, &endpoint, "swallowed");
    }
    until(|| fake.in_batches() + fake.alone().len() == 4 && fake.hanging() > 0).await;
    fake.open_gate();
    all_answer(&endpoint, 50).await;
    all_done(blocked).await;
    assert!(fake.hanging() > 0);
    drop(swallowed);
    until(|| fake.hanging() == 0).await;
}

#[tokio::test]
async fn the_first_result_of_a_batch_lets_the_next_one_leave() {
    let fake = Fake::serve(|operations| {
        let quick: Vec<_> = operations.iter().filter(|one| one.key().branch.as_str() != "slow").collect();
        let then = if quick.len() == operations.len() { Then::End } else { Then::Hang };
        Ok(Reply { results: quick.into_iter().map(fake::done_result).collect(), then })
    })
    .await;
    let endpoint = endpoint(&fake, one_by_one);
    let (mut calls, mut slow) = (Calls::new(), Calls::new());
    occupy(&mut calls, &endpoint, &fake).await;
    spawn_confirm(&mut slow, &endpoint, "slow");
    until_queued(&endpoint, 1).await;
    spawn_confirm(&mut calls, &endpoint, "quick");
    until_queued(&endpoint, 2).await;
    fake.open_gate();
    all_done(calls).await;
    assert_eq!((fake.in_batches(), fake.hanging()), (2, 1));
    all_answer(&endpoint, 20).await;
}

#[tokio::test]
async fn a_caller_that_is_busy_elsewhere_holds_nobody_back() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| {
        config.batches_in_flight_max = 1;
        config.batch_patience_ms = 1;
    });
    fake.close_gate();
    let mut blocked = Calls::new();
    spawn_confirm(&mut blocked, &endpoint, "blocked");
    until(|| fake.alone().len() == 1).await;
    // It is polled once, so that it is queued, and not again before everybody else is done.
    let mut busy = endpoint.confirm(confirm("busy"));
    assert!((&mut busy).now_or_never().is_none());
    until(|| endpoint.queued() == 0).await;
    fake.open_gate();
    all_answer(&endpoint, 20).await;
    all_done(blocked).await;
    assert_eq!(busy.await, Ok(SettleAnswer::Done));
}

#[tokio::test]
async fn messages_stay_within_their_limits() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| {
        one_by_one(config);
        config.batch_max = 4;
        config.batch_bytes_max = 2_048;
    });
    let mut calls = Calls::new();
    occupy(&mut calls, &endpoint, &fake).await;
    for branch in 0..11 {
        spawn_confirm(&mut calls, &endpoint, &format!("b{branch}"));
    }
    let mut tries = JoinSet::new();
    for bytes in [500, 500, 500, 3_000, 500] {
        until_queued(&endpoint, 11 + tries.len()).await;
        let (endpoint, call) = (Arc::clone(&endpoint), try_of(key("b"), bytes));
        tries.spawn(async move { endpoint.try_branch(call).await });
    }
    until_queued(&endpoint, 16).await;
    fake.open_gate();
    all_done(calls).await;
    assert!(tries.join_all().await.into_iter().all(|answer| answer.is_ok()));
    let sizes: Vec<_> = fake.batches().iter().map(Vec::len).collect();
    // The two that do not appear had no room beside them: one is as large as no message may be, the other is the last.
    assert_eq!(sizes, [4, 4, 4, 2]);
    assert!(fake.requests().iter().all(|request| request.encoded_len() <= 2_048));
    assert_eq!(fake.alone().len(), 2 + 2);
}

#[tokio::test]
async fn a_batch_has_one_operation_of_a_branch_and_the_next_one_follows() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, one_by_one);
    let mut calls = Calls::new();
    occupy(&mut calls, &endpoint, &fake).await;
    let key = key("twice");
    let mut tries = JoinSet::new();
    let (other, call) = (Arc::clone(&endpoint), try_of(key.clone(), 1));
    tries.spawn(async move { other.try_branch(call).await });
    until_queued(&endpoint, 1).await;
    let (other, call) = (Arc::clone(&endpoint), CancelCall { key: key.clone(), not_after: Timestamp::MAX });
    calls.spawn(async move { other.cancel(call).await });
    until_queued(&endpoint, 2).await;
    spawn_confirm(&mut calls, &endpoint, "other");
    until_queued(&endpoint, 3).await;
    fake.open_gate();
    all_done(calls).await;
    assert_eq!(tries.join_all().await, [Ok(TryAnswer::Reserved(None))]);
    let batches = fake.batches();
    assert_eq!(batches.len(), 1);
    assert!(batches[0].len() == 2 && batches[0].contains(&(key.clone(), Op::Cancel)), "{batches:?}");
    assert_eq!(fake.alone().last(), Some(&(key, Op::Try)));
}

#[tokio::test]
async fn the_next_message_takes_phase_two_before_phase_one() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| {
        one_by_one(config);
        config.batch_max = 2;
    });
    let mut calls = Calls::new();
    occupy(&mut calls, &endpoint, &fake).await;
    let mut tries = JoinSet::new();
    for queued in 1..=4 {
        let (other, call) = (Arc::clone(&endpoint), try_of(key("b"), 1));
        tries.spawn(async move { other.try_branch(call).await });
        until_queued(&endpoint, queued).await;
    }
    for queued in 5..=6 {
        spawn_confirm(&mut calls, &endpoint, "b");
        until_queued(&endpoint, queued).await;
    }
    fake.open_gate();
    all_done(calls).await;
    assert!(tries.join_all().await.into_iter().all(|answer| answer.is_ok()));
    let ops: Vec<Vec<_>> = fake.batches().iter().map(|batch| batch.iter().map(|(_, op)| *op).collect()).collect();
    assert_eq!(ops, [[Op::Confirm; 2], [Op::Try; 2], [Op::Try; 2]]);
}

#[tokio::test]
async fn phase_two_gets_a_place_before_phase_one() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| config.calls_in_flight_max = 1);
    fake.close_gate();
    let mut calls = Calls::new();
    spawn_confirm(&mut calls, &endpoint, "first");
    until(|| fake.alone().len() == 1).await;
    let mut tried = endpoint.try_branch(try_of(key("b"), 1));
    assert!((&mut tried).now_or_never().is_none());
    let mut confirmed = endpoint.confirm(confirm("b"));
    assert!((&mut confirmed).now_or_never().is_none());
    fake.open_gate();
    let (tried, confirmed) = tokio::join!(tried, confirmed);
    assert_eq!((tried, confirmed), (Ok(TryAnswer::Reserved(None)), Ok(SettleAnswer::Done)));
    all_done(calls).await;
    let ops: Vec<_> = fake.alone().into_iter().map(|(_, op)| op).collect();
    assert_eq!(ops, [Op::Confirm, Op::Confirm, Op::Try]);
}

/// To be answered within so many milliseconds from when it leaves.
fn within(millis: u64) -> Terms {
    Terms { answer_within: Duration::from_millis(millis), ..Terms::default() }
}

#[tokio::test]
async fn the_wait_for_a_place_is_no_time_without_an_answer() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| config.calls_in_flight_max = 1);
    fake.close_gate();
    // The first one keeps its place for longer than the second one may go without an answer.
    let first = endpoint.call(Operation::Confirm(confirm("first")), within(100));
    let second = endpoint.call(Operation::Confirm(confirm("second")), within(1));
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first, Err(Unknown("no answer within 100 ms".to_owned())));
    assert_eq!(second, Err(Unknown("no answer within 1 ms".to_owned())));
    assert_eq!(endpoint.stats().unwrap().operations, 2, "each was sent before it was late");
}

#[tokio::test]
async fn what_gets_no_place_in_time_never_leaves() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| config.calls_in_flight_max = 1);
    fake.close_gate();
    let mut first = Calls::new();
    spawn_confirm(&mut first, &endpoint, "first");
    until(|| fake.alone().len() == 1).await;
    let short = Duration::from_millis(1);
    let terms = Terms { turn_within: short, ..Terms::default() };
    assert_eq!(endpoint.call(Operation::Confirm(confirm("second")), terms).await, Err(no_turn(short)));
    fake.open_gate();
    all_done(first).await;
    assert_eq!(endpoint.stats().unwrap().operations, 1);
}

#[tokio::test]
async fn the_wait_for_a_message_is_no_time_without_an_answer() {
    let fake = Fake::serve(|_| Ok(Reply { results: Vec::new(), then: Then::Hang })).await;
    let endpoint = endpoint(&fake, one_by_one);
    fake.close_gate();
    let mut first = Calls::new();
    spawn_confirm(&mut first, &endpoint, "first");
    until(|| fake.alone().len() == 1).await;
    // The second one has the only message; the others wait for it together.
    let second = endpoint.call(Operation::Confirm(confirm("second")), within(100));
    let third = endpoint.call(Operation::Confirm(confirm("third")), within(1));
    let fourth = endpoint.call(Operation::Try(try_of(key("fourth"), 1)), within(1));
    let asked = async { tokio::join!(third, fourth) };
    let (second, (third, fourth)) = tokio::join!(second, async {
        until(|| fake.alone().len() == 2).await;
        asked.await
    });
    assert_eq!(second, Err(Unknown("no answer within 100 ms".to_owned())));
    let late = no_answer(Duration::from_millis(1));
    assert_eq!((third, fourth), (Err(late.clone()), Err(late)));
    assert_eq!(endpoint.stats().unwrap().operations, 4, "each was sent before it was late");
    until(|| fake.hanging() == 0).await;
    fake.open_gate();
    all_done(first).await;
}

/// A Try that is withdrawn by setting this.
fn withdrawable(branch: &str) -> (Operation, Terms, Arc<AtomicBool>) {
    let withdrawn = Arc::new(AtomicBool::new(false));
    let terms = Terms { withdrawn: Some(Arc::clone(&withdrawn)), ..Terms::default() };
    (Operation::Try(try_of(key(branch), 1)), terms, withdrawn)
}

#[tokio::test]
async fn what_was_withdrawn_before_it_got_a_place_never_leaves_and_what_has_left_is_answered() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| config.calls_in_flight_max = 1);
    fake.close_gate();
    let (operation, terms, withdrawn) = withdrawable("b");
    let mut left = JoinSet::new();
    let other = Arc::clone(&endpoint);
    left.spawn(async move { other.call(operation, terms).await });
    until(|| fake.alone().len() == 1).await;
    let (operation, terms, withdrawn_too) = withdrawable("b");
    let mut waiting = endpoint.call(operation, terms);
    assert!((&mut waiting).now_or_never().is_none());
    withdrawn.store(true, Ordering::Relaxed);
    withdrawn_too.store(true, Ordering::Relaxed);
    fake.open_gate();
    assert!(waiting.await.is_err());
    assert_eq!(left.join_all().await, [Ok(Answer::Tried(TryAnswer::Reserved(None)))]);
    assert_eq!(endpoint.stats().unwrap().operations, 1);
}

#[tokio::test]
async fn what_was_withdrawn_before_its_message_left_is_not_in_it() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, one_by_one);
    let mut calls = Calls::new();
    occupy(&mut calls, &endpoint, &fake).await;
    let (operation, terms, withdrawn) = withdrawable("b");
    let mut waiting = endpoint.call(operation, terms);
    assert!((&mut waiting).now_or_never().is_none());
    until_queued(&endpoint, 1).await;
    for queued in 2..=3 {
        spawn_confirm(&mut calls, &endpoint, "stays");
        until_queued(&endpoint, queued).await;
    }
    withdrawn.store(true, Ordering::Relaxed);
    fake.open_gate();
    assert!(waiting.await.is_err());
    all_done(calls).await;
    assert_eq!((fake.in_batches(), endpoint.stats().unwrap().operations), (2, 4));
}

#[tokio::test]
async fn of_a_failed_batch_one_operation_goes_at_a_time_phase_two_first_and_none_that_was_withdrawn() {
    let (gone, terms, withdrawn) = withdrawable("gone");
    withdrawn.store(true, Ordering::Relaxed);
    let operations = [
        (Operation::Try(try_of(key("try"), 1)), Terms::default()),
        (gone, terms),
        (Operation::Confirm(confirm("confirm")), Terms::default()),
        (Operation::Confirm(confirm("late")), Terms::default()),
    ];
    let (mut batch, mut fates) = (merge::Batch::new(), Vec::new());
    for (operation, terms) in operations {
        let (reply, fate) = oneshot::channel();
        let key = operation.key().clone();
        batch.insert(key.clone(), Queued { operation, terms, traceparent: String::new(), reply });
        fates.push((key.branch, fate));
    }
    let mut sending = pin!(send_one_by_one(batch, Duration::from_millis(NEVER_MS)));
    let mut order = Vec::new();
    while (&mut sending).now_or_never().is_none() {
        let told = fates.iter_mut().filter_map(|(branch, fate)| Some((branch.to_string(), fate.try_recv().ok()?)));
        let mut told: Vec<_> = told.collect();
        let (branch, Fate::Alone { turn, .. }) = told.remove(0) else { panic!("nobody knows the answer") };
        assert!(told.is_empty() && turn.is_some(), "{told:?} at the same time as {branch}");
        order.push(branch);
    }
    order[..2].sort();
    assert_eq!(order, ["confirm", "late", "try"]);
}

#[tokio::test]
async fn an_operation_whose_caller_has_left_is_not_sent() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, one_by_one);
    let mut calls = Calls::new();
    occupy(&mut calls, &endpoint, &fake).await;
    spawn_confirm(&mut calls, &endpoint, "stays");
    until_queued(&endpoint, 1).await;
    assert!(endpoint.confirm(confirm("leaves")).now_or_never().is_none());
    until_queued(&endpoint, 2).await;
    fake.open_gate();
    all_done(calls).await;
    assert_eq!(endpoint.stats().unwrap().operations, 3);
    assert_eq!((fake.alone().len(), fake.in_batches()), (3, 0));
}

#[tokio::test]
async fn more_calls_than_places_wait_their_turn() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |config| config.calls_in_flight_max = 3);
    fake.close_gate();
    let mut calls = Calls::new();
    for _ in 0..10 {
        spawn_confirm(&mut calls, &endpoint, "b");
    }
    until(|| fake.alone().len() + fake.in_batches() > 0).await;
    assert!(endpoint.queued() <= 3);
    fake.open_gate();
    all_done(calls).await;
    assert!(fake.batches().iter().all(|batch| batch.len() <= 3));
    assert_eq!(endpoint.stats().unwrap().operations, 10);
}

#[tokio::test]
async fn everything_ends_with_the_endpoint() {
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, |_| ());
    all_answer(&endpoint, 10).await;
    let queue = endpoint.queue();
    drop(endpoint);
    queue.closed().await;
}

#[tokio::test]
async fn each_operation_of_a_batch_has_its_callers_trace() {
    telemetry::init(&Telemetry::default(), "test");
    let fake = Fake::serve(done).await;
    let endpoint = endpoint(&fake, one_by_one);
    let mut calls = Calls::new();
    occupy(&mut calls, &endpoint, &fake).await;
    let traces = ["a".repeat(32), "b".repeat(32)];
    for trace in &traces {
        let span = telemetry::operation_span(&format!("00-{trace}-{}-01", "c".repeat(16)));
        let (endpoint, call) = (Arc::clone(&endpoint), confirm("b"));
        calls.spawn(async move { endpoint.confirm(call).await }.instrument(span));
    }
    spawn_confirm(&mut calls, &endpoint, "untraced");
    until_queued(&endpoint, 3).await;
    fake.open_gate();
    all_done(calls).await;
    let mut sent: Vec<_> = fake.requests()[0].operations.iter().map(|one| one.traceparent.clone()).collect();
    sent.sort();
    assert_eq!((sent.len(), sent[0].as_str()), (3, ""));
    for (sent, trace) in sent[1..].iter().zip(traces) {
        assert!(sent.starts_with(&format!("00-{trace}-")) && sent.ends_with("-01") && sent.len() == 55, "{sent}");
    }
}

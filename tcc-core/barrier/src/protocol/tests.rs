//! The protocol on an in-process store, its statements interleaved in every order that a property test can think of, with
//! batches dropped half-way and rolled back by the store.

mod store;

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};
use tcc_types::{BranchRowStatus, LogName, Op, Payload, Refusal, RefusalReason, Violation, ViolationKind};

use self::store::{BRANCHES, Database, Deadlock, Effects, Kind, NOT_AFTER, Session, key};
use super::*;
use crate::Kept;

/// One operation of a batch.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    branch: usize,
    op: Op,
    /// Which of two payloads a Try carries.
    other_payload: bool,
    /// Whether the business says no if it is asked.
    says_no: bool,
}

impl Delivery {
    fn of(op: Op, branch: usize) -> Self {
        Self { branch, op, other_payload: false, says_no: false }
    }
}

/// What became of a batch.
#[derive(Debug, PartialEq)]
enum Ended {
    /// Its operations' answers.
    Answered(Vec<(usize, Answer)>),
    Raced,
    Deadlocked,
}

/// An operation's call, to be borrowed.
enum Owned {
    Try(TryCall),
    Confirm(ConfirmCall),
    Cancel(CancelCall),
}

impl Owned {
    fn new(delivery: &Delivery) -> Self {
        let key = key(delivery.branch);
        match delivery.op {
            Op::Try => Self::Try(TryCall {
                key,
                payload: Payload {
                    type_url: "t".to_owned(),
                    value: Bytes::from_static(if delivery.other_payload { b"two" } else { b"one" }),
                },
                not_after: NOT_AFTER,
                ask_after: NOT_AFTER,
                coordinator: LogName::new("log").unwrap(),
            }),
            Op::Confirm => Self::Confirm(ConfirmCall { key }),
            Op::Cancel => Self::Cancel(CancelCall { key, not_after: NOT_AFTER }),
        }
    }

    fn call(&self) -> Call<'_> {
        match self {
            Self::Try(call) => Call::Try(call),
            Self::Confirm(call) => Call::Confirm(call),
            Self::Cancel(call) => Call::Cancel(call),
        }
    }
}

/// What the business made of a batch's steps.
#[derive(Default)]
struct Done<'a> {
    effects: Vec<(usize, Effects)>,
    answers: Vec<(usize, Answer)>,
    reserved: Vec<(&'a TryCall, Bytes)>,
    refused: Vec<(&'a BranchKey, Refusal)>,
}

impl<'a> Done<'a> {
    fn of(batch: &[Delivery], calls: &[Call<'a>], steps: Vec<Step>) -> Self {
        assert_eq!(steps.len(), batch.len(), "not one step for each operation");
        let mut done = Self::default();
        for ((delivery, call), step) in batch.iter().zip(calls).zip(steps) {
            let (effects, answer) = match (*call, step) {
                (_, Step::Answer(answer)) => (Effects::default(), answer),
                (Call::Try(call), Step::Reserve) if delivery.says_no => {
                    let refusal = Refusal::business("NO", "no");
                    done.refused.push((&call.key, refusal.clone()));
                    (Effects::default(), Answer::Tried(TryAnswer::Refused(refusal)))
                }
                (Call::Try(call), Step::Reserve) => {
                    done.reserved.push((call, Bytes::from(format!("kept {}", delivery.branch))));
                    let output = Some(call.payload.clone());
                    (Effects { reserved: 1, ..Effects::default() }, Answer::Tried(TryAnswer::Reserved(output)))
                }
                (Call::Confirm(_) | Call::Cancel(_), Step::Apply(reserved)) => {
                    assert_eq!(reserved, format!("kept {}", delivery.branch), "not what Try reserved was handed back");
                    let spent = u32::from(delivery.op == Op::Confirm);
                    (Effects { reserved: 0, spent, released: 1 - spent }, Answer::Settled(SettleAnswer::Done))
                }
                (call, step) => panic!("{call:?} has {step:?} to do"),
            };
            if effects != Effects::default() {
                done.effects.push((delivery.branch, effects));
            }
            done.answers.push((delivery.branch, answer));
        }
        done
    }
}

/// A batch from its first statement to its commit, as a participant runs it.
async fn deliver(session: Session, batch: Vec<Delivery>) -> Ended {
    match run(session, &batch).await {
        Ok(answers) => Ended::Answered(answers),
        Err(Error::Raced) => Ended::Raced,
        Err(Error::Store(Deadlock)) => Ended::Deadlocked,
        Err(Error::Unordered) => panic!("the batch is in order"),
    }
}

async fn run(mut session: Session, batch: &[Delivery]) -> Result<Vec<(usize, Answer)>, Error<Deadlock>> {
    let owned: Vec<Owned> = batch.iter().map(Owned::new).collect();
    let calls: Vec<Call<'_>> = owned.iter().map(Owned::call).collect();
    let steps = match steps(&mut session, &calls).await {
        Ok(steps) => steps,
        Err(error) => {
            session.database.lock().unwrap().roll_back(session.id);
            return Err(error);
        }
    };
    let done = Done::of(batch, &calls, steps);
    let kept: Vec<Kept<'_>> =
        done.reserved.iter().map(|(call, reserved)| Kept { key: &call.key, reserved, output: Some(&call.payload) }).collect();
    if !kept.is_empty() {
        session.keep_reserved(&kept).await?;
    }
    let refused: Vec<_> = done.refused.iter().map(|(key, refusal)| (*key, refusal)).collect();
    if !refused.is_empty() {
        session.keep_refusals(&refused).await?;
    }
    session.commit(&done.effects);
    Ok(done.answers)
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Lets a batch run its next statement.
    Step(prop::sample::Index),
    /// Drops a batch where it stands; its transaction rolls back.
    Drop(prop::sample::Index),
    /// A millisecond passes.
    Tick,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        20 => any::<prop::sample::Index>().prop_map(Act::Step),
        1 => any::<prop::sample::Index>().prop_map(Act::Drop),
        1 => Just(Act::Tick),
    ];
    vec(act, 0..120)
}

/// On up to that many branches: few, so that they meet.
fn batches(branches: usize) -> impl Strategy<Value = Vec<Vec<Delivery>>> {
    let op = prop_oneof![Just(Op::Try), Just(Op::Confirm), Just(Op::Cancel)];
    let delivery = (op, prop::bool::weighted(0.1), prop::bool::weighted(0.2));
    let batch = btree_map(0..branches, delivery, 1..=branches).prop_map(|batch| {
        let deliveries = batch.into_iter();
        deliveries.map(|(branch, (op, other_payload, says_no))| Delivery { branch, op, other_payload, says_no }).collect()
    });
    vec(batch, 1..9)
}

type Running = Pin<Box<dyn Future<Output = Ended>>>;

fn start(database: &Arc<Mutex<Database>>, id: usize, batch: Vec<Delivery>) -> Option<Running> {
    Some(Box::pin(deliver(Session { id, database: database.clone() }, batch)))
}

fn step(running: &mut Option<Running>) -> Option<Ended> {
    let future = running.as_mut()?;
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ended) => {
            *running = None;
            Some(ended)
        }
        Poll::Pending => None,
    }
}

fn check(database: &Database) {
    for branch in 0..BRANCHES {
        let Effects { reserved, spent, released } = database.effects(branch);
        assert!(reserved <= 1 && spent <= 1 && released <= 1, "an effect happened twice: {database:?}");
        assert!(spent + released <= reserved, "confirmed and cancelled, or settled without a reservation: {database:?}");
        let is_tried = database.status(branch) == Some(BranchRowStatus::Tried);
        assert_eq!(reserved - spent - released, u32::from(is_tried), "frozen is not what the row says: {database:?}");
    }
}

fn check_answer(branch: usize, answer: &Answer, database: &Database) {
    match answer {
        Answer::Tried(TryAnswer::Reserved(_)) => {
            assert_eq!(database.effects(branch).reserved, 1, "yes without a reservation");
        }
        Answer::Tried(TryAnswer::Refused(refusal)) => match refusal.reason {
            RefusalReason::Business => assert_eq!(database.status(branch), Some(BranchRowStatus::Refused)),
            RefusalReason::Suspended => assert_eq!(database.status(branch), Some(BranchRowStatus::Cancelled)),
            // A Try that came in time may commit after a late one has looked: this one's Cancel will find it.
            RefusalReason::Late => assert!(database.now > NOT_AFTER, "late before its time"),
        },
        Answer::Settled(SettleAnswer::Done) => {
            assert_ne!(database.status(branch), Some(BranchRowStatus::Tried), "done, and yet reserved");
        }
        Answer::Tried(TryAnswer::Violation(_)) | Answer::Settled(SettleAnswer::Violation(_)) => {}
    }
}

fn check_ended(ended: &Ended, database: &Database) {
    match ended {
        Ended::Answered(answers) => {
            answers.iter().for_each(|(branch, answer)| check_answer(*branch, answer, database));
        }
        Ended::Raced => panic!("gave up although rows only come and never go"),
        Ended::Deadlocked => {}
    }
}

/// Runs the batches through the acts, and then to their ends.
fn interleave(kind: Kind, batches: &[Vec<Delivery>], acts: Vec<Act>) {
    let database = Database::new(kind);
    let mut running: Vec<_> = batches.iter().enumerate().map(|(id, batch)| start(&database, id, batch.clone())).collect();
    let after = |ended: Option<Ended>| {
        let database = database.lock().unwrap();
        check(&database);
        if let Some(ended) = ended {
            check_ended(&ended, &database);
        }
    };
    for act in acts {
        match act {
            Act::Step(which) => {
                let which = which.index(running.len());
                after(step(&mut running[which]));
            }
            Act::Drop(which) => {
                let which = which.index(running.len());
                running[which] = None;
                database.lock().unwrap().roll_back(which);
            }
            Act::Tick => database.lock().unwrap().tick(),
        }
    }
    for _ in 0..400 {
        for one in &mut running {
            after(step(one));
        }
    }
    assert!(running.iter().all(Option::is_none), "an operation never ended");
    let database = database.lock().unwrap();
    assert!(!database.is_locked(), "an operation ended without its commit");
    let alone = batches.iter().all(|batch| batch.len() == 1);
    assert!(!alone || database.deadlocks == 0, "operations of their own waited for each other");
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Snapshots), Just(Kind::Locks)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn effects_happen_once_and_confirm_and_cancel_exclude_each_other(kind in kinds(), batches in batches(1), acts in acts()) {
        interleave(kind, &batches, acts);
    }

    #[test]
    fn in_batches_effects_happen_once_and_confirm_and_cancel_exclude_each_other(
        kind in kinds(),
        batches in batches(BRANCHES),
        acts in acts(),
    ) {
        interleave(kind, &batches, acts);
    }
}

fn run_alone(database: &Arc<Mutex<Database>>, batch: Vec<Delivery>) -> Ended {
    let mut running = start(database, 0, batch);
    (0..100).find_map(|_| step(&mut running)).expect("the batch never ended")
}

/// Brings branches where a case needs them.
fn prepared(kind: Kind, ops: &[(Op, usize)]) -> Arc<Mutex<Database>> {
    let database = Database::new(kind);
    for (op, branch) in ops {
        assert!(matches!(run_alone(&database, vec![Delivery::of(*op, *branch)]), Ended::Answered(_)));
    }
    database
}

const BOTH: [Kind; 2] = [Kind::Snapshots, Kind::Locks];
const DONE: Answer = Answer::Settled(SettleAnswer::Done);

#[test]
fn a_try_whose_obstacle_vanished_writes_again() {
    let database = prepared(Kind::Snapshots, &[]);
    database.lock().unwrap().ghosts = ROUNDS_MAX - 1;
    let Ended::Answered(answers) = run_alone(&database, vec![Delivery::of(Op::Try, 0)]) else { panic!("it is answered") };
    assert!(matches!(answers[..], [(0, Answer::Tried(TryAnswer::Reserved(_)))]), "{answers:?}");
    assert_eq!(database.lock().unwrap().effects(0).reserved, 1);
}

#[test]
fn a_try_that_is_raced_in_every_round_is_unknown_and_writes_nothing() {
    let database = prepared(Kind::Snapshots, &[]);
    database.lock().unwrap().ghosts = ROUNDS_MAX;
    assert_eq!(run_alone(&database, vec![Delivery::of(Op::Try, 0)]), Ended::Raced);
    assert_eq!(database.lock().unwrap().status(0), None);
}

#[test]
fn only_what_has_no_step_yet_is_written_again() {
    let database = prepared(Kind::Snapshots, &[(Op::Try, 2)]);
    // The first Try of the batch is in the way of nobody but a ghost.
    database.lock().unwrap().ghosts = 1;
    let batch = [Op::Try, Op::Try, Op::Confirm].into_iter().enumerate().map(|(branch, op)| Delivery::of(op, branch));
    let Ended::Answered(answers) = run_alone(&database, batch.collect()) else { panic!("it is answered") };
    assert_eq!(answers.len(), 3);
    let database = database.lock().unwrap();
    let effects = [0, 1, 2].map(|branch| database.effects(branch));
    let reserved = Effects { reserved: 1, ..Effects::default() };
    assert_eq!(effects, [reserved, reserved, Effects { spent: 1, ..reserved }]);
}

#[test]
fn a_cancel_beside_an_uncommitted_try_waits_for_it_and_then_releases() {
    for kind in BOTH {
        let database = Database::new(kind);
        let mut try_op = start(&database, 0, vec![Delivery::of(Op::Try, 0)]);
        let mut cancel_op = start(&database, 1, vec![Delivery::of(Op::Cancel, 0)]);
        while !database.lock().unwrap().is_written(0) {
            assert_eq!(step(&mut try_op), None);
        }
        for _ in 0..20 {
            assert_eq!(step(&mut cancel_op), None, "Cancel passed an uncommitted Try");
        }
        while step(&mut try_op).is_none() {}
        let ended = (0..20).find_map(|_| step(&mut cancel_op));
        assert_eq!(ended, Some(Ended::Answered(vec![(0, DONE)])));
        assert_eq!(database.lock().unwrap().effects(0), Effects { reserved: 1, spent: 0, released: 1 });
    }
}

#[test]
fn each_operation_of_a_batch_is_answered_for_its_own_branch() {
    for kind in BOTH {
        // Branch 0 is tried, branch 1 confirmed, branch 2 cancelled without a Try, branch 3 absent.
        let database = prepared(kind, &[(Op::Try, 0), (Op::Try, 1), (Op::Confirm, 1), (Op::Cancel, 2)]);
        let batch = vec![
            Delivery { other_payload: true, ..Delivery::of(Op::Try, 0) },
            Delivery::of(Op::Cancel, 1),
            Delivery::of(Op::Try, 2),
            Delivery::of(Op::Confirm, 3),
        ];
        let violation = |kind, row_status| Violation { kind, row_status };
        let other_payload = violation(ViolationKind::DifferentPayload, Some(BranchRowStatus::Tried));
        let other_outcome = violation(ViolationKind::OtherOutcome, Some(BranchRowStatus::Confirmed));
        let expected = vec![
            (0, Answer::Tried(TryAnswer::Violation(other_payload))),
            (1, Answer::Settled(SettleAnswer::Violation(other_outcome))),
            (2, Answer::Tried(TryAnswer::Refused(Refusal::suspended()))),
            (3, Answer::Settled(SettleAnswer::Violation(violation(ViolationKind::NoReservation, None)))),
        ];
        assert_eq!(run_alone(&database, batch), Ended::Answered(expected), "{kind:?}");
        assert_eq!(database.lock().unwrap().status(3), None);
        // The other way round, everything has its effect.
        let batch = vec![Delivery::of(Op::Confirm, 0), Delivery::of(Op::Confirm, 1), Delivery::of(Op::Cancel, 3)];
        assert_eq!(run_alone(&database, batch), Ended::Answered(vec![(0, DONE), (1, DONE), (3, DONE)]), "{kind:?}");
        let database = database.lock().unwrap();
        assert_eq!(database.effects(0), Effects { reserved: 1, spent: 1, released: 0 });
        assert_eq!(database.status(3), Some(BranchRowStatus::Cancelled));
    }
}

#[test]
fn batches_that_wait_for_each_other_crosswise_end_and_one_of_them_has_no_effect() {
    for kind in BOTH {
        let database = prepared(kind, &[(Op::Try, 1)]);
        // One inserts branch 0 first, and then settles branch 1; the other the other way round.
        let mut first = start(&database, 0, vec![Delivery::of(Op::Try, 0), Delivery::of(Op::Confirm, 1)]);
        let mut second = start(&database, 1, vec![Delivery::of(Op::Confirm, 1), Delivery::of(Op::Try, 2)]);
        while !database.lock().unwrap().is_written(0) {
            assert_eq!(step(&mut first), None);
        }
        while !database.lock().unwrap().is_written(1) {
            assert_eq!(step(&mut second), None);
        }
        let mut third = start(&database, 2, vec![Delivery::of(Op::Cancel, 0), Delivery::of(Op::Cancel, 1)]);
        let mut ended = Vec::new();
        for _ in 0..100 {
            ended.extend([&mut first, &mut second, &mut third].into_iter().filter_map(step));
        }
        assert_eq!(ended.len(), 3, "{kind:?}: a batch never ended");
        check(&database.lock().unwrap());
        assert!(!database.lock().unwrap().is_locked());
    }
}

#[test]
fn a_deadlock_rolls_one_batch_back_and_the_other_is_answered() {
    let database = prepared(Kind::Snapshots, &[(Op::Try, 1)]);
    let mut first = start(&database, 0, vec![Delivery::of(Op::Try, 0), Delivery::of(Op::Confirm, 1)]);
    let mut second = start(&database, 1, vec![Delivery::of(Op::Cancel, 0), Delivery::of(Op::Confirm, 1)]);
    while !database.lock().unwrap().is_written(0) {
        assert_eq!(step(&mut first), None);
    }
    // Its update does not see branch 0, takes branch 1, and its insert then waits for branch 0.
    while !database.lock().unwrap().is_written(1) {
        assert_eq!(step(&mut second), None);
    }
    assert_eq!(step(&mut second), None);
    let ended = (0..20).find_map(|_| step(&mut first));
    assert_eq!((ended, database.lock().unwrap().deadlocks), (Some(Ended::Deadlocked), 1));
    let ended = (0..20).find_map(|_| step(&mut second));
    assert_eq!(ended, Some(Ended::Answered(vec![(0, DONE), (1, DONE)])));
    let database = database.lock().unwrap();
    assert_eq!(database.status(0), Some(BranchRowStatus::Cancelled), "nothing of the other is left");
    assert_eq!(database.effects(1), Effects { reserved: 1, spent: 1, released: 0 });
}

#[test]
fn a_batch_out_of_order_or_with_a_branch_twice_writes_nothing() {
    for branches in [[1, 0], [1, 1]] {
        let database = prepared(Kind::Snapshots, &[]);
        let owned = branches.map(|branch| Owned::new(&Delivery::of(Op::Try, branch)));
        let calls = [owned[0].call(), owned[1].call()];
        let mut session = Session { id: 0, database: database.clone() };
        let mut running = std::pin::pin!(steps(&mut session, &calls));
        let polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(Error::Unordered))), "{polled:?}");
        assert!(!database.lock().unwrap().is_locked());
    }
}

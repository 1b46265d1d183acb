//! The protocol on an in-process store with READ COMMITTED and row locks, its statements interleaved in every order that a
//! property test can think of, with operations dropped half-way.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use proptest::{collection::vec, prelude::*};
use tcc_types::{BranchId, BranchKey, BranchRowStatus, Gid, LogName, Op, Payload, Refusal, SystemEntropy, Timestamp};

use super::*;
use crate::{Look, Row};

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const NOT_AFTER: Timestamp = Timestamp::from_millis(1_790_000_000_003);

#[derive(Clone, Debug)]
struct Stored {
    row: Row,
    reserved: Bytes,
}

/// How often each business effect has been committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Effects {
    reserved: u32,
    spent: u32,
    released: u32,
}

/// One branch's row, and the uncommitted write of whoever holds its lock.
#[derive(Debug)]
struct Database {
    now: Timestamp,
    committed: Option<Stored>,
    pending: Option<(usize, Stored)>,
    effects: Effects,
    /// Rounds in which a row vanishes between a write and the look after it.
    ghosts: u32,
}

#[derive(Clone)]
struct Session {
    id: usize,
    database: Arc<Mutex<Database>>,
}

impl Session {
    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap()
    }

    /// Waits for a turn, and then as long as another session's uncommitted write holds the row.
    async fn locked(&self) -> MutexGuard<'_, Database> {
        loop {
            Turn(false).await;
            let database = self.database();
            if database.pending.as_ref().is_none_or(|(owner, _)| *owner == self.id) {
                return database;
            }
        }
    }

    /// The row as this session may see it.
    fn visible(&self, database: &Database) -> Option<Stored> {
        match &database.pending {
            Some((owner, stored)) if *owner == self.id => Some(stored.clone()),
            Some(_) | None => database.committed.clone(),
        }
    }

    fn settle(&self, database: &mut Database, to: impl FnOnce(&Row) -> Option<Row>) -> Option<Bytes> {
        let stored = self.visible(database)?;
        let row = to(&stored.row)?;
        database.pending = Some((self.id, Stored { row, reserved: stored.reserved.clone() }));
        Some(stored.reserved)
    }

    fn commit(&self, effects: Effects) {
        let mut database = self.database();
        if let Some((owner, stored)) = database.pending.take() {
            assert_eq!(owner, self.id, "two sessions held one row");
            let before = database.committed.as_ref().map(|stored| stored.row.status());
            assert_legal(before, stored.row.status());
            database.committed = Some(stored);
            database.effects.reserved += effects.reserved;
            database.effects.spent += effects.spent;
            database.effects.released += effects.released;
        } else {
            assert_eq!(effects, Effects::default(), "a business effect without its row");
        }
    }
}

fn assert_legal(before: Option<BranchRowStatus>, after: BranchRowStatus) {
    use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
    let legal = match before {
        None => matches!(after, Tried | Refused | Cancelled),
        Some(Tried) => matches!(after, Confirmed | Cancelled),
        Some(Refused | Confirmed | Cancelled) => false,
    };
    assert!(legal, "{before:?} became {after:?}");
}

/// Lets the schedule choose who goes on.
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl BarrierStore for Session {
    type Error = std::convert::Infallible;

    async fn insert_tried(&mut self, call: &TryCall) -> Result<bool, Self::Error> {
        let mut database = self.locked().await;
        if database.ghosts > 0 {
            database.ghosts -= 1;
            return Ok(false);
        }
        let inserts = database.committed.is_none() && database.pending.is_none() && database.now <= call.not_after;
        if inserts {
            let row = Row::Tried { request: call.into(), output: None };
            database.pending = Some((self.id, Stored { row, reserved: Bytes::new() }));
        }
        Ok(inserts)
    }

    async fn confirm_tried(&mut self, _: &BranchKey) -> Result<Option<Bytes>, Self::Error> {
        let mut database = self.locked().await;
        Ok(self.settle(&mut database, |row| match row {
            Row::Tried { request, output } => Some(Row::Confirmed { request: request.clone(), output: output.clone() }),
            Row::Refused { .. } | Row::Confirmed { .. } | Row::Cancelled { .. } => None,
        }))
    }

    async fn cancel_tried(&mut self, _: &BranchKey) -> Result<Option<Bytes>, Self::Error> {
        // An update does not see, and so does not wait for, a row whose insert is not committed yet.
        Turn(false).await;
        if self.database().committed.is_none() {
            return Ok(None);
        }
        let mut database = self.locked().await;
        Ok(self.settle(&mut database, |row| match row {
            Row::Tried { request, .. } => Some(Row::Cancelled { request: Some(request.clone()) }),
            Row::Refused { .. } | Row::Confirmed { .. } | Row::Cancelled { .. } => None,
        }))
    }

    async fn insert_cancelled(&mut self, _: &CancelCall) -> Result<bool, Self::Error> {
        let mut database = self.locked().await;
        let inserts = database.committed.is_none() && database.pending.is_none();
        if inserts {
            let row = Row::Cancelled { request: None };
            database.pending = Some((self.id, Stored { row, reserved: Bytes::new() }));
        }
        Ok(inserts)
    }

    async fn look(&mut self, _: &BranchKey) -> Result<Look, Self::Error> {
        Turn(false).await;
        let database = self.database();
        Ok(Look { row: self.visible(&database).map(|stored| stored.row), now: database.now })
    }

    async fn keep_reserved(&mut self, _: &BranchKey, kept: &Bytes, answer: Option<&Payload>) -> Result<(), Self::Error> {
        let mut database = self.locked().await;
        let Some((_, Stored { row: Row::Tried { output, .. }, reserved })) = database.pending.as_mut() else {
            panic!("no row was inserted here");
        };
        *output = answer.cloned();
        *reserved = kept.clone();
        Ok(())
    }

    async fn keep_refusal(&mut self, _: &BranchKey, refusal: &Refusal) -> Result<(), Self::Error> {
        let mut database = self.locked().await;
        let Some((_, Stored { row, .. })) = database.pending.as_mut() else {
            panic!("no row was inserted here");
        };
        let request = row.request().unwrap().clone();
        *row = Row::Refused { request, refusal: refusal.clone() };
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Delivery {
    op: Op,
    /// Which of two payloads a Try carries.
    other_payload: bool,
    /// Whether the business says no if it is asked.
    says_no: bool,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Try(TryAnswer),
    Settle(SettleAnswer),
    Raced,
}

fn try_call(other_payload: bool) -> TryCall {
    let value = Bytes::from_static(if other_payload { b"two" } else { b"one" });
    TryCall {
        key: key(),
        payload: Payload { type_url: "t".to_owned(), value },
        not_after: NOT_AFTER,
        ask_after: NOT_AFTER,
        coordinator: LogName::new("log").unwrap(),
    }
}

fn key() -> BranchKey {
    BranchKey { gid: Gid::mint(START, &SystemEntropy), branch: BranchId::new("b").unwrap() }
}

/// One operation from its first statement to its commit, as a participant runs it.
async fn deliver(mut session: Session, delivery: Delivery) -> Answer {
    match delivery.op {
        Op::Try => {
            let call = try_call(delivery.other_payload);
            match try_branch(&mut session, &call).await {
                Ok(TryStep::Answer(answer)) => Answer::Try(answer),
                Ok(TryStep::Reserve) if delivery.says_no => {
                    let refusal = Refusal::business("NO", "no");
                    session.keep_refusal(&call.key, &refusal).await.unwrap();
                    session.commit(Effects::default());
                    Answer::Try(TryAnswer::Refused(refusal))
                }
                Ok(TryStep::Reserve) => {
                    let output = Some(call.payload.clone());
                    session.keep_reserved(&call.key, &Bytes::from_static(b"kept"), output.as_ref()).await.unwrap();
                    session.commit(Effects { reserved: 1, ..Effects::default() });
                    Answer::Try(TryAnswer::Reserved(output))
                }
                Err(Error::Raced) => Answer::Raced,
                Err(Error::Store(never)) => match never {},
            }
        }
        Op::Confirm => {
            let step = confirm(&mut session, &ConfirmCall { key: key() }).await;
            settle(&session, step, Effects { spent: 1, ..Effects::default() })
        }
        Op::Cancel => {
            let step = cancel(&mut session, &CancelCall { key: key(), not_after: NOT_AFTER }).await;
            settle(&session, step, Effects { released: 1, ..Effects::default() })
        }
    }
}

fn settle(session: &Session, step: Result<SettleStep, Error<std::convert::Infallible>>, effects: Effects) -> Answer {
    match step {
        Ok(SettleStep::Answer(answer)) => {
            if session.database().pending.as_ref().is_some_and(|(owner, _)| *owner == session.id) {
                session.commit(Effects::default());
            }
            Answer::Settle(answer)
        }
        Ok(SettleStep::Apply(reserved)) => {
            assert_eq!(reserved, Bytes::from_static(b"kept"), "what Try reserved was not handed back");
            session.commit(effects);
            Answer::Settle(SettleAnswer::Done)
        }
        Err(Error::Raced) => Answer::Raced,
        Err(Error::Store(never)) => match never {},
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Lets an operation run its next statement.
    Step(prop::sample::Index),
    /// Drops an operation where it stands; its transaction rolls back.
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

fn deliveries() -> impl Strategy<Value = Vec<Delivery>> {
    let op = prop_oneof![Just(Op::Try), Just(Op::Confirm), Just(Op::Cancel)];
    let delivery = (op, prop::bool::weighted(0.1), prop::bool::weighted(0.2))
        .prop_map(|(op, other_payload, says_no)| Delivery { op, other_payload, says_no });
    vec(delivery, 1..9)
}

fn new_database() -> Arc<Mutex<Database>> {
    Arc::new(Mutex::new(Database { now: START, committed: None, pending: None, effects: Effects::default(), ghosts: 0 }))
}

type Running = Pin<Box<dyn Future<Output = Answer>>>;

fn step(running: &mut Option<Running>) -> Option<Answer> {
    let future = running.as_mut()?;
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => {
            *running = None;
            Some(answer)
        }
        Poll::Pending => None,
    }
}

fn check(database: &Database) {
    let Effects { reserved, spent, released } = database.effects;
    assert!(reserved <= 1 && spent <= 1 && released <= 1, "an effect happened twice: {database:?}");
    assert!(spent + released <= reserved, "confirmed and cancelled, or settled without a reservation: {database:?}");
    let is_tried = matches!(database.committed, Some(Stored { row: Row::Tried { .. }, .. }));
    assert_eq!(reserved - spent - released, u32::from(is_tried), "frozen is not what the row says: {database:?}");
}

fn check_answer(answer: &Answer, database: &Database) {
    let status = database.committed.as_ref().map(|stored| stored.row.status());
    match answer {
        Answer::Try(TryAnswer::Reserved(_)) => assert_eq!(database.effects.reserved, 1, "yes without a reservation"),
        Answer::Try(TryAnswer::Refused(_)) => assert_ne!(status, Some(BranchRowStatus::Tried), "no, and yet reserved"),
        Answer::Try(TryAnswer::Violation(_))
        | Answer::Settle(SettleAnswer::Violation(_))
        | Answer::Settle(SettleAnswer::Done) => {}
        Answer::Raced => panic!("gave up although rows only come and never go"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn effects_happen_once_and_confirm_and_cancel_exclude_each_other(deliveries in deliveries(), acts in acts()) {
        let database = new_database();
        let mut running: Vec<Option<Running>> = deliveries
            .iter()
            .enumerate()
            .map(|(id, delivery)| Some(Box::pin(deliver(Session { id, database: database.clone() }, *delivery)) as Running))
            .collect();
        let after = |answer: Option<Answer>| {
            let database = database.lock().unwrap();
            check(&database);
            if let Some(answer) = answer {
                check_answer(&answer, &database);
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
                    let mut database = database.lock().unwrap();
                    database.pending.take_if(|(owner, _)| *owner == which);
                }
                Act::Tick => {
                    let mut database = database.lock().unwrap();
                    database.now = Timestamp::from_millis(database.now.as_millis() + 1);
                }
            }
        }
        for _ in 0..200 {
            for one in &mut running {
                after(step(one));
            }
        }
        prop_assert!(running.iter().all(Option::is_none), "an operation never ended");
        prop_assert!(database.lock().unwrap().pending.is_none(), "an operation ended without its commit");
    }
}

fn run_alone(database: &Arc<Mutex<Database>>, op: Op) -> Answer {
    let delivery = Delivery { op, other_payload: false, says_no: false };
    let mut running: Option<Running> = Some(Box::pin(deliver(Session { id: 0, database: database.clone() }, delivery)));
    (0..100).find_map(|_| step(&mut running)).expect("the operation never ended")
}

#[test]
fn a_try_whose_obstacle_vanished_writes_again() {
    let database = new_database();
    database.lock().unwrap().ghosts = ROUNDS_MAX - 1;
    assert!(matches!(run_alone(&database, Op::Try), Answer::Try(TryAnswer::Reserved(_))));
    assert_eq!(database.lock().unwrap().effects.reserved, 1);
}

#[test]
fn a_try_that_is_raced_in_every_round_is_unknown_and_writes_nothing() {
    let database = new_database();
    database.lock().unwrap().ghosts = ROUNDS_MAX;
    assert_eq!(run_alone(&database, Op::Try), Answer::Raced);
    assert!(database.lock().unwrap().committed.is_none());
}

#[test]
fn a_cancel_beside_an_uncommitted_try_waits_for_it_and_then_releases() {
    let database = new_database();
    let start = |id, op| -> Option<Running> {
        let delivery = Delivery { op, other_payload: false, says_no: false };
        Some(Box::pin(deliver(Session { id, database: database.clone() }, delivery)))
    };
    let (mut try_op, mut cancel_op) = (start(0, Op::Try), start(1, Op::Cancel));
    while database.lock().unwrap().pending.is_none() {
        assert_eq!(step(&mut try_op), None);
    }
    for _ in 0..20 {
        assert_eq!(step(&mut cancel_op), None, "Cancel passed an uncommitted Try");
    }
    while step(&mut try_op).is_none() {}
    let answer = (0..20).find_map(|_| step(&mut cancel_op));
    assert_eq!(answer, Some(Answer::Settle(SettleAnswer::Done)));
    assert_eq!(database.lock().unwrap().effects, Effects { reserved: 1, spent: 0, released: 1 });
}

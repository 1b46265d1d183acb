//! The barrier statement by statement: operations on one branch in local transactions of their own, as several instances of a participant run
//! them on one database at READ COMMITTED. The protocol is the one that ships ([`tcc_barrier::steps`]): it is run anew for every step, with the
//! answers that its statements have had so far, up to the statement that comes next.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use stateright::{Model, Property, Representative};
use tcc_barrier::{Answer, Call, Deletion, Row, Step, judge_deletion, steps};
use tcc_types::{
    BranchId, BranchKey, BranchRowStatus, CancelCall, ConfirmCall, Decision, Gid, LogName, Op, Payload, Refusal, SettleAnswer,
    Timestamp, TryAnswer, TryCall,
};

use crate::{
    mark::Mark,
    participant::{Effects, Stored},
    replay::{Replay, Result, Statement},
    state::Marks,
};

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reserve.
    Try,
    /// Reserve, under the same branch and with another request.
    TryAnother,
    /// Spend.
    Confirm,
    /// Release.
    Cancel,
    /// A walk of retention: looks at the row, and deletes it if it may go and is as it was.
    Delete,
}

/// What a statement that changes a row sees of others' commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sees {
    /// What was committed when it began; a row that it found so is looked at again once it is free (PostgreSQL).
    Beginning,
    /// What is committed when the row is free (MySQL, MariaDB).
    Latest,
}

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct Statements {
    /// What is under way at the same time.
    pub operations: Vec<Operation>,
    /// What changing statements see.
    pub sees: Sees,
    /// How many of them are rolled back before they commit.
    pub rollbacks: u8,
    /// Units of the resource.
    pub units: u8,
    /// Whether time passes: past `not_after` and the retention, twice.
    pub time_passes: bool,
}

const BEGUN_AT: Timestamp = Timestamp::from_millis(1_000);
const NOT_AFTER: Timestamp = Timestamp::from_millis(2_000);
const OLD: Timestamp = Timestamp::from_millis(30_000);
const OLDER: Timestamp = Timestamp::from_millis(60_000);
const RETENTION: std::time::Duration = std::time::Duration::from_secs(20);

/// The model.
pub(crate) struct Rows {
    bounds: Statements,
    calls: Calls,
    seen: AtomicU64,
}

struct Calls {
    try_call: TryCall,
    another: TryCall,
    confirm: ConfirmCall,
    cancel: CancelCall,
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    /// What its statements answered.
    results: Vec<Result>,
    /// Its statement that has begun: what was committed then, and the clock.
    began: Option<(Option<Stored>, Timestamp)>,
    ended: bool,
}

/// One moment of the database and of those who work on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Moment {
    now: Timestamp,
    committed: Option<Stored>,
    /// Who has written the row and has not committed yet, and what it wrote.
    written: Option<(usize, Stored)>,
    runs: Vec<Run>,
    effects: Effects,
    available: u8,
    rolled_back: u8,
    told_yes: bool,
    told_confirmed: bool,
    told_cancelled: bool,
    marks: Marks,
}

/// What one of them does next, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Its next statement begins.
    Begin(usize),
    /// Its statement ends.
    End(usize),
    /// The business is done, the transaction committed, the operation answered.
    Commit(usize),
    /// It is rolled back, and nothing is answered.
    RollBack(usize),
    /// Time passes.
    Tick,
}

/// What comes next for an operation.
enum Next {
    Statement(Statement),
    Step(Step),
    GivesUp,
}

impl Rows {
    pub(crate) fn new(bounds: Statements) -> Self {
        let key = BranchKey { gid: Gid::first_of(BEGUN_AT), branch: BranchId::new("b").expect("a branch's id") };
        let payload = |value: &'static [u8]| Payload { type_url: "model/Unit".to_owned(), value: value.into() };
        let coordinator = LogName::new("model").expect("a log's name");
        let try_call =
            TryCall { key: key.clone(), payload: payload(b"1"), coordinator, not_after: NOT_AFTER, ask_after: NOT_AFTER };
        let calls = Calls {
            another: TryCall { payload: payload(b"2"), ..try_call.clone() },
            try_call,
            confirm: ConfirmCall { key: key.clone() },
            cancel: CancelCall { key, not_after: NOT_AFTER },
        };
        Self { bounds, calls, seen: AtomicU64::new(0) }
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn call(&self, operation: Operation) -> Option<Call<'_>> {
        match operation {
            Operation::Try => Some(Call::Try(&self.calls.try_call)),
            Operation::TryAnother => Some(Call::Try(&self.calls.another)),
            Operation::Confirm => Some(Call::Confirm(&self.calls.confirm)),
            Operation::Cancel => Some(Call::Cancel(&self.calls.cancel)),
            Operation::Delete => None,
        }
    }

    /// Runs the protocol up to the first statement that has no answer yet.
    fn next(&self, moment: &Moment, run: usize) -> Next {
        let results = &moment.runs[run].results;
        let Some(call) = self.call(self.bounds.operations[run]) else {
            return if results.is_empty() { Next::Statement(Statement::Delete) } else { Next::GivesUp };
        };
        let mut replay = Replay::new(results);
        match steps(&mut replay, &[call]).now_or_never() {
            None => Next::Statement(replay.asked().expect("it waits for nothing but a statement")),
            Some(Ok(mut steps)) => steps.pop().map_or(Next::GivesUp, Next::Step),
            Some(Err(_)) => Next::GivesUp,
        }
    }

    /// Whether a statement that has begun has to wait for another's commit.
    fn waits(&self, moment: &Moment, run: usize, statement: Statement) -> bool {
        let others = moment.written.as_ref().is_some_and(|(by, _)| *by != run);
        let began_with = moment.runs[run].began.as_ref().and_then(|(row, _)| row.as_ref());
        let found = began_with.is_some_and(|stored| match statement {
            Statement::Settle(_) => stored.row.status() == BranchRowStatus::Tried,
            Statement::Delete => true,
            Statement::InsertTried | Statement::InsertCancelled | Statement::Look => false,
        });
        others
            && match statement {
                Statement::InsertTried | Statement::InsertCancelled => true,
                Statement::Settle(_) | Statement::Delete => found || self.bounds.sees == Sees::Latest,
                Statement::Look => false,
            }
    }

    /// A statement's effect, all at once.
    fn end(&self, moment: &mut Moment, run: usize, statement: Statement) {
        let Some((began_with, clock)) = moment.runs[run].began.take() else { return };
        let own = moment.written.as_ref().filter(|(by, _)| *by == run).map(|(_, stored)| stored.clone());
        let there = own.or_else(|| moment.committed.clone());
        let not_after = self.calls.try_call.not_after;
        let now = moment.now;
        let stored = |row| Stored { row, not_after, ask_after: not_after, changed_at: now };
        let result = match statement {
            Statement::InsertTried => {
                // By the clock at the statement's beginning: it may have waited since.
                let inserts = there.is_none() && clock <= not_after;
                if inserts && let Some(Call::Try(call)) = self.call(self.bounds.operations[run]) {
                    let row = Row::Tried { request: tcc_barrier::Request::from(call), output: None };
                    moment.written = Some((run, stored(row)));
                }
                Result::Inserted(inserts)
            }
            Statement::InsertCancelled => {
                let inserts = there.is_none();
                if inserts {
                    moment.written = Some((run, stored(Row::Cancelled { request: None })));
                }
                Result::Inserted(inserts)
            }
            Statement::Settle(decision) => {
                let saw = match self.bounds.sees {
                    Sees::Beginning => began_with.is_some_and(|stored| stored.row.status() == BranchRowStatus::Tried),
                    Sees::Latest => true,
                };
                let settled = there.filter(|_| saw).and_then(|stored| settled(stored.row, decision));
                let changes = settled.is_some();
                if let Some(row) = settled {
                    moment.written = Some((run, stored(row)));
                }
                Result::Settled(changes)
            }
            Statement::Look => Result::Looked(there.map(|stored| stored.row), clock),
            Statement::Delete => {
                let before = clock.minus(RETENTION);
                let may_go = began_with.as_ref().is_some_and(|stored| {
                    let verdict = judge_deletion(stored.row.status(), stored.not_after, stored.changed_at, before);
                    verdict == Deletion::Delete
                });
                let is_same =
                    |now: &Stored, then: &Stored| now.row.status() == then.row.status() && now.changed_at == then.changed_at;
                if may_go && moment.committed.as_ref().zip(began_with.as_ref()).is_some_and(|(now, then)| is_same(now, then)) {
                    moment.committed = None;
                    moment.mark(Mark::RowDeleted);
                }
                moment.runs[run].ended = true;
                Result::Inserted(false)
            }
        };
        moment.runs[run].results.push(result);
        if statement == Statement::Look && matches!(self.next(moment, run), Next::Statement(_)) {
            moment.mark(Mark::WroteAgain);
        }
    }

    /// The business of an operation, and its commit.
    fn commit(&self, moment: &mut Moment, run: usize, step: Step) {
        let op = self.call(self.bounds.operations[run]).map(Call::op);
        let mut answer = match step {
            Step::Answer(answer) => answer,
            Step::Reserve => Answer::Tried(TryAnswer::Reserved(None)),
            Step::Apply(_) => Answer::Settled(SettleAnswer::Done),
        };
        if let Some((_, mut stored)) = moment.written.take_if(|(by, _)| *by == run) {
            match (op, stored.row.clone()) {
                (Some(Op::Try), Row::Tried { request, .. }) if moment.available == 0 => {
                    let refusal = Refusal::business("OUT_OF_STOCK", "");
                    stored.row = Row::Refused { request, refusal: refusal.clone() };
                    answer = Answer::Tried(TryAnswer::Refused(refusal));
                }
                (Some(Op::Try), _) => {
                    moment.effects.reserved += 1;
                    moment.available = moment.available.saturating_sub(1);
                }
                (Some(Op::Confirm), _) => moment.effects.spent += 1,
                (Some(Op::Cancel), Row::Cancelled { request: Some(_) }) => moment.effects.released += 1,
                (Some(Op::Cancel), _) => moment.mark(Mark::EmptyRollback),
                (None, _) => {}
            }
            moment.committed = Some(stored);
        }
        moment.runs[run].ended = true;
        match (op, answer) {
            (_, Answer::Tried(TryAnswer::Reserved(_))) => moment.told_yes = true,
            (_, Answer::Tried(TryAnswer::Violation(_))) => moment.mark(Mark::OtherRequest),
            (_, Answer::Tried(TryAnswer::Refused(refusal))) => {
                if refusal == Refusal::suspended() {
                    moment.mark(Mark::Suspended);
                } else if refusal == Refusal::late() {
                    moment.mark(Mark::LateTry);
                }
            }
            (Some(Op::Confirm), Answer::Settled(SettleAnswer::Done)) => moment.told_confirmed = true,
            (_, Answer::Settled(SettleAnswer::Done)) => moment.told_cancelled = true,
            (_, Answer::Settled(SettleAnswer::Violation(_))) => moment.mark(Mark::NoReservation),
        }
        // What it did is in the row.
        moment.runs[run].results.clear();
    }

    /// What is possible for one of them.
    fn offer(&self, moment: &Moment, run: usize, acts: &mut Vec<Act>) {
        if moment.runs[run].ended {
            return;
        }
        match self.next(moment, run) {
            Next::Statement(_) if moment.runs[run].began.is_none() => acts.push(Act::Begin(run)),
            Next::Statement(statement) if !self.waits(moment, run, statement) => acts.push(Act::End(run)),
            Next::Statement(_) => {}
            Next::Step(_) | Next::GivesUp => acts.push(Act::Commit(run)),
        }
    }
}

impl Moment {
    fn mark(&mut self, mark: Mark) {
        self.marks.0 |= 1 << mark as u32;
    }

    /// Releases what it wrote, and forgets it.
    fn roll_back(&mut self, run: usize) {
        self.written.take_if(|(by, _)| *by == run);
        self.runs[run] = Run { ended: true, ..Run::default() };
    }
}

impl Representative for Moment {
    fn representative(&self) -> Self {
        self.clone()
    }
}

/// A tried row after the decision; `None`: it is not tried.
fn settled(row: Row, decision: Decision) -> Option<Row> {
    let Row::Tried { request, output } = row else { return None };
    Some(match decision {
        Decision::Confirm => Row::Confirmed { request, output },
        Decision::Cancel => Row::Cancelled { request: Some(request) },
    })
}

impl Model for Rows {
    type State = Moment;
    type Action = Act;

    fn init_states(&self) -> Vec<Moment> {
        vec![Moment {
            now: BEGUN_AT,
            committed: None,
            written: None,
            runs: vec![Run::default(); self.bounds.operations.len()],
            effects: Effects::default(),
            available: self.bounds.units,
            rolled_back: 0,
            told_yes: false,
            told_confirmed: false,
            told_cancelled: false,
            marks: Marks::default(),
        }]
    }

    fn actions(&self, moment: &Moment, acts: &mut Vec<Act>) {
        for run in 0..moment.runs.len() {
            self.offer(moment, run, acts);
            if !moment.runs[run].ended && moment.rolled_back < self.bounds.rollbacks {
                acts.push(Act::RollBack(run));
            }
        }
        // A local transaction has a time limit, well below the retention.
        let is_quiet = moment.runs.iter().all(|run| run.ended || *run == Run::default());
        if self.bounds.time_passes && moment.now < OLDER && is_quiet {
            acts.push(Act::Tick);
        }
    }

    fn next_state(&self, moment: &Moment, act: Act) -> Option<Moment> {
        let mut next = moment.clone();
        match act {
            Act::Begin(run) => {
                next.runs[run].began = Some((moment.committed.clone(), moment.now));
                if let Next::Statement(statement) = self.next(moment, run)
                    && self.waits(&next, run, statement)
                {
                    next.mark(Mark::Waited);
                }
            }
            Act::End(run) => {
                if let Next::Statement(statement) = self.next(moment, run) {
                    self.end(&mut next, run, statement);
                }
            }
            Act::Commit(run) => match self.next(moment, run) {
                Next::Step(step) => self.commit(&mut next, run, step),
                Next::GivesUp => {
                    next.mark(Mark::GaveUp);
                    next.roll_back(run);
                }
                Next::Statement(_) => {}
            },
            Act::RollBack(run) => {
                next.rolled_back += 1;
                next.roll_back(run);
            }
            Act::Tick => next.now = if moment.now < OLD { OLD } else { OLDER },
        }
        self.seen.fetch_or(next.marks.0, Ordering::Relaxed);
        next.marks = Marks::default();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("S3: each effect once, and never both", |_, moment: &Moment| {
                let Effects { reserved, spent, released } = moment.effects;
                reserved <= 1 && spent + released <= reserved
            }),
            Property::always("S4: the books balance", |rows: &Self, moment: &Moment| {
                let Effects { reserved, spent, released } = moment.effects;
                let frozen = reserved.saturating_sub(spent + released);
                let is_tried = |stored: &Stored| stored.row.status() == BranchRowStatus::Tried;
                moment.available + reserved == rows.bounds.units
                    && frozen == u8::from(moment.committed.as_ref().is_some_and(is_tried))
            }),
            Property::always("what a participant answers is what its row says", |_, moment: &Moment| {
                let Effects { reserved, spent, released } = moment.effects;
                (!moment.told_yes || reserved == 1)
                    && (!moment.told_confirmed || spent == 1)
                    && (!moment.told_cancelled || (reserved == released && spent == 0))
            }),
            Property::always("L1: without further faults everything ends", |rows: &Self, moment: &Moment| {
                let mut acts = Vec::new();
                (0..moment.runs.len()).for_each(|run| rows.offer(moment, run, &mut acts));
                !acts.is_empty() || moment.runs.iter().all(|run| run.ended)
            }),
        ]
    }
}

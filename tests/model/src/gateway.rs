//! What a gateway does: requests, drivers, their writes, and an operator's orders. As the coordinator crate does it, step by step.

use std::sync::Arc;

use tcc_barrier::Answer;
use tcc_machine::{CancelCause, Effect, Event, Machine, Resumed, StuckKind, check_gid_age};
use tcc_types::{Decision, Op, Timestamp, TxStatus};

use crate::{
    action::Order,
    driver::{Driver, Write},
    log::{Decided, Record},
    mark::Mark,
    state::{Place, Reply, Request, Sender, State},
    world::{CLOCK_ALLOWANCE, RETENTION, World},
};

impl World {
    pub(crate) fn driver(state: &mut State, tx: usize, gateway: usize) -> Option<&mut Driver> {
        state.gateways[gateway].get_mut(&tx).map(Arc::make_mut)
    }

    /// A gateway takes it up from the log, unless it has ended or is not there.
    pub(crate) fn load(&self, state: &mut State, tx: usize, gateway: usize, ask: bool) {
        let Some(record) = state.log[tx].as_mut().filter(|record| !record.status.has_ended()) else { return };
        record.owner = gateway;
        let known = Resumed {
            status: record.status,
            decided_at: record.decided_at,
            cause: record.cause.clone(),
            progress: record.branches.iter().map(|(_, progress)| progress.clone()).collect(),
        };
        let branches: Vec<_> = record.branches.iter().map(|(branch, _)| *branch).collect();
        let (begun_at, decision) = (record.begun_at, record.status.decision());
        if let Some(decision) = decision {
            state.tell(tx, decision);
        }
        let machine = Machine::resumed(self.plan(tx, begun_at, &branches), Self::POLICY, known);
        let driver = Driver::new(machine, begun_at, branches, self.branches(tx).len());
        state.gateways[gateway].insert(tx, Arc::new(driver));
        self.hear(state, tx, gateway, Event::Started { ask });
    }

    /// An event goes into the machine; calls leave, writes queue up.
    pub(crate) fn hear(&self, state: &mut State, tx: usize, gateway: usize, event: Event) {
        let now = state.now;
        let Some(driver) = Self::driver(state, tx, gateway) else { return };
        let effects = match driver.machine.on(event, now) {
            Ok(effects) => effects,
            Err(illegal) => {
                state.broken = Some(illegal.to_string());
                return;
            }
        };
        let terms = self.terms(tx, driver.begun_at);
        let mut calls = Vec::new();
        for effect in effects {
            match effect {
                Effect::Call(call) => {
                    let branch = driver.branches[call.branch];
                    driver.waiting[branch] = Some(call.serial);
                    let from = Some(Sender { gateway, serial: call.serial });
                    let not_after = call.anew.unwrap_or(terms.not_after);
                    let (not_after, ask_after) = match call.op {
                        Op::Try => (not_after, terms.ask_after),
                        Op::Confirm => (Timestamp::EPOCH, Timestamp::EPOCH),
                        Op::Cancel => (terms.not_after, Timestamp::EPOCH),
                    };
                    calls.push(Request { at: (tx, branch), op: call.op, not_after, ask_after, from });
                }
                Effect::Decide(choice) => driver.writes.push_back(Write::Decide(choice)),
                Effect::Finish => driver.writes.push_back(Write::Finish),
                Effect::Park(parking) => driver.writes.push_back(Write::Park(parking)),
            }
        }
        let status = driver.machine.status();
        state.network.extend(calls);
        if let Some(decision) = status.decision() {
            state.tell(tx, decision);
        }
        if status.has_ended() {
            Self::leave(state, tx, gateway);
        }
    }

    /// A driver goes; nobody waits for its answers any more.
    pub(crate) fn leave(state: &mut State, tx: usize, gateway: usize) {
        if state.gateways[gateway].remove(&tx).is_some() {
            Self::orphan(state, |request, from| request.at.0 == tx && from.gateway == gateway);
        }
    }

    /// Nobody waits any more for the answers to these requests; they arrive all the same.
    fn orphan(state: &mut State, which: impl Fn(&Request, Sender) -> bool) {
        let orphaned: Vec<_> =
            state.network.iter().filter(|request| request.from.is_some_and(|from| which(request, from))).copied().collect();
        for request in orphaned {
            state.network.remove(&request);
            state.network.insert(Request { from: None, ..request });
        }
    }

    /// A driver's next write; not `heard`: it stands in the log, and will be repeated.
    pub(crate) fn write(&self, state: &mut State, tx: usize, gateway: usize, heard: bool) {
        let now = state.now;
        let Some(driver) = Self::driver(state, tx, gateway) else { return };
        let Some(write) = driver.writes.front().cloned() else { return };
        let known = driver.branches.clone();
        let Some(record) = state.log[tx].as_mut() else {
            self.write_of_missing(state, tx, gateway, &write);
            return;
        };
        let undecided = record.status == TxStatus::Trying;
        let mut events = Vec::new();
        match &write {
            Write::Decide(choice) => {
                let decided = record.decide(gateway, choice, now);
                events = news_of(record, &known);
                match decided {
                    Decided::Stands { status, at, cause } => {
                        if status.decision() != Some(choice.decision()) {
                            state.mark(Mark::LostDecision);
                        }
                        events.push(News::Event(Event::Decided { status, at, cause }));
                    }
                    Decided::CountMoved => {
                        state.mark(Mark::CountMoved);
                        events.push(News::Event(Event::CountMoved));
                    }
                }
            }
            Write::Finish => {
                record.finish(now);
                let mark = if record.status.decision() == Some(Decision::Confirm) { Mark::Confirmed } else { Mark::Cancelled };
                state.mark(mark);
                events.push(News::Event(Event::Finished));
            }
            Write::Park(parking) => {
                let progress: Vec<_> = known.iter().copied().zip(parking.progress.iter().cloned()).collect();
                record.park(gateway, &progress);
                state.mark(Mark::Parked);
            }
            Write::Enlist(branch) => {
                if record.enlist(*branch) {
                    events.push(News::Branch(*branch));
                } else {
                    state.mark(Mark::EnlistClosed);
                }
            }
        }
        if undecided {
            self.seal(state, tx);
        }
        if !heard {
            return;
        }
        if let Some(driver) = Self::driver(state, tx, gateway) {
            driver.writes.pop_front();
        }
        if matches!(write, Write::Park(_)) {
            Self::leave(state, tx, gateway);
        }
        self.hear_all(state, tx, gateway, events, matches!(write, Write::Decide(_)));
    }

    /// The transaction is gone from the log. Whoever decides stops; the others notice nothing.
    fn write_of_missing(&self, state: &mut State, tx: usize, gateway: usize, write: &Write) {
        match write {
            Write::Decide(_) | Write::Enlist(_) | Write::Park(_) => Self::leave(state, tx, gateway),
            Write::Finish => {
                if let Some(driver) = Self::driver(state, tx, gateway) {
                    driver.writes.pop_front();
                }
                self.hear(state, tx, gateway, Event::Finished);
            }
        }
    }

    /// What was decided just now, if anything, is so for ever.
    pub(crate) fn seal(&self, state: &mut State, tx: usize) {
        let Some(record) = &state.log[tx] else { return };
        let Some(decision) = record.status.decision() else { return };
        let fate = state.fates[tx];
        if fate.decision.is_some_and(|before| before != decision) {
            state.broken.get_or_insert_with(|| format!("{decision:?} of transaction {tx} is decided, and so was the other"));
            return;
        }
        let reserved = |branch: usize| {
            let effects = self.participant(state, (tx, branch)).effects.get(&(tx, branch));
            effects.is_some_and(|effects| effects.reserved > 0)
        };
        // A reservation that its participant lost was one.
        let all_reserved = record.branches.iter().all(|(branch, _)| reserved(*branch)) || state.spent.lost_rows > 0;
        let unfounded = decision == Decision::Confirm && !all_reserved;
        state.fates[tx].decision = Some(decision);
        state.fates[tx].unfounded |= unfounded;
    }

    /// What the log has and the driver does not know; `learnt`: whoever else put it there.
    fn hear_all(&self, state: &mut State, tx: usize, gateway: usize, news: Vec<News>, learnt: bool) {
        for news in news {
            match news {
                News::Branch(branch) => {
                    let Some(driver) = Self::driver(state, tx, gateway) else { return };
                    driver.branches.push(branch);
                    if learnt {
                        state.mark(Mark::LearntBranch);
                    }
                    let planned = self.branch((tx, branch)).planned.clone();
                    self.hear(state, tx, gateway, Event::Enlisted(planned));
                }
                News::Event(event) => self.hear(state, tx, gateway, event),
            }
        }
    }

    /// An answer arrives at its driver. Each call is answered once.
    pub(crate) fn answer(&self, state: &mut State, tx: usize, gateway: usize, reply: usize) {
        let Some(driver) = Self::driver(state, tx, gateway) else { return };
        let Reply { branch, serial, answer } = driver.replies.remove(reply);
        driver.replies.retain(|other| (other.branch, other.serial) != (branch, serial));
        if driver.waiting[branch] == Some(serial) {
            driver.waiting[branch] = None;
        }
        let index = driver.index_of(branch).expect("a branch that was called");
        let answered = Sender { gateway, serial };
        Self::orphan(state, |request, from| request.at == (tx, branch) && from == answered);
        let event = match answer {
            Answer::Tried(answer) => Event::TryAnswered { branch: index, serial, answer },
            Answer::Settled(answer) => Event::SettleAnswered { branch: index, serial, answer },
        };
        self.hear(state, tx, gateway, event);
    }

    pub(crate) fn give_up(&self, state: &mut State, tx: usize, gateway: usize, branch: usize) {
        let Some(driver) = Self::driver(state, tx, gateway) else { return };
        let Some(serial) = driver.waiting[branch].take() else { return };
        driver.replies.retain(|reply| (reply.branch, reply.serial) != (branch, serial));
        let index = driver.index_of(branch).expect("a branch that was called");
        let forgotten = Sender { gateway, serial };
        Self::orphan(state, |request, from| request.at == (tx, branch) && from == forgotten);
        let (kind, detail) = (StuckKind::Unreachable, String::new());
        self.hear(state, tx, gateway, Event::Unanswered { branch: index, serial, kind, detail });
    }

    /// Submit or Begin. The coordinator's own deadlines: counted from now.
    pub(crate) fn submit(&self, state: &mut State, tx: usize, gateway: usize, answered: bool) {
        let now = state.now;
        if check_gid_age(self.gids[tx], RETENTION, CLOCK_ALLOWANCE, now).is_err() {
            state.mark(Mark::GidTooOld);
            // Only the very request that is there already is joined.
            if state.log[tx].as_ref().is_none_or(|record| record.is_tombstone) {
                return;
            }
        }
        let is_new = state.log[tx].is_none();
        let begins_with = if self.is_open(tx) { 0 } else { self.branches(tx).len() };
        let record = state.log[tx].get_or_insert_with(|| Record::begun(0..begins_with, gateway, now));
        if !answered {
            return;
        }
        if record.is_tombstone {
            state.mark(Mark::SubmitMetCancelled);
        }
        if let Some(decision) = state.log[tx].as_ref().and_then(|record| record.status.decision()) {
            state.tell(tx, decision);
        }
        let is_driven = state.gateways[gateway].contains_key(&tx);
        if is_new && !is_driven {
            let branches: Vec<_> = (0..begins_with).collect();
            let machine = Machine::begun(self.plan(tx, now, &branches), Self::POLICY);
            let driver = Driver::new(machine, now, branches, self.branches(tx).len());
            state.gateways[gateway].insert(tx, Arc::new(driver));
            self.hear(state, tx, gateway, Event::Started { ask: true });
        } else if !is_driven && !self.is_open(tx) {
            self.load(state, tx, gateway, true);
        }
    }

    /// The branch is made durable by the driver, which may be started for it.
    pub(crate) fn enlist(&self, state: &mut State, tx: usize, gateway: usize, branch: usize) {
        if !state.gateways[gateway].contains_key(&tx) {
            self.load(state, tx, gateway, false);
        }
        let Some(driver) = Self::driver(state, tx, gateway).filter(|driver| driver.listens()) else { return };
        if driver.index_of(branch).is_none() {
            driver.writes.push_back(Write::Enlist(branch));
        } else if driver.machine.status() == TxStatus::Trying {
            self.hear(state, tx, gateway, Event::Started { ask: true });
        }
    }

    pub(crate) fn ask(&self, state: &mut State, tx: usize, gateway: usize, decision: Decision) {
        if state.log[tx].is_none() {
            // Only Cancel says something of a transaction that nobody knows: that it shall not be.
            let is_fit = check_gid_age(self.gids[tx], RETENTION, CLOCK_ALLOWANCE, state.now).is_ok();
            if decision == Decision::Cancel && is_fit {
                let cause = CancelCause::Requested { by: self.initiator.clone() };
                state.log[tx] = Some(Record::cancelled(cause, state.now));
                self.seal(state, tx);
                state.tell(tx, decision);
            }
            return;
        }
        let has_branches = state.log[tx].as_ref().is_some_and(|record| !record.branches.is_empty());
        if decision == Decision::Confirm && !has_branches {
            return;
        }
        if !state.gateways[gateway].contains_key(&tx) {
            self.load(state, tx, gateway, false);
        }
        if !state.gateways[gateway].get(&tx).is_some_and(|driver| driver.listens()) {
            return;
        }
        match decision {
            Decision::Confirm => {
                self.learn_of_branches(state, tx, gateway);
                self.hear(state, tx, gateway, Event::ConfirmRequested);
            }
            Decision::Cancel => self.hear(state, tx, gateway, Event::CancelRequested { by: self.initiator.clone() }),
        }
    }

    /// Before it goes for the votes of an open transaction: those of branches that were enlisted at other gateways, too.
    fn learn_of_branches(&self, state: &mut State, tx: usize, gateway: usize) {
        let Some(driver) = state.gateways[gateway].get(&tx) else { return };
        if !self.is_open(tx) || driver.machine.status() != TxStatus::Trying {
            return;
        }
        let news = state.log[tx].as_ref().map_or_else(Vec::new, |record| news_of(record, &driver.branches));
        self.hear_all(state, tx, gateway, news, true);
    }

    /// The driver hears what others did.
    pub(crate) fn look(&self, state: &mut State, tx: usize, gateway: usize) {
        let Some(driver) = state.gateways[gateway].get(&tx) else { return };
        let Some(record) = &state.log[tx] else {
            Self::leave(state, tx, gateway);
            return;
        };
        let status = driver.machine.status();
        let unheard = status.decision().is_none() || record.status.has_ended() != status.has_ended();
        let mut news = news_of(record, &driver.branches);
        if let Some(at) = record.decided_at.filter(|_| unheard) {
            news.push(News::Event(Event::Decided { status: record.status, at, cause: record.cause.clone() }));
        }
        self.hear_all(state, tx, gateway, news, true);
    }

    /// Whether the operator sees the branch as one that may be acted on so.
    pub(crate) fn may_order(state: &State, (tx, branch): Place, gateway: usize, order: Order) -> bool {
        let Some(record) = state.log[tx].as_ref().filter(|record| !record.status.has_ended()) else { return false };
        let Some((_, stored)) = record.branches.iter().find(|(there, _)| *there == branch) else { return false };
        let driver = state.gateways[gateway].get(&tx);
        if record.status.decision().is_none() || stored.settled.is_some() || driver.is_some_and(|driver| !driver.listens()) {
            return false;
        }
        let shown = driver.and_then(|driver| {
            let index = driver.index_of(branch)?;
            driver.machine.branches().nth(index).map(|view| view.progress)
        });
        let shown = shown.as_ref().unwrap_or(stored);
        match order {
            Order::Probe => true,
            Order::TryAnew => {
                let lost = shown.stuck.as_ref().is_some_and(|stuck| stuck.kind == StuckKind::NoReservation);
                lost && record.status == TxStatus::Confirming
            }
            Order::MarkSettled => stored.stuck.is_some(),
        }
    }

    pub(crate) fn order(&self, state: &mut State, (tx, branch): Place, gateway: usize, order: Order) {
        if order == Order::MarkSettled {
            let marked = state.log[tx].as_mut().is_some_and(|record| record.mark_settled(branch));
            if !marked {
                return;
            }
            state.mark(Mark::SettledOutside);
        }
        if !state.gateways[gateway].contains_key(&tx) {
            self.load(state, tx, gateway, false);
        }
        let not_after = Self::anew_until(state.now);
        let Some(branch) = state.gateways[gateway].get(&tx).and_then(|driver| driver.index_of(branch)) else { return };
        let event = match order {
            Order::Probe => Event::Probed { branch },
            Order::TryAnew => Event::TryAnewOrdered { branch, not_after },
            Order::MarkSettled => Event::SettledOutside { branch },
        };
        self.hear(state, tx, gateway, event);
    }
}

/// What a driver hears of what it read.
enum News {
    /// A branch that it did not know.
    Branch(usize),
    Event(Event),
}

/// The branches that the driver does not know, in the log's order.
fn news_of(record: &Record, known: &[usize]) -> Vec<News> {
    record.branches.iter().filter(|(branch, _)| !known.contains(branch)).map(|(branch, _)| News::Branch(*branch)).collect()
}

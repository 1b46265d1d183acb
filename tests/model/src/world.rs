//! What may happen in a state, and the state that comes of it.

use std::{collections::BTreeMap, time::Duration};

use stateright::{Model, Property};
use tcc_barrier::{Answer, Call as BarrierCall, Row};
use tcc_machine::{Effect, Event, Machine, Plan, PlannedBranch, Policy, Resumed, StuckKind, TryOrder};
use tcc_types::{
    BranchId, BranchKey, CancelCall, ConfirmCall, Decision, Gid, Initiator, LogName, Op, ParticipantName, Payload, Timestamp,
    TryCall,
};

use crate::{
    Configuration,
    action::Action,
    driver::{Driver, Write},
    log::{Decided, Record},
    participant::Participant,
    rules,
    state::{Reply, Request, Sender, Spent, State},
};

const BEGUN_AT: Timestamp = Timestamp::from_millis(1_000);
/// Until when an unknown Try is repeated.
const TRY_UNTIL: Timestamp = Timestamp::from_millis(2_000);
/// After this a participant takes no Try for which it has no row.
const NOT_AFTER: Timestamp = Timestamp::from_millis(2_500);
const LATE: Timestamp = Timestamp::from_millis(2_600);
const DECIDE_BY: Timestamp = Timestamp::from_millis(3_000);

/// A configuration with everything made that calls need.
pub(crate) struct World {
    pub(crate) configuration: Configuration,
    /// Of each transaction.
    branches: Vec<Vec<Branch>>,
    initiator: Initiator,
    /// When something becomes due.
    instants: Vec<Timestamp>,
}

pub(crate) struct Branch {
    pub(crate) resource: usize,
    planned: PlannedBranch,
    pub(crate) try_call: TryCall,
    pub(crate) confirm: ConfirmCall,
    pub(crate) cancel: CancelCall,
}

impl World {
    pub(crate) fn new(configuration: Configuration) -> Self {
        let name = |kind: &str, number: usize| format!("{kind}-{number}");
        let coordinator = LogName::new("model").expect("a log's name");
        let branches = configuration.transactions.iter().enumerate().map(|(tx, planned)| {
            let mut gid = *Gid::first_of(BEGUN_AT).as_bytes();
            gid[15] = u8::try_from(tx).expect("few transactions");
            let gid = Gid::from_bytes(&gid).expect("a gid");
            let branches = planned.resources.iter().enumerate().map(|(branch, &resource)| {
                let id = BranchId::new(name("branch", branch)).expect("a branch's id");
                let participant = ParticipantName::new(name("participant", resource)).expect("a participant's name");
                let key = BranchKey { gid, branch: id.clone() };
                Branch {
                    resource,
                    planned: PlannedBranch { id, participant },
                    try_call: TryCall {
                        key: key.clone(),
                        payload: Payload { type_url: "model/Unit".to_owned(), value: b"1".as_slice().into() },
                        coordinator: coordinator.clone(),
                        not_after: NOT_AFTER,
                        ask_after: DECIDE_BY.plus(Duration::from_secs(1)),
                    },
                    confirm: ConfirmCall { key: key.clone() },
                    cancel: CancelCall { key, not_after: NOT_AFTER },
                }
            });
            branches.collect()
        });
        let instants = if configuration.time_passes { vec![BEGUN_AT, TRY_UNTIL, LATE, DECIDE_BY] } else { vec![BEGUN_AT] };
        Self { branches: branches.collect(), initiator: Initiator::new("shop").expect("an initiator"), instants, configuration }
    }

    pub(crate) fn branches(&self, tx: usize) -> &[Branch] {
        &self.branches[tx]
    }

    pub(crate) fn transactions(&self) -> std::ops::Range<usize> {
        0..self.branches.len()
    }

    /// The end of time, at which everything is due.
    pub(crate) const END: Timestamp = Timestamp::from_millis(9_000);

    fn plan(&self, tx: usize) -> Plan {
        Plan {
            try_order: TryOrder::Parallel,
            decides: self.configuration.transactions[tx].decides,
            try_until: TRY_UNTIL,
            decide_by: DECIDE_BY,
            branches: self.branches[tx].iter().map(|branch| branch.planned.clone()).collect(),
        }
    }

    /// Small, so that every way out of memory is taken within few lost answers.
    const POLICY: Policy = Policy {
        retry_base: Duration::from_millis(10),
        retry_cap: Duration::from_millis(20),
        park_after_attempts: 2,
        stuck_after_attempts: 3,
        stuck_probe: Duration::from_millis(100),
        stuck_after: Duration::from_secs(60),
    };

    /// A gateway takes it up from the log, unless it has ended or never was.
    pub(crate) fn load(&self, state: &mut State, tx: usize, gateway: usize, ask: bool) {
        let Some(record) = state.log[tx].as_mut().filter(|record| !record.status.has_ended()) else { return };
        record.owner = gateway;
        let known = Resumed {
            status: record.status,
            decided_at: record.decided_at,
            cause: record.cause.clone(),
            progress: record.progress.clone(),
        };
        if let Some(decision) = record.status.decision() {
            state.told[tx].insert(decision.into());
        }
        let machine = Machine::resumed(self.plan(tx), Self::POLICY, known);
        state.gateways[gateway].insert(tx, Driver::new(machine, self.branches[tx].len()));
        self.hear(state, tx, gateway, Event::Started { ask });
    }

    /// An event goes into the machine; calls leave, writes queue up.
    pub(crate) fn hear(&self, state: &mut State, tx: usize, gateway: usize, event: Event) {
        let Some(driver) = state.gateways[gateway].get_mut(&tx) else { return };
        let effects = match driver.machine.on(event, state.now) {
            Ok(effects) => effects,
            Err(illegal) => {
                state.broken = Some(illegal.to_string());
                return;
            }
        };
        for effect in effects {
            match effect {
                Effect::Call(call) => {
                    driver.waiting[call.branch] = Some(call.serial);
                    let from = Some(Sender { gateway, serial: call.serial });
                    state.network.insert(Request { tx, branch: call.branch, op: call.op, from });
                }
                Effect::Decide(choice) => driver.writes.push_back(Write::Decide(choice)),
                Effect::Finish => driver.writes.push_back(Write::Finish),
                Effect::Park(parking) => driver.writes.push_back(Write::Park(parking)),
            }
        }
        if let Some(decision) = driver.machine.status().decision() {
            state.told[tx].insert(decision.into());
        }
        if driver.machine.status().has_ended() {
            Self::leave(state, tx, gateway);
        }
    }

    /// A driver goes; nobody waits for its answers any more.
    fn leave(state: &mut State, tx: usize, gateway: usize) {
        state.gateways[gateway].remove(&tx);
        let network = std::mem::take(&mut state.network);
        state.network = network
            .into_iter()
            .map(|request| {
                let orphaned = request.tx == tx && request.from.is_some_and(|from| from.gateway == gateway);
                if orphaned { Request { from: None, ..request } } else { request }
            })
            .collect();
    }

    /// A driver's next write; not `heard`: it stands in the log, and will be repeated.
    pub(crate) fn write(&self, state: &mut State, tx: usize, gateway: usize, heard: bool) {
        let Some(driver) = state.gateways[gateway].get_mut(&tx) else { return };
        let (Some(write), Some(record)) = (driver.writes.front().cloned(), state.log[tx].as_mut()) else { return };
        let event = match &write {
            Write::Decide(choice) => Some(match record.decide(gateway, choice, state.now) {
                Decided::Stands { status, at, cause } => Event::Decided { status, at, cause },
                Decided::CountMoved => Event::CountMoved,
            }),
            Write::Finish => {
                record.finish();
                Some(Event::Finished)
            }
            Write::Park(parking) => {
                record.park(gateway, &parking.progress);
                None
            }
        };
        if !heard {
            return;
        }
        driver.writes.pop_front();
        match event {
            Some(event) => self.hear(state, tx, gateway, event),
            None => Self::leave(state, tx, gateway),
        }
    }

    /// A request arrives; whoever waits is sent the answer.
    pub(crate) fn arrive(&self, state: &mut State, request: Request) {
        let branch = &self.branches[request.tx][request.branch];
        let call = match request.op {
            Op::Try => BarrierCall::Try(&branch.try_call),
            Op::Confirm => BarrierCall::Confirm(&branch.confirm),
            Op::Cancel => BarrierCall::Cancel(&branch.cancel),
        };
        let answer = state.participants[branch.resource].run(call, state.now);
        let row = state.participants[branch.resource].rows.get(call.key()).map(Row::status);
        if let Some(answer) = answer.as_ref().filter(|answer| !rules::is_true(answer, request.op, row)) {
            state.untrue = Some(answer.clone());
        }
        let (Some(answer), Some(from)) = (answer, request.from) else { return };
        let Some(driver) = state.gateways[from.gateway].get_mut(&request.tx) else { return };
        let reply = Reply { branch: request.branch, serial: from.serial, answer };
        if !driver.replies.contains(&reply) {
            driver.replies.push(reply);
            driver.replies.sort_by_key(|reply| (reply.branch, reply.serial));
        }
    }

    /// An answer arrives at its driver. Each call is answered once.
    pub(crate) fn answer(&self, state: &mut State, tx: usize, gateway: usize, reply: usize) {
        let Some(driver) = state.gateways[gateway].get_mut(&tx) else { return };
        let Reply { branch, serial, answer } = driver.replies.remove(reply);
        driver.replies.retain(|other| (other.branch, other.serial) != (branch, serial));
        if driver.waiting[branch] == Some(serial) {
            driver.waiting[branch] = None;
        }
        let answered = Some(Sender { gateway, serial });
        let asked: Vec<_> =
            state.network.iter().filter(|one| one.tx == tx && one.branch == branch && one.from == answered).copied().collect();
        for request in asked {
            state.network.remove(&request);
            state.network.insert(Request { from: None, ..request });
        }
        let event = match answer {
            Answer::Tried(answer) => Event::TryAnswered { branch, serial, answer },
            Answer::Settled(answer) => Event::SettleAnswered { branch, serial, answer },
        };
        self.hear(state, tx, gateway, event);
    }

    fn give_up(&self, state: &mut State, tx: usize, gateway: usize, branch: usize) {
        let Some(driver) = state.gateways[gateway].get_mut(&tx) else { return };
        let Some(serial) = driver.waiting[branch].take() else { return };
        let (kind, detail) = (StuckKind::Unreachable, String::new());
        self.hear(state, tx, gateway, Event::Unanswered { branch, serial, kind, detail });
    }

    fn submit(&self, state: &mut State, tx: usize, gateway: usize, answered: bool) {
        let branches = self.branches[tx].len();
        let is_new = state.log[tx].is_none();
        let record = state.log[tx].get_or_insert_with(|| Record::begun(branches, gateway));
        if !answered {
            return;
        }
        if let Some(decision) = record.status.decision() {
            state.told[tx].insert(decision.into());
        }
        if is_new {
            let machine = Machine::begun(self.plan(tx), Self::POLICY);
            state.gateways[gateway].insert(tx, Driver::new(machine, branches));
            self.hear(state, tx, gateway, Event::Started { ask: true });
        } else if !state.gateways[gateway].contains_key(&tx) {
            self.load(state, tx, gateway, true);
        }
    }

    fn ask(&self, state: &mut State, tx: usize, gateway: usize, decision: Decision) {
        if state.log[tx].is_none() {
            // Only Cancel says something of a transaction that nobody knows: that it shall not be.
            if decision == Decision::Cancel {
                let cause = tcc_machine::CancelCause::Requested { by: self.initiator.clone() };
                state.log[tx] = Some(Record::cancelled(gateway, cause, state.now));
                state.told[tx].insert(decision.into());
            }
            return;
        }
        if !state.gateways[gateway].contains_key(&tx) {
            self.load(state, tx, gateway, false);
        }
        if state.gateways[gateway].get(&tx).is_some_and(Driver::listens) {
            let event = match decision {
                Decision::Confirm => Event::ConfirmRequested,
                Decision::Cancel => Event::CancelRequested { by: self.initiator.clone() },
            };
            self.hear(state, tx, gateway, event);
        }
    }

    fn offer(&self, state: &State, actions: &mut Vec<Action>) {
        let Configuration { crashes, takeovers, unanswered, lost_commits, .. } = self.configuration;
        for gateway in 0..state.gateways.len() {
            for tx in self.transactions() {
                let planned = &self.configuration.transactions[tx];
                if state.spent.submits[tx] < planned.submits {
                    actions.push(Action::Submit { tx, gateway, answered: true });
                    if state.spent.lost_commits < lost_commits {
                        actions.push(Action::Submit { tx, gateway, answered: false });
                    }
                }
                let asks = [
                    (Decision::Confirm, state.spent.confirms[tx] < planned.confirms),
                    (Decision::Cancel, state.spent.cancels[tx] < planned.cancels),
                ];
                let listens = state.gateways[gateway].get(&tx).is_none_or(Driver::listens);
                for (decision, _) in asks.into_iter().filter(|(_, may)| *may && listens) {
                    actions.push(Action::Ask { tx, gateway, decision });
                }
                let unfinished = state.log[tx].as_ref().is_some_and(|record| !record.status.has_ended());
                match state.gateways[gateway].get(&tx) {
                    None if unfinished && state.spent.takeovers < takeovers => actions.push(Action::TakeUp { tx, gateway }),
                    None => {}
                    Some(driver) => Self::offer_driver(driver, (tx, gateway), state, (unanswered, lost_commits), actions),
                }
            }
            if state.spent.crashes < crashes && !state.gateways[gateway].is_empty() {
                actions.push(Action::Crash { gateway });
            }
        }
        actions.extend(state.network.iter().map(|request| Action::Arrive(*request)));
        if self.instants.last().is_some_and(|last| state.now < *last) {
            actions.push(Action::Tick);
        }
    }

    fn offer_driver(
        driver: &Driver,
        (tx, gateway): (usize, usize),
        state: &State,
        (unanswered, lost_commits): (u8, u8),
        actions: &mut Vec<Action>,
    ) {
        if !driver.listens() {
            actions.push(Action::Write { tx, gateway, heard: true });
            if state.spent.lost_commits < lost_commits {
                actions.push(Action::Write { tx, gateway, heard: false });
            }
            return;
        }
        actions.extend((0..driver.replies.len()).map(|reply| Action::Answer { tx, gateway, reply }));
        if state.spent.unanswered < unanswered {
            let waiting = driver.waiting.iter().enumerate().filter(|(_, serial)| serial.is_some());
            actions.extend(waiting.map(|(branch, _)| Action::GiveUp { tx, gateway, branch }));
        }
        if driver.machine.wake_at().is_some_and(|at| at <= state.now) {
            actions.push(Action::Wake { tx, gateway });
        }
    }

    fn take(&self, state: &mut State, action: &Action) {
        match *action {
            Action::Submit { tx, gateway, answered } => {
                state.spent.submits[tx] += 1;
                state.spent.lost_commits += u8::from(!answered);
                self.submit(state, tx, gateway, answered);
            }
            Action::Ask { tx, gateway, decision } => {
                match decision {
                    Decision::Confirm => state.spent.confirms[tx] += 1,
                    Decision::Cancel => state.spent.cancels[tx] += 1,
                }
                self.ask(state, tx, gateway, decision);
            }
            Action::TakeUp { tx, gateway } => {
                state.spent.takeovers += 1;
                self.load(state, tx, gateway, true);
            }
            Action::Write { tx, gateway, heard } => {
                state.spent.lost_commits += u8::from(!heard);
                self.write(state, tx, gateway, heard);
            }
            Action::Arrive(request) => self.arrive(state, request),
            Action::Answer { tx, gateway, reply } => self.answer(state, tx, gateway, reply),
            Action::GiveUp { tx, gateway, branch } => {
                state.spent.unanswered += 1;
                self.give_up(state, tx, gateway, branch);
            }
            Action::Wake { tx, gateway } => self.hear(state, tx, gateway, Event::Woken),
            Action::Crash { gateway } => {
                state.spent.crashes += 1;
                for tx in self.transactions() {
                    Self::leave(state, tx, gateway);
                }
            }
            Action::Tick => {
                let next = self.instants.iter().find(|instant| **instant > state.now);
                state.now = next.copied().unwrap_or(state.now);
            }
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let transactions = self.branches.len();
        vec![State {
            now: BEGUN_AT,
            log: vec![None; transactions],
            gateways: vec![BTreeMap::new(); self.configuration.gateways],
            network: Default::default(),
            participants: self.configuration.stock.iter().map(|units| Participant::new(*units)).collect(),
            told: vec![Default::default(); transactions],
            broken: None,
            untrue: None,
            spent: Spent {
                submits: vec![0; transactions],
                confirms: vec![0; transactions],
                cancels: vec![0; transactions],
                ..Spent::default()
            },
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.offer(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.take(&mut next, &action);
        // What changes nothing leads nowhere.
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::all()
    }
}

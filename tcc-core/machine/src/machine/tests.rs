//! Every status × event, and random orders of events against participants that follow the contract.

use proptest::prelude::*;
use tcc_types::{BranchRowStatus, Initiator, ParticipantName, Refusal, Violation};

use super::*;

const T0: Timestamp = Timestamp::from_millis(1_000_000);

fn policy() -> Policy {
    Policy {
        retry_base: Duration::from_millis(50),
        retry_cap: Duration::from_secs(5),
        park_after_attempts: 3,
        stuck_after_attempts: 4,
        stuck_probe: Duration::from_secs(15),
        stuck_after: Duration::from_secs(3_600),
    }
}

fn planned(index: usize) -> PlannedBranch {
    PlannedBranch { id: BranchId::new(format!("b{index}")).unwrap(), participant: ParticipantName::new("p").unwrap() }
}

fn plan(branches: usize, decides: Decides, try_order: TryOrder) -> Plan {
    Plan {
        try_order,
        decides,
        try_until: T0.plus(Duration::from_secs(10)),
        decide_by: T0.plus(Duration::from_secs(if decides == Decides::AtVotes { 10 } else { 100 })),
        branches: (0..branches).map(planned).collect(),
    }
}

fn begun(branches: usize, decides: Decides) -> Machine {
    Machine::begun(plan(branches, decides, TryOrder::Parallel), policy())
}

fn calls(effects: &[Effect]) -> Vec<Call> {
    effects.iter().filter_map(|effect| if let Effect::Call(call) = effect { Some(*call) } else { None }).collect()
}

fn ops(effects: &[Effect]) -> Vec<(usize, Op)> {
    calls(effects).into_iter().map(|call| (call.branch, call.op)).collect()
}

fn yes(call: Call) -> Event {
    Event::TryAnswered { branch: call.branch, serial: call.serial, answer: TryAnswer::Reserved(None) }
}

fn refused(call: Call, refusal: Refusal) -> Event {
    Event::TryAnswered { branch: call.branch, serial: call.serial, answer: TryAnswer::Refused(refusal) }
}

fn done(call: Call) -> Event {
    Event::SettleAnswered { branch: call.branch, serial: call.serial, answer: SettleAnswer::Done }
}

fn violated(call: Call, kind: ViolationKind) -> Event {
    let answer = SettleAnswer::Violation(Violation { kind, row_status: None });
    Event::SettleAnswered { branch: call.branch, serial: call.serial, answer }
}

fn unanswered(call: Call) -> Event {
    let detail = "no answer".to_owned();
    Event::Unanswered { branch: call.branch, serial: call.serial, kind: StuckKind::Unreachable, detail }
}

fn decided(status: TxStatus) -> Event {
    Event::Decided { status, at: T0, cause: (status.decision() == Some(Decision::Cancel)).then_some(CancelCause::TimedOut) }
}

fn somebody() -> Initiator {
    Initiator::new("somebody").unwrap()
}

/// Begun and tried: the machine and the calls that are under way.
fn started(branches: usize, decides: Decides) -> (Machine, Vec<Call>) {
    let mut machine = begun(branches, decides);
    let tries = calls(&machine.on(Event::Started { ask: true }, T0).unwrap());
    (machine, tries)
}

/// Decided to confirm: the machine and the Confirms that are under way.
fn confirming(branches: usize) -> (Machine, Vec<Call>) {
    let (mut machine, tries) = started(branches, Decides::AtVotes);
    for call in tries {
        machine.on(yes(call), T0).unwrap();
    }
    let confirms = calls(&machine.on(decided(TxStatus::Confirming), T0).unwrap());
    (machine, confirms)
}

#[test]
fn tries_leave_in_parallel_and_confirm_is_decided_only_by_the_last_yes() {
    let (mut machine, tries) = started(3, Decides::AtVotes);
    assert_eq!(tries.len(), 3);
    assert_eq!(machine.on(yes(tries[0]), T0).unwrap(), []);
    assert_eq!(machine.on(yes(tries[2]), T0).unwrap(), []);
    assert_eq!(machine.on(yes(tries[1]), T0).unwrap(), [Effect::Decide(Choice::Confirm { votes: 3 })]);
    assert_eq!(machine.status(), TxStatus::Trying);
}

#[test]
fn no_confirm_leaves_before_the_decision_is_durable() {
    let (mut machine, tries) = started(2, Decides::AtVotes);
    for call in tries {
        assert!(calls(&machine.on(yes(call), T0).unwrap()).is_empty());
    }
    let effects = machine.on(decided(TxStatus::Confirming), T0).unwrap();
    assert_eq!(ops(&effects), [(0, Op::Confirm), (1, Op::Confirm)]);
}

#[test]
fn tries_in_order_wait_for_the_yes_before_them() {
    let mut machine = Machine::begun(plan(3, Decides::AtVotes, TryOrder::Sequential), policy());
    let first = calls(&machine.on(Event::Started { ask: true }, T0).unwrap());
    assert_eq!(first.len(), 1);
    let second = calls(&machine.on(yes(first[0]), T0).unwrap());
    assert_eq!((second.len(), second[0].branch), (1, 1));
    let effects = machine.on(refused(second[0], Refusal::business("NO", "no")), T0).unwrap();
    assert!(matches!(effects[..], [Effect::Decide(Choice::Cancel { .. })]));
}

#[test]
fn a_refusal_decides_cancel_at_once_and_its_branch_needs_none() {
    let (mut machine, tries) = started(3, Decides::AtVotes);
    machine.on(yes(tries[0]), T0).unwrap();
    let effects = machine.on(refused(tries[1], Refusal::business("OUT_OF_STOCK", "none left")), T0).unwrap();
    assert!(matches!(&effects[..], [Effect::Decide(Choice::Cancel { cause: CancelCause::Refused { .. } })]));
    let effects = machine.on(decided(TxStatus::Cancelling), T0).unwrap();
    // The third never answered: it may have reserved.
    assert_eq!(ops(&effects), [(0, Op::Cancel), (2, Op::Cancel)]);
}

#[test]
fn a_late_or_suspended_branch_still_gets_its_cancel() {
    for refusal in [Refusal::late(), Refusal::suspended()] {
        let (mut machine, tries) = started(1, Decides::AtVotes);
        machine.on(refused(tries[0], refusal), T0).unwrap();
        assert_eq!(ops(&machine.on(decided(TxStatus::Cancelling), T0).unwrap()), [(0, Op::Cancel)]);
    }
}

#[test]
fn an_unknown_try_is_repeated_until_its_deadline_and_then_cancelled() {
    let (mut machine, tries) = started(1, Decides::AtVotes);
    let again = calls(&machine.on(unanswered(tries[0]), T0).unwrap());
    assert_eq!((again[0].op, again[0].delay_max), (Op::Try, Duration::from_millis(50)));
    let deadline = machine.wake_at().unwrap();
    assert_eq!(machine.on(Event::Woken, T0).unwrap(), []);
    let effects = machine.on(Event::Woken, deadline).unwrap();
    assert_eq!(effects, [Effect::Decide(Choice::Cancel { cause: CancelCause::TimedOut })]);
    // What that Try says now comes too late to matter.
    assert_eq!(machine.on(yes(again[0]), deadline).unwrap(), []);
}

#[test]
fn the_decision_that_stands_is_carried_out_whatever_was_wanted() {
    let (mut machine, tries) = started(1, Decides::AtVotes);
    machine.on(yes(tries[0]), T0).unwrap();
    assert_eq!(ops(&machine.on(decided(TxStatus::Cancelling), T0).unwrap()), [(0, Op::Cancel)]);
}

#[test]
fn a_hold_waits_for_a_request() {
    let (mut machine, tries) = started(1, Decides::OnRequest);
    assert_eq!(machine.on(yes(tries[0]), T0).unwrap(), []);
    assert!(machine.is_held() && machine.is_quiescent());
    // Past try_until: all votes are in, so only decide_by counts.
    assert_eq!(machine.on(Event::Woken, T0.plus(Duration::from_secs(50))).unwrap(), []);
    assert_eq!(machine.wake_at(), Some(T0.plus(Duration::from_secs(100))));
    assert_eq!(machine.on(Event::ConfirmRequested, T0).unwrap(), [Effect::Decide(Choice::Confirm { votes: 1 })]);
}

#[test]
fn a_hold_nobody_confirms_is_cancelled_at_decide_by() {
    let (mut machine, tries) = started(1, Decides::OnRequest);
    machine.on(yes(tries[0]), T0).unwrap();
    let effects = machine.on(Event::Woken, machine.wake_at().unwrap()).unwrap();
    assert_eq!(effects, [Effect::Decide(Choice::Cancel { cause: CancelCause::TimedOut })]);
}

#[test]
fn a_hold_taken_up_again_asks_for_its_votes_only_when_somebody_wants_it() {
    let known =
        Resumed { status: TxStatus::Trying, decided_at: None, cause: None, progress: vec![BranchProgress::default(); 2] };
    let mut machine = Machine::resumed(plan(2, Decides::OnRequest, TryOrder::Parallel), policy(), known);
    assert_eq!(machine.on(Event::Started { ask: false }, T0).unwrap(), []);
    let asked = calls(&machine.on(Event::ConfirmRequested, T0.plus(Duration::from_secs(50))).unwrap());
    assert_eq!(asked.len(), 2);
    machine.on(yes(asked[0]), T0).unwrap();
    assert_eq!(machine.on(yes(asked[1]), T0).unwrap(), [Effect::Decide(Choice::Confirm { votes: 2 })]);
}

/// A Confirm is under way, and the log turns out to have a second branch.
fn confirm_meets_another_branch() -> Machine {
    let (mut machine, tries) = started(1, Decides::OnRequestOpen);
    machine.on(yes(tries[0]), T0).unwrap();
    machine.on(Event::ConfirmRequested, T0).unwrap();
    assert_eq!(machine.on(Event::Enlisted(planned(1)), T0).unwrap(), []);
    machine
}

#[test]
fn a_moved_count_waits_for_the_new_branchs_vote() {
    let mut machine = confirm_meets_another_branch();
    let asked = calls(&machine.on(Event::CountMoved, T0).unwrap());
    assert_eq!((asked.len(), asked[0].branch, asked[0].op), (1, 1, Op::Try));
    assert_eq!(machine.on(yes(asked[0]), T0).unwrap(), [Effect::Decide(Choice::Confirm { votes: 2 })]);
}

#[test]
fn a_moved_count_does_not_hold_up_a_cancel_and_the_new_branch_gets_it_too() {
    let mut machine = confirm_meets_another_branch();
    assert_eq!(machine.on(Event::CancelRequested { by: somebody() }, T0).unwrap(), []);
    assert!(matches!(machine.on(Event::CountMoved, T0).unwrap()[..], [Effect::Decide(Choice::Cancel { .. })]));
    assert_eq!(ops(&machine.on(decided(TxStatus::Cancelling), T0).unwrap()), [(0, Op::Cancel), (1, Op::Cancel)]);
}

#[test]
fn the_end_comes_only_after_every_branch() {
    let (mut machine, confirms) = confirming(2);
    assert_eq!(machine.on(done(confirms[1]), T0).unwrap(), []);
    assert_eq!(machine.on(done(confirms[0]), T0).unwrap(), [Effect::Finish]);
    assert_eq!(machine.status(), TxStatus::Confirming);
    machine.on(Event::Finished, T0).unwrap();
    assert_eq!(machine.status(), TxStatus::Confirmed);
}

#[test]
fn a_branch_that_keeps_failing_parks_the_transaction_and_becomes_stuck() {
    let (mut machine, confirms) = confirming(2);
    machine.on(done(confirms[1]), T0).unwrap();
    let mut call = confirms[0];
    for _ in 0..2 {
        call = calls(&machine.on(unanswered(call), T0).unwrap())[0];
    }
    let effects = machine.on(unanswered(call), T0).unwrap();
    let [Effect::Park(parking)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(parking.delay_max, Duration::from_millis(200));
    assert_eq!((parking.progress[0].attempts, parking.progress[1].settled), (3, Some(Settled::Acknowledged)));
    assert_eq!(parking.progress[0].stuck, None);

    let known = Resumed { status: TxStatus::Confirming, decided_at: Some(T0), cause: None, progress: parking.progress.clone() };
    let mut machine = Machine::resumed(plan(2, Decides::AtVotes, TryOrder::Parallel), policy(), known);
    let calls = calls(&machine.on(Event::Started { ask: true }, T0).unwrap());
    assert_eq!((calls.len(), calls[0].branch, calls[0].op), (1, 0, Op::Confirm));
    let effects = machine.on(unanswered(calls[0]), T0).unwrap();
    let [Effect::Park(parking)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(parking.progress[0].stuck.as_ref().map(|stuck| stuck.kind), Some(StuckKind::Unreachable));
    assert_eq!(parking.delay_max, policy().stuck_probe);
}

#[test]
fn a_violation_is_stuck_at_once_and_never_settled() {
    let (mut machine, confirms) = confirming(1);
    let effects = machine.on(violated(confirms[0], ViolationKind::OtherOutcome), T0).unwrap();
    let [Effect::Park(parking)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(parking.progress[0].stuck.as_ref().map(|stuck| stuck.kind), Some(StuckKind::OtherOutcome));
    assert_eq!(parking.progress[0].settled, None);
}

#[test]
fn an_operator_may_try_anew_only_what_confirm_did_not_find() {
    let (mut machine, confirms) = confirming(2);
    assert_eq!(machine.on(Event::TryAnewOrdered { branch: 0, not_after: T0.plus(Duration::from_secs(9)) }, T0).unwrap(), []);
    machine.on(violated(confirms[0], ViolationKind::NoReservation), T0).unwrap();
    let anew = calls(&machine.on(Event::TryAnewOrdered { branch: 0, not_after: T0.plus(Duration::from_secs(9)) }, T0).unwrap());
    assert_eq!((anew[0].op, anew[0].anew), (Op::Try, Some(T0.plus(Duration::from_secs(9)))));
    let confirm = calls(&machine.on(yes(anew[0]), T0).unwrap());
    assert_eq!((confirm[0].branch, confirm[0].op, confirm[0].anew), (0, Op::Confirm, None));
}

#[test]
fn a_try_anew_is_repeated_until_its_not_after() {
    let (mut machine, confirms) = confirming(1);
    machine.on(violated(confirms[0], ViolationKind::NoReservation), T0).unwrap();
    let not_after = T0.plus(Duration::from_secs(9));
    let mut call = calls(&machine.on(Event::TryAnewOrdered { branch: 0, not_after }, T0).unwrap())[0];
    for _ in 0..20 {
        call = calls(&machine.on(unanswered(call), T0).unwrap())[0];
        assert_eq!((call.op, call.anew), (Op::Try, Some(not_after)));
    }
    assert!(matches!(machine.on(unanswered(call), not_after).unwrap()[..], [Effect::Park(_)]));
}

#[test]
fn a_hold_past_try_until_does_not_ask_for_ever() {
    let known = Resumed { status: TxStatus::Trying, decided_at: None, cause: None, progress: vec![BranchProgress::default()] };
    let mut machine = Machine::resumed(plan(1, Decides::OnRequest, TryOrder::Parallel), policy(), known);
    let late = T0.plus(Duration::from_secs(50));
    let mut call = calls(&machine.on(Event::ConfirmRequested, late).unwrap())[0];
    for _ in 1..policy().park_after_attempts {
        call = calls(&machine.on(unanswered(call), late).unwrap())[0];
    }
    assert_eq!(machine.on(unanswered(call), late).unwrap(), []);
    assert!(machine.is_quiescent());
    // Another request asks anew.
    assert_eq!(ops(&machine.on(Event::ConfirmRequested, late).unwrap()), [(0, Op::Try)]);
}

#[test]
fn a_branch_enlisted_elsewhere_carries_the_decision_out_too() {
    let (mut machine, tries) = started(1, Decides::OnRequestOpen);
    machine.on(yes(tries[0]), T0).unwrap();
    machine.on(Event::CancelRequested { by: somebody() }, T0).unwrap();
    assert_eq!(machine.on(Event::Enlisted(planned(1)), T0).unwrap(), []);
    let effects = machine.on(decided(TxStatus::Cancelling), T0).unwrap();
    assert_eq!(ops(&effects), [(0, Op::Cancel), (1, Op::Cancel)]);
}

#[test]
fn an_operators_settlement_ends_the_branch() {
    let (mut machine, confirms) = confirming(1);
    machine.on(violated(confirms[0], ViolationKind::OtherOutcome), T0).unwrap();
    assert_eq!(machine.on(Event::SettledOutside { branch: 0 }, T0).unwrap(), [Effect::Finish]);
}

#[test]
fn the_answer_of_a_replaced_call_is_ignored() {
    let (mut machine, confirms) = confirming(1);
    let probe = calls(&machine.on(Event::Probed { branch: 0 }, T0).unwrap());
    assert_eq!(machine.on(unanswered(confirms[0]), T0).unwrap(), []);
    assert_eq!(machine.on(done(probe[0]), T0).unwrap(), [Effect::Finish]);
}

#[test]
fn a_log_that_contradicts_the_decision_is_an_error() {
    let (mut machine, _) = confirming(1);
    assert!(machine.on(decided(TxStatus::Cancelling), T0).is_err());
    let (mut machine, _) = started(1, Decides::AtVotes);
    assert!(machine.on(Event::Finished, T0).is_err());
}

/// Every status × every event: what changes nothing may ask for nothing, and nothing panics.
#[test]
fn every_event_is_taken_in_every_status() {
    let events = || {
        let serial = 1;
        let answer = TryAnswer::Refused(Refusal::late());
        vec![
            Event::Started { ask: true },
            Event::Started { ask: false },
            Event::Enlisted(planned(7)),
            Event::TryAnswered { branch: 0, serial, answer },
            Event::TryAnswered { branch: 9, serial, answer: TryAnswer::Reserved(None) },
            Event::SettleAnswered { branch: 0, serial, answer: SettleAnswer::Done },
            Event::Unanswered { branch: 0, serial, kind: StuckKind::Unreachable, detail: String::new() },
            Event::ConfirmRequested,
            Event::CancelRequested { by: somebody() },
            Event::Woken,
            Event::CountMoved,
            Event::SettledOutside { branch: 0 },
            Event::Probed { branch: 0 },
            Event::TryAnewOrdered { branch: 0, not_after: T0.plus(Duration::from_secs(9)) },
        ]
    };
    for status in TxStatus::ALL {
        for event in events() {
            let known = Resumed { status, decided_at: Some(T0), cause: None, progress: vec![BranchProgress::default(); 2] };
            let mut machine = Machine::resumed(plan(2, Decides::OnRequest, TryOrder::Parallel), policy(), known);
            let effects = machine.on(event.clone(), T0).unwrap();
            assert_eq!(machine.status(), status, "{event:?} alone changed {status:?}");
            for call in calls(&effects) {
                let allowed = match status {
                    TxStatus::Trying => call.op == Op::Try,
                    TxStatus::Confirming => call.op == Op::Confirm,
                    TxStatus::Cancelling => call.op == Op::Cancel,
                    TxStatus::Confirmed | TxStatus::Cancelled => false,
                };
                assert!(allowed, "{status:?} {event:?} sent {call:?}");
            }
            if status.has_ended() {
                assert_eq!(effects, [], "{status:?} {event:?}");
            }
        }
    }
}

/// A small world around the machine: a log, participants that follow the contract, and a network that loses and repeats.
struct World {
    machine: Machine,
    plan: Plan,
    now: Timestamp,
    log_status: TxStatus,
    parked: Option<Vec<BranchProgress>>,
    rows: Vec<Option<BranchRowStatus>>,
    refuses: Vec<bool>,
    in_flight: Vec<Call>,
    deciding: Option<Choice>,
    finishing: bool,
    decisions: u32,
}

impl World {
    fn new(branches: usize, decides: Decides, try_order: TryOrder, refuses: &[bool]) -> Self {
        let plan = plan(branches, decides, try_order);
        let mut world = Self {
            machine: Machine::begun(plan.clone(), policy()),
            plan,
            now: T0,
            log_status: TxStatus::Trying,
            parked: None,
            rows: vec![None; branches],
            refuses: refuses[..branches].to_vec(),
            in_flight: Vec::new(),
            deciding: None,
            finishing: false,
            decisions: 0,
        };
        world.feed(Event::Started { ask: true });
        world
    }

    fn feed(&mut self, event: Event) {
        let effects = self.machine.on(event, self.now).expect("the log never contradicts itself here");
        for effect in effects {
            match effect {
                Effect::Call(call) => {
                    let may_leave = match call.op {
                        // Where somebody else cancelled, this machine may not have heard: the barrier refuses such a Try.
                        Op::Try => self.log_status.decision() != Some(Decision::Confirm),
                        Op::Confirm => self.log_status == TxStatus::Confirming,
                        Op::Cancel => self.log_status == TxStatus::Cancelling,
                    };
                    assert!(may_leave, "{call:?} left while the log says {:?}", self.log_status);
                    self.in_flight.push(call);
                }
                Effect::Decide(choice) => {
                    assert_eq!(self.deciding, None, "two decisions at once");
                    if choice.decision() == Decision::Confirm {
                        let reserved = |row: &Option<BranchRowStatus>| row.is_some() && *row != Some(BranchRowStatus::Refused);
                        assert!(self.rows.iter().all(reserved), "Confirm wanted without every yes: {:?}", self.rows);
                    }
                    self.deciding = Some(choice);
                }
                Effect::Finish => {
                    assert!(!self.rows.contains(&Some(BranchRowStatus::Tried)), "finished with a reservation open");
                    self.finishing = true;
                }
                Effect::Park(parking) => self.parked = Some(parking.progress),
            }
        }
    }

    /// The participant's side of the contract.
    fn deliver(&mut self, call: Call) -> Event {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        let row = &mut self.rows[call.branch];
        match call.op {
            Op::Try => {
                let answer = match *row {
                    None if self.refuses[call.branch] => {
                        *row = Some(Refused);
                        TryAnswer::Refused(Refusal::business("NO", "no"))
                    }
                    None => {
                        *row = Some(Tried);
                        TryAnswer::Reserved(None)
                    }
                    Some(Tried | Confirmed) => TryAnswer::Reserved(None),
                    Some(Refused) => TryAnswer::Refused(Refusal::business("NO", "no")),
                    Some(Cancelled) => TryAnswer::Refused(Refusal::suspended()),
                };
                Event::TryAnswered { branch: call.branch, serial: call.serial, answer }
            }
            Op::Confirm => {
                assert!(matches!(*row, Some(Tried | Confirmed)), "Confirm found {row:?}");
                *row = Some(Confirmed);
                done(call)
            }
            Op::Cancel => {
                assert_ne!(*row, Some(Confirmed), "Cancel found a confirmed row");
                if *row != Some(Refused) {
                    *row = Some(Cancelled);
                }
                done(call)
            }
        }
    }

    fn commit_decision(&mut self) {
        let Some(choice) = self.deciding.take() else { return };
        if self.log_status == TxStatus::Trying {
            self.log_status = match choice.decision() {
                Decision::Confirm => TxStatus::Confirming,
                Decision::Cancel => TxStatus::Cancelling,
            };
            self.decisions += 1;
        }
        self.feed(decided(self.log_status));
    }

    fn commit_finish(&mut self) {
        if std::mem::take(&mut self.finishing) {
            self.log_status = match self.log_status.decision() {
                Some(Decision::Confirm) => TxStatus::Confirmed,
                Some(Decision::Cancel) => TxStatus::Cancelled,
                None => panic!("finished undecided"),
            };
            self.feed(Event::Finished);
        }
    }

    /// The process dies; calls that have left still arrive, without anybody to hear their answers.
    fn crash(&mut self, ask: bool) {
        self.deciding = None;
        self.finishing = false;
        if self.log_status.has_ended() {
            return;
        }
        let progress = self.parked.take().unwrap_or_else(|| vec![BranchProgress::default(); self.rows.len()]);
        let known =
            Resumed { status: self.log_status, decided_at: self.log_status.decision().map(|_| T0), cause: None, progress };
        for call in std::mem::take(&mut self.in_flight) {
            self.deliver(call);
        }
        self.machine = Machine::resumed(self.plan.clone(), policy(), known);
        self.feed(Event::Started { ask: ask || self.plan.decides == Decides::AtVotes });
    }

    fn disturb(&mut self, what: u8, pick: usize) {
        match what {
            0..=2 if !self.in_flight.is_empty() => {
                let call = self.in_flight.remove(pick % self.in_flight.len());
                let answer = self.deliver(call);
                match what {
                    0 => self.feed(answer),
                    1 => self.feed(unanswered(call)),
                    _ => {
                        self.feed(answer.clone());
                        self.feed(answer);
                    }
                }
            }
            3 if !self.in_flight.is_empty() => {
                // Lost on the way there.
                let call = self.in_flight.remove(pick % self.in_flight.len());
                self.feed(unanswered(call));
            }
            4 | 5 => self.commit_decision(),
            6 => self.commit_finish(),
            7 => self.feed(Event::ConfirmRequested),
            8 => self.feed(Event::CancelRequested { by: somebody() }),
            9 => {
                self.now = self.now.plus(Duration::from_secs(u64::try_from(pick % 30).unwrap()));
                self.feed(Event::Woken);
            }
            10 => self.crash(pick.is_multiple_of(2)),
            11 => self.feed(Event::Probed { branch: pick % self.rows.len() }),
            // Somebody else decides first.
            12 if pick.is_multiple_of(4) && self.log_status == TxStatus::Trying => {
                self.log_status = TxStatus::Cancelling;
                self.decisions += 1;
            }
            _ => {}
        }
        if self.parked.is_some() {
            // The driver let go; recovery takes it up.
            self.crash(false);
        }
    }

    /// Faults have stopped: everything must end.
    fn heal(&mut self) {
        for _ in 0..1_000 {
            if self.machine.status().has_ended() {
                return;
            }
            self.commit_decision();
            self.commit_finish();
            if let Some(call) = self.in_flight.pop() {
                let answer = self.deliver(call);
                self.feed(answer);
            } else if let Some(at) = self.machine.wake_at() {
                self.now = self.now.max(at);
                self.feed(Event::Woken);
            }
            if self.parked.is_some() {
                self.crash(false);
            }
        }
        panic!("does not end: {:?}", self.machine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_the_contract_and_ends(
        branches in 1_usize..4,
        decides in prop_oneof![Just(Decides::AtVotes), Just(Decides::OnRequest), Just(Decides::OnRequestOpen)],
        try_order in prop_oneof![Just(TryOrder::Parallel), Just(TryOrder::Sequential)],
        refuses in proptest::collection::vec(proptest::bool::weighted(0.15), 3),
        disturbances in proptest::collection::vec((0_u8..13, any::<usize>()), 0..60),
    ) {
        let mut world = World::new(branches, decides, try_order, &refuses);
        for (what, pick) in disturbances {
            world.disturb(what, pick);
            prop_assert!(world.decisions <= 1);
        }
        world.heal();
        prop_assert_eq!(world.machine.status(), world.log_status);
        let confirmed = world.log_status == TxStatus::Confirmed;
        for row in &world.rows {
            let settled = match row {
                Some(BranchRowStatus::Confirmed) => confirmed,
                Some(BranchRowStatus::Cancelled | BranchRowStatus::Refused) | None => !confirmed,
                Some(BranchRowStatus::Tried) => false,
            };
            prop_assert!(settled, "{:?} in a transaction that is {:?}", row, world.log_status);
        }
    }
}

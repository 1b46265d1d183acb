//! The machine itself: one transaction, from Begun to its end.

use std::time::Duration;

use tcc_types::{BranchId, Decision, Op, RefusalReason, SettleAnswer, Timestamp, TryAnswer, TxStatus, ViolationKind};

use crate::{
    BranchProgress, BranchView, Call, CancelCause, Change, Choice, Decides, Effect, Event, IllegalTransition, Parking, Plan,
    PlannedBranch, Policy, Resumed, Settled, Stuck, StuckKind, TryOrder, Vote, transition,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Activity {
    /// No call under way.
    Idle,
    /// A call, or the wait before it, is under way.
    Calling,
    /// Failed so often that it waits in the log.
    Parked,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Branch {
    plan: PlannedBranch,
    vote: Vote,
    activity: Activity,
    serial: u32,
    /// Failed attempts of the phase that the transaction is in.
    attempts: u32,
    settled: Option<Settled>,
    stuck: Option<Stuck>,
    /// An operator ordered a Try before the Confirm, with this `not_after`.
    anew: Option<Timestamp>,
}

impl Branch {
    fn new(plan: PlannedBranch) -> Self {
        let (vote, activity) = (Vote::Unknown, Activity::Idle);
        Self { plan, vote, activity, serial: 0, attempts: 0, settled: None, stuck: None, anew: None }
    }

    fn progress(&self) -> BranchProgress {
        BranchProgress { settled: self.settled, attempts: self.attempts, stuck: self.stuck.clone() }
    }
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    policy: Policy,
    try_order: TryOrder,
    decides: Decides,
    try_until: Timestamp,
    decide_by: Timestamp,
    branches: Vec<Branch>,
    status: TxStatus,
    decided_at: Option<Timestamp>,
    cause: Option<CancelCause>,
    /// Taken up from the log: votes given before are unknown here, and may be asked for until `decide_by`.
    resumed: bool,
    /// Votes are being asked for.
    asking: bool,
    confirm_wanted: bool,
    cancel_wanted: Option<CancelCause>,
    /// A compare-and-set is under way.
    deciding: bool,
    finishing: bool,
}

impl Machine {
    /// A transaction whose Begun is durable, by this very call: no Try of it has ever left.
    #[must_use]
    pub fn begun(plan: Plan, policy: Policy) -> Self {
        Self {
            policy,
            try_order: plan.try_order,
            decides: plan.decides,
            try_until: plan.try_until,
            decide_by: plan.decide_by,
            branches: plan.branches.into_iter().map(Branch::new).collect(),
            status: TxStatus::Trying,
            decided_at: None,
            cause: None,
            resumed: false,
            asking: false,
            confirm_wanted: false,
            cancel_wanted: None,
            deciding: false,
            finishing: false,
        }
    }

    /// A transaction as the log has it.
    #[must_use]
    pub fn resumed(plan: Plan, policy: Policy, known: Resumed) -> Self {
        let mut machine = Self::begun(plan, policy);
        machine.resumed = true;
        machine.status = known.status;
        machine.decided_at = known.decided_at;
        machine.cause = known.cause;
        for (branch, progress) in machine.branches.iter_mut().zip(known.progress) {
            branch.settled = progress.settled;
            branch.attempts = progress.attempts;
            branch.stuck = progress.stuck;
        }
        machine
    }

    /// Where it is; changes only when an event reported a durable write.
    #[must_use]
    pub fn status(&self) -> TxStatus {
        self.status
    }

    /// When it was decided.
    #[must_use]
    pub fn decided_at(&self) -> Option<Timestamp> {
        self.decided_at
    }

    /// Why it was cancelled.
    #[must_use]
    pub fn cause(&self) -> Option<&CancelCause> {
        self.cause.as_ref()
    }

    /// Its branches, in order.
    pub fn branches(&self) -> impl ExactSizeIterator<Item = BranchView> + '_ {
        self.branches.iter().map(|branch| BranchView {
            id: branch.plan.id.clone(),
            participant: branch.plan.participant.clone(),
            vote: branch.vote.clone(),
            progress: branch.progress(),
        })
    }

    /// A branch's index.
    #[must_use]
    pub fn index_of(&self, id: &BranchId) -> Option<usize> {
        self.branches.iter().position(|branch| branch.plan.id == *id)
    }

    /// Every branch is reserved and nothing is decided: it waits for a request.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.status == TxStatus::Trying && self.all_voted_yes() && !self.deciding && self.decides != Decides::AtVotes
    }

    /// Nothing is under way; only a request or `wake_at` goes on.
    #[must_use]
    pub fn is_quiescent(&self) -> bool {
        let calling = self.branches.iter().any(|branch| branch.activity == Activity::Calling);
        !calling && !self.deciding && !self.finishing && self.status.decision().is_none()
    }

    /// When [`Event::Woken`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let waits = self.status == TxStatus::Trying && !self.deciding;
        waits.then(|| if self.votes_are_due() { self.vote_deadline() } else { self.decide_by })
    }

    /// Takes an event in and tells what to do.
    ///
    /// # Errors
    /// The log reported something that contradicts the decision that stands: never go on with this transaction.
    pub fn on(&mut self, event: Event, now: Timestamp) -> Result<Vec<Effect>, IllegalTransition> {
        let mut effects = Vec::new();
        match event {
            Event::Started { ask } => self.on_started(ask, now, &mut effects),
            Event::Enlisted(plan) => self.on_enlisted(plan, &mut effects),
            Event::TryAnswered { branch, serial, answer } => {
                if self.take_answer(branch, serial) {
                    self.on_try_answered(branch, answer, now, &mut effects);
                }
            }
            Event::SettleAnswered { branch, serial, answer } => {
                if self.take_answer(branch, serial) {
                    self.on_settle_answered(branch, answer, now, &mut effects);
                }
            }
            Event::Unanswered { branch, serial, kind, detail } => {
                if self.take_answer(branch, serial) {
                    self.on_unanswered(branch, kind, detail, now, &mut effects);
                }
            }
            Event::ConfirmRequested => {
                self.confirm_wanted = true;
                self.ask_for_votes(&mut effects);
                self.advance(now, &mut effects);
            }
            Event::CancelRequested { by } => {
                self.want_cancel(CancelCause::Requested { by });
                self.advance(now, &mut effects);
            }
            Event::Woken => self.advance(now, &mut effects),
            Event::Decided { status, at, cause } => self.on_decided(status, at, cause, &mut effects)?,
            Event::CountMoved => self.on_count_moved(now, &mut effects),
            Event::Finished => {
                self.finishing = false;
                self.status = transition(self.status, Change::Finished)?;
            }
            Event::SettledOutside { branch } => self.on_settled(branch, Settled::Outside, &mut effects),
            Event::Probed { branch } => self.on_probed(branch, &mut effects),
            Event::TryAnewOrdered { branch, not_after } => self.on_try_anew_ordered(branch, not_after, &mut effects),
        }
        Ok(effects)
    }

    fn on_started(&mut self, ask: bool, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.status {
            TxStatus::Trying => {
                if self.resumed && now >= self.decide_by {
                    // Too late to ask anybody anything.
                    self.want_cancel(CancelCause::TimedOut);
                } else if ask {
                    self.ask_for_votes(effects);
                }
                self.advance(now, effects);
            }
            TxStatus::Confirming | TxStatus::Cancelling => {
                for branch in 0..self.branches.len() {
                    self.settle(branch, Duration::ZERO, effects);
                }
                self.finish_if_settled(effects);
            }
            TxStatus::Confirmed | TxStatus::Cancelled => {}
        }
    }

    fn on_enlisted(&mut self, plan: PlannedBranch, effects: &mut Vec<Effect>) {
        if self.status != TxStatus::Trying || self.index_of(&plan.id).is_some() {
            return;
        }
        self.branches.push(Branch::new(plan));
        if !self.deciding {
            self.call(self.branches.len() - 1, Op::Try, Duration::ZERO, effects);
        }
    }

    fn on_try_answered(&mut self, branch: usize, answer: TryAnswer, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.status {
            TxStatus::Trying => self.on_vote(branch, answer, now, effects),
            TxStatus::Confirming => self.on_tried_anew(branch, answer, now, effects),
            // The Cancel that is under way makes up for it.
            TxStatus::Cancelling | TxStatus::Confirmed | TxStatus::Cancelled => {}
        }
    }

    fn on_vote(&mut self, index: usize, answer: TryAnswer, now: Timestamp, effects: &mut Vec<Effect>) {
        let branch = &mut self.branches[index];
        branch.attempts = 0;
        let (id, participant) = (branch.plan.id.clone(), branch.plan.participant.clone());
        match answer {
            TryAnswer::Reserved(output) => branch.vote = Vote::Yes(output),
            TryAnswer::Refused(refusal) => {
                branch.vote = Vote::No { durable: refusal.reason == RefusalReason::Business };
                self.want_cancel(CancelCause::Refused { branch: id, participant, refusal });
            }
            TryAnswer::Violation(violation) => {
                branch.vote = Vote::No { durable: false };
                self.want_cancel(CancelCause::Violated { branch: id, participant, violation });
            }
        }
        if self.asking && self.cancel_wanted.is_none() {
            self.ask_for_votes(effects);
        }
        self.advance(now, effects);
    }

    fn on_tried_anew(&mut self, index: usize, answer: TryAnswer, now: Timestamp, effects: &mut Vec<Effect>) {
        let branch = &mut self.branches[index];
        if branch.anew.take().is_none() || branch.settled.is_some() {
            return;
        }
        match answer {
            TryAnswer::Reserved(_) => self.settle(index, Duration::ZERO, effects),
            TryAnswer::Refused(refusal) => {
                let detail = format!("tried anew, refused: {}: {}", refusal.code, refusal.message);
                self.mark_stuck(index, StuckKind::NoReservation, detail, now);
                self.park_branch(index, effects);
            }
            TryAnswer::Violation(violation) => {
                self.mark_stuck(index, StuckKind::OtherOutcome, format!("tried anew: {violation}"), now);
                self.park_branch(index, effects);
            }
        }
    }

    fn on_settle_answered(&mut self, index: usize, answer: SettleAnswer, now: Timestamp, effects: &mut Vec<Effect>) {
        match answer {
            SettleAnswer::Done => self.on_settled(index, Settled::Acknowledged, effects),
            SettleAnswer::Violation(violation) => {
                let kind = match violation.kind {
                    ViolationKind::NoReservation => StuckKind::NoReservation,
                    ViolationKind::DifferentPayload | ViolationKind::OtherOutcome => StuckKind::OtherOutcome,
                };
                self.branches[index].attempts = self.branches[index].attempts.saturating_add(1);
                self.mark_stuck(index, kind, violation.to_string(), now);
                self.park_branch(index, effects);
            }
        }
    }

    fn on_unanswered(&mut self, index: usize, kind: StuckKind, detail: String, now: Timestamp, effects: &mut Vec<Effect>) {
        self.branches[index].attempts = self.branches[index].attempts.saturating_add(1);
        let attempts = self.branches[index].attempts;
        match self.status {
            TxStatus::Trying => {
                // Past try_until, votes may be asked for again, but not for ever: a later request asks anew.
                let asked_enough = now >= self.try_until && attempts >= self.policy.park_after_attempts;
                if !self.deciding && now < self.vote_deadline() && !asked_enough {
                    self.call(index, Op::Try, self.policy.delay_max(attempts), effects);
                }
                self.advance(now, effects);
            }
            TxStatus::Confirming | TxStatus::Cancelling => {
                let too_old = self.decided_at.is_some_and(|at| at.until(now) >= self.policy.stuck_after);
                if too_old || attempts >= self.policy.stuck_after_attempts {
                    self.mark_stuck(index, kind, detail, now);
                }
                let branch = &mut self.branches[index];
                // The order lives only here: it is carried out, or given up, before the transaction leaves memory.
                branch.anew = branch.anew.filter(|not_after| now < *not_after);
                let waits_long = branch.stuck.is_some() || attempts >= self.policy.park_after_attempts;
                if waits_long && branch.anew.is_none() {
                    self.park_branch(index, effects);
                } else {
                    self.settle(index, self.policy.delay_max(attempts), effects);
                }
            }
            TxStatus::Confirmed | TxStatus::Cancelled => {}
        }
    }

    fn on_decided(
        &mut self,
        status: TxStatus,
        at: Timestamp,
        cause: Option<CancelCause>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), IllegalTransition> {
        self.deciding = false;
        let Some(decision) = status.decision() else { return Ok(()) };
        let change = match decision {
            Decision::Confirm => Change::ConfirmDecided,
            Decision::Cancel => Change::CancelDecided,
        };
        let first_heard = self.status.decision().is_none();
        self.status = transition(self.status, change)?;
        if status.has_ended() {
            self.status = transition(self.status, Change::Finished)?;
        }
        self.decided_at = Some(at);
        self.cause = cause;
        if !first_heard || status.has_ended() {
            return Ok(());
        }
        for index in 0..self.branches.len() {
            let branch = &mut self.branches[index];
            branch.attempts = 0;
            // Whatever Try is still under way: its answer no longer matters.
            branch.activity = Activity::Idle;
            branch.serial = branch.serial.wrapping_add(1);
            if decision == Decision::Cancel && branch.vote == (Vote::No { durable: true }) {
                branch.settled = Some(Settled::Acknowledged);
            }
            self.settle(index, Duration::ZERO, effects);
        }
        self.finish_if_settled(effects);
        Ok(())
    }

    fn on_count_moved(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.deciding = false;
        // Confirm waits for the votes of the branches that were unknown here; Cancel needs no votes.
        if self.cancel_wanted.is_some() {
            self.advance(now, effects);
        } else {
            self.ask_for_votes(effects);
        }
    }

    fn on_settled(&mut self, index: usize, how: Settled, effects: &mut Vec<Effect>) {
        if self.status.decision().is_none() {
            return;
        }
        let branch = &mut self.branches[index];
        branch.serial = branch.serial.wrapping_add(1);
        branch.activity = Activity::Idle;
        branch.settled.get_or_insert(how);
        branch.stuck = None;
        self.finish_if_settled(effects);
        self.park_if_nothing_moves(effects);
    }

    fn on_probed(&mut self, index: usize, effects: &mut Vec<Effect>) {
        if matches!(self.status, TxStatus::Confirming | TxStatus::Cancelling) {
            self.settle(index, Duration::ZERO, effects);
        }
    }

    fn on_try_anew_ordered(&mut self, index: usize, not_after: Timestamp, effects: &mut Vec<Effect>) {
        let branch = &mut self.branches[index];
        let lost = branch.stuck.as_ref().is_some_and(|stuck| stuck.kind == StuckKind::NoReservation);
        if self.status == TxStatus::Confirming && branch.settled.is_none() && lost {
            branch.anew = Some(not_after);
            self.settle(index, Duration::ZERO, effects);
        }
    }

    /// Whether this answer belongs to the call that is under way; if so, that call is over.
    fn take_answer(&mut self, index: usize, serial: u32) -> bool {
        let Some(branch) = self.branches.get_mut(index) else { return false };
        let current = branch.serial == serial && branch.activity == Activity::Calling;
        if current {
            branch.activity = Activity::Idle;
        }
        current
    }

    /// Remembers why to cancel; the first reason counts.
    fn want_cancel(&mut self, cause: CancelCause) {
        if self.status == TxStatus::Trying {
            self.cancel_wanted.get_or_insert(cause);
        }
    }

    /// Takes the decision if it is time for one.
    fn advance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.status != TxStatus::Trying || self.deciding {
            return;
        }
        let overdue = now >= self.decide_by || (self.votes_are_due() && now >= self.vote_deadline());
        if overdue {
            self.want_cancel(CancelCause::TimedOut);
        }
        let choice = if let Some(cause) = &self.cancel_wanted {
            Choice::Cancel { cause: cause.clone() }
        } else if self.all_voted_yes() && (self.decides == Decides::AtVotes || self.confirm_wanted) {
            // The bound on branches per transaction is far below u32.
            Choice::Confirm { votes: u32::try_from(self.branches.len()).unwrap_or(u32::MAX) }
        } else {
            return;
        };
        self.deciding = true;
        effects.push(Effect::Decide(choice));
    }

    fn all_voted_yes(&self) -> bool {
        !self.branches.is_empty() && self.branches.iter().all(|branch| matches!(branch.vote, Vote::Yes(_)))
    }

    /// Votes were asked for and some are missing.
    fn votes_are_due(&self) -> bool {
        let open = self.branches.iter().any(|branch| branch.vote == Vote::Unknown);
        open && (self.asking || self.decides == Decides::AtVotes)
    }

    fn vote_deadline(&self) -> Timestamp {
        if self.resumed || self.decides == Decides::OnRequestOpen { self.decide_by } else { self.try_until }
    }

    /// Sends the Tries that are missing and may leave now.
    fn ask_for_votes(&mut self, effects: &mut Vec<Effect>) {
        if self.status != TxStatus::Trying || self.deciding {
            return;
        }
        self.asking = true;
        for index in 0..self.branches.len() {
            let branch = &self.branches[index];
            if branch.vote == Vote::Unknown && branch.activity == Activity::Idle {
                self.call(index, Op::Try, Duration::ZERO, effects);
            }
            let in_turn = matches!(self.branches[index].vote, Vote::Yes(_));
            if self.try_order == TryOrder::Sequential && !in_turn {
                break;
            }
        }
    }

    /// Sends what the decision asks of a branch.
    fn settle(&mut self, index: usize, delay_max: Duration, effects: &mut Vec<Effect>) {
        let branch = &self.branches[index];
        let Some(decision) = self.status.decision() else { return };
        if branch.settled.is_some() {
            return;
        }
        let op = if branch.anew.is_some() { Op::Try } else { decision.op() };
        self.call(index, op, delay_max, effects);
    }

    fn call(&mut self, index: usize, op: Op, delay_max: Duration, effects: &mut Vec<Effect>) {
        let branch = &mut self.branches[index];
        branch.serial = branch.serial.wrapping_add(1);
        branch.activity = Activity::Calling;
        let anew = branch.anew.filter(|_| op == Op::Try);
        effects.push(Effect::Call(Call { branch: index, op, serial: branch.serial, delay_max, anew }));
    }

    fn mark_stuck(&mut self, index: usize, kind: StuckKind, mut detail: String, now: Timestamp) {
        detail.truncate(detail.floor_char_boundary(Stuck::DETAIL_LENGTH_MAX));
        let branch = &mut self.branches[index];
        let since = branch.stuck.as_ref().map_or(now, |stuck| stuck.since);
        // A call without an answer says nothing about what the participant said before, and an operator may be about to act on.
        let kind = match (kind, branch.stuck.as_ref().map(|stuck| stuck.kind)) {
            (
                StuckKind::Unreachable | StuckKind::UnknownParticipant,
                Some(said @ (StuckKind::NoReservation | StuckKind::OtherOutcome)),
            ) => said,
            (kind, _) => kind,
        };
        branch.stuck = Some(Stuck { kind, since, detail });
    }

    fn park_branch(&mut self, index: usize, effects: &mut Vec<Effect>) {
        self.branches[index].activity = Activity::Parked;
        self.park_if_nothing_moves(effects);
    }

    /// Once no call is under way and some branch has given up for now, the transaction waits in the log.
    fn park_if_nothing_moves(&self, effects: &mut Vec<Effect>) {
        let moving = self.branches.iter().any(|branch| branch.activity == Activity::Calling);
        let parked = self.branches.iter().filter(|branch| branch.activity == Activity::Parked);
        let delay_max = parked
            .map(|branch| if branch.stuck.is_some() { self.policy.stuck_probe } else { self.policy.delay_max(branch.attempts) })
            .min();
        if let Some(delay_max) = delay_max.filter(|_| !moving) {
            let progress = self.branches.iter().map(Branch::progress).collect();
            effects.push(Effect::Park(Parking { delay_max, progress }));
        }
    }

    fn finish_if_settled(&mut self, effects: &mut Vec<Effect>) {
        let settled = self.branches.iter().all(|branch| branch.settled.is_some());
        if settled && !self.finishing && !self.status.has_ended() {
            self.finishing = true;
            effects.push(Effect::Finish);
        }
    }
}

#[cfg(test)]
mod tests;

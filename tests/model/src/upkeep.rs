//! What participants do: operations that arrive, the sweeper's questions, and retention; and what the log deletes and loses.

use tcc_barrier::{Answer, Call, Deletion, is_over, judge_deletion};
use tcc_machine::{CancelCause, Stored as KnownTx, UnknownGid, outcome_of, outcome_of_unknown};
use tcc_types::{
    BranchRowStatus, CancelCall, Decision, Op, Outcome, OutcomeQuery, RefusalReason, SettleAnswer, Timestamp, TryAnswer,
    TryCall, TxStatus, ViolationKind,
};

use crate::{
    log::Record,
    mark::Mark,
    participant::{Clocks, Participant, Stored},
    rules,
    state::{Condemned, Place, Reply, Request, State},
    world::{ASK_GRACE, CLOCK_ALLOWANCE, RETENTION, World},
};

impl World {
    /// A request arrives; whoever waits is sent the answer.
    pub(crate) fn arrive(&self, state: &mut State, request: Request) {
        let Request { at: (tx, branch), op, not_after, from, .. } = request;
        let clocks = self.clocks(state, request.at);
        let had_row = self.participant(state, request.at).rows.contains_key(&request.at);
        let answer = self.operate(self.participant_mut(state, request.at), request, clocks);
        let Some(answer) = answer else { return };
        let participant = self.participant(state, request.at);
        let row = participant.rows.get(&request.at).map(|stored| stored.row.status());
        let is_late = matches!(&answer, Answer::Tried(TryAnswer::Refused(no)) if no.reason == RefusalReason::Late);
        let had_effect = participant.effects.contains_key(&request.at);
        // By the log's clock it came while it might still be sent.
        let in_time = state.now.plus(CLOCK_ALLOWANCE) <= not_after;
        if !rules::is_true(&answer, op, row) || (is_late && in_time) {
            state.untrue = Some(answer.clone());
        }
        Self::mark_answer(state, &answer, op, had_row);
        if is_late && had_effect {
            state.mark(Mark::LateTryAfterDeletion);
        }
        let reserves = matches!(answer, Answer::Tried(TryAnswer::Reserved(_))) && !had_row;
        if reserves && state.fates[tx].decision == Some(Decision::Confirm) {
            state.mark(Mark::TriedAnew);
        }
        let Some(from) = from else { return };
        let Some(driver) = Self::driver(state, tx, from.gateway) else { return };
        let reply = Reply { branch, serial: from.serial, answer };
        if !driver.replies.contains(&reply) {
            driver.replies.push(reply);
            driver.replies.sort_by_key(|reply| (reply.branch, reply.serial));
        }
    }

    fn mark_answer(state: &mut State, answer: &Answer, op: Op, had_row: bool) {
        match answer {
            Answer::Tried(TryAnswer::Refused(refusal)) => match refusal.reason {
                RefusalReason::Late => state.mark(Mark::LateTry),
                RefusalReason::Suspended => state.mark(Mark::Suspended),
                RefusalReason::Business => {}
            },
            Answer::Tried(TryAnswer::Violation(_)) => state.mark(Mark::OtherRequest),
            Answer::Tried(TryAnswer::Reserved(_)) => {}
            Answer::Settled(SettleAnswer::Done) if op == Op::Cancel && !had_row => state.mark(Mark::EmptyRollback),
            Answer::Settled(SettleAnswer::Done) => {}
            Answer::Settled(SettleAnswer::Violation(violation)) => {
                if violation.kind == ViolationKind::NoReservation {
                    state.mark(Mark::NoReservation);
                }
            }
        }
    }

    /// One operation, committed.
    fn operate(&self, participant: &mut Participant, request: Request, clocks: Clocks) -> Option<Answer> {
        let branch = self.branch(request.at);
        let Request { at, op, not_after, ask_after, .. } = request;
        match op {
            Op::Try => {
                let call = TryCall { not_after, ask_after, ..branch.try_call.clone() };
                participant.run(at, Call::Try(&call), clocks)
            }
            Op::Confirm => participant.run(at, Call::Confirm(&branch.confirm), clocks),
            Op::Cancel => {
                let call = CancelCall { not_after, ..branch.cancel.clone() };
                participant.run(at, Call::Cancel(&call), clocks)
            }
        }
    }

    /// A row that is past its `ask_after`.
    pub(crate) fn in_doubt<'a>(&self, state: &'a State, at: Place) -> Option<&'a Stored> {
        let participant = self.participant(state, at);
        let clock = participant.clock(state.now);
        participant.rows.get(&at).filter(|stored| stored.row.status() == BranchRowStatus::Tried && stored.ask_after <= clock)
    }

    /// The sweeper asks; what the log has is read now.
    pub(crate) fn sweep(&self, state: &mut State, at: Place) {
        let Some(stored) = self.in_doubt(state, at) else { return };
        let query = self.query(at, stored);
        match self.judge(state, at, &query) {
            UnknownGid::Tell(outcome) => self.obey(state, at, outcome),
            UnknownGid::WriteCancelled => drop(state.in_doubt.insert(at)),
        }
    }

    /// The coordinator's answer, as far as it follows from what is read.
    fn judge(&self, state: &State, at: Place, query: &OutcomeQuery) -> UnknownGid {
        match &state.log[at.0] {
            Some(record) => UnknownGid::Tell(self.outcome_of(record, at, query, state.now)),
            None => outcome_of_unknown(query, RETENTION, state.now),
        }
    }

    fn outcome_of(&self, record: &Record, (tx, branch): Place, query: &OutcomeQuery, now: Timestamp) -> Outcome {
        let decide_by = self.terms(tx, record.begun_at).decide_by;
        let stored = KnownTx { status: record.status, decide_by, has_branch: record.has_branch(branch) };
        outcome_of(query, stored, ASK_GRACE, now)
    }

    fn query(&self, at: Place, stored: &Stored) -> OutcomeQuery {
        let key = self.branch(at).try_call.key.clone();
        OutcomeQuery { key, row_status: stored.row.status(), not_after: stored.not_after }
    }

    /// The cancelled record is written, unless there is a transaction now; what stands is answered.
    pub(crate) fn write_cancelled(&self, state: &mut State, at: Place) {
        state.in_doubt.remove(&at);
        let now = state.now;
        if state.log[at.0].is_none() {
            let cause = CancelCause::Requested { by: self.initiator.clone() };
            state.log[at.0] = Some(Record::cancelled(cause, now));
            state.mark(Mark::WroteCancelled);
            self.seal(state, at.0);
        } else {
            state.mark(Mark::BegunMeanwhile);
        }
        let key = self.branch(at).try_call.key.clone();
        // As it was when it asked.
        let query = OutcomeQuery { key, row_status: BranchRowStatus::Tried, not_after: Timestamp::EPOCH };
        let Some(outcome) = state.log[at.0].as_ref().map(|record| self.outcome_of(record, at, &query, now)) else { return };
        self.obey(state, at, outcome);
    }

    /// The participant will do as it was told, at some time.
    fn obey(&self, state: &mut State, at: Place, outcome: Outcome) {
        let op = match outcome {
            Outcome::Confirmed => Op::Confirm,
            Outcome::Cancelled => Op::Cancel,
            Outcome::AskAgain { .. } => {
                state.mark(Mark::ToldLater);
                return;
            }
            Outcome::Finished | Outcome::Forgotten | Outcome::NotMine => return,
        };
        let is_branch = state.log[at.0].as_ref().is_some_and(|record| record.has_branch(at.1));
        if op == Op::Confirm {
            state.tell(at.0, Decision::Confirm);
            state.mark(Mark::ToldConfirmed);
        } else {
            // A branch that a confirmed transaction does not have is cancelled.
            if is_branch || state.fates[at.0].decision.is_none() {
                state.tell(at.0, Decision::Cancel);
            }
            state.mark(Mark::ToldCancelled);
        }
        let not_after = self.participant(state, at).rows.get(&at).map_or(Timestamp::EPOCH, |stored| stored.not_after);
        let not_after = if op == Op::Cancel { not_after } else { Timestamp::EPOCH };
        state.network.insert(Request { at, op, not_after, ask_after: Timestamp::EPOCH, from: None });
    }

    /// Retention looks at a row, as a walk does. What the databases' statements check besides (how old the gid is, that the row is not tried)
    /// is left out: the rule has to do without.
    pub(crate) fn retire(&self, state: &mut State, at: Place) {
        let participant = self.participant(state, at);
        let before = participant.clock(state.now).minus(RETENTION);
        let Some(stored) = participant.rows.get(&at) else { return };
        let (status, changed_at) = (stored.row.status(), stored.changed_at);
        let condemned = Condemned { at, status, changed_at };
        match judge_deletion(status, stored.not_after, changed_at, before) {
            Deletion::Keep => {}
            // Nobody is asked in between.
            Deletion::Delete => self.delete(state, condemned),
            Deletion::DeleteIfOver => {
                let query = self.query(at, stored);
                match self.judge(state, at, &query) {
                    UnknownGid::Tell(outcome) if is_over(outcome) => drop(state.condemned.insert(condemned)),
                    UnknownGid::Tell(_) => state.mark(Mark::ConfirmedRowKept),
                    UnknownGid::WriteCancelled => drop(state.in_doubt.insert(at)),
                }
            }
        }
    }

    /// By its exact key, and only as it was.
    pub(crate) fn delete(&self, state: &mut State, condemned: Condemned) {
        state.condemned.remove(&condemned);
        let Condemned { at, status, changed_at } = condemned;
        let participant = self.participant_mut(state, at);
        let is_same = |stored: &Stored| stored.row.status() == status && stored.changed_at == changed_at;
        if participant.rows.get(&at).is_some_and(is_same) {
            participant.rows.remove(&at);
            let confirmed = status == BranchRowStatus::Confirmed;
            state.mark(if confirmed { Mark::ConfirmedRowDeleted } else { Mark::RowDeleted });
        }
    }

    /// Whether the log may delete it: it ended, and both its end and its gid are older than the retention.
    pub(crate) fn is_past_retention(&self, state: &State, tx: usize) -> bool {
        let before = state.now.minus(RETENTION);
        let finished_at =
            state.log[tx].as_ref().filter(|record| record.status.has_ended()).and_then(|record| record.finished_at);
        finished_at.is_some_and(|at| at < before) && self.gids[tx].minted_at() < before
    }

    pub(crate) fn may_lose_begin(state: &State, tx: usize) -> bool {
        state.log[tx].as_ref().is_some_and(|record| record.status == TxStatus::Trying)
    }
}

//! What may happen in a state, and doing it.

use tcc_types::{BranchRowStatus, Decision};

use crate::{
    action::{Action, Order},
    configuration::{Bounds, Planned},
    mark::Mark,
    participant::Participant,
    state::{Place, State},
    world::World,
};

impl World {
    pub(crate) fn offer(&self, state: &State, actions: &mut Vec<Action>) {
        for gateway in 0..state.gateways.len() {
            for tx in self.transactions() {
                self.offer_requests(state, (tx, gateway), actions);
                let record = state.log[tx].as_ref();
                let unfinished = record.is_some_and(|record| !record.status.has_ended());
                if state.gateways[gateway].contains_key(&tx) {
                    self.offer_driver(state, (tx, gateway), actions);
                } else if unfinished && state.spent.takeovers < self.bounds.takeovers {
                    actions.push(Action::TakeUp { tx, gateway });
                }
            }
            if state.spent.crashes < self.bounds.crashes && !state.gateways[gateway].is_empty() {
                actions.push(Action::Crash { gateway });
            }
        }
        actions.extend(state.network.iter().map(|request| Action::Arrive(*request)));
        if self.next_instant(state.now).is_some() {
            actions.push(Action::Tick);
        }
        self.offer_upkeep(state, actions);
        self.offer_losses(state, actions);
    }

    fn offer_requests(&self, state: &State, (tx, gateway): (usize, usize), actions: &mut Vec<Action>) {
        let Bounds { lost_commits, orders, .. } = self.bounds;
        let Planned { submits, enlists, confirms, cancels, .. } = self.bounds.transactions[tx];
        if state.spent.submits[tx] < submits {
            actions.push(Action::Submit { tx, gateway, answered: true });
            if state.spent.lost_commits < lost_commits {
                actions.push(Action::Submit { tx, gateway, answered: false });
            }
        }
        if !state.gateways[gateway].get(&tx).is_none_or(|driver| driver.listens()) {
            return;
        }
        if state.spent.enlists[tx] < enlists {
            actions.extend((0..self.branches(tx).len()).map(|branch| Action::Enlist { tx, gateway, branch }));
        }
        let asks =
            [(Decision::Confirm, state.spent.confirms[tx] < confirms), (Decision::Cancel, state.spent.cancels[tx] < cancels)];
        for (decision, _) in asks.into_iter().filter(|(_, may)| *may) {
            actions.push(Action::Ask { tx, gateway, decision });
        }
        if state.spent.orders < orders {
            for branch in 0..self.branches(tx).len() {
                let orders = [Order::Probe, Order::TryAnew, Order::MarkSettled].into_iter();
                let orders = orders.filter(|order| Self::may_order(state, (tx, branch), gateway, *order));
                actions.extend(orders.map(|order| Action::Order { at: (tx, branch), gateway, order }));
            }
        }
    }

    fn offer_driver(&self, state: &State, (tx, gateway): (usize, usize), actions: &mut Vec<Action>) {
        let Some(driver) = state.gateways[gateway].get(&tx) else { return };
        if !driver.listens() {
            actions.push(Action::Write { tx, gateway, heard: true });
            if state.spent.lost_commits < self.bounds.lost_commits {
                actions.push(Action::Write { tx, gateway, heard: false });
            }
            return;
        }
        actions.extend((0..driver.replies.len()).map(|reply| Action::Answer { tx, gateway, reply }));
        if state.spent.unanswered < self.bounds.unanswered {
            let waiting = driver.waiting.iter().enumerate().filter(|(_, serial)| serial.is_some());
            actions.extend(waiting.map(|(branch, _)| Action::GiveUp { tx, gateway, branch }));
        }
        if driver.machine.wake_at().is_some_and(|at| at <= state.now) {
            actions.push(Action::Wake { tx, gateway });
        }
        if self.bounds.looks {
            actions.push(Action::Look { tx, gateway });
        }
    }

    fn offer_upkeep(&self, state: &State, actions: &mut Vec<Action>) {
        if self.bounds.asks {
            actions.extend(self.places().filter(|at| self.in_doubt(state, *at).is_some()).map(Action::Sweep));
            actions.extend(state.in_doubt.iter().copied().map(Action::WriteCancelled));
        }
        if self.bounds.retention {
            let has_row = |at: &Place| self.participant(state, *at).rows.contains_key(at);
            actions.extend(self.places().filter(has_row).map(Action::Retire));
            actions.extend(state.condemned.iter().copied().map(Action::Delete));
            let old = self.transactions().filter(|tx| self.is_past_retention(state, *tx));
            actions.extend(old.map(|tx| Action::DeleteRecord { tx }));
        }
    }

    fn offer_losses(&self, state: &State, actions: &mut Vec<Action>) {
        if state.spent.lost_begins < self.bounds.lost_begins {
            let undecided = self.transactions().filter(|tx| Self::may_lose_begin(state, *tx));
            actions.extend(undecided.map(|tx| Action::LoseBegin { tx }));
        }
        if state.spent.lost_rows < self.bounds.lost_rows {
            let is_tried = |participant: &Participant, at| {
                participant.rows.get(&at).is_some_and(|stored| stored.row.status() == BranchRowStatus::Tried)
            };
            actions.extend(self.places().filter(|at| is_tried(self.participant(state, *at), *at)).map(Action::LoseRow));
        }
    }

    pub(crate) fn take(&self, state: &mut State, action: &Action) {
        match *action {
            Action::Submit { tx, gateway, answered } => {
                state.spent.submits[tx] += 1;
                state.spent.lost_commits += u8::from(!answered);
                self.submit(state, tx, gateway, answered);
            }
            Action::Enlist { tx, gateway, branch } => {
                state.spent.enlists[tx] += 1;
                self.enlist(state, tx, gateway, branch);
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
            Action::Look { tx, gateway } => self.look(state, tx, gateway),
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
            Action::Wake { tx, gateway } => self.hear(state, tx, gateway, tcc_machine::Event::Woken),
            Action::Crash { gateway } => {
                state.spent.crashes += 1;
                for tx in self.transactions() {
                    Self::leave(state, tx, gateway);
                }
            }
            Action::Tick => state.now = self.next_instant(state.now).unwrap_or(state.now),
            Action::Sweep(at) => self.sweep(state, at),
            Action::WriteCancelled(at) => self.write_cancelled(state, at),
            Action::Retire(at) => self.retire(state, at),
            Action::Delete(condemned) => self.delete(state, condemned),
            Action::DeleteRecord { tx } => {
                state.log[tx] = None;
                state.mark(Mark::RecordDeleted);
            }
            Action::LoseBegin { tx } => {
                state.spent.lost_begins += 1;
                state.log[tx] = None;
                state.mark(Mark::BeginLost);
            }
            Action::LoseRow(at) => {
                state.spent.lost_rows += 1;
                self.participant_mut(state, at).lose(at);
                state.mark(Mark::RowLost);
            }
            Action::Order { at, gateway, order } => {
                state.spent.orders += 1;
                self.order(state, at, gateway, order);
            }
        }
    }
}

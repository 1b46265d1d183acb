//! The driver: the only loop that executes what the state machine asks for. One task a transaction, fresh or recovered.
//!
//! It persists what the machine wants durable before it tells the machine, sends the calls that follow, and publishes what
//! stands. It decides nothing. A dropped client call never reaches it: callers only watch.

mod alarm;
mod calls;
mod durable;

use std::{pin::pin, sync::Arc, time::Duration};

use tcc_log::{BranchRecord, Decide, Decided, Decides, NewBranch, Park, TxRecord};
use tcc_machine::{Choice, Effect, Event, Machine, Parking, Plan, PlannedBranch, Resumed, Vote};
use tcc_types::{BranchId, Gid, Initiator, Timestamp, TxStatus};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{Instrument, debug, error, info, warn};

use self::{
    alarm::{Alarm, Rang},
    calls::Calls,
    durable::{durable, enlist_durably},
};
use crate::{
    Error,
    admission::Place,
    core::Core,
    failpoint,
    table::{Handle, Seat},
    view::{BranchView, EnlistAnswer, TxView},
};

/// Orders that may wait for one driver; a sender beyond them waits.
const ORDERS_QUEUED_MAX: usize = 64;

/// What callers ask of a driver. Asking twice is the same as asking once, so that a caller may ask again.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Go for the votes that are missing: somebody waits for them.
    Ask,
    /// The initiator wants Confirm.
    Confirm,
    /// Somebody wants Cancel.
    Cancel { by: Initiator },
    /// Add a branch and try it.
    Enlist { branch: NewBranch },
    /// Send the decided operation now.
    Probe(BranchId),
    /// Try anew until then, and then confirm.
    TryAnew { branch: BranchId, not_after: Timestamp },
    /// An operator settled it, durably.
    SettledOutside(BranchId),
    /// Somebody else may have decided it, or taken it up: look at the log.
    Look,
}

/// What a driver says to a command; without any answer the command was not taken, and may be given again.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It will do so.
    Accepted,
    /// What became of the branch.
    Enlisted(Result<EnlistAnswer, Error>),
}

/// A command on its way. A dropped `taken` tells its giver that the driver went without it.
#[derive(Debug)]
pub(crate) struct Order {
    /// Boxed, since every driver's queue has room for some, and most get none.
    pub(crate) command: Box<Command>,
    pub(crate) taken: oneshot::Sender<Taken>,
}

/// The driver stops; whatever it leaves is in the log, for recovery.
struct Stopped;

/// Somebody waits for an enlisted branch's vote.
struct EnlistWaiter {
    branch: usize,
    taken: oneshot::Sender<Taken>,
}

pub(crate) struct Driver {
    core: Arc<Core>,
    gid: Gid,
    machine: Machine,
    record: TxRecord,
    orders: mpsc::Receiver<Order>,
    view: watch::Sender<TxView>,
    calls: Calls,
    enlisting: Vec<EnlistWaiter>,
    place: Place,
    idle_until: Option<Instant>,
    /// An operator's order is being carried out: not to be left to another gateway, which does not know of it.
    ordered: bool,
}

/// How a driver comes to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was begun by this very call.
    Begun,
    /// It was loaded from the log. `ask`: somebody wants its votes.
    Loaded { ask: bool },
}

/// Starts a driver, unless the transaction has one; returns the way to it.
pub(crate) fn start(core: &Arc<Core>, record: TxRecord, origin: Origin, place: Place) -> Handle {
    match enter(core, record, origin, place) {
        Ok((handle, driving)) => {
            core.tasks.spawn(driving);
            handle
        }
        Err(there) => there,
    }
}

/// As [`start`], for a caller whose own task drives: whatever it returns beside the way to the driver is to be awaited.
pub(crate) fn enter(
    core: &Arc<Core>,
    record: TxRecord,
    origin: Origin,
    place: Place,
) -> Result<(Handle, impl Future<Output = ()> + Send + use<>), Handle> {
    let gid = record.gid;
    let (sender, orders) = mpsc::channel(ORDERS_QUEUED_MAX);
    let (view, watched) = watch::channel(TxView::of_record(&record));
    let handle = Handle { orders: sender, view: watched, decides: record.decides, since: Instant::now() };
    let seat = core.table.enter(gid, &handle)?;
    let machine = machine_of(&record, origin, core);
    let driver = Driver {
        core: Arc::clone(core),
        gid,
        machine,
        record,
        orders,
        view,
        calls: Calls::default(),
        enlisting: Vec::new(),
        place,
        idle_until: None,
        ordered: false,
    };
    let span = tracing::debug_span!("transaction", %gid);
    Ok((handle, driver.run(origin, seat).instrument(span)))
}

fn machine_of(record: &TxRecord, origin: Origin, core: &Core) -> Machine {
    let plan = Plan {
        try_order: record.try_order,
        decides: record.decides,
        try_until: record.try_until,
        decide_by: record.decide_by,
        branches: record.branches.iter().map(planned).collect(),
    };
    let policy = core.config.policy();
    match origin {
        Origin::Begun => Machine::begun(plan, policy),
        Origin::Loaded { .. } => {
            let known = Resumed {
                status: record.status,
                decided_at: record.decided_at,
                cause: record.cause.clone(),
                progress: record.branches.iter().map(|branch| branch.progress.clone()).collect(),
            };
            Machine::resumed(plan, policy, known)
        }
    }
}

fn planned(branch: &BranchRecord) -> PlannedBranch {
    PlannedBranch { id: branch.branch.clone(), participant: branch.participant.clone() }
}

impl Driver {
    async fn run(mut self, origin: Origin, seat: Seat) {
        let ask = match origin {
            Origin::Begun => true,
            Origin::Loaded { ask } => ask,
        };
        if self.step(Event::Started { ask }).await.is_ok() {
            let Stopped = self.drive().await;
        }
        // First the seat, so that whoever is told to ask again finds it free; orders that came too late are dropped with
        // `self`, and so told.
        drop(seat);
    }

    async fn drive(&mut self) -> Stopped {
        let core = Arc::clone(&self.core);
        // Made once: waiting for each of these anew after every event would cost more than the event.
        let (mut aborting, mut draining) = (pin!(core.aborting.cancelled()), pin!(core.draining.cancelled()));
        let mut drains = false;
        let mut alarm = Alarm::default();
        loop {
            if self.machine.status().has_ended() {
                return Stopped;
            }
            self.rest_when_idle();
            let resting = self.idle_until.is_some();
            if resting && drains {
                return Stopped;
            }
            alarm.set(self.machine.wake_at(), self.idle_until, || core.log.now());
            let event = tokio::select! {
                biased;
                () = &mut aborting => {
                    self.hand_over().await;
                    return Stopped;
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.on_order(order).await,
                    // The table holds a sender as long as this driver is in it.
                    None => return Stopped,
                },
                Some(answered) = self.calls.next() => Ok(Some(answered)),
                rang = alarm.rings() => match rang {
                    Rang::Wake => Ok(Some(Event::Woken)),
                    Rang::Idle => return Stopped,
                },
                () = &mut draining, if !drains => {
                    drains = true;
                    Ok(None)
                }
            };
            let stepped = match event {
                Ok(Some(event)) => self.step(event).await,
                Ok(None) => Ok(()),
                Err(stopped) => Err(stopped),
            };
            if let Err(stopped) = stepped {
                return stopped;
            }
        }
    }

    /// One event through the machine, and everything that it asks for, until nothing is left but calls.
    async fn step(&mut self, event: Event) -> Result<(), Stopped> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let effects = match self.machine.on(event, self.core.log.now()) {
                Ok(effects) => effects,
                Err(illegal) => {
                    error!(gid = %self.gid, %illegal, "the transaction log contradicts its own decision: this transaction is left alone");
                    return Err(Stopped);
                }
            };
            if self.view.borrow().status != self.machine.status() {
                // Undecided is only the first one.
                self.calls.withdraw_tries();
                // Whoever waits for a status must not wait for the write that follows it.
                self.publish();
            }
            for effect in effects {
                match effect {
                    Effect::Call(call) => self.calls.send(&self.core, &self.record, call),
                    Effect::Decide(choice) => events.extend(self.decide(choice).await?),
                    Effect::Finish => events.push(self.finish().await?),
                    Effect::Park(parking) => {
                        self.park(parking).await?;
                        return Err(Stopped);
                    }
                }
            }
        }
        self.publish();
        self.answer_enlistments();
        Ok(())
    }

    /// Makes the decision durable; the events to report, last one first.
    async fn decide(&mut self, choice: Choice) -> Result<Vec<Event>, Stopped> {
        let next_attempt_at = self.claimed_until();
        let decide = Decide { gid: self.gid, choice, owner: self.core.owner, next_attempt_at };
        failpoint::hit(failpoint::DECIDE_BEFORE);
        let decided = self.calls.meanwhile(durable(&self.core, self.gid, "decide", |log| log.decide(decide.clone()))).await?;
        failpoint::hit(failpoint::DECIDE_AFTER);
        let (event, branch_count) = match decided {
            Decided::Stands { status, decided_at, cause, branch_count } => {
                debug!(?status, "decided");
                (Event::Decided { status, at: decided_at, cause }, branch_count)
            }
            Decided::CountMoved { branch_count } => (Event::CountMoved, branch_count),
            Decided::Missing => {
                error!(gid = %self.gid, "the transaction is gone from the log");
                return Err(Stopped);
            }
        };
        // Whatever follows is for every branch that the log has, also for those that were enlisted elsewhere: the machine hears
        // of them first. `step` takes the last event first.
        let mut events = vec![event];
        if branch_count as usize != self.record.branches.len() {
            events.extend(self.reload().await?);
        }
        Ok(events)
    }

    /// When recovery may claim it from a driver that is gone. A lease of ours is kept while most of it is left: it is prolonged
    /// before it ends, and a row whose indexed columns stay as they are costs much less to write. A hold has none before it is decided.
    fn claimed_until(&self) -> Timestamp {
        let (now, lease) = (self.core.log.now(), self.core.lease());
        let kept = self.record.next_attempt_at;
        let most_is_left = (now.plus(lease / 4 * 3)..=now.plus(lease)).contains(&kept);
        if self.record.owner == self.core.owner && most_is_left { kept } else { now.plus(lease) }
    }

    /// Before it goes for the votes of an open transaction: those of branches that were enlisted at other gateways, too.
    async fn learn_of_branches(&mut self) -> Result<(), Stopped> {
        let open = self.record.decides == Decides::OnRequestOpen && self.machine.status() == TxStatus::Trying;
        if !open || !self.core.log.is_shared() {
            return Ok(());
        }
        let mut events = self.reload().await?;
        while let Some(event) = events.pop() {
            self.step(event).await?;
        }
        Ok(())
    }

    /// Learns of the branches that were enlisted elsewhere; the events to report, last one first.
    async fn reload(&mut self) -> Result<Vec<Event>, Stopped> {
        let gid = self.gid;
        let loaded = self.calls.meanwhile(durable(&self.core, self.gid, "load", |log| log.load(gid))).await?;
        let Some(loaded) = loaded else { return Err(Stopped) };
        Ok(self.news_of(loaded.branches))
    }

    /// Those that the machine does not know; the events to report, last one first.
    fn news_of(&mut self, branches: Vec<BranchRecord>) -> Vec<Event> {
        let mut events = Vec::new();
        for branch in branches {
            if self.machine.index_of(&branch.branch).is_none() {
                events.push(Event::Enlisted(planned(&branch)));
                self.record.branches.push(branch);
            }
        }
        events.reverse();
        events
    }

    /// Hears what others did to the transaction; stops if it is in their hands.
    async fn look(&mut self) -> Result<Option<Event>, Stopped> {
        let loaded = match self.calls.meanwhile(self.core.log.load(self.gid)).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                error!(gid = %self.gid, "the transaction is gone from the log");
                return Err(Stopped);
            }
            Err(error) => {
                warn!(gid = %self.gid, %error, "not looked at: whoever noticed will notice again");
                return Ok(None);
            }
        };
        if !loaded.status.has_ended() && !self.ordered && self.core.is_driven_elsewhere(&loaded) {
            info!(gid = %self.gid, "goes on elsewhere");
            return Err(Stopped);
        }
        let loaded = match self.calls.meanwhile(self.core.settled(loaded)).await {
            Ok(loaded) => loaded,
            Err(error) => {
                warn!(gid = %self.gid, %error, "not looked at: whoever noticed will notice again");
                return Ok(None);
            }
        };
        let mut events = self.news_of(loaded.branches);
        while let Some(event) = events.pop() {
            self.step(event).await?;
        }
        self.record.finished_at = loaded.finished_at;
        let unheard =
            self.machine.status().decision().is_none() || loaded.status.has_ended() != self.machine.status().has_ended();
        Ok(loaded.decided_at.filter(|_| unheard).map(|at| Event::Decided { status: loaded.status, at, cause: loaded.cause }))
    }

    async fn finish(&mut self) -> Result<Event, Stopped> {
        let gid = self.gid;
        failpoint::hit(failpoint::FINISH_BEFORE);
        self.calls.meanwhile(durable(&self.core, self.gid, "finish", |log| log.finish(gid))).await?;
        failpoint::hit(failpoint::FINISH_AFTER);
        self.record.finished_at = Some(self.core.log.now());
        debug!("finished");
        Ok(Event::Finished)
    }

    /// Leaves the transaction to the log until it is due again.
    async fn park(&mut self, parking: Parking) -> Result<(), Stopped> {
        let half = parking.delay_max / 2;
        let next_attempt_at = self.core.log.now().plus(half + self.core.entropy.jitter(half));
        let ids = self.machine.branches().map(|branch| branch.id);
        let branches = ids.zip(parking.progress).collect();
        let park = Park { gid: self.gid, owner: self.core.owner, next_attempt_at, branches };
        failpoint::hit(failpoint::PARK_BEFORE);
        self.calls.meanwhile(durable(&self.core, self.gid, "park", |log| log.park(park.clone()))).await?;
        failpoint::hit(failpoint::PARK_AFTER);
        info!(gid = %self.gid, %next_attempt_at, "waits in the log");
        Ok(())
    }

    /// The process ends: whoever comes next may take the transaction up at once.
    async fn hand_over(&mut self) {
        let held = self.machine.status() == TxStatus::Trying && self.record.decides != Decides::AtVotes;
        let next_attempt_at = if held { self.record.decide_by } else { self.core.log.now() };
        let branches = self.machine.branches().map(|branch| (branch.id, branch.progress)).collect();
        let park = Park { gid: self.gid, owner: self.core.owner, next_attempt_at, branches };
        if let Err(error) = self.calls.meanwhile(self.core.log.park(park)).await {
            warn!(gid = %self.gid, %error, "not handed over: recovery waits for the lease to end");
        }
    }

    /// Turns an order into what the machine should hear.
    async fn on_order(&mut self, order: Order) -> Result<Option<Event>, Stopped> {
        self.idle_until = None;
        let Order { command, taken } = order;
        self.ordered |= matches!(*command, Command::Probe(_) | Command::TryAnew { .. } | Command::SettledOutside(_));
        let event = match *command {
            Command::Enlist { branch } => return self.enlist(branch, taken).await,
            Command::Ask => Some(Event::Started { ask: true }).filter(|_| self.machine.status() == TxStatus::Trying),
            Command::Confirm => {
                self.learn_of_branches().await?;
                Some(Event::ConfirmRequested)
            }
            Command::Cancel { by } => Some(Event::CancelRequested { by }),
            Command::Probe(branch) => self.machine.index_of(&branch).map(|branch| Event::Probed { branch }),
            Command::TryAnew { branch, not_after } => {
                self.machine.index_of(&branch).map(|branch| Event::TryAnewOrdered { branch, not_after })
            }
            Command::SettledOutside(branch) => self.machine.index_of(&branch).map(|branch| Event::SettledOutside { branch }),
            Command::Look => {
                let _ = taken.send(Taken::Accepted);
                return self.look().await;
            }
        };
        // Whoever asked may have gone: the order stands.
        let _ = taken.send(Taken::Accepted);
        Ok(event)
    }

    async fn enlist(&mut self, branch: NewBranch, taken: oneshot::Sender<Taken>) -> Result<Option<Event>, Stopped> {
        if let Some(index) = self.machine.index_of(&branch.branch) {
            let there = &self.record.branches[index];
            if there.participant != branch.participant || there.payload != branch.payload {
                let _ = taken.send(Taken::Enlisted(Err(Error::BranchReused { gid: self.gid, branch: branch.branch })));
                return Ok(None);
            }
            self.enlisting.push(EnlistWaiter { branch: index, taken });
            // A driver that was loaded does not know the vote: ask again.
            return Ok(Some(Event::Started { ask: true }).filter(|_| self.machine.status() == TxStatus::Trying));
        }
        match self.calls.meanwhile(enlist_durably(&self.core, self.gid, branch)).await? {
            Ok(stored) => {
                let event = Event::Enlisted(planned(&stored));
                self.record.branches.push(stored);
                self.enlisting.push(EnlistWaiter { branch: self.record.branches.len() - 1, taken });
                Ok(Some(event))
            }
            Err(refused) => {
                let _ = taken.send(Taken::Enlisted(Err(refused)));
                Ok(None)
            }
        }
    }

    /// Answers those whose branch has voted, or never will.
    fn answer_enlistments(&mut self) {
        if self.enlisting.is_empty() {
            return;
        }
        let votes: Vec<_> = self.machine.branches().map(|branch| (branch.id, branch.vote)).collect();
        let status = self.machine.status();
        for waiter in std::mem::take(&mut self.enlisting) {
            let answer = match votes.get(waiter.branch) {
                Some((_, Vote::Yes(output))) => EnlistAnswer::Reserved(output.clone()),
                Some((id, _)) if status.decision().is_some() => EnlistAnswer::of_decided(id, status, self.machine.cause()),
                Some(_) => {
                    self.enlisting.push(waiter);
                    continue;
                }
                None => EnlistAnswer::Overtaken,
            };
            let _ = waiter.taken.send(Taken::Enlisted(Ok(answer)));
        }
    }

    /// A transaction that waits for a request gives its place to others, and leaves memory after a while.
    fn rest_when_idle(&mut self) {
        let idle = self.machine.is_quiescent() && self.calls.is_empty() && self.enlisting.is_empty();
        if !idle {
            self.idle_until = None;
        } else if self.idle_until.is_none() {
            let (place, stay) = match self.core.admission.idle() {
                Some(place) => (place, Duration::from_millis(self.core.config.idle_driver_ms)),
                None => (Place::unbounded(), Duration::ZERO),
            };
            self.place = place;
            self.idle_until = Some(Instant::now() + stay);
        }
    }

    /// Shows what stands. Watchers are told only of changes.
    fn publish(&self) {
        let view = TxView {
            gid: self.gid,
            status: self.machine.status(),
            held: self.machine.is_held(),
            initiator: self.record.initiator.clone(),
            key: self.record.key.clone(),
            branches: self
                .machine
                .branches()
                .map(|branch| BranchView {
                    branch: branch.id,
                    participant: branch.participant,
                    vote: branch.vote,
                    progress: branch.progress,
                })
                .collect(),
            cause: self.machine.cause().cloned(),
            try_until: self.record.try_until,
            decide_by: self.record.decide_by,
            created_at: self.record.created_at,
            decided_at: self.machine.decided_at(),
            finished_at: self.record.finished_at.filter(|_| self.machine.status().has_ended()),
        };
        self.view.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
    }
}

/// The transaction takes no branches.
pub(crate) fn closed(gid: Gid, status: TxStatus) -> Error {
    let message = match status {
        TxStatus::Trying => format!("transaction {gid} was not opened by Begin: its branches are fixed"),
        decided => format!("transaction {gid} is {decided:?} and takes no more branches"),
    };
    Error::Precondition { reason: "NOT_OPEN", gid, status, message }
}

/// When a Try may still reserve: what the participant is told.
pub(crate) fn not_after(record: &TxRecord, core: &Core) -> Timestamp {
    record.try_until.plus(Duration::from_millis(core.config.clock_allowance_ms))
}

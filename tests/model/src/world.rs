//! A configuration with everything made that its steps need, and the model that the checker walks through.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stateright::{Model, Property};
use tcc_machine::{Plan, PlannedBranch, Policy};
use tcc_types::{
    BranchId, BranchKey, CancelCall, ConfirmCall, Gid, Initiator, LogName, ParticipantName, Payload, Timestamp, TryCall,
};

use crate::{
    action::Action,
    configuration::{Bounds, Time},
    participant::{Clocks, Participant},
    rules,
    state::{Fate, Marks, Place, Spent, State},
};

pub(crate) const BEGUN_AT: Timestamp = Timestamp::from_millis(1_000);
/// From Begun until an unknown Try is not repeated any more.
const TRY_FOR: Duration = Duration::from_millis(1_000);
/// From Begun until it must be decided.
const DECIDE_FOR: Duration = Duration::from_millis(2_000);
/// By how much a participant's clock may be behind or ahead.
pub(crate) const CLOCK_ALLOWANCE: Duration = Duration::from_millis(500);
/// From `decide_by` until a row asks.
pub(crate) const ASK_GRACE: Duration = Duration::from_millis(1_000);
/// Half of it must exceed all deadlines of a transaction, as the coordinator's configuration demands.
pub(crate) const RETENTION: Duration = Duration::from_millis(20_000);

/// The instants of a transaction that is begun at [`BEGUN_AT`].
const TRY_UNTIL: Timestamp = Timestamp::from_millis(2_000);
/// Past `not_after`, also by a clock that is behind by the allowance.
const LATE: Timestamp = Timestamp::from_millis(2_600);
const DECIDE_BY: Timestamp = Timestamp::from_millis(3_000);
/// Past `ask_after`, also by a clock that is behind by the allowance.
const ASK: Timestamp = Timestamp::from_millis(4_600);
/// Past the retention of whatever ended before it.
const OLD: Timestamp = Timestamp::from_millis(30_000);
/// Past the retention of whatever ended at [`OLD`].
const OLDER: Timestamp = Timestamp::from_millis(60_000);

/// Parts of the set of states from which everything is known to end.
const HEALED_PARTS: usize = 64;

/// The deadlines of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) try_until: Timestamp,
    pub(crate) decide_by: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) ask_after: Timestamp,
}

/// A configuration with everything made that calls need.
pub(crate) struct World {
    pub(crate) bounds: Bounds,
    /// Of each transaction.
    branches: Vec<Vec<Branch>>,
    pub(crate) gids: Vec<Gid>,
    pub(crate) initiator: Initiator,
    instants: &'static [Timestamp],
    /// What was seen to happen.
    seen: AtomicU64,
    /// States, by their fingerprints, from which everything ends if nothing goes wrong any more.
    healed: Vec<Mutex<HashSet<u64>>>,
}

pub(crate) struct Branch {
    pub(crate) resource: usize,
    pub(crate) planned: PlannedBranch,
    pub(crate) try_call: TryCall,
    pub(crate) confirm: ConfirmCall,
    pub(crate) cancel: CancelCall,
}

impl World {
    /// Small, so that every way out of memory is taken within few lost answers.
    pub(crate) const POLICY: Policy = Policy {
        retry_base: Duration::from_millis(10),
        retry_cap: Duration::from_millis(20),
        park_after_attempts: 2,
        stuck_after_attempts: 3,
        stuck_probe: Duration::from_millis(100),
        stuck_after: Duration::from_secs(60),
    };

    /// Everything but the retention is due; a gid that was begun at first is still young.
    pub(crate) const END: Timestamp = Timestamp::from_millis(9_000);

    /// The end of time.
    pub(crate) const END_OF_ALL: Timestamp = Timestamp::from_millis(200_000);

    pub(crate) fn new(bounds: Bounds) -> Self {
        let gids: Vec<_> = (0..bounds.transactions.len()).map(gid_of).collect();
        let branches = bounds.transactions.iter().zip(&gids).map(|(planned, gid)| {
            let branches = planned.resources.iter().enumerate();
            branches.map(|(branch, &resource)| Branch::new(*gid, branch, resource)).collect()
        });
        let instants: &[Timestamp] = match bounds.time {
            Time::Stands => &[],
            Time::Deadlines => &[TRY_UNTIL, LATE, DECIDE_BY],
            Time::Late => &[DECIDE_BY],
            Time::Asks => &[DECIDE_BY, ASK],
            Time::Edges => &[TRY_UNTIL, DECIDE_BY, ASK],
            Time::Retention => &[ASK, OLD, OLDER],
        };
        Self {
            branches: branches.collect(),
            gids,
            initiator: Initiator::new("shop").expect("an initiator"),
            instants,
            seen: AtomicU64::new(0),
            healed: (0..HEALED_PARTS).map(|_| Mutex::default()).collect(),
            bounds,
        }
    }

    pub(crate) fn branches(&self, tx: usize) -> &[Branch] {
        &self.branches[tx]
    }

    pub(crate) fn branch(&self, (tx, branch): Place) -> &Branch {
        &self.branches[tx][branch]
    }

    pub(crate) fn transactions(&self) -> std::ops::Range<usize> {
        0..self.branches.len()
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.transactions().flat_map(|tx| (0..self.branches[tx].len()).map(move |branch| (tx, branch)))
    }

    pub(crate) fn is_open(&self, tx: usize) -> bool {
        self.bounds.transactions[tx].enlists > 0
    }

    /// The deadlines of a transaction that was begun then.
    pub(crate) fn terms(&self, tx: usize, begun_at: Timestamp) -> Terms {
        let decide_by = begun_at.plus(DECIDE_FOR);
        let try_until = if self.is_open(tx) { decide_by } else { begun_at.plus(TRY_FOR) };
        Terms { try_until, decide_by, not_after: try_until.plus(CLOCK_ALLOWANCE), ask_after: decide_by.plus(ASK_GRACE) }
    }

    /// Until when a Try that an operator orders now may reserve.
    pub(crate) fn anew_until(now: Timestamp) -> Timestamp {
        now.plus(TRY_FOR + CLOCK_ALLOWANCE)
    }

    pub(crate) fn plan(&self, tx: usize, begun_at: Timestamp, branches: &[usize]) -> Plan {
        let planned = &self.bounds.transactions[tx];
        let Terms { try_until, decide_by, .. } = self.terms(tx, begun_at);
        let branches = branches.iter().map(|branch| self.branches[tx][*branch].planned.clone()).collect();
        Plan { try_order: planned.try_order, decides: planned.decides, try_until, decide_by, branches }
    }

    /// When the next instant comes at which something becomes due.
    pub(crate) fn next_instant(&self, now: Timestamp) -> Option<Timestamp> {
        self.instants.iter().copied().find(|instant| *instant > now)
    }

    /// The clocks of a branch's participant.
    pub(crate) fn clocks(&self, state: &State, at: Place) -> Clocks {
        let now = self.participant(state, at).clock(state.now);
        Clocks { now, changed_at: if self.bounds.retention { now } else { Timestamp::EPOCH } }
    }

    pub(crate) fn participant<'a>(&self, state: &'a State, at: Place) -> &'a Participant {
        &state.participants[self.branch(at).resource]
    }

    pub(crate) fn participant_mut<'a>(&self, state: &'a mut State, at: Place) -> &'a mut Participant {
        Arc::make_mut(&mut state.participants[self.branch(at).resource])
    }

    /// What was seen to happen so far.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether everything is known to end from the state of this fingerprint.
    pub(crate) fn is_healed(&self, fingerprint: u64) -> bool {
        self.healed_part(fingerprint).contains(&fingerprint)
    }

    pub(crate) fn heals(&self, fingerprints: Vec<u64>) {
        for fingerprint in fingerprints {
            self.healed_part(fingerprint).insert(fingerprint);
        }
    }

    fn healed_part(&self, fingerprint: u64) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        let part = usize::try_from(fingerprint % HEALED_PARTS as u64).unwrap_or_default();
        self.healed[part].lock().expect("nothing panics while it is held")
    }

    fn start(&self, skew_ms: i64) -> State {
        let transactions = self.branches.len();
        let participants = self.bounds.stock.iter().enumerate().map(|(index, units)| {
            let ahead_ms = if index % 2 == 0 { skew_ms } else { -skew_ms };
            Arc::new(Participant::new(*units, ahead_ms))
        });
        let planned = &self.bounds.transactions;
        let mut state = State {
            now: BEGUN_AT,
            log: vec![None; transactions],
            fates: vec![Fate::default(); transactions],
            gateways: vec![BTreeMap::new(); self.bounds.gateways],
            network: Default::default(),
            in_doubt: Default::default(),
            condemned: Default::default(),
            participants: participants.collect(),
            broken: None,
            untrue: None,
            spent: Spent {
                submits: vec![0; transactions],
                confirms: vec![0; transactions],
                cancels: vec![0; transactions],
                enlists: vec![0; transactions],
                ..Spent::default()
            },
            alike: transactions > 1 && planned.iter().all(|one| *one == planned[0]),
            marks: Marks::default(),
        };
        for (tx, _) in planned.iter().enumerate().filter(|(_, planned)| planned.meets_another) {
            let clocks = self.clocks(&state, (tx, 0));
            let mut call = self.branches[tx][0].try_call.clone();
            call.payload.value = b"another".as_slice().into();
            self.participant_mut(&mut state, (tx, 0)).reserve_for_another((tx, 0), &call, clocks.changed_at);
        }
        state
    }
}

impl Branch {
    fn new(gid: Gid, branch: usize, resource: usize) -> Self {
        let id = BranchId::new(format!("b{branch}")).expect("a branch's id");
        let participant = ParticipantName::new(format!("p{resource}")).expect("a participant's name");
        let key = BranchKey { gid, branch: id.clone() };
        let payload = Payload { type_url: "model/Unit".to_owned(), value: b"1".as_slice().into() };
        let coordinator = LogName::new("model").expect("a log's name");
        // Each delivery has its own deadlines.
        let never = Timestamp::EPOCH;
        Self {
            resource,
            planned: PlannedBranch { id, participant },
            try_call: TryCall { key: key.clone(), payload, coordinator, not_after: never, ask_after: never },
            confirm: ConfirmCall { key: key.clone() },
            cancel: CancelCall { key, not_after: never },
        }
    }
}

fn gid_of(tx: usize) -> Gid {
    let mut gid = *Gid::first_of(BEGUN_AT).as_bytes();
    gid[15] = u8::try_from(tx).expect("few transactions");
    Gid::from_bytes(&gid).expect("a gid")
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.bounds.skews_ms.iter().map(|skew| self.start(*skew)).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.offer(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.take(&mut next, &action);
        self.seen.fetch_or(next.marks.0, Ordering::Relaxed);
        next.marks = Marks::default();
        // What changes nothing leads nowhere.
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::all()
    }
}

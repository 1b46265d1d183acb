//! Coordinators on a real SQLite log, with participants in memory that follow the contract and fail on demand.

pub(crate) mod shared;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tcc_coordinator::{Config, Coordinator, Endpoint, NewBranch, Registry, Submit, TryOrder, TxView, Unknown, Wait};
use tcc_log::{DatabaseLog, LogOptions, TxLog};
use tcc_types::{
    BranchId, BranchKey, BranchRowStatus, CancelCall, ConfirmCall, Initiator, ParticipantName, Payload, Refusal, SettleAnswer,
    SystemClock, SystemEntropy, TryAnswer, TryCall, Violation, ViolationKind,
};
use tempfile::TempDir;

/// A participant in memory.
#[derive(Default)]
pub(crate) struct Fake {
    rows: Mutex<HashMap<BranchKey, BranchRowStatus>>,
    /// Operations as they arrived.
    pub(crate) seen: Mutex<Vec<(String, &'static str)>>,
    /// Try says no.
    pub(crate) refuses: Mutex<bool>,
    /// The next call panics.
    pub(crate) panics: AtomicBool,
    /// So many calls get no answer, after they had their effect.
    pub(crate) loses: AtomicU32,
}

impl Fake {
    pub(crate) fn row(&self, view: &TxView, branch: &str) -> Option<BranchRowStatus> {
        let key = BranchKey { gid: view.gid, branch: BranchId::new(branch).unwrap() };
        self.rows.lock().unwrap().get(&key).copied()
    }

    pub(crate) fn forget(&self, view: &TxView, branch: &str) {
        let key = BranchKey { gid: view.gid, branch: BranchId::new(branch).unwrap() };
        self.rows.lock().unwrap().remove(&key);
    }

    pub(crate) fn ops(&self, branch: &str) -> Vec<&'static str> {
        self.seen.lock().unwrap().iter().filter(|(id, _)| id == branch).map(|(_, op)| *op).collect()
    }

    fn answer<T>(&self, answer: T) -> Result<T, Unknown> {
        let lost = self.loses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if lost.is_ok() { Err(Unknown("lost".to_owned())) } else { Ok(answer) }
    }

    fn saw(&self, key: &BranchKey, op: &'static str) {
        self.seen.lock().unwrap().push((key.branch.to_string(), op));
        assert!(!self.panics.swap(false, Ordering::SeqCst), "an endpoint with a defect");
    }
}

#[async_trait]
impl Endpoint for Fake {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        self.saw(&call.key, "try");
        let answer = {
            let refuses = *self.refuses.lock().unwrap();
            let mut rows = self.rows.lock().unwrap();
            let fresh = if refuses { Refused } else { Tried };
            match rows.entry(call.key).or_insert(fresh) {
                Tried | Confirmed => TryAnswer::Reserved(Some(call.payload)),
                Refused => TryAnswer::Refused(Refusal::business("SOLD_OUT", "none left")),
                Cancelled => TryAnswer::Refused(Refusal::suspended()),
            }
        };
        self.answer(answer)
    }

    async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        self.saw(&call.key, "confirm");
        let answer = match self.rows.lock().unwrap().get_mut(&call.key) {
            None => SettleAnswer::Violation(Violation { kind: ViolationKind::NoReservation, row_status: None }),
            Some(row @ (Tried | Confirmed)) => {
                *row = Confirmed;
                SettleAnswer::Done
            }
            Some(row @ (Refused | Cancelled)) => {
                SettleAnswer::Violation(Violation { kind: ViolationKind::OtherOutcome, row_status: Some(*row) })
            }
        };
        self.answer(answer)
    }

    async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
        self.saw(&call.key, "cancel");
        let answer = match self.rows.lock().unwrap().entry(call.key).or_insert(Cancelled) {
            row @ (Tried | Cancelled) => {
                *row = Cancelled;
                SettleAnswer::Done
            }
            Refused => SettleAnswer::Done,
            row @ Confirmed => SettleAnswer::Violation(Violation { kind: ViolationKind::OtherOutcome, row_status: Some(*row) }),
        };
        self.answer(answer)
    }
}

/// One coordinator and its two participants, `stock` and `coupon`.
pub(crate) struct World {
    pub(crate) coordinator: Coordinator,
    /// What another gateway would write to.
    pub(crate) log: Arc<dyn TxLog>,
    pub(crate) fakes: BTreeMap<&'static str, Arc<Fake>>,
    folder: TempDir,
    config: Config,
}

pub(crate) fn quick() -> Config {
    Config {
        retry_base_ms: 2,
        retry_cap_ms: 20,
        stuck_probe_ms: 20,
        recovery_interval_ms: 20,
        lease_ms: 200,
        watch_interval_ms: 10,
        park_after_attempts: 2,
        stuck_after_attempts: 3,
        ..Config::default()
    }
}

impl World {
    pub(crate) async fn start(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fakes: BTreeMap<_, _> = ["stock", "coupon"].map(|name| (name, Arc::new(Fake::default()))).into();
        let (coordinator, log) = open(&folder, &config, &fakes).await;
        Self { coordinator, log, fakes, folder, config }
    }

    /// The process ends in order and another one starts on the same log.
    pub(crate) async fn restart(&mut self) {
        self.coordinator.shutdown(std::time::Duration::ZERO).await;
        (self.coordinator, self.log) = open(&self.folder, &self.config, &self.fakes).await;
    }

    pub(crate) fn fake(&self, name: &str) -> &Fake {
        &self.fakes[name]
    }
}

async fn open(folder: &TempDir, config: &Config, fakes: &BTreeMap<&'static str, Arc<Fake>>) -> (Coordinator, Arc<dyn TxLog>) {
    let log = open_log(folder).await;
    let started = Coordinator::start(Arc::clone(&log), registry(fakes), config.clone(), Arc::new(SystemEntropy)).await;
    (started.unwrap(), log)
}

pub(crate) async fn open_log(folder: &TempDir) -> Arc<dyn TxLog> {
    let url = format!("sqlite://{}", folder.path().join("log.db").display());
    let options = LogOptions { database_url: url, ..LogOptions::default() };
    Arc::new(DatabaseLog::open(options, Arc::new(SystemClock)).await.unwrap())
}

pub(crate) fn registry(fakes: &BTreeMap<&'static str, Arc<Fake>>) -> Registry {
    fakes.iter().fold(Registry::default(), |registry, (name, fake)| {
        registry.with(ParticipantName::new(*name).unwrap(), Arc::clone(fake) as Arc<dyn Endpoint>)
    })
}

pub(crate) fn shop() -> Initiator {
    Initiator::new("shop").unwrap()
}

pub(crate) fn branch(name: &str) -> NewBranch {
    NewBranch {
        branch: BranchId::new(name).unwrap(),
        participant: ParticipantName::new(name).unwrap(),
        payload: Payload { type_url: "type.googleapis.com/a.B".to_owned(), value: Bytes::from_static(b"body") },
    }
}

pub(crate) fn order() -> Submit {
    Submit {
        initiator: shop(),
        gid: None,
        key: None,
        branches: vec![branch("stock"), branch("coupon")],
        try_order: TryOrder::Parallel,
        hold: false,
        try_until: None,
        decide_by: None,
        wait: Wait::End,
    }
}

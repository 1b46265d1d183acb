//! What recovery takes up when much is stuck: a place that is held by a participant that says nothing is no place of fresh work.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tcc_coordinator::{Config, Coordinator, Endpoint, Unknown};
use tcc_log::{BranchProgress, Choice, Decide, Due, NewTransaction, Park, Stuck, StuckKind, TryOrder, TxLog};
use tcc_types::{
    CancelCall, ConfirmCall, FingerprintBuilder, Gid, ParticipantName, SettleAnswer, SystemEntropy, Timestamp, TryAnswer,
    TryCall, TxStatus,
};

use crate::support::{branch, open_log, quick, registry, shop};

/// Swallows every call.
#[derive(Default)]
struct Silent {
    seen: Mutex<Vec<Gid>>,
}

impl Silent {
    async fn swallow<T>(&self, gid: Gid) -> Result<T, Unknown> {
        self.seen.lock().unwrap().push(gid);
        pending().await
    }

    fn seen(&self) -> Vec<Gid> {
        self.seen.lock().unwrap().clone()
    }
}

#[async_trait]
impl Endpoint for Silent {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        self.swallow(call.key.gid).await
    }

    async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        self.swallow(call.key.gid).await
    }

    async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        self.swallow(call.key.gid).await
    }
}

/// Left behind by a gateway that is gone: to be cancelled at that participant, and due since `due_at`.
async fn left_behind(log: &dyn TxLog, participant: &str, due_at: Timestamp, stuck: bool) -> Gid {
    let gid = Gid::mint(log.now(), &SystemEntropy);
    let owner = log.take_owner().await.unwrap();
    let new = NewTransaction {
        gid,
        initiator: shop(),
        key: None,
        fingerprint: FingerprintBuilder::new("left").text(&gid.to_string()).finish(),
        try_order: TryOrder::Parallel,
        decides: tcc_log::Decides::AtVotes,
        try_until: due_at,
        decide_by: due_at,
        owner,
        next_attempt_at: due_at,
        branches: vec![branch(participant)],
    };
    let id = new.branches[0].branch.clone();
    log.begin(new).await.unwrap();
    let choice = Choice::Cancel { cause: tcc_coordinator::CancelCause::TimedOut };
    log.decide(Decide { gid, choice, owner, next_attempt_at: due_at }).await.unwrap();
    if stuck {
        let kind = Stuck { kind: StuckKind::Unreachable, since: due_at, detail: "no route".to_owned() };
        let progress = BranchProgress { settled: None, attempts: 99, stuck: Some(kind) };
        log.park(Park { gid, owner, next_attempt_at: due_at, branches: vec![(id, progress)] }).await.unwrap();
    }
    gid
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    while !done().await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_fresh_transaction_is_taken_up_while_more_are_stuck_than_there_are_places() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(&folder).await;
    let (fakes, silent) = ([("stock", Arc::default())].into(), Arc::new(Silent::default()));
    let registry = registry(&fakes).with(ParticipantName::new("silent").unwrap(), Arc::clone(&silent) as Arc<dyn Endpoint>);
    // Longer due than anything that is fresh, and more than all places together.
    let long_ago = log.now().minus(Duration::from_secs(3_600));
    for _ in 0..20 {
        left_behind(&*log, "silent", long_ago, true).await;
    }
    let places = Config { recovery_in_flight_max: 4, recovery_stuck_max: 4, recovery_batch_max: 8, ..quick() };
    // No call ever gives its place back.
    let config = Config { call_timeout_ms: 3_600_000, lease_ms: 3_600_000, ..places };
    let coordinator = Coordinator::start(Arc::clone(&log), registry, config, Arc::new(SystemEntropy)).await.unwrap();
    until(async || silent.seen().len() == 4).await;
    // More than there are places of either kind, one after another: each is taken up and ends.
    for _ in 0..6 {
        let fresh = left_behind(&*log, "stock", log.now(), false).await;
        until(async || log.load(fresh).await.unwrap().unwrap().status == TxStatus::Cancelled).await;
    }
    until(async || coordinator.in_memory() == 4).await;
    assert_eq!(silent.seen().len(), 4, "no place but theirs is taken by what is stuck");
    let owner = log.take_owner().await.unwrap();
    assert_eq!(log.claim(owner, Due::Stuck, 100, Duration::ZERO).await.unwrap().len(), 16);
}

/// The other way round: fresh work that says nothing does not keep the stuck waiting.
#[tokio::test]
async fn a_stuck_transaction_is_probed_while_more_are_fresh_than_there_are_places() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(&folder).await;
    let (fakes, silent) = ([("stock", Arc::default())].into(), Arc::new(Silent::default()));
    let registry = registry(&fakes).with(ParticipantName::new("silent").unwrap(), Arc::clone(&silent) as Arc<dyn Endpoint>);
    let long_ago = log.now().minus(Duration::from_secs(3_600));
    for _ in 0..20 {
        left_behind(&*log, "silent", long_ago, false).await;
    }
    let places = Config { recovery_in_flight_max: 4, recovery_stuck_max: 1, recovery_batch_max: 8, ..quick() };
    let config = Config { call_timeout_ms: 3_600_000, lease_ms: 3_600_000, ..places };
    let _coordinator = Coordinator::start(Arc::clone(&log), registry, config, Arc::new(SystemEntropy)).await.unwrap();
    until(async || silent.seen().len() == 4).await;
    for _ in 0..3 {
        let stuck = left_behind(&*log, "stock", log.now(), true).await;
        until(async || log.load(stuck).await.unwrap().unwrap().status == TxStatus::Cancelled).await;
    }
    assert_eq!(silent.seen().len(), 4);
}

//! Calls that wait in this process before they leave: for a place at their participant, for the next attempt, or for a driver that
//! waits for the log itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tcc_coordinator::{Answer, CancelCause, Config, Coordinator, Endpoint, Operation, Submit, Terms, TxView, Unknown, Wait};
use tcc_log::TxLog;
use tcc_types::{
    BranchRowStatus, CancelCall, ConfirmCall, Entropy, Gid, Op, ParticipantName, SettleAnswer, SystemEntropy, TryAnswer,
    TryCall, TxStatus,
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::support::{Fake, open_log, order, quick, registry, shared::Shared};

/// A participant whose calls leave only while the gate of their phase is open.
struct Gated {
    inner: Arc<Fake>,
    tries: watch::Sender<bool>,
    settles: watch::Sender<bool>,
    withdrawn: AtomicU32,
}

#[async_trait]
impl Endpoint for Gated {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        self.inner.try_branch(call).await
    }

    async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        self.inner.confirm(call).await
    }

    async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        self.inner.cancel(call).await
    }

    async fn call(&self, operation: Operation, terms: Terms) -> Result<Answer, Unknown> {
        let gate = match operation.op() {
            Op::Try => &self.tries,
            Op::Confirm | Op::Cancel => &self.settles,
        };
        let mut gate = gate.subscribe();
        let Ok(turn) = timeout(terms.turn_within, gate.wait_for(|open| *open)).await else {
            return Err(Unknown("its turn did not come".to_owned()));
        };
        turn.expect("the gate is there");
        if terms.is_withdrawn() {
            self.withdrawn.fetch_add(1, Ordering::SeqCst);
            return Err(Unknown("withdrawn".to_owned()));
        }
        self.inner.call(operation, terms).await
    }
}

/// Every delay is as long as it may be.
struct Longest;

impl Entropy for Longest {
    fn next_u64(&self) -> u64 {
        u64::MAX
    }
}

/// One coordinator; its participants `stock` and `coupon` behind their gates, which are open at first.
struct World {
    coordinator: Coordinator,
    log: Arc<dyn TxLog>,
    gated: BTreeMap<&'static str, Arc<Gated>>,
    /// The log does not say that a decision is durable.
    is_slow: Arc<AtomicBool>,
    _folder: TempDir,
}

impl World {
    async fn start(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = open_log(&folder).await;
        let gated = ["stock", "coupon"].map(|name| {
            let (tries, settles) = (watch::Sender::new(true), watch::Sender::new(true));
            (name, Arc::new(Gated { inner: Arc::default(), tries, settles, withdrawn: AtomicU32::new(0) }))
        });
        let gated: BTreeMap<_, _> = gated.into();
        let registry = gated.iter().fold(registry(&BTreeMap::new()), |registry, (name, gated)| {
            registry.with(ParticipantName::new(*name).unwrap(), Arc::clone(gated) as Arc<dyn Endpoint>)
        });
        let is_slow = Arc::<AtomicBool>::default();
        let shared =
            Shared { inner: Arc::clone(&log), without_leases: false, is_down: Arc::default(), is_slow: Arc::clone(&is_slow) };
        let coordinator = Coordinator::start(Arc::new(shared), registry, config, Arc::new(Longest)).await.unwrap();
        Self { coordinator, log, gated, is_slow, _folder: folder }
    }

    fn stock(&self) -> &Gated {
        &self.gated["stock"]
    }

    fn coupon(&self) -> &Gated {
        &self.gated["coupon"]
    }

    fn ops_at_stock(&self) -> Vec<&'static str> {
        self.stock().inner.ops("stock")
    }

    fn refuse_the_coupon(&self) {
        *self.coupon().inner.refuses.lock().unwrap() = true;
    }

    /// Begins an order, and whoever waits for its decision.
    fn submit(&self) -> (Gid, JoinHandle<TxView>) {
        let gid = Gid::mint(self.log.now(), &SystemEntropy);
        let coordinator = self.coordinator.clone();
        let submit = Submit { gid: Some(gid), wait: Wait::Decision, ..order() };
        (gid, tokio::spawn(async move { coordinator.submit(submit).await.unwrap() }))
    }

    async fn until_ended(&self, gid: Gid) -> TxView {
        until(async || self.coordinator.get(gid).await.unwrap().status.has_ended()).await;
        self.coordinator.get(gid).await.unwrap()
    }

    async fn pass(&self, time: Duration) {
        let end = self.log.now().plus(time);
        until(async || self.log.now() > end).await;
    }
}

/// Waits for what others bring about.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), waited).await.expect("it comes about");
}

#[tokio::test]
async fn a_confirm_whose_turn_does_not_come_waits_in_the_log() {
    let world = World::start(Config { call_timeout_ms: 5, ..quick() }).await;
    world.stock().settles.send_replace(false);
    let (gid, submitted) = world.submit();
    assert_eq!(submitted.await.unwrap().status, TxStatus::Confirming);
    until(async || world.log.load(gid).await.unwrap().unwrap().branches[0].progress.attempts > 0).await;
    assert_eq!(world.ops_at_stock(), ["try"]);
    world.stock().settles.send_replace(true);
    assert_eq!(world.until_ended(gid).await.status, TxStatus::Confirmed);
    assert_eq!(world.ops_at_stock(), ["try", "confirm"]);
}

#[tokio::test]
async fn a_try_that_has_not_left_by_its_deadline_is_given_up() {
    let world = World::start(Config { try_for_ms: 50, ..quick() }).await;
    world.stock().tries.send_replace(false);
    let (gid, submitted) = world.submit();
    assert_eq!(submitted.await.unwrap().cause, Some(CancelCause::TimedOut));
    assert_eq!(world.until_ended(gid).await.status, TxStatus::Cancelled);
    assert_eq!(world.ops_at_stock(), ["cancel"]);
}

#[tokio::test]
async fn a_try_that_has_not_left_at_the_decision_never_leaves() {
    let world = World::start(quick()).await;
    world.refuse_the_coupon();
    world.stock().tries.send_replace(false);
    // Its driver stays as long as this Cancel waits.
    world.stock().settles.send_replace(false);
    let (gid, submitted) = world.submit();
    assert_eq!(submitted.await.unwrap().status, TxStatus::Cancelling);
    world.stock().tries.send_replace(true);
    until(async || world.stock().withdrawn.load(Ordering::SeqCst) == 1).await;
    world.stock().settles.send_replace(true);
    world.until_ended(gid).await;
    assert_eq!(world.ops_at_stock(), ["cancel"]);
}

#[tokio::test]
async fn a_try_is_not_repeated_after_the_decision() {
    let world = World::start(Config { retry_base_ms: 500, retry_cap_ms: 500, stuck_probe_ms: 500, ..quick() }).await;
    world.refuse_the_coupon();
    world.coupon().tries.send_replace(false);
    world.stock().settles.send_replace(false);
    world.stock().inner.loses.store(1, Ordering::SeqCst);
    let (gid, submitted) = world.submit();
    until(async || world.ops_at_stock() == ["try"]).await;
    world.coupon().tries.send_replace(true);
    assert_eq!(submitted.await.unwrap().status, TxStatus::Cancelling);
    // Its turn comes, and goes.
    world.pass(Duration::from_millis(600)).await;
    world.stock().settles.send_replace(true);
    world.until_ended(gid).await;
    assert_eq!(world.ops_at_stock(), ["try", "cancel"]);
    assert_eq!(world.stock().withdrawn.load(Ordering::SeqCst), 0, "it did not come to its gate again");
}

#[tokio::test]
async fn calls_go_on_while_the_log_does_not_answer() {
    let world = World::start(quick()).await;
    world.refuse_the_coupon();
    world.stock().tries.send_replace(false);
    world.is_slow.store(true, Ordering::SeqCst);
    let (gid, submitted) = world.submit();
    // The driver waits for the log to say so.
    until(async || world.log.load(gid).await.unwrap().is_some_and(|record| record.status == TxStatus::Cancelling)).await;
    world.stock().tries.send_replace(true);
    until(async || world.ops_at_stock() == ["try"]).await;
    world.is_slow.store(false, Ordering::SeqCst);
    submitted.await.unwrap();
    let view = world.until_ended(gid).await;
    assert_eq!(world.ops_at_stock(), ["try", "cancel"]);
    assert_eq!(world.stock().inner.row(&view, "stock"), Some(BranchRowStatus::Cancelled));
}

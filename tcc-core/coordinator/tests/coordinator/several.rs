//! Several coordinators on one log: each may be asked, any may die, and no rule rests on who owns what.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{Fake, branch, open_log, order, quick, registry, shared::Shared, shop};
use tcc_coordinator::{Begin, CancelCause, Config, Coordinator, EnlistAnswer, Error, Submit, TxView, Wait, Warrant};
use tcc_log::{LogOptions, TxLog};
use tcc_types::{BranchId, BranchKey, BranchRowStatus, Gid, SystemClock, SystemEntropy, TxStatus};
use tempfile::TempDir;
use tokio_stream::StreamExt;

/// Coordinators that share a log and their participants.
struct Fleet {
    log: Arc<dyn TxLog>,
    fakes: BTreeMap<&'static str, Arc<Fake>>,
    without_leases: bool,
    is_down: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    /// A server's, on which each coordinator opens a log of its own.
    server: Option<LogOptions>,
    _folder: TempDir,
}

impl Fleet {
    async fn new(without_leases: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fakes: BTreeMap<_, _> = ["stock", "coupon"].map(|name| (name, Arc::new(Fake::default()))).into();
        let log = open_log(&folder).await;
        Self { log, fakes, without_leases, is_down: Arc::default(), is_slow: Arc::default(), server: None, _folder: folder }
    }

    /// On a database server, whose writers really race.
    async fn on_a_server(kind: tcc_servers::Kind, without_leases: bool) -> Self {
        let database_url = tcc_servers::shared(kind).create_database();
        let options = LogOptions { database_url, ..LogOptions::default() };
        let log = tcc_log::open(options.clone(), Arc::new(SystemClock)).await.unwrap();
        Self { log, server: Some(options), ..Self::new(without_leases).await }
    }

    async fn join(&self, config: Config) -> Coordinator {
        let inner = match &self.server {
            Some(options) => tcc_log::open(options.clone(), Arc::new(SystemClock)).await.unwrap(),
            None => Arc::clone(&self.log),
        };
        let (is_down, is_slow) = (Arc::clone(&self.is_down), Arc::clone(&self.is_slow));
        let log = Shared { inner, without_leases: self.without_leases, is_down, is_slow };
        Coordinator::start(Arc::new(log), registry(&self.fakes), config, Arc::new(SystemEntropy)).await.unwrap()
    }

    fn fake(&self, name: &str) -> &Fake {
        &self.fakes[name]
    }

    fn rows(&self, view: &TxView) -> [Option<BranchRowStatus>; 2] {
        ["stock", "coupon"].map(|name| self.fake(name).row(view, name))
    }

    fn mint(&self) -> Gid {
        Gid::mint(self.log.now(), &SystemEntropy)
    }
}

const BOTH_CONFIRMED: [Option<BranchRowStatus>; 2] = [Some(BranchRowStatus::Confirmed), Some(BranchRowStatus::Confirmed)];
const BOTH_CANCELLED: [Option<BranchRowStatus>; 2] = [Some(BranchRowStatus::Cancelled), Some(BranchRowStatus::Cancelled)];

/// Nothing here waits for a lease to pass, unless it says so.
fn patient() -> Config {
    Config { lease_ms: 3_600_000, idle_driver_ms: 3_600_000, ..quick() }
}

fn hold() -> Submit {
    Submit { hold: true, ..order() }
}

async fn moment() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

async fn until_ended(coordinator: &Coordinator, gid: Gid) -> TxView {
    loop {
        let view = coordinator.get(gid).await.unwrap();
        if view.status.has_ended() {
            return view;
        }
        moment().await;
    }
}

#[tokio::test]
async fn a_hold_is_confirmed_through_another_gateway_and_the_first_one_knows() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(patient()).await, fleet.join(patient()).await);
    let held = first.submit(hold()).await.unwrap();
    assert!(held.held);
    assert_eq!(first.in_memory(), 1, "its driver waits for a request");
    assert_eq!(second.get(held.gid).await.unwrap().status, TxStatus::Trying);
    let confirmed = second.confirm(held.gid, Wait::End).await.unwrap();
    assert_eq!((confirmed.status, fleet.rows(&held)), (TxStatus::Confirmed, BOTH_CONFIRMED));
    // At once, although the first one's own driver has not heard of it.
    assert_eq!(first.get(held.gid).await.unwrap().status, TxStatus::Confirmed);
    assert_eq!(first.cancel(held.gid, shop(), Wait::Decision).await.unwrap().status, TxStatus::Confirmed);
    while first.in_memory() > 0 {
        moment().await;
    }
}

#[tokio::test]
async fn a_hold_is_cancelled_through_another_gateway_whoever_asks_first_there_gets_the_decision() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(patient()).await, fleet.join(patient()).await);
    let held = first.submit(hold()).await.unwrap();
    assert_eq!(second.cancel(held.gid, shop(), Wait::End).await.unwrap().status, TxStatus::Cancelled);
    // The first one's driver still believes that it may decide.
    assert_eq!(first.confirm(held.gid, Wait::Decision).await.unwrap().status.decision(), Some(tcc_types::Decision::Cancel));
    assert_eq!((until_ended(&first, held.gid).await.status, fleet.rows(&held)), (TxStatus::Cancelled, BOTH_CANCELLED));
}

#[tokio::test]
async fn a_transaction_is_watched_through_another_gateway_to_its_end() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(patient()).await, fleet.join(patient()).await);
    // Whether the stale driver is looked at in between is a matter of luck.
    for _ in 0..20 {
        let held = first.submit(hold()).await.unwrap();
        // One watcher at a gateway without a driver, one at the gateway whose driver does not hear of the decision.
        let (mut there, mut here) = (second.watch(held.gid).await.unwrap(), first.watch(held.gid).await.unwrap());
        assert_eq!(there.next().await.unwrap().unwrap().status, TxStatus::Trying);
        assert_eq!(here.next().await.unwrap().unwrap().status, TxStatus::Trying);
        second.confirm(held.gid, Wait::Decision).await.unwrap();
        for views in [there, here] {
            let mut seen: Vec<_> = views.map(|view| view.unwrap().status).collect().await;
            seen.dedup();
            assert!(seen.ends_with(&[TxStatus::Confirmed]), "{seen:?}");
            let undecided_again = seen.iter().skip_while(|status| status.decision().is_none()).any(|s| s.decision().is_none());
            assert!(!undecided_again, "{seen:?}");
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_hold_is_told_when_another_gateway_decides_it() {
    let fleet = Fleet::new(false).await;
    let longest = Config { try_for_ms: 3_000_000, try_for_ms_max: 3_000_000, hold_for_ms: 3_000_000, ..patient() };
    let (first, second) = (fleet.join(longest).await, fleet.join(patient()).await);
    fleet.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let gid = fleet.mint();
    let submitted = tokio::spawn({
        let first = first.clone();
        async move { first.submit(Submit { gid: Some(gid), wait: Wait::Decision, ..hold() }).await }
    });
    while fleet.fake("stock").ops("stock").is_empty() {
        moment().await;
    }
    second.cancel(gid, shop(), Wait::Decision).await.unwrap();
    assert_eq!(submitted.await.unwrap().unwrap().status.decision(), Some(tcc_types::Decision::Cancel));
}

#[tokio::test]
async fn an_operators_order_is_carried_out_by_a_gateway_that_does_not_own_the_transaction() {
    let fleet = Fleet::new(false).await;
    let config = Config { lease_ms: 90, stuck_probe_ms: 20, ..quick() };
    let owner = fleet.join(Config { lease_ms: 60_000, ..config.clone() }).await;
    let held = owner.submit(hold()).await.unwrap();
    fleet.fake("stock").forget(&held, "stock");
    owner.confirm(held.gid, Wait::Decision).await.unwrap();
    while owner.list_stuck(None, None, 10).await.unwrap().items.is_empty() {
        moment().await;
    }
    let other = fleet.join(config).await;
    fleet.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let key = BranchKey { gid: held.gid, branch: BranchId::new("stock").unwrap() };
    let warrant = Warrant { actor: "ops".to_owned(), reason: "the row was lost".to_owned() };
    other.try_anew(key, warrant).await.unwrap();
    // Time for the order to be forgotten.
    tokio::time::sleep(Duration::from_millis(300)).await;
    fleet.fake("stock").loses.store(0, Ordering::SeqCst);
    assert_eq!((until_ended(&other, held.gid).await.status, fleet.rows(&held)), (TxStatus::Confirmed, BOTH_CONFIRMED));
}

#[tokio::test]
async fn a_request_is_repeated_at_another_gateway_and_joins_without_driving_it_twice() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(patient()).await, fleet.join(patient()).await);
    fleet.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let keyed = Submit { key: Some(tcc_types::IdempotencyKey::new("order-1").unwrap()), ..order() };
    let (begun, again) = (first.clone(), second.clone());
    let (mine, request) = (
        tokio::spawn({
            let keyed = keyed.clone();
            async move { begun.submit(keyed).await }
        }),
        keyed,
    );
    while fleet.fake("stock").ops("stock").is_empty() {
        moment().await;
    }
    let joined = tokio::spawn(async move { again.submit(request).await });
    // Time for the second one to do something wrong.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(second.in_memory(), 0, "it has no driver there");
    fleet.fake("stock").loses.store(0, Ordering::SeqCst);
    let (mine, joined) = (mine.await.unwrap().unwrap(), joined.await.unwrap().unwrap());
    assert_eq!((mine.gid, mine.status), (joined.gid, TxStatus::Confirmed));
    assert_eq!(fleet.fake("coupon").ops("coupon"), ["try", "confirm"]);
}

#[tokio::test]
async fn a_cancel_at_another_gateway_reaches_a_transaction_whose_try_has_no_answer() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(Config { lease_ms: 90, ..quick() }).await, fleet.join(patient()).await);
    fleet.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let gid = fleet.mint();
    let submitted = tokio::spawn({
        let first = first.clone();
        async move { first.submit(Submit { gid: Some(gid), wait: Wait::Decision, ..order() }).await }
    });
    while fleet.fake("stock").ops("stock").is_empty() {
        moment().await;
    }
    let cancelled = second.cancel(gid, shop(), Wait::Decision).await.unwrap();
    assert!(matches!(cancelled.cause, Some(CancelCause::Requested { .. })), "{cancelled:?}");
    // Its own driver is turned away when it wants to prolong its lease, and its caller is told what stands.
    let told = submitted.await.unwrap().unwrap();
    assert_eq!(told.status.decision(), Some(tcc_types::Decision::Cancel));
    while first.in_memory() > 0 {
        moment().await;
    }
    fleet.fake("stock").loses.store(0, Ordering::SeqCst);
    let ended = until_ended(&second, gid).await;
    assert_eq!((ended.status, fleet.rows(&ended)), (TxStatus::Cancelled, BOTH_CANCELLED));
}

#[tokio::test]
async fn a_decision_that_is_seen_is_told_and_followed_only_when_it_is_known_to_be_durable() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(patient()).await, fleet.join(patient()).await);
    let held = first.submit(hold()).await.unwrap();
    fleet.is_slow.store(true, Ordering::SeqCst);
    let decide = |gateway: &Coordinator| {
        let (gateway, gid) = (gateway.clone(), held.gid);
        tokio::spawn(async move { gateway.confirm(gid, Wait::Decision).await })
    };
    let deciding = decide(&first);
    while fleet.log.load(held.gid).await.unwrap().unwrap().status == TxStatus::Trying {
        moment().await;
    }
    let (here, there) = (first.clone(), second.clone());
    let read = [here, there].map(|gateway| tokio::spawn(async move { gateway.get(held.gid).await }));
    let following = decide(&second);
    // Time to do something wrong.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!deciding.is_finished() && !following.is_finished() && read.iter().all(|read| !read.is_finished()));
    assert_eq!(fleet.fake("stock").ops("stock"), ["try"], "no Confirm has left");
    fleet.is_slow.store(false, Ordering::SeqCst);
    for told in read.into_iter().chain([deciding, following]) {
        assert_eq!(told.await.unwrap().unwrap().status.decision(), Some(tcc_types::Decision::Confirm));
    }
}

#[tokio::test]
async fn branches_enlisted_at_two_gateways_are_decided_together() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(patient()).await, fleet.join(patient()).await);
    let begun = first.begin(Begin { initiator: shop(), gid: None, key: None, decide_by: None }).await.unwrap();
    let (answer, _) = first.enlist(begun.gid, branch("stock")).await.unwrap();
    assert!(matches!(answer, EnlistAnswer::Reserved(_)));
    let (answer, _) = second.enlist(begun.gid, branch("coupon")).await.unwrap();
    assert!(matches!(answer, EnlistAnswer::Reserved(_)));
    // The first one's driver holds one vote and has to learn of the other branch.
    let confirmed = first.confirm(begun.gid, Wait::End).await.unwrap();
    assert_eq!((confirmed.status, confirmed.branches.len()), (TxStatus::Confirmed, 2));
    assert_eq!(fleet.rows(&confirmed), BOTH_CONFIRMED);
    // Another one, whose driver at the first gateway knows of no branch at all.
    let begun = first.begin(Begin { initiator: shop(), gid: None, key: None, decide_by: None }).await.unwrap();
    second.enlist(begun.gid, branch("coupon")).await.unwrap();
    assert_eq!(first.get(begun.gid).await.unwrap().branches.len(), 1);
    let confirmed = first.confirm(begun.gid, Wait::End).await.unwrap();
    assert_eq!((confirmed.status, confirmed.branches.len()), (TxStatus::Confirmed, 1));
    let late = second.enlist(begun.gid, branch("late")).await;
    assert!(matches!(late, Err(Error::Invalid(_) | Error::Precondition { .. })), "{late:?}");
}

#[test]
fn a_dead_gateways_transactions_are_taken_up_by_another() {
    let alive = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mortal = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fleet = alive.block_on(Fleet::new(false));
    let config = Config { lease_ms: 200, ..quick() };
    let (undecided, undone) = (fleet.mint(), fleet.mint());
    mortal.block_on(async {
        let first = fleet.join(config.clone()).await;
        fleet.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
        tokio::spawn({
            let first = first.clone();
            async move { first.submit(Submit { gid: Some(undecided), ..order() }).await }
        });
        // Decided, and its Cancel has no answer.
        tokio::spawn(async move { first.cancel(undone, shop(), Wait::End).await.unwrap() });
        while fleet.fake("stock").ops("stock").is_empty() {
            moment().await;
        }
    });
    // All its tasks end where they are.
    mortal.shutdown_background();
    fleet.fake("stock").loses.store(0, Ordering::SeqCst);
    alive.block_on(async {
        let second = fleet.join(config).await;
        let ended = until_ended(&second, undecided).await;
        assert_eq!((ended.status, fleet.rows(&ended)), (TxStatus::Confirmed, BOTH_CONFIRMED));
        let record = fleet.log.load(undecided).await.unwrap().unwrap();
        assert_eq!(record.owner.0, 2, "the second one decided it");
    });
}

#[tokio::test]
async fn a_gateway_that_drains_hands_over_at_once() {
    let fleet = Fleet::new(false).await;
    let (first, second) = (fleet.join(patient()).await, fleet.join(patient()).await);
    fleet.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let gid = fleet.mint();
    let submitted = tokio::spawn({
        let first = first.clone();
        async move { first.submit(Submit { gid: Some(gid), ..order() }).await }
    });
    while fleet.fake("stock").ops("stock").is_empty() {
        moment().await;
    }
    first.shutdown(Duration::ZERO).await;
    assert!(submitted.await.unwrap().is_err(), "its outcome is not known there");
    fleet.fake("stock").loses.store(0, Ordering::SeqCst);
    // Its lease of an hour does not matter.
    let ended = until_ended(&second, gid).await;
    assert_eq!((ended.status, fleet.rows(&ended)), (TxStatus::Confirmed, BOTH_CONFIRMED));
}

#[tokio::test]
async fn what_a_living_gateway_drives_for_longer_than_a_lease_stays_its_own() {
    let fleet = Fleet::new(false).await;
    let config =
        Config { lease_ms: 300, recovery_interval_ms: 10, park_after_attempts: 1_000, stuck_after_attempts: 1_000, ..quick() };
    let first = fleet.join(config.clone()).await;
    fleet.fake("stock").loses.store(u32::MAX, Ordering::SeqCst);
    let gid = fleet.mint();
    let submitted = tokio::spawn({
        let first = first.clone();
        async move { first.submit(Submit { gid: Some(gid), ..order() }).await }
    });
    while fleet.log.load(gid).await.unwrap().is_none() {
        moment().await;
    }
    let begun = fleet.log.load(gid).await.unwrap().unwrap();
    let _second = fleet.join(config).await;
    // Several leases long, by what the log says and not by a watch.
    let mut prolonged = 0;
    let mut until = begun.next_attempt_at;
    while prolonged < 5 {
        let record = fleet.log.load(gid).await.unwrap().unwrap();
        assert_eq!(record.owner, begun.owner);
        if record.next_attempt_at > until {
            (until, prolonged) = (record.next_attempt_at, prolonged + 1);
        }
        moment().await;
    }
    fleet.fake("stock").loses.store(0, Ordering::SeqCst);
    assert_eq!(submitted.await.unwrap().unwrap().status, TxStatus::Confirmed);
}

#[tokio::test]
async fn while_the_log_is_down_nothing_is_begun_and_what_was_begun_goes_on_when_it_is_back() {
    let fleet = Fleet::new(false).await;
    let gateway = fleet.join(Config { probe_interval_ms: 10, ..patient() }).await;
    let mut ready = gateway.ready();
    assert!(*ready.borrow_and_update());
    let held = gateway.submit(hold()).await.unwrap();
    fleet.is_down.store(true, Ordering::SeqCst);
    let confirming = tokio::spawn({
        let (gateway, gid) = (gateway.clone(), held.gid);
        async move { gateway.confirm(gid, Wait::End).await }
    });
    ready.wait_for(|ready| !*ready).await.unwrap();
    let refused = gateway.submit(order()).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(gateway.get(held.gid).await.unwrap().status, TxStatus::Trying, "reads still work");
    fleet.is_down.store(false, Ordering::SeqCst);
    ready.wait_for(|ready| *ready).await.unwrap();
    assert_eq!(confirming.await.unwrap().unwrap().status, TxStatus::Confirmed);
    assert_eq!(gateway.submit(order()).await.unwrap().status, TxStatus::Confirmed);
}

#[tokio::test]
async fn what_ended_long_ago_is_deleted_and_what_has_not_ended_is_kept() {
    let fleet = Fleet::new(false).await;
    // Old enough at once; a shipped gateway would refuse such a configuration.
    let longest = Config { hold_for_ms_max: 10, hold_for_ms: 10, begin_for_ms: 10, try_for_ms: 10, ..patient() };
    let short = Config { clock_allowance_ms: 1, ask_grace_ms: 1, retention_ms: 100, retention_interval_ms: 20, ..longest };
    let gateway = fleet.join(Config { retention_interval_ms: 3_600_000, ..patient() }).await;
    let (ended, held) = (gateway.submit(order()).await.unwrap(), gateway.submit(hold()).await.unwrap());
    let _second = fleet.join(short).await;
    while fleet.log.load(ended.gid).await.unwrap().is_some() {
        moment().await;
    }
    assert!(fleet.log.load(held.gid).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_any_lease_every_rule_is_kept() {
    every_rule_is_kept(Fleet::new(true).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_any_lease_every_rule_is_kept_on_postgres() {
    every_rule_is_kept(Fleet::on_a_server(tcc_servers::Kind::Postgres, true).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_any_lease_every_rule_is_kept_on_mariadb() {
    every_rule_is_kept(Fleet::on_a_server(tcc_servers::Kind::Mysql, true).await).await;
}

/// Every gateway works on everything all the time; answers get lost; holds are confirmed and cancelled from anywhere, and
/// branches enlisted at two gateways.
async fn every_rule_is_kept(fleet: Fleet) {
    const TRANSACTIONS: usize = 120;
    let fleet = Arc::new(fleet);
    let config = Config { recovery_interval_ms: 5, park_after_attempts: 2, stuck_after_attempts: 1_000, ..quick() };
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(fleet.join(config.clone()).await);
    }
    let mut orders = tokio::task::JoinSet::new();
    for number in 0..TRANSACTIONS {
        let (fleet, gateways) = (Arc::clone(&fleet), gateways.clone());
        orders.spawn(async move {
            let gateway = |plus: usize| &gateways[(number + plus) % gateways.len()];
            fleet.fake(["stock", "coupon"][number % 2]).loses.fetch_add(1, Ordering::SeqCst);
            let gid = fleet.mint();
            let begun = if number % 4 == 3 {
                let begin = Begin { initiator: shop(), gid: Some(gid), key: None, decide_by: None };
                let begun = gateway(0).begin(begin).await.unwrap();
                let (stock, coupon) =
                    tokio::join!(gateway(1).enlist(gid, branch("stock")), gateway(2).enlist(gid, branch("coupon")));
                assert!(matches!(
                    (stock.unwrap().0, coupon.unwrap().0),
                    (EnlistAnswer::Reserved(_), EnlistAnswer::Reserved(_))
                ));
                begun
            } else {
                gateway(0).submit(Submit { gid: Some(gid), hold: number % 3 != 0, ..order() }).await.unwrap()
            };
            if !begun.status.has_ended() {
                // Two gateways are asked for opposite outcomes at once: one of them stands, and both say which.
                let (confirm, cancel) =
                    tokio::join!(gateway(1).confirm(gid, Wait::Decision), gateway(2).cancel(gid, shop(), Wait::Decision));
                let (confirm, cancel) = (confirm.unwrap().status.decision(), cancel.unwrap().status.decision());
                assert!(confirm.is_some() && confirm == cancel, "{gid}: {confirm:?} and {cancel:?}");
            }
            gid
        });
    }
    let gids = orders.join_all().await;
    let (mut confirmed, mut cancelled) = (0, 0);
    for gid in gids {
        let mut stands = None;
        for gateway in &gateways {
            let ended = until_ended(gateway, gid).await;
            assert!(stands.is_none_or(|stands| stands == ended.status), "{gid} is told differently");
            stands = Some(ended.status);
            let (rows, wanted) = (fleet.rows(&ended), ended.status);
            match wanted {
                TxStatus::Confirmed => assert_eq!(rows, BOTH_CONFIRMED, "{gid}"),
                TxStatus::Cancelled => assert_eq!(rows, BOTH_CANCELLED, "{gid}"),
                TxStatus::Trying | TxStatus::Confirming | TxStatus::Cancelling => panic!("{gid} has not ended"),
            }
        }
        match stands.unwrap() {
            TxStatus::Confirmed => confirmed += 1,
            _ => cancelled += 1,
        }
    }
    assert!(confirmed > 0 && cancelled > 0, "{confirmed} confirmed, {cancelled} cancelled");
    let stuck = gateways[0].list_stuck(None, None, 10).await.unwrap().items;
    assert!(stuck.is_empty(), "{stuck:?}");
    println!("without leases: {confirmed} confirmed, {cancelled} cancelled");
}

//! The client against a real coordinator over real sockets, some calls of which fail on demand.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tcc_client::{Begin, Branch, Client, Enlisted, Error, List, Retries, Submit, Wait};
use tcc_coordinator::{Config, Coordinator, Endpoint, Registry, Unknown, service::coordinator_server};
use tcc_log::{DatabaseLog, LogOptions};
use tcc_proto::inventory::v1::{ReserveStock, StockLine};
use tcc_types::{
    CancelCall, ConfirmCall, Decision, Gid, Initiator, ParticipantName, Refusal, SettleAnswer, SystemClock, SystemEntropy,
    TryAnswer, TryCall, TxStatus,
};
use tcc_wire::status;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::StreamExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Status,
    service::interceptor::InterceptedService,
    transport::{Server, server::TcpIncoming},
};

/// Says yes and repeats what it was asked, or no; keeps nothing.
struct Echo {
    refuses: bool,
}

#[async_trait]
impl Endpoint for Echo {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        Ok(if self.refuses {
            TryAnswer::Refused(Refusal::business("SOLD_OUT", "none left"))
        } else {
            TryAnswer::Reserved(Some(call.payload))
        })
    }

    async fn confirm(&self, _: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        Ok(SettleAnswer::Done)
    }

    async fn cancel(&self, _: CancelCall) -> Result<SettleAnswer, Unknown> {
        Ok(SettleAnswer::Done)
    }
}

struct World {
    client: Client,
    coordinator: Coordinator,
    address: SocketAddr,
    /// So many calls fail before they reach the coordinator.
    fails: Arc<AtomicU32>,
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
    _folder: TempDir,
}

impl World {
    async fn start(failure: fn() -> Status) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database_url = format!("sqlite://{}", folder.path().join("log.db").display());
        let options = LogOptions { database_url, ..LogOptions::default() };
        let log = DatabaseLog::open(options, Arc::new(SystemClock)).await.unwrap();
        let registry = [("yes", false), ("no", true)].into_iter().fold(Registry::default(), |registry, (name, refuses)| {
            registry.with(ParticipantName::new(name).unwrap(), Arc::new(Echo { refuses }))
        });
        let entropy = Arc::new(SystemEntropy);
        let coordinator = Coordinator::start(Arc::new(log), registry, Config::default(), entropy).await.unwrap();

        let fails = Arc::new(AtomicU32::new(0));
        let left = Arc::clone(&fails);
        let service = InterceptedService::new(coordinator_server(coordinator.clone()), move |request| {
            let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if fails { Err(failure()) } else { Ok(request) }
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let stop = shutdown.clone().cancelled_owned();
        let serving = Server::builder().add_service(service).serve_with_incoming_shutdown(TcpIncoming::from(listener), stop);
        let ended = TaskTracker::new().spawn(async move { serving.await.unwrap() });
        let client = Client::connect(format!("http://{address}"), Initiator::new("shop").unwrap()).await.unwrap();
        let client = client.with_retries(Retries { attempts_max: 4, delay_base_ms: 1, delay_max_ms: 50 });
        Self { client, coordinator, address, fails, shutdown, ended, _folder: folder }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        drop(self.client);
        self.ended.await.unwrap();
        self.coordinator.shutdown(Duration::from_secs(10)).await;
    }
}

fn unavailable() -> Status {
    status::unavailable("tcc.v1", "down", Duration::from_millis(2))
}

fn stock() -> ReserveStock {
    ReserveStock { lines: vec![StockLine { sku: "apple".to_owned(), quantity: 2 }] }
}

fn branch(id: &str, participant: &str) -> Branch {
    Branch::new(id, participant, &stock()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_transaction_comes_back_decided_with_its_outputs() {
    let world = World::start(unavailable).await;
    let submit = Submit { wait: Wait::Decision, ..Submit::of([branch("a", "yes"), branch("b", "yes")]) };
    let client = world.client.clone();
    // In a task of its own: its future may move between threads.
    let confirmed = TaskTracker::new().spawn(async move { client.submit(submit).await }).await.unwrap().unwrap();
    assert_eq!((confirmed.decision(), confirmed.refusal()), (Some(Decision::Confirm), None));
    assert_eq!(confirmed.details.initiator, "shop");
    assert_eq!((confirmed.output::<ReserveStock>("a"), confirmed.output::<ReserveStock>("c")), (Some(stock()), None));

    let refused = world.client.submit(Submit::of([branch("a", "yes"), branch("b", "no")])).await.unwrap();
    assert_eq!(refused.decision(), Some(Decision::Cancel));
    let (participant, refusal) = refused.refusal().unwrap();
    assert_eq!((participant, refusal.code.as_str()), ("no", "SOLD_OUT"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_and_as_large_branches_as_are_allowed_fit_into_a_request_and_its_answer() {
    let world = World::start(unavailable).await;
    let limits = Config::default();
    let largest = |value_bytes: usize| {
        let payload = tcc_client::pack(&ReserveStock::default());
        let value = vec![0; value_bytes - payload.type_url.len()];
        let payload = prost_types::Any { value, ..payload };
        (0..limits.branches_max).map(move |index| Branch { payload: payload.clone(), ..branch(&format!("b{index}"), "yes") })
    };
    assert_eq!(limits.payload_bytes_max * limits.branches_max as usize, limits.request_bytes_max);
    let confirmed = world.client.submit(Submit::of(largest(limits.payload_bytes_max))).await.unwrap();
    assert_eq!(confirmed.decision(), Some(Decision::Confirm));

    let error = world.client.submit(Submit::of(largest(limits.payload_bytes_max + 1))).await.unwrap_err();
    let named: Vec<_> = error.bad_fields().into_iter().map(|bad| bad.to_string()).collect();
    assert_eq!(named.len(), 16, "an error names no more: {named:?}");
    assert!(named[0].contains("branches") && named[0].contains("request_bytes_max is 4194304"), "{named:?}");
    assert!(named[1].contains("branches[0].payload") && named[1].contains("payload_bytes_max is 65536"), "{named:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_enlisted_one_by_one_are_decided_on_request() {
    let world = World::start(unavailable).await;
    let client = &world.client;
    let gid = client.begin(Begin::default()).await.unwrap().gid;
    let (first, open) = client.enlist(gid, &branch("a", "yes")).await.unwrap();
    assert_eq!((first.output(), open.decision()), (Some(stock()), None));
    let confirmed = client.confirm(gid, Wait::End).await.unwrap();
    assert_eq!(confirmed.status, TxStatus::Confirmed);
    assert_eq!(client.cancel(gid, Wait::End).await.unwrap().decision(), Some(Decision::Confirm), "the loser gets the decision");

    let gid = client.begin(Begin::default()).await.unwrap().gid;
    let (refused, _) = client.enlist(gid, &branch("a", "no")).await.unwrap();
    assert!(matches!(refused, Enlisted::Refused(refusal) if refusal.code == "SOLD_OUT"));
    let states: Vec<_> = client.watch(gid).await.unwrap().map(|state| state.unwrap().status).collect().await;
    assert_eq!(states.last(), Some(&TxStatus::Cancelled));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_read_and_listed_page_by_page() {
    let world = World::start(unavailable).await;
    let mut gids = Vec::new();
    for _ in 0..3 {
        gids.insert(0, world.client.submit(Submit::of([branch("a", "yes")])).await.unwrap().gid);
    }
    let list = List { initiator: Some(Initiator::new("shop").unwrap()), page_size: 2, ..List::default() };
    let first = world.client.list(&list).await.unwrap();
    let second = world.client.list(&List { page_token: first.next_page_token, ..list }).await.unwrap();
    let listed: Vec<Gid> = first.transactions.iter().chain(&second.transactions).map(|one| one.gid).collect();
    assert_eq!((listed, second.next_page_token.as_str()), (gids.clone(), ""));
    assert_eq!(world.client.get(gids[0]).await.unwrap().gid, gids[0]);
    let none = List { statuses: vec![TxStatus::Trying], ..List::default() };
    assert!(world.client.list(&none).await.unwrap().transactions.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_for_now_is_sent_again_a_bounded_number_of_times() {
    let exhausted = || status::exhausted("tcc.v1", "transactions_in_flight_max", 1, Duration::from_millis(2));
    let failures: [(fn() -> Status, bool); 4] = [
        (unavailable, false),
        (exhausted, true),
        (|| Status::deadline_exceeded("too late"), false),
        (|| Status::cancelled("timeout"), false),
    ];
    for (failure, nothing_started) in failures {
        let world = World::start(failure).await;
        world.fails.store(3, Ordering::SeqCst);
        world.client.submit(Submit::of([branch("a", "yes")])).await.unwrap();
        assert_eq!(world.fails.load(Ordering::SeqCst), 0);

        world.fails.store(10, Ordering::SeqCst);
        let error = world.client.submit(Submit::of([branch("a", "yes")])).await.unwrap_err();
        assert_eq!((error.is_retryable(), error.nothing_started()), (true, nothing_started), "{error:?}");
        assert_eq!(world.fails.load(Ordering::SeqCst), 6, "four attempts");
        world.fails.store(0, Ordering::SeqCst);
        assert_eq!(world.client.list(&List::default()).await.unwrap().transactions.len(), 1);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_value_is_one_transaction_however_often_it_is_sent() {
    let world = World::start(unavailable).await;
    let client = &world.client;
    let submit = Submit::of([branch("a", "yes")]);
    let gid = client.submit(submit.clone()).await.unwrap().gid;
    assert_eq!(client.submit(submit).await.unwrap().gid, gid);
    assert_ne!(client.submit(Submit::of([branch("a", "yes")])).await.unwrap().gid, gid, "built anew");

    let begin = Begin::default();
    let gid = client.begin(begin.clone()).await.unwrap().gid;
    assert_eq!(client.begin(begin).await.unwrap().gid, gid);
    assert_eq!(client.list(&List::default()).await.unwrap().transactions.len(), 3);
    client.cancel(gid, Wait::End).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_repetition_does_not_hide_that_the_first_attempt_is_unknown() {
    let world = World::start(unavailable).await;
    let wrong = Submit::of([branch("a", "nobody")]);
    assert!(world.client.submit(wrong.clone()).await.unwrap_err().nothing_started());
    world.fails.store(1, Ordering::SeqCst);
    let error = world.client.submit(wrong).await.unwrap_err();
    assert_eq!((error.reason().as_deref(), error.nothing_started()), (Some("INVALID_FIELDS"), false));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_not_repeated() {
    let world = World::start(unavailable).await;
    let error = world.client.submit(Submit::of([branch("a", "nobody")])).await.unwrap_err();
    let fields: Vec<_> = error.bad_fields().into_iter().map(|bad| bad.field).collect();
    assert_eq!((fields, error.is_retryable()), (vec!["branches[0].participant".to_owned()], false));
    assert_eq!(error.reason().as_deref(), Some("INVALID_FIELDS"));
    world.stop().await;
    let nobody = Client::connect("http://127.0.0.1:1", Initiator::new("shop").unwrap()).await.unwrap_err();
    assert!(matches!(nobody, Error::Connect(_)) && nobody.nothing_started());
}

/// Passes connections on. Those that are there when it is told to fall silent stay open, and nothing comes through them any more. Ends
/// with the sender.
async fn relay(to: SocketAddr, silences: watch::Receiver<u32>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = TaskTracker::new();
    TaskTracker::new().spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (mut silences, mut end) = (silences.clone(), silences.clone());
            connections.spawn(async move {
                let (mut far, before) = (TcpStream::connect(to).await.unwrap(), *silences.borrow_and_update());
                tokio::select! {
                    ended = copy_bidirectional(&mut near, &mut far) => drop(ended),
                    () = async { drop(silences.wait_for(|now| *now > before).await) } => drop(end.wait_for(|_| false).await),
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_silent_is_given_up_and_the_call_is_repeated_on_another() {
    let world = World::start(unavailable).await;
    let (silence, silences) = watch::channel(0);
    let through = relay(world.address, silences).await;
    let client = Client::connect(format!("http://{through}"), Initiator::new("shop").unwrap()).await.unwrap();
    client.submit(Submit::of([branch("a", "yes")])).await.unwrap();
    silence.send_replace(1);
    let confirmed = timeout(Duration::from_secs(60), client.submit(Submit::of([branch("a", "yes")]))).await;
    let confirmed = confirmed.expect("it would wait for ever").unwrap();
    assert_eq!(confirmed.decision(), Some(Decision::Confirm));
    drop((client, silence));
    world.stop().await;
}

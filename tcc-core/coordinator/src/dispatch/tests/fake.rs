//! A participant that keeps no rows: it notes what comes, answers batches by a script, and everything else with yes.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use tcc_proto::tcc::v1::{
    BatchRequest, BatchResponse, BatchResult, CancelRequest, CancelResponse, ConfirmRequest, ConfirmResponse, TryRequest,
    TryResponse,
    participant_server::{Participant, ParticipantServer},
};
use tcc_types::{BranchKey, Op, SettleAnswer, TryAnswer};
use tcc_wire::{Answer, Operation};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

/// What a batch is answered, and how its answer ends.
#[derive(Default)]
pub(super) struct Reply {
    pub(super) results: Vec<BatchResult>,
    pub(super) then: Then,
}

#[derive(Default)]
pub(super) enum Then {
    #[default]
    End,
    Hang,
    Fail(Status),
}

type Script = dyn Fn(&[Operation]) -> Result<Reply, Status> + Send + Sync;

/// A handle; clones share everything.
#[derive(Clone)]
pub(super) struct Fake {
    address: SocketAddr,
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
    hanging: Arc<AtomicUsize>,
    /// Whether operations that come alone are answered.
    gate: watch::Sender<bool>,
}

#[derive(Default)]
struct Seen {
    alone: Vec<(BranchKey, Op)>,
    requests: Vec<BatchRequest>,
    batches: Vec<Vec<(BranchKey, Op)>>,
}

/// The script that says yes to everything.
pub(super) fn done(operations: &[Operation]) -> Result<Reply, Status> {
    Ok(Reply { results: operations.iter().map(done_result).collect(), then: Then::End })
}

pub(super) fn done_result(operation: &Operation) -> BatchResult {
    let answer = match operation.op() {
        Op::Try => Answer::Tried(TryAnswer::Reserved(None)),
        Op::Confirm | Op::Cancel => Answer::Settled(SettleAnswer::Done),
    };
    let key = operation.key();
    tcc_wire::result_to_proto(key.gid.to_string(), key.branch.to_string(), operation.op(), Ok(answer))
}

/// Waits for what other tasks bring about.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it comes about");
}

impl Fake {
    /// Serves until its runtime ends.
    pub(super) async fn serve(script: impl Fn(&[Operation]) -> Result<Reply, Status> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(script),
            seen: Arc::default(),
            hanging: Arc::default(),
            gate: watch::Sender::new(true),
        };
        let server = tonic::transport::Server::builder().add_service(ParticipantServer::new(fake.clone()));
        TaskTracker::new().spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    pub(super) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn close_gate(&self) {
        self.gate.send_replace(false);
    }

    pub(super) fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// What came by calls of its own.
    pub(super) fn alone(&self) -> Vec<(BranchKey, Op)> {
        self.seen.lock().unwrap().alone.clone()
    }

    /// What came in batches.
    pub(super) fn batches(&self) -> Vec<Vec<(BranchKey, Op)>> {
        self.seen.lock().unwrap().batches.clone()
    }

    pub(super) fn requests(&self) -> Vec<BatchRequest> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// How many operations came in batches.
    pub(super) fn in_batches(&self) -> usize {
        self.batches().iter().map(Vec::len).sum()
    }

    /// Batches whose answers do not end.
    pub(super) fn hanging(&self) -> usize {
        self.hanging.load(Ordering::SeqCst)
    }

    async fn note(&self, operation: &Operation) {
        self.seen.lock().unwrap().alone.push((operation.key().clone(), operation.op()));
        self.gate.subscribe().wait_for(|open| *open).await.expect("the gate is there");
    }

    fn hang(&self) -> impl Stream<Item = Result<BatchResponse, Status>> + Send + use<> {
        struct Hanging(Arc<AtomicUsize>);
        impl Drop for Hanging {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.hanging.fetch_add(1, Ordering::SeqCst);
        let hanging = Hanging(Arc::clone(&self.hanging));
        stream::poll_fn(move |_| {
            let _kept = &hanging;
            Poll::Pending
        })
    }
}

#[tonic::async_trait]
impl Participant for Fake {
    type BatchStream = Pin<Box<dyn Stream<Item = Result<BatchResponse, Status>> + Send>>;

    async fn r#try(&self, request: Request<TryRequest>) -> Result<Response<TryResponse>, Status> {
        let call = tcc_wire::try_from_proto(request.into_inner()).expect("it is well-formed");
        self.note(&Operation::Try(call)).await;
        Ok(Response::new(tcc_wire::try_response(&TryAnswer::Reserved(None))))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmResponse>, Status> {
        let call = tcc_wire::confirm_from_proto(request.get_ref()).expect("it is well-formed");
        self.note(&Operation::Confirm(call)).await;
        Ok(Response::new(tcc_wire::confirm_response(SettleAnswer::Done)))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let call = tcc_wire::cancel_from_proto(request.get_ref()).expect("it is well-formed");
        self.note(&Operation::Cancel(call)).await;
        Ok(Response::new(tcc_wire::cancel_response(SettleAnswer::Done)))
    }

    async fn batch(&self, request: Request<BatchRequest>) -> Result<Response<Self::BatchStream>, Status> {
        let request = request.into_inner();
        let sent = request.operations.clone().into_iter().map(|one| one.operation.expect("there is one"));
        let operations: Vec<_> = sent.map(|one| tcc_wire::operation_from_proto(one).expect("it is well-formed")).collect();
        {
            let mut seen = self.seen.lock().unwrap();
            seen.requests.push(request);
            seen.batches.push(operations.iter().map(|one| (one.key().clone(), one.op())).collect());
        }
        let Reply { results, then } = (self.script)(&operations)?;
        // Each in a response of its own: how many there are in one must make no difference.
        let results = stream::iter(results).map(|result| Ok(BatchResponse { results: vec![result] }));
        Ok(Response::new(match then {
            Then::End => Box::pin(results),
            Then::Hang => Box::pin(results.chain(self.hang())),
            Then::Fail(status) => Box::pin(results.chain(stream::iter([Err(status)]))),
        }))
    }
}

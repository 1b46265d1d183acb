//! The question over gRPC: several gateways, silent ones, and answers that do not match.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tcc_participant::{CoordinatorConfig, GrpcOutcomes, OutcomeSource, Unanswered};
use tcc_proto::tcc::v1::{
    self as proto,
    coordinator_server::{Coordinator, CoordinatorServer},
};
use tcc_service::Server;
use tcc_types::{BranchId, BranchKey, BranchRowStatus, Gid, LogName, Outcome, OutcomeQuery, SystemEntropy, Timestamp};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What a gateway does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Answers(Outcome),
    /// In another order than it was asked.
    AnswersReversed,
    AnswersTooFew,
    IsDown,
    /// Never comes back to it.
    Hangs,
    /// Takes at most so many at once.
    Takes(usize),
    /// Takes no question with this transaction in it.
    Refuses(Gid),
}

#[derive(Clone)]
struct Gateway {
    manner: Arc<Mutex<Manner>>,
    sizes: Arc<Mutex<Vec<usize>>>,
}

impl Gateway {
    fn answer(&self, request: proto::GetOutcomeRequest, manner: Manner) -> Result<proto::GetOutcomeResponse, Status> {
        let queries: Vec<_> = request
            .queries
            .into_iter()
            .map(|query| tcc_wire::outcome_query_from_proto(query).expect("it is well-formed"))
            .collect();
        let outcome = match manner {
            Manner::Answers(outcome) => outcome,
            Manner::AnswersReversed
            | Manner::AnswersTooFew
            | Manner::Takes(_)
            | Manner::Refuses(_)
            | Manner::IsDown
            | Manner::Hangs => Outcome::Cancelled,
        };
        let mut answers: Vec<_> = queries.iter().map(|query| tcc_wire::outcome_answer(query, outcome)).collect();
        match manner {
            Manner::Answers(_) => {}
            Manner::AnswersReversed => answers.reverse(),
            Manner::AnswersTooFew => drop(answers.pop()),
            Manner::Takes(limit) if answers.len() <= limit => {}
            Manner::Refuses(gid) if queries.iter().all(|query| query.key.gid != gid) => {}
            Manner::Refuses(_) => return Err(Status::invalid_argument("queries: bad")),
            Manner::Takes(_) => return Err(Status::invalid_argument("queries: too many")),
            Manner::IsDown | Manner::Hangs => return Err(Status::unavailable("down")),
        }
        Ok(proto::GetOutcomeResponse { answers })
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Coordinator for Gateway {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchTransactionResponse, Status>> + Send>>;

    async fn submit(&self, _: Request<proto::SubmitRequest>) -> Answer<proto::SubmitResponse> {
        Err(Status::unimplemented(""))
    }

    async fn begin(&self, _: Request<proto::BeginRequest>) -> Answer<proto::BeginResponse> {
        Err(Status::unimplemented(""))
    }

    async fn enlist(&self, _: Request<proto::EnlistRequest>) -> Answer<proto::EnlistResponse> {
        Err(Status::unimplemented(""))
    }

    async fn confirm(&self, _: Request<proto::ConfirmTransactionRequest>) -> Answer<proto::ConfirmTransactionResponse> {
        Err(Status::unimplemented(""))
    }

    async fn cancel(&self, _: Request<proto::CancelTransactionRequest>) -> Answer<proto::CancelTransactionResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get(&self, _: Request<proto::GetTransactionRequest>) -> Answer<proto::GetTransactionResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list(&self, _: Request<proto::ListTransactionsRequest>) -> Answer<proto::ListTransactionsResponse> {
        Err(Status::unimplemented(""))
    }

    async fn watch(&self, _: Request<proto::WatchTransactionRequest>) -> Answer<Self::WatchStream> {
        Err(Status::unimplemented(""))
    }

    async fn get_outcome(&self, request: Request<proto::GetOutcomeRequest>) -> Answer<proto::GetOutcomeResponse> {
        let request = request.into_inner();
        assert_eq!(request.coordinator, "main");
        self.sizes.lock().expect("no one panicked").push(request.queries.len());
        let manner = *self.manner.lock().expect("no one panicked");
        if manner == Manner::Hangs {
            std::future::pending::<()>().await;
        }
        self.answer(request, manner).map(Response::new)
    }
}

/// Gateways of the coordinator `main`, until it is dropped.
struct Served {
    gateways: Vec<Gateway>,
    addresses: Vec<String>,
    tasks: JoinSet<()>,
}

impl Served {
    async fn start(manners: &[Manner]) -> Self {
        let mut served = Self { gateways: Vec::new(), addresses: Vec::new(), tasks: JoinSet::new() };
        for manner in manners {
            let gateway = Gateway { manner: Arc::new(Mutex::new(*manner)), sizes: Arc::default() };
            let server = Server::bind("127.0.0.1:0".parse().expect("it is an address")).await.expect("a port is free");
            served.addresses.push(format!("http://{}", server.local_addr()));
            let server = server.add_service(CoordinatorServer::new(gateway.clone()));
            served.gateways.push(gateway);
            let never = CancellationToken::new();
            served.tasks.spawn(async move { server.serve(never, Duration::ZERO).await.expect("it serves") });
        }
        served
    }

    fn source(&self, ask_timeout_ms: u64) -> GrpcOutcomes {
        let config = CoordinatorConfig { ask_timeout_ms, ..CoordinatorConfig::at(&self.addresses) };
        GrpcOutcomes::new(&BTreeMap::from([(main_log(), config)])).expect("the addresses are well-formed")
    }

    fn set(&self, index: usize, manner: Manner) {
        *self.gateways[index].manner.lock().expect("no one panicked") = manner;
    }

    fn sizes(&self, index: usize) -> Vec<usize> {
        self.gateways[index].sizes.lock().expect("no one panicked").clone()
    }
}

fn main_log() -> LogName {
    LogName::new("main").expect("it is well-formed")
}

fn queries(count: usize) -> Vec<OutcomeQuery> {
    let at = Timestamp::from_millis(1_790_000_000_000);
    let query = |_| OutcomeQuery {
        key: BranchKey { gid: Gid::mint(at, &SystemEntropy), branch: BranchId::new("stock").expect("it is well-formed") },
        row_status: BranchRowStatus::Tried,
        not_after: at,
    };
    (0..count).map(query).collect()
}

#[tokio::test]
async fn the_next_gateway_is_asked_where_one_does_not_answer_and_then_stays_the_first() {
    let served = Served::start(&[Manner::IsDown, Manner::Hangs, Manner::Answers(Outcome::Confirmed)]).await;
    let source = served.source(2_000);
    let asked = queries(3);
    assert_eq!(source.outcomes(&main_log(), &asked).await, Ok(vec![Outcome::Confirmed; 3]));
    assert_eq!([0, 1, 2].map(|index| served.sizes(index)), [[3], [3], [3]]);
    // The one that answered is asked first from now on, until it does not.
    assert_eq!(source.outcomes(&main_log(), &asked).await, Ok(vec![Outcome::Confirmed; 3]));
    assert_eq!([0, 1, 2].map(|index| served.sizes(index).len()), [1, 1, 2]);
    served.set(2, Manner::IsDown);
    served.set(0, Manner::Answers(Outcome::Cancelled));
    assert_eq!(source.outcomes(&main_log(), &asked).await, Ok(vec![Outcome::Cancelled; 3]));
    assert_eq!([0, 1, 2].map(|index| served.sizes(index).len()), [2, 1, 3]);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_passed_over() {
    let mut served = Served::start(&[Manner::Answers(Outcome::Finished)]).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it is bound");
    served.addresses.insert(0, format!("http://{closed}"));
    assert_eq!(served.source(5_000).outcomes(&main_log(), &queries(1)).await, Ok(vec![Outcome::Finished]));
}

#[tokio::test]
async fn answers_that_do_not_match_the_questions_are_no_answer() {
    let served = Served::start(&[Manner::AnswersReversed]).await;
    let source = served.source(5_000);
    for manner in [Manner::AnswersReversed, Manner::AnswersTooFew, Manner::IsDown] {
        served.set(0, manner);
        let answer = source.outcomes(&main_log(), &queries(2)).await;
        assert!(matches!(answer, Err(Unanswered::NoAnswer(_))), "{manner:?}: {answer:?}");
    }
    served.set(0, Manner::Answers(Outcome::Forgotten));
    assert_eq!(source.outcomes(&main_log(), &queries(2)).await, Ok(vec![Outcome::Forgotten; 2]));
}

#[tokio::test]
async fn a_coordinator_that_takes_fewer_queries_is_asked_with_fewer() {
    let served = Served::start(&[Manner::Takes(3)]).await;
    let source = served.source(5_000);
    assert_eq!(source.outcomes(&main_log(), &queries(10)).await, Ok(vec![Outcome::Cancelled; 10]));
    assert_eq!(served.sizes(0), [10, 5, 2, 2, 2, 2, 2]);
    served.set(0, Manner::Takes(0));
    let answer = source.outcomes(&main_log(), &queries(4)).await;
    assert!(matches!(answer, Err(Unanswered::NoAnswer(_))), "{answer:?}");
}

#[tokio::test]
async fn a_question_that_is_refused_alone_costs_no_other_its_answer() {
    let served = Served::start(&[Manner::Hangs]).await;
    let source = served.source(5_000);
    let asked = queries(10);
    for refused in [0, 4, 9] {
        served.set(0, Manner::Refuses(asked[refused].key.gid));
        let outcomes = source.outcomes(&main_log(), &asked).await.expect("the others are answered");
        for (index, outcome) in outcomes.iter().enumerate() {
            let is_put_off = matches!(outcome, Outcome::AskAgain { .. });
            assert!(if index == refused { is_put_off } else { *outcome == Outcome::Cancelled }, "{index}: {outcome:?}");
        }
    }
    served.set(0, Manner::Refuses(asked[0].key.gid));
    let answer = source.outcomes(&main_log(), &asked[..1]).await;
    assert!(matches!(answer, Err(Unanswered::NoAnswer(_))), "{answer:?}");
}

#[tokio::test]
async fn a_coordinator_that_is_not_configured_has_no_source() {
    let served = Served::start(&[Manner::Answers(Outcome::Cancelled)]).await;
    let other = LogName::new("other").expect("it is well-formed");
    assert_eq!(served.source(5_000).outcomes(&other, &queries(1)).await, Err(Unanswered::NoSource));
    assert_eq!(served.sizes(0), [0; 0]);
}

//! The server kit through real sockets.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{net::SocketAddr, time::Duration};

use tcc_proto::coupon::v1::{
    GetCouponRequest, GetCouponResponse, IssueCouponRequest, IssueCouponResponse, ListCouponsRequest, ListCouponsResponse,
    coupon_service_client::CouponServiceClient,
    coupon_service_server::{CouponService, CouponServiceServer},
};
use tcc_service::{Error, Readiness, Server, telemetry};
use tokio::{io::AsyncReadExt, sync::mpsc, task::JoinHandle};
use tokio_stream::StreamExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

const COUPON: &str = "coupon.v1.CouponService";
const LONG: Duration = Duration::from_secs(3_600);

/// Get waits for `release`, Issue panics, List answers with the trace context it would send on.
struct Probe {
    entered: mpsc::UnboundedSender<()>,
    release: CancellationToken,
}

#[tonic::async_trait]
impl CouponService for Probe {
    async fn get_coupon(&self, _: Request<GetCouponRequest>) -> Result<Response<GetCouponResponse>, Status> {
        self.entered.send(()).unwrap();
        self.release.cancelled().await;
        Ok(Response::new(GetCouponResponse::default()))
    }

    async fn issue_coupon(&self, _: Request<IssueCouponRequest>) -> Result<Response<IssueCouponResponse>, Status> {
        panic!("secret of the handler")
    }

    async fn list_coupons(&self, _: Request<ListCouponsRequest>) -> Result<Response<ListCouponsResponse>, Status> {
        let mut response = Response::new(ListCouponsResponse::default());
        telemetry::inject_trace(response.metadata_mut());
        Ok(response)
    }
}

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    shutdown: CancellationToken,
    release: CancellationToken,
    entered: mpsc::UnboundedReceiver<()>,
    served: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn start(drain: Duration) -> Self {
        Self::start_with(drain, |server| server).await
    }

    async fn start_with(drain: Duration, configure: impl FnOnce(Server) -> Server) -> Self {
        let (entered_tx, entered) = mpsc::unbounded_channel();
        let (shutdown, release) = (CancellationToken::new(), CancellationToken::new());
        let probe = Probe { entered: entered_tx, release: release.clone() };
        let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap().add_service(CouponServiceServer::new(probe));
        let server = configure(server);
        let (address, readiness) = (server.local_addr(), server.readiness());
        let served = TaskTracker::new().spawn(server.serve(shutdown.clone(), drain));
        Self { address, readiness, shutdown, release, entered, served }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn health(&self, service: &str) -> Result<ServingStatus, Code> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response = HealthClient::new(self.channel().await).check(request).await;
        response.map(|response| response.get_ref().status()).map_err(|status| status.code())
    }
}

#[tokio::test]
async fn health_follows_readiness_for_every_service_and_knows_no_others() {
    let server = Running::start(LONG).await;
    for service in ["", COUPON] {
        assert_eq!(server.health(service).await, Ok(ServingStatus::Serving));
    }
    assert_eq!(server.health("coupon.v1.Other").await, Err(Code::NotFound));
    server.readiness.set_ready(false);
    for service in ["", COUPON] {
        assert_eq!(server.health(service).await, Ok(ServingStatus::NotServing));
    }
    server.readiness.set_ready(true);
    assert_eq!(server.health(COUPON).await, Ok(ServingStatus::Serving));
}

#[tokio::test]
async fn watchers_see_not_serving_first_and_do_not_hold_up_the_end() {
    let server = Running::start(LONG).await;
    let mut client = HealthClient::new(server.channel().await);
    let mut states = client.watch(HealthCheckRequest { service: COUPON.to_owned() }).await.unwrap().into_inner();
    assert_eq!(states.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.shutdown.cancel();
    assert_eq!(states.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(states.next().await.is_none());
    server.served.await.unwrap().unwrap();
    server.readiness.set_ready(true);
}

#[tokio::test]
async fn watching_an_unknown_service_says_so_on_an_open_stream() {
    let server = Running::start(LONG).await;
    let mut client = HealthClient::new(server.channel().await);
    let mut states = client.watch(HealthCheckRequest { service: "no.Such".to_owned() }).await.unwrap().into_inner();
    assert_eq!(states.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn reflection_v1_lists_what_is_served_and_describes_it() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    };
    let server = Running::start(LONG).await;
    let requests = [MessageRequest::ListServices(String::new()), MessageRequest::FileContainingSymbol(COUPON.to_owned())];
    let requests = requests.map(|request| ServerReflectionRequest { host: String::new(), message_request: Some(request) });
    let mut client = ServerReflectionClient::new(server.channel().await);
    let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&COUPON.to_owned()) && names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    assert!(!names.contains(&"order.v1.OrderService".to_owned()), "{names:?}");
    let file = answers.next().await.unwrap().unwrap().message_response;
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
}

#[tokio::test]
async fn reflection_v1alpha_lists_what_is_served() {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    };
    let server = Running::start(LONG).await;
    let request = MessageRequest::ListServices(String::new());
    let requests = tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request: Some(request) });
    let mut client = ServerReflectionClient::new(server.channel().await);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response else {
        panic!("no list")
    };
    assert!(list.service.iter().any(|service| service.name == COUPON), "{list:?}");
}

#[tokio::test]
async fn a_panicking_handler_answers_internal_and_the_connection_goes_on() {
    let mut server = Running::start(LONG).await;
    let mut client = CouponServiceClient::new(server.channel().await);
    let mut other = client.clone();
    let waiting = TaskTracker::new().spawn(async move { other.get_coupon(GetCouponRequest::default()).await });
    server.entered.recv().await.unwrap();
    let status = client.issue_coupon(IssueCouponRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("secret"), "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INTERNAL", "coupon.v1"));
    client.list_coupons(ListCouponsRequest::default()).await.unwrap();
    server.release.cancel();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_under_way_is_answered_after_shutdown_began() {
    let mut server = Running::start(LONG).await;
    let mut client = CouponServiceClient::new(server.channel().await);
    let waiting = TaskTracker::new().spawn(async move { client.get_coupon(GetCouponRequest::default()).await });
    server.entered.recv().await.unwrap();
    server.shutdown.cancel();
    server.release.cancel();
    waiting.await.unwrap().unwrap();
    server.served.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn the_end_comes_although_a_call_a_stream_and_an_idle_socket_stay_open() {
    let mut server = Running::start(Duration::from_millis(50)).await;
    let idle = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let channel = server.channel().await;
    let mut client = CouponServiceClient::new(channel.clone());
    let waiting = TaskTracker::new().spawn(async move { client.get_coupon(GetCouponRequest::default()).await });
    server.entered.recv().await.unwrap();
    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let mut open = reflection.server_reflection_info(tokio_stream::pending()).await.unwrap().into_inner();
    server.shutdown.cancel();
    server.served.await.unwrap().unwrap();
    assert!(waiting.await.unwrap().is_err());
    assert!(open.next().await.unwrap().is_err());
    drop(idle);
}

#[tokio::test]
async fn dropping_a_serving_server_cuts_its_connections() {
    let mut server = Running::start(LONG).await;
    let mut client = CouponServiceClient::new(server.channel().await);
    let waiting = TaskTracker::new().spawn(async move { client.get_coupon(GetCouponRequest::default()).await });
    server.entered.recv().await.unwrap();
    server.served.abort();
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn a_connection_too_many_waits_until_another_ends() {
    let server = Running::start_with(LONG, |server| server.connections_max(1)).await;
    let mut client = CouponServiceClient::new(server.channel().await);
    client.list_coupons(ListCouponsRequest::default()).await.unwrap();
    // The operating system takes the connection, the server does not.
    let mut second = CouponServiceClient::new(server.channel().await);
    let mut waiting = std::pin::pin!(second.list_coupons(ListCouponsRequest::default()));
    for _ in 0..50 {
        tokio::select! {
            biased;
            answer = &mut waiting => panic!("a second connection was served: {answer:?}"),
            answer = client.list_coupons(ListCouponsRequest::default()) => { answer.unwrap(); }
        }
    }
    drop(client);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stays_silent_is_cut() {
    let server = Running::start(LONG).await;
    let mut silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    // The clock of this test moves on whenever everything waits.
    let mut said = Vec::new();
    let end = tokio::time::timeout(LONG, silent.read_to_end(&mut said)).await;
    assert!(end.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let server = Running::start(LONG).await;
    let error = Server::bind(server.address).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("listen: cannot listen on {}", server.address)), "{error}");
}

#[tokio::test]
async fn the_callers_trace_goes_on_and_a_call_without_one_is_not_traced() {
    telemetry::init(&telemetry::Telemetry { filter: "off".to_owned(), ..Default::default() }, "probe");
    let server = Running::start(LONG).await;
    let mut client = CouponServiceClient::new(server.channel().await);
    let mut request = Request::new(ListCouponsRequest::default());
    request.metadata_mut().insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    let response = client.list_coupons(request).await.unwrap();
    let sent_on = response.metadata().get("traceparent").unwrap().to_str().unwrap();
    assert!(sent_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && sent_on.ends_with("-01"), "{sent_on}");
    assert!(!sent_on.contains("b7ad6b7169203331"), "{sent_on}");

    let response = client.list_coupons(ListCouponsRequest::default()).await.unwrap();
    assert_eq!(response.metadata().get("traceparent"), None);
}

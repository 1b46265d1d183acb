//! The whole coupon server on every database, through real sockets.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::time::Duration;

use prost::{Message, Name};
use support::{Fresh, TestDatabase, on_every_database};
use tcc_coupon::{Config, run};
use tcc_proto::{
    coupon::v1::{
        Coupon, CouponState, GetCouponRequest, IssueCouponRequest, ListCouponsRequest, LockCoupon,
        coupon_service_client::CouponServiceClient,
    },
    tcc::v1::{ConfirmRequest, TryRequest, participant_client::ParticipantClient, try_response::Outcome},
};
use tcc_types::{Clock, Gid, LogName, SystemClock, SystemEntropy};
use tcc_wire::timestamp_to_proto;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

on_every_database! { @sql
    a_coupon_is_issued_locked_and_used_and_a_restart_keeps_it,
    an_issue_is_idempotent_and_a_reused_id_is_told,
    every_bad_field_is_named_and_the_server_goes_on,
    an_unknown_coupon_is_not_found,
    pages_list_one_users_coupons_and_their_tokens_fit_no_other_list,
}

struct Running {
    coupons: CouponServiceClient<Channel>,
    participant: ParticipantClient<Channel>,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(fresh: &Fresh) -> Self {
        let config = Config { listen: ([127, 0, 0, 1], 0).into(), database_url: fresh.url.clone(), ..Config::default() };
        let shutdown = CancellationToken::new();
        let (ready, address) = oneshot::channel();
        let ended = TaskTracker::new().spawn(run(config, |address| ready.send(address).unwrap(), shutdown.clone()));
        let endpoint = Channel::from_shared(format!("http://{}", address.await.unwrap())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let participant = ParticipantClient::new(channel.clone());
        Self { coupons: CouponServiceClient::new(channel), participant, shutdown, ended }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        drop((self.coupons, self.participant));
        self.ended.await.unwrap().unwrap();
    }

    async fn issue(&mut self, request: IssueCouponRequest) -> Result<Coupon, Status> {
        Ok(self.coupons.issue_coupon(request).await?.into_inner().coupon.unwrap())
    }

    async fn get(&mut self, coupon_id: &str) -> Result<Coupon, Status> {
        let request = GetCouponRequest { coupon_id: coupon_id.to_owned() };
        Ok(self.coupons.get_coupon(request).await?.into_inner().coupon.unwrap())
    }

    async fn list(&mut self, user_id: &str, page_size: u32, page_token: &str) -> Result<(Vec<String>, String), Status> {
        let request = ListCouponsRequest { user_id: user_id.to_owned(), page_size, page_token: page_token.to_owned() };
        let response = self.coupons.list_coupons(request).await?.into_inner();
        Ok((response.coupons.into_iter().map(|coupon| coupon.coupon_id).collect(), response.next_page_token))
    }
}

fn in_a_minute() -> prost_types::Timestamp {
    timestamp_to_proto(SystemClock.now().plus(Duration::from_secs(60)))
}

fn coupon(coupon_id: &str, user_id: &str) -> IssueCouponRequest {
    IssueCouponRequest {
        coupon_id: coupon_id.to_owned(),
        user_id: user_id.to_owned(),
        discount_minor: 500,
        expires_at: Some(in_a_minute()),
    }
}

fn bad_fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().domain, "coupon.v1");
    details.bad_request().unwrap().field_violations.iter().map(|bad| bad.field.clone()).collect()
}

async fn a_coupon_is_issued_locked_and_used_and_a_restart_keeps_it<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    let request = coupon("c1", "u1");
    let issued = server.issue(request.clone()).await.unwrap();
    assert_eq!((issued.state(), issued.discount_minor, issued.gid.as_str()), (CouponState::Issued, 500, ""));
    assert_eq!(issued.expires_at, request.expires_at);

    let gid = Gid::mint(SystemClock.now(), &SystemEntropy).to_string();
    let payload = LockCoupon { coupon_id: "c1".to_owned(), user_id: "u1".to_owned() };
    let request = TryRequest {
        gid: gid.clone(),
        branch_id: "coupon".to_owned(),
        payload: Some(prost_types::Any { type_url: LockCoupon::type_url(), value: payload.encode_to_vec() }),
        not_after: Some(in_a_minute()),
        ask_after: Some(in_a_minute()),
        coordinator: "test".to_owned(),
    };
    let answer = server.participant.r#try(request).await.unwrap().into_inner();
    let Some(Outcome::Reserved(reserved)) = answer.outcome else { panic!("{answer:?}") };
    assert_eq!(reserved.output.unwrap().type_url, "type.googleapis.com/coupon.v1.LockedCoupon");
    server.stop().await;

    let mut server = Running::start(&fresh).await;
    let locked = server.get("c1").await.unwrap();
    assert_eq!((locked.state(), &locked.gid), (CouponState::Locked, &gid));
    server.participant.confirm(ConfirmRequest { gid: gid.clone(), branch_id: "coupon".to_owned() }).await.unwrap();
    let used = server.get("c1").await.unwrap();
    assert_eq!((used.state(), &used.gid), (CouponState::Used, &gid));
    server.stop().await;
}

async fn an_issue_is_idempotent_and_a_reused_id_is_told<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    let request = coupon("c1", "u1");
    let first = server.issue(request.clone()).await.unwrap();
    assert_eq!(server.issue(request.clone()).await.unwrap(), first);
    let status = server.issue(IssueCouponRequest { discount_minor: 501, ..request }).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "COUPON_ID_REUSED");
    assert_eq!(details.resource_info().unwrap().resource_name, "c1");
    assert_eq!(server.get("c1").await.unwrap(), first);
}

async fn every_bad_field_is_named_and_the_server_goes_on<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    let before_1970 = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    for (request, fields) in [
        (IssueCouponRequest::default(), &["coupon_id", "user_id", "discount_minor", "expires_at"][..]),
        (coupon("c 1", "u1"), &["coupon_id"]),
        (coupon("c1", &"u".repeat(65)), &["user_id"]),
        (IssueCouponRequest { discount_minor: -1, ..coupon("c1", "u1") }, &["discount_minor"]),
        (IssueCouponRequest { discount_minor: 1_000_000_001, ..coupon("c1", "u1") }, &["discount_minor"]),
        (IssueCouponRequest { expires_at: before_1970, ..coupon("c1", "u1") }, &["expires_at"]),
    ] {
        assert_eq!(bad_fields(&server.issue(request).await.unwrap_err()), fields);
    }
    assert_eq!(bad_fields(&server.get("c/1").await.unwrap_err()), ["coupon_id"]);
    assert_eq!(bad_fields(&server.list("u 1", 1_001, "elsewhere").await.unwrap_err()), ["user_id", "page_size", "page_token"]);
    assert_eq!(server.list("", 0, "").await.unwrap(), (vec![], String::new()));
}

async fn an_unknown_coupon_is_not_found<D: TestDatabase>() {
    let fresh = D::fresh();
    let status = Running::start(&fresh).await.get("c1").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let details = status.get_error_details();
    let resource = details.resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("coupon", "c1"));
}

async fn pages_list_one_users_coupons_and_their_tokens_fit_no_other_list<D: TestDatabase>() {
    let fresh = D::fresh();
    let mut server = Running::start(&fresh).await;
    for (coupon_id, user_id) in [("e", "u1"), ("a", "u1"), ("b", "u2"), ("c", "u1"), ("d", "u1"), ("f", "u2")] {
        server.issue(coupon(coupon_id, user_id)).await.unwrap();
    }
    let (first, token) = server.list("u1", 2, "").await.unwrap();
    let (second, end) = server.list("u1", 2, &token).await.unwrap();
    assert_eq!((first, second, end.as_str()), (vec!["a".to_owned(), "c".to_owned()], vec!["d".to_owned(), "e".to_owned()], ""));
    let (rest, _) = server.list("u1", 0, &token).await.unwrap();
    assert_eq!(rest, ["d", "e"]);
    for user_id in ["u2", ""] {
        assert_eq!(bad_fields(&server.list(user_id, 2, &token).await.unwrap_err()), ["page_token"]);
    }
    let (all, end) = server.list("", 0, "").await.unwrap();
    assert_eq!((all.concat().as_str(), end.as_str()), ("abcdef", ""));
}

#[tokio::test]
async fn a_database_that_is_not_supported_is_named_without_its_secret() {
    let config = Config { database_url: "oracle://user:secret@host/db".to_owned(), ..Config::default() };
    let error = run(config, |_| panic!("it must not start"), CancellationToken::new()).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("database_url") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_without_its_secret() {
    for scheme in ["postgres", "mysql"] {
        // Nobody listens on this port.
        let database_url = format!("{scheme}://user:secret@127.0.0.1:1/db");
        let participant = tcc_participant::Options { connection_wait_ms_max: 500, ..tcc_participant::Options::default() };
        let config = Config { database_url, participant, ..Config::default() };
        let error = run(config, |_| panic!("it must not start"), CancellationToken::new()).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("cannot open the database") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_no_address_is_named() {
    let coordinators = [("main", "127.0.0.1:50051"), ("other", "https://gateway:1")].map(|(name, endpoint)| {
        (LogName::new(name).unwrap(), tcc_participant::CoordinatorConfig::at(["http://127.0.0.1:50051", endpoint]))
    });
    let config = Config { coordinators: coordinators.into(), ..Config::default() };
    let error = run(config, |_| panic!("it must not start"), CancellationToken::new()).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("coordinators.main.endpoints[1]") && text.contains("coordinators.other.endpoints[1]"), "{text}");
}

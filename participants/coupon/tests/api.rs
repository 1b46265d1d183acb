//! Coupon's API over coupons that answer what a test wants.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use tcc_coupon::{Coupon, CouponApi, CouponBooks, Issued, NewCoupon};
use tcc_proto::coupon::v1::{GetCouponRequest, IssueCouponRequest, ListCouponsRequest, coupon_service_server::CouponService};
use tcc_types::Timestamp;
use tonic::{Code, Request};

/// Never answers an issue, and finds every row damaged.
struct Stuck;

impl CouponBooks for Stuck {
    async fn issue(&self, _: &NewCoupon) -> Result<Issued, sqlx::Error> {
        std::future::pending().await
    }

    async fn get(&self, _: &str) -> Result<Option<Coupon>, sqlx::Error> {
        Err(sqlx::Error::ColumnDecode { index: "state".to_owned(), source: "secret".into() })
    }

    async fn list(&self, _: Option<&str>, _: Option<&str>, _: u32) -> Result<Vec<Coupon>, sqlx::Error> {
        Err(sqlx::Error::PoolTimedOut)
    }
}

fn issue() -> Request<IssueCouponRequest> {
    Request::new(IssueCouponRequest {
        coupon_id: "c1".to_owned(),
        user_id: "u1".to_owned(),
        discount_minor: 1,
        expires_at: Some(tcc_wire::timestamp_to_proto(Timestamp::MAX)),
    })
}

#[tokio::test]
async fn one_issue_too_many_is_refused_at_once() {
    let api = CouponApi::new(Stuck, 1);
    tokio::select! {
        biased;
        answer = api.issue_coupon(issue()) => panic!("the first one has the only place: {answer:?}"),
        answer = api.issue_coupon(issue()) => {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("admin_calls_in_flight_max (1)"), "{status:?}");
        }
        () = std::future::ready(()) => panic!("the second one was let in"),
    }
    // The first call is gone, and its place is free.
    tokio::select! {
        biased;
        answer = api.issue_coupon(issue()) => panic!("there was no place: {answer:?}"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_damaged_row_is_internal_and_a_database_that_does_not_answer_is_unavailable() {
    let api = CouponApi::new(Stuck, 1);
    let damaged = api.get_coupon(Request::new(GetCouponRequest { coupon_id: "c1".to_owned() })).await.unwrap_err();
    assert_eq!(damaged.code(), Code::Internal);
    assert!(!damaged.message().contains("secret"), "{damaged:?}");
    let busy = api.list_coupons(Request::new(ListCouponsRequest::default())).await.unwrap_err();
    assert_eq!(busy.code(), Code::Unavailable);
}

//! `coupon.v1.CouponService`: checks what came over the wire, asks the books, answers.

use std::time::Duration;

use tcc_participant::status_of_sql;
use tcc_proto::coupon::v1::{
    self as proto, GetCouponRequest, GetCouponResponse, IssueCouponRequest, IssueCouponResponse, ListCouponsRequest,
    ListCouponsResponse, coupon_service_server::CouponService,
};
use tcc_types::{Fingerprint, FingerprintBuilder, Invalid, check_name};
use tcc_wire::{page, status, timestamp_from_proto, timestamp_to_proto};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};

use crate::{Coupon, CouponBooks, CouponState, DISCOUNT_MINOR_MAX, Issued, NewCoupon};

const DOMAIN: &str = "coupon.v1";
/// Coupons on a page that does not say, and most on a page.
const PAGE_SIZES: (u32, u32) = (100, 1_000);
/// When to repeat a call that was refused because of a limit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The API over one database's coupons.
#[derive(Debug)]
pub struct CouponApi<B> {
    books: B,
    admin_calls_in_flight_max: u32,
    admin_calls: Semaphore,
}

impl<B: CouponBooks> CouponApi<B> {
    /// Over these coupons. At most `admin_calls_in_flight_max` calls that write wait for the database at once, so that they never
    /// crowd out the branches that share its one writer.
    #[must_use]
    pub fn new(books: B, admin_calls_in_flight_max: u32) -> Self {
        let permits = usize::try_from(admin_calls_in_flight_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { books, admin_calls_in_flight_max, admin_calls: Semaphore::new(permits) }
    }

    fn admit(&self) -> Result<SemaphorePermit<'_>, Status> {
        let limit = u64::from(self.admin_calls_in_flight_max);
        let refused = |_| status::exhausted(DOMAIN, "admin_calls_in_flight_max", limit, RETRY_AFTER);
        self.admin_calls.try_acquire().map_err(refused)
    }
}

#[tonic::async_trait]
impl<B: CouponBooks> CouponService for CouponApi<B> {
    async fn issue_coupon(&self, request: Request<IssueCouponRequest>) -> Result<Response<IssueCouponResponse>, Status> {
        let coupon = coupon_from_proto(request.into_inner()).map_err(|bad| status::invalid(DOMAIN, &bad))?;
        let _admitted = self.admit()?;
        match self.books.issue(&coupon).await.map_err(|error| failed(&error))? {
            Issued::Done(coupon) => Ok(Response::new(IssueCouponResponse { coupon: Some(coupon_to_proto(coupon)) })),
            Issued::OtherFields => {
                let message = "there is a coupon with this coupon_id and another user, discount or expiry";
                Err(status::already_exists(DOMAIN, "COUPON_ID_REUSED", "coupon", &coupon.coupon_id, message))
            }
        }
    }

    async fn get_coupon(&self, request: Request<GetCouponRequest>) -> Result<Response<GetCouponResponse>, Status> {
        let GetCouponRequest { coupon_id } = request.into_inner();
        check_name("coupon_id", &coupon_id).map_err(|bad| status::invalid(DOMAIN, &[bad]))?;
        let coupon = self.books.get(&coupon_id).await.map_err(|error| failed(&error))?;
        let coupon = coupon.ok_or_else(|| status::not_found(DOMAIN, "coupon", &coupon_id))?;
        Ok(Response::new(GetCouponResponse { coupon: Some(coupon_to_proto(coupon)) }))
    }

    async fn list_coupons(&self, request: Request<ListCouponsRequest>) -> Result<Response<ListCouponsResponse>, Status> {
        let request = request.into_inner();
        let filter = FingerprintBuilder::new("coupon.v1.ListCoupons").text(&request.user_id).finish();
        let (size, after) = page_from_proto(&request, &filter).map_err(|bad| status::invalid(DOMAIN, &bad))?;
        let user_id = Some(request.user_id.as_str()).filter(|user_id| !user_id.is_empty());
        let read = self.books.list(user_id, after.as_deref(), size + 1).await;
        let mut coupons = read.map_err(|error| failed(&error))?;
        let next_page_token = page::finish(&mut coupons, size, &filter, |last| last.issued.coupon_id.clone());
        let coupons = coupons.into_iter().map(coupon_to_proto).collect();
        Ok(Response::new(ListCouponsResponse { coupons, next_page_token }))
    }
}

fn coupon_from_proto(request: IssueCouponRequest) -> Result<NewCoupon, Vec<Invalid>> {
    let IssueCouponRequest { coupon_id, user_id, discount_minor, expires_at } = request;
    let mut bad = Vec::new();
    bad.extend(check_name("coupon_id", &coupon_id).err());
    bad.extend(check_name("user_id", &user_id).err());
    if !(1..=DISCOUNT_MINOR_MAX).contains(&discount_minor) {
        bad.push(Invalid::new("discount_minor", format_args!("must be 1 to {DISCOUNT_MINOR_MAX}")));
    }
    match timestamp_from_proto("expires_at", expires_at.as_ref()) {
        Ok(expires_at) if bad.is_empty() => Ok(NewCoupon { coupon_id, user_id, discount_minor, expires_at }),
        expires_at => {
            bad.extend(expires_at.err());
            Err(bad)
        }
    }
}

fn page_from_proto(request: &ListCouponsRequest, filter: &Fingerprint) -> Result<(u32, Option<String>), Vec<Invalid>> {
    let mut bad = Vec::new();
    if !request.user_id.is_empty() {
        bad.extend(check_name("user_id", &request.user_id).err());
    }
    match page::from_proto(request.page_size, &request.page_token, PAGE_SIZES, filter) {
        Ok(page) if bad.is_empty() => Ok(page),
        page => {
            bad.extend(page.err().into_iter().flatten());
            Err(bad)
        }
    }
}

fn coupon_to_proto(coupon: Coupon) -> proto::Coupon {
    let Coupon { issued: NewCoupon { coupon_id, user_id, discount_minor, expires_at }, state, gid } = coupon;
    let state = match state {
        CouponState::Issued => proto::CouponState::Issued,
        CouponState::Locked => proto::CouponState::Locked,
        CouponState::Used => proto::CouponState::Used,
    };
    proto::Coupon {
        coupon_id,
        user_id,
        discount_minor,
        expires_at: Some(timestamp_to_proto(expires_at)),
        state: state.into(),
        gid: gid.map(|gid| gid.to_string()).unwrap_or_default(),
    }
}

/// What happened is for the log.
fn failed(error: &sqlx::Error) -> Status {
    status_of_sql(DOMAIN, error)
}

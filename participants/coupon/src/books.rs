//! The coupons as their keeper sees them: they are issued, and every one can be read. What the gRPC API is made from, whatever
//! the database.

use std::future::Future;

use tcc_types::{Gid, Timestamp};

use crate::CouponState;

/// Most that a coupon takes off, in minor units (cents). The database checks it too.
pub const DISCOUNT_MINOR_MAX: i64 = 1_000_000_000;

/// A coupon as it is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCoupon {
    /// Its id.
    pub coupon_id: String,
    /// Whose it is.
    pub user_id: String,
    /// What it takes off, in minor units (cents): 1 to [`DISCOUNT_MINOR_MAX`].
    pub discount_minor: i64,
    /// From then on it can no longer be locked; one that is locked already can still be used.
    pub expires_at: Timestamp,
}

/// A coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupon {
    /// As it was issued.
    pub issued: NewCoupon,
    /// Where it is.
    pub state: CouponState,
    /// The transaction that locked or used it.
    pub gid: Option<Gid>,
}

/// What became of an issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issued {
    /// It is there, now or by an earlier call, as it is now.
    Done(Coupon),
    /// Its id belongs to a coupon with other fields; nothing changed.
    OtherFields,
}

/// The coupons of one database.
pub trait CouponBooks: Send + Sync + 'static {
    /// Issues a coupon, once. Idempotent; cancel-safe: a dropped call happens wholly or not at all.
    ///
    /// # Errors
    /// The database's; the coupon may be issued or not: issue it again.
    fn issue(&self, coupon: &NewCoupon) -> impl Future<Output = Result<Issued, sqlx::Error>> + Send;

    /// Reads one coupon.
    ///
    /// # Errors
    /// The database's.
    fn get(&self, coupon_id: &str) -> impl Future<Output = Result<Option<Coupon>, sqlx::Error>> + Send;

    /// Reads up to `limit` coupons in id order, those after `after` if given; only this user's if given.
    ///
    /// # Errors
    /// The database's.
    fn list(
        &self,
        user_id: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Coupon>, sqlx::Error>> + Send;
}

//! Coupons in this process that are watched, for the tests of the decisions.

use std::{
    convert::Infallible,
    ops::{Deref, DerefMut},
};

use tcc_types::{Gid, SystemEntropy, Timestamp};

use super::CouponTable;
use crate::{Change, Claim, Coupon, CouponState, CouponStore, Held, NewCoupon, Seen};

/// What its clock says.
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// A coupon worth 500, as it is by the watched store's clock.
pub(crate) fn row(coupon_id: &str, user_id: &str, expired: bool, state: CouponState, gid: Option<Gid>) -> Coupon {
    let expires_at = if expired { NOW } else { Timestamp::MAX };
    let (coupon_id, user_id) = (coupon_id.to_owned(), user_id.to_owned());
    Coupon { issued: NewCoupon { coupon_id, user_id, discount_minor: 500, expires_at }, state, gid }
}

/// A store that also remembers which lists it was asked for, and how often rows were written by lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) table: CouponTable,
    /// Locks that fail although the coupon is free, as if it had been freed just after.
    pub(crate) missed_locks: usize,
    pub(crate) held: Vec<Vec<String>>,
    pub(crate) writes: usize,
}

impl Memory {
    pub(crate) fn with(coupon_id: &str, state: CouponState, expired: bool) -> Self {
        let gid = (state != CouponState::Issued).then(gid);
        let mut store = Self::default();
        store.rows.insert(coupon_id.to_owned(), row(coupon_id, "u1", expired, state, gid));
        store
    }
}

impl Deref for Memory {
    type Target = CouponTable;

    fn deref(&self) -> &CouponTable {
        &self.table
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut CouponTable {
        &mut self.table
    }
}

impl CouponStore for Memory {
    type Error = Infallible;

    async fn lock(&mut self, claim: &Claim, gid: Gid) -> Result<Option<i64>, Infallible> {
        if self.missed_locks > 0 {
            self.missed_locks -= 1;
            return Ok(None);
        }
        Ok(self.table.lock(claim, gid, NOW).unwrap())
    }

    async fn look(&mut self, coupon_id: &str) -> Result<Option<Seen>, Infallible> {
        Ok(self.table.look(coupon_id, NOW))
    }

    async fn spend(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, Infallible> {
        Ok(self.table.settle(coupon_id, gid, CouponState::Used).unwrap())
    }

    async fn release(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, Infallible> {
        Ok(self.table.settle(coupon_id, gid, CouponState::Issued).unwrap())
    }

    async fn hold(&mut self, coupon_ids: &[&str]) -> Result<Vec<Option<Held>>, Infallible> {
        self.held.push(coupon_ids.iter().map(|&id| id.to_owned()).collect());
        Ok(coupon_ids.iter().map(|&id| self.table.held(id, NOW)).collect())
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), Infallible> {
        for change in changes {
            let row = &self.rows[change.coupon_id];
            assert_ne!((row.state, row.gid), (change.state, change.gid), "{change:?}");
            assert!(self.table.apply(*change).unwrap());
            self.writes += 1;
        }
        Ok(())
    }
}

/// A new one.
pub(crate) fn gid() -> Gid {
    Gid::mint(NOW, &SystemEntropy)
}

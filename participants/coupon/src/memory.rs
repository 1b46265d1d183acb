//! Coupons in this process, for the tests of the decisions.

use std::{collections::BTreeMap, convert::Infallible};

use tcc_types::{Gid, SystemEntropy, Timestamp};

use crate::{Change, Claim, CouponState, CouponStore, Held, Seen};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) user_id: String,
    pub(crate) discount_minor: i64,
    pub(crate) expired: bool,
    pub(crate) state: CouponState,
    pub(crate) gid: Option<Gid>,
}

impl Row {
    fn seen(&self) -> Seen {
        Seen { user_id: self.user_id.clone(), state: self.state, expired: self.expired }
    }
}

/// A store that also remembers which lists it was asked for, and how often rows were written by lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) rows: BTreeMap<String, Row>,
    /// Locks that fail although the coupon is free, as if it had been freed just after.
    pub(crate) missed_locks: usize,
    pub(crate) held: Vec<Vec<String>>,
    pub(crate) writes: usize,
}

impl Memory {
    pub(crate) fn with(coupon_id: &str, state: CouponState, expired: bool) -> Self {
        let gid = (state != CouponState::Issued).then(gid);
        let row = Row { user_id: "u1".to_owned(), discount_minor: 500, expired, state, gid };
        Self { rows: [(coupon_id.to_owned(), row)].into(), ..Self::default() }
    }

    fn settle(&mut self, coupon_id: &str, gid: Gid, state: CouponState) -> bool {
        let row = self.rows.get_mut(coupon_id).filter(|row| row.state == CouponState::Locked && row.gid == Some(gid));
        let Some(row) = row else { return false };
        row.state = state;
        row.gid = (state != CouponState::Issued).then_some(gid);
        true
    }
}

impl CouponStore for Memory {
    type Error = Infallible;

    async fn lock(&mut self, claim: &Claim, gid: Gid) -> Result<Option<i64>, Infallible> {
        if self.missed_locks > 0 {
            self.missed_locks -= 1;
            return Ok(None);
        }
        let free = |row: &&mut Row| row.state == CouponState::Issued && row.user_id == claim.user_id() && !row.expired;
        let Some(row) = self.rows.get_mut(claim.coupon_id()).filter(free) else { return Ok(None) };
        (row.state, row.gid) = (CouponState::Locked, Some(gid));
        Ok(Some(row.discount_minor))
    }

    async fn look(&mut self, coupon_id: &str) -> Result<Option<Seen>, Infallible> {
        Ok(self.rows.get(coupon_id).map(Row::seen))
    }

    async fn spend(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, Infallible> {
        Ok(self.settle(coupon_id, gid, CouponState::Used))
    }

    async fn release(&mut self, coupon_id: &str, gid: Gid) -> Result<bool, Infallible> {
        Ok(self.settle(coupon_id, gid, CouponState::Issued))
    }

    async fn hold(&mut self, coupon_ids: &[&str]) -> Result<Vec<Option<Held>>, Infallible> {
        self.held.push(coupon_ids.iter().map(|&id| id.to_owned()).collect());
        let hold = |row: &Row| Held { seen: row.seen(), gid: row.gid, discount_minor: row.discount_minor };
        Ok(coupon_ids.iter().map(|&id| self.rows.get(id).map(hold)).collect())
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), Infallible> {
        for change in changes {
            let row = self.rows.get_mut(change.coupon_id).unwrap();
            assert_ne!((row.state, row.gid), (change.state, change.gid), "{change:?}");
            (row.state, row.gid) = (change.state, change.gid);
            self.writes += 1;
        }
        Ok(())
    }
}

/// A new one.
pub(crate) fn gid() -> Gid {
    Gid::mint(Timestamp::from_millis(1_790_000_000_000), &SystemEntropy)
}

//! Coupons in memory, for simulations: the rows, and what each statement does to them, under the same checks that the databases' tables
//! have. Decides nothing. Written to by `databases::memory`; simulations read it.

use std::collections::BTreeMap;

use imbl::OrdMap;
use prost::Message;
use tcc_participant::memory::{BranchTable, HasBranches, MemoryError};
use tcc_proto::coupon::v1::LockedCoupon;
use tcc_types::{Gid, Timestamp};

use crate::{Change, Claim, Coupon, CouponState, DISCOUNT_MINOR_MAX, Held, NewCoupon, Seen};

impl Coupon {
    fn check(&self) -> Result<(), MemoryError> {
        let is_sound = (self.state == CouponState::Issued) == self.gid.is_none();
        let is_worth = (1..=DISCOUNT_MINOR_MAX).contains(&self.issued.discount_minor);
        if is_sound && is_worth { Ok(()) } else { Err(MemoryError::Check) }
    }

    fn expired(&self, now: Timestamp) -> bool {
        self.issued.expires_at <= now
    }

    fn seen(&self, now: Timestamp) -> Seen {
        Seen { user_id: self.issued.user_id.clone(), state: self.state, expired: self.expired(now) }
    }
}

/// The coupons' rows. A clone is cheap, and a snapshot.
#[derive(Clone, Debug, Default)]
pub struct CouponTable {
    pub(crate) rows: OrdMap<String, Coupon>,
}

impl CouponTable {
    /// All of them, in the order of their ids.
    pub fn coupons(&self) -> impl Iterator<Item = &Coupon> {
        self.rows.values()
    }

    /// One of them.
    #[must_use]
    pub fn coupon(&self, coupon_id: &str) -> Option<&Coupon> {
        self.rows.get(coupon_id)
    }

    /// Changes a coupon, as somebody might beside the framework; false where there is none.
    ///
    /// # Errors
    /// The table's checks forbid it.
    pub fn change(&mut self, coupon_id: &str, change: impl FnOnce(&mut Coupon)) -> Result<bool, MemoryError> {
        let Some(row) = self.rows.get(coupon_id) else { return Ok(false) };
        let mut row = row.clone();
        change(&mut row);
        row.check()?;
        self.rows.insert(coupon_id.to_owned(), row);
        Ok(true)
    }

    /// See [`CouponStore::lock`](crate::CouponStore::lock).
    pub(crate) fn lock(&mut self, claim: &Claim, gid: Gid, now: Timestamp) -> Result<Option<i64>, MemoryError> {
        let is_free =
            |row: &&Coupon| row.state == CouponState::Issued && row.issued.user_id == claim.user_id() && !row.expired(now);
        let Some(row) = self.rows.get(claim.coupon_id()).filter(is_free) else { return Ok(None) };
        let discount_minor = row.issued.discount_minor;
        self.change(claim.coupon_id(), |row| (row.state, row.gid) = (CouponState::Locked, Some(gid)))?;
        Ok(Some(discount_minor))
    }

    /// See [`CouponStore::look`](crate::CouponStore::look).
    pub(crate) fn look(&self, coupon_id: &str, now: Timestamp) -> Option<Seen> {
        self.rows.get(coupon_id).map(|row| row.seen(now))
    }

    /// `locked → used` or `locked → issued`, if `gid` has the lock.
    pub(crate) fn settle(&mut self, coupon_id: &str, gid: Gid, state: CouponState) -> Result<bool, MemoryError> {
        if !self.rows.get(coupon_id).is_some_and(|row| row.state == CouponState::Locked && row.gid == Some(gid)) {
            return Ok(false);
        }
        let gid = (state != CouponState::Issued).then_some(gid);
        self.change(coupon_id, |row| (row.state, row.gid) = (state, gid))
    }

    /// See [`CouponStore::hold`](crate::CouponStore::hold).
    pub(crate) fn held(&self, coupon_id: &str, now: Timestamp) -> Option<Held> {
        let row = self.rows.get(coupon_id)?;
        Some(Held { seen: row.seen(now), gid: row.gid, discount_minor: row.issued.discount_minor })
    }

    /// Makes a change; false where there is no such coupon.
    pub(crate) fn apply(&mut self, change: Change<'_>) -> Result<bool, MemoryError> {
        self.change(change.coupon_id, |row| (row.state, row.gid) = (change.state, change.gid))
    }

    /// Issues a coupon if there is none with its id.
    pub(crate) fn issue(&mut self, coupon: &NewCoupon) -> Result<(), MemoryError> {
        if !self.rows.contains_key(&coupon.coupon_id) {
            let row = Coupon { issued: coupon.clone(), state: CouponState::Issued, gid: None };
            row.check()?;
            self.rows.insert(coupon.coupon_id.clone(), row);
        }
        Ok(())
    }
}

/// Coupon's tables, the SDK's among them.
#[derive(Clone, Debug, Default)]
pub struct CouponTables {
    /// The branches' rows.
    pub branches: BranchTable,
    /// The coupons.
    pub coupons: CouponTable,
}

impl HasBranches for CouponTables {
    fn branches(&self) -> &BranchTable {
        &self.branches
    }

    fn branches_mut(&mut self) -> &mut BranchTable {
        &mut self.branches
    }
}

impl CouponTables {
    /// Which coupons the branches that are still tried hold, and for which transaction.
    ///
    /// # Errors
    /// What one of them holds cannot be read, or another one holds it too.
    pub fn held(&self) -> Result<BTreeMap<String, Gid>, String> {
        let mut held = BTreeMap::new();
        for stored in self.branches.tried() {
            let key = &stored.row.key;
            let bytes = stored.reserved.clone().ok_or_else(|| format!("{key}: is tried and has reserved nothing"))?;
            let LockedCoupon { coupon_id, .. } = LockedCoupon::decode(bytes).map_err(|error| format!("{key}: {error}"))?;
            if let Some(other) = held.insert(coupon_id.clone(), key.gid) {
                return Err(format!("{key}: coupon {coupon_id} is held for {other} too"));
            }
        }
        Ok(held)
    }

    /// The books: a coupon is locked exactly as long as one tried branch holds it, for its transaction. Holds at each commit.
    ///
    /// # Errors
    /// The first coupon for which it is not so.
    pub fn check(&self) -> Result<(), String> {
        let mut held = self.held()?;
        for row in self.coupons.coupons() {
            let holder = held.remove(&row.issued.coupon_id);
            let locked = if row.state == CouponState::Locked { row.gid } else { None };
            if row.check().is_err() || holder != locked {
                return Err(format!("{row:?}, which the tried branches hold for {holder:?}"));
            }
        }
        match held.into_iter().next() {
            None => Ok(()),
            Some((coupon_id, holder)) => Err(format!("coupon {coupon_id}: is not there, and a branch holds it for {holder}")),
        }
    }
}

#[cfg(test)]
pub(crate) mod watched;

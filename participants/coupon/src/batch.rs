//! What coupon decides about many operations at once: the same as about each of them alone, one after the other, but each coupon is
//! read and written once. Pure but for the awaits, as the decisions about one; called by the participant's handler.

use std::collections::BTreeMap;

use tcc_types::Gid;

use crate::{
    Change, Claim, CouponState, CouponStore, Held, Locking, SettleError,
    coupon::{not_locked, unknown, why_not_this},
};

/// Operations of one local transaction, each with its transaction's gid. What is settled has its effect first, so that the tries
/// find what it gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// The coupons that confirmed branches have locked.
    pub spends: Vec<(String, Gid)>,
    /// The coupons that cancelled branches have locked.
    pub releases: Vec<(String, Gid)>,
    /// What is to be locked.
    pub tries: Vec<(Claim, Gid)>,
}

impl Operations {
    /// The coupons that they are about, in the order of their ids, each once.
    fn coupon_ids(&self) -> Vec<&str> {
        let settled = self.spends.iter().chain(&self.releases).map(|(id, _)| id.as_str());
        let mut ids: Vec<_> = settled.chain(self.tries.iter().map(|(claim, _)| claim.coupon_id())).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// Runs the operations as [`spend`](crate::spend), [`release`](crate::release) and [`lock`](crate::lock) would one after the
/// other. Returns what became of the tries, in their order.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn run<S: CouponStore>(store: &mut S, operations: &Operations) -> Result<Vec<Locking>, SettleError<S::Error>> {
    let ids = operations.coupon_ids();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let before = store.hold(&ids).await.map_err(SettleError::Store)?;
    let mut coupons = Coupons(ids.iter().copied().zip(before.iter().cloned()).collect());
    let outcomes = coupons.decide(operations)?;
    let changed = ids.iter().zip(&before).filter_map(|(id, before)| coupons.change(id, before.as_ref()));
    let changes: Vec<_> = changed.collect();
    if !changes.is_empty() {
        store.apply(&changes).await.map_err(SettleError::Store)?;
    }
    Ok(outcomes)
}

/// The coupons as the operations find them, one after the other; `None`: there is no such coupon.
struct Coupons<'a>(BTreeMap<&'a str, Option<Held>>);

impl Coupons<'_> {
    fn decide<E>(&mut self, operations: &Operations) -> Result<Vec<Locking>, SettleError<E>> {
        for (id, gid) in &operations.spends {
            self.locked_by(id, *gid)?.seen.state = CouponState::Used;
        }
        for (id, gid) in &operations.releases {
            let coupon = self.locked_by(id, *gid)?;
            (coupon.seen.state, coupon.gid) = (CouponState::Issued, None);
        }
        Ok(operations.tries.iter().map(|(claim, gid)| self.lock(claim, *gid)).collect())
    }

    fn locked_by<E>(&mut self, id: &str, gid: Gid) -> Result<&mut Held, SettleError<E>> {
        let coupon = self.0.get_mut(id).and_then(Option::as_mut);
        let locked = coupon.filter(|coupon| coupon.seen.state == CouponState::Locked && coupon.gid == Some(gid));
        locked.ok_or_else(|| not_locked(id, gid))
    }

    fn lock(&mut self, claim: &Claim, gid: Gid) -> Locking {
        let Some(Some(coupon)) = self.0.get_mut(claim.coupon_id()) else {
            return Locking::Refused(unknown(claim.coupon_id()));
        };
        if let Some(refusal) = why_not_this(claim, &coupon.seen) {
            return Locking::Refused(refusal);
        }
        (coupon.seen.state, coupon.gid) = (CouponState::Locked, Some(gid));
        Locking::Locked { discount_minor: coupon.discount_minor }
    }

    /// What has become of a coupon, if anything.
    fn change<'c>(&self, coupon_id: &'c str, before: Option<&Held>) -> Option<Change<'c>> {
        let (before, now) = (before?, self.0.get(coupon_id)?.as_ref()?);
        let changed = (before.seen.state, before.gid) != (now.seen.state, now.gid);
        changed.then_some(Change { coupon_id, state: now.seen.state, gid: now.gid })
    }
}

#[cfg(test)]
mod tests;

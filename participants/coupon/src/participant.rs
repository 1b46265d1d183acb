//! Coupon's handlers, for one operation and for many: from the wire's payload to the decisions and back. Decides nothing itself.

use std::marker::PhantomData;

use sqlx::migrate::Migrator;
use tcc_participant::{
    Batch, BatchParticipant, BranchContext, ConnectionOf, Database, HandlerError, Participant, Store, Tried,
};
use tcc_proto::coupon::v1::{LockCoupon, LockedCoupon};

use crate::{Claim, CouponBooks, CouponStore, Locking, Operations, lock, release, run_batch, spend};

/// A database that coupons can be kept in.
pub trait CouponDatabase: Database {
    /// The rows inside a local transaction.
    type Coupons<'c>: CouponStore<Error = sqlx::Error>;
    /// The keeper's view.
    type Books: CouponBooks;

    /// What makes the tables.
    fn migrator() -> Migrator;

    /// The rows, on a connection that is in a transaction.
    fn coupons(connection: &mut Self::Connection) -> Self::Coupons<'_>;

    /// The keeper's view of an opened database.
    fn books(store: Store<Self>) -> Self::Books;
}

/// The participant `coupon`.
#[derive(Debug)]
pub struct Coupons<D>(PhantomData<fn() -> D>);

impl<D> Coupons<D> {
    /// It keeps nothing beside its database.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<D> Default for Coupons<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: CouponDatabase> Participant for Coupons<D> {
    type Db = D;
    type Payload = LockCoupon;
    type Reserved = LockedCoupon;

    async fn on_try(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        payload: LockCoupon,
    ) -> Result<Tried<LockedCoupon>, HandlerError> {
        let claim = match Claim::new(payload.coupon_id, payload.user_id) {
            Ok(claim) => claim,
            Err(bad) => return Ok(Tried::bad_request(&bad)),
        };
        let locking = lock(&mut D::coupons(conn), &claim, branch.gid()).await?;
        Ok(tried(locking, &claim))
    }

    async fn on_confirm(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        reserved: LockedCoupon,
    ) -> Result<(), HandlerError> {
        Ok(spend(&mut D::coupons(conn), &reserved.coupon_id, branch.gid()).await?)
    }

    async fn on_cancel(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        reserved: LockedCoupon,
    ) -> Result<(), HandlerError> {
        Ok(release(&mut D::coupons(conn), &reserved.coupon_id, branch.gid()).await?)
    }
}

impl<D: CouponDatabase> BatchParticipant for Coupons<D> {
    async fn on_batch(
        &self,
        conn: &mut ConnectionOf<Self>,
        batch: Batch<Self>,
    ) -> Result<Vec<Tried<LockedCoupon>>, HandlerError> {
        let settled = |(branch, reserved): (BranchContext, LockedCoupon)| (reserved.coupon_id, branch.gid());
        let mut operations = Operations {
            spends: batch.confirms.into_iter().map(settled).collect(),
            releases: batch.cancels.into_iter().map(settled).collect(),
            tries: Vec::with_capacity(batch.tries.len()),
        };
        let mut outcomes: Vec<Option<Tried<_>>> = Vec::with_capacity(batch.tries.len());
        for (branch, payload) in batch.tries {
            match Claim::new(payload.coupon_id, payload.user_id) {
                Ok(claim) => {
                    operations.tries.push((claim, branch.gid()));
                    outcomes.push(None);
                }
                Err(bad) => outcomes.push(Some(Tried::bad_request(&bad))),
            }
        }
        let lockings = run_batch(&mut D::coupons(conn), &operations).await?;
        let mut decided = lockings.into_iter().zip(&operations.tries).map(|(locking, (claim, _))| tried(locking, claim));
        Ok(outcomes.into_iter().filter_map(|outcome| outcome.or_else(|| decided.next())).collect())
    }
}

fn tried(locking: Locking, claim: &Claim) -> Tried<LockedCoupon> {
    match locking {
        Locking::Locked { discount_minor } => {
            let locked = LockedCoupon { coupon_id: claim.coupon_id().to_owned(), discount_minor };
            Tried::reserved_with(locked.clone(), &locked)
        }
        Locking::Refused(refusal) => Tried::Refused(refusal),
    }
}

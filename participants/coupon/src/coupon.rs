//! What coupon decides, over a narrow view of its rows. Pure but for the awaits: no SQL, no clock, no gRPC; a simulation runs
//! the same decisions on a store of its own.

use std::future::Future;

use tcc_types::{Gid, Invalid, Refusal, check_name};

/// How often a lock is tried when the coupon looks free every time it was not.
const ATTEMPTS_MAX: usize = 3;

/// Who wants to use which coupon. Can only hold well-formed ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    coupon_id: String,
    user_id: String,
}

impl Claim {
    /// Checks and makes one.
    ///
    /// # Errors
    /// Every field that is wrong: `coupon_id`, `user_id`.
    pub fn new(coupon_id: impl Into<String>, user_id: impl Into<String>) -> Result<Self, Vec<Invalid>> {
        let (coupon_id, user_id) = (coupon_id.into(), user_id.into());
        let checks = [check_name("coupon_id", &coupon_id), check_name("user_id", &user_id)];
        let bad: Vec<Invalid> = checks.into_iter().filter_map(Result::err).collect();
        if bad.is_empty() { Ok(Self { coupon_id, user_id }) } else { Err(bad) }
    }

    /// Which coupon.
    #[must_use]
    pub fn coupon_id(&self) -> &str {
        &self.coupon_id
    }

    /// Who.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }
}

/// Where a coupon is. The numbers are stored: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CouponState {
    /// Free.
    Issued = 1,
    /// Locked by an order that is not decided yet.
    Locked = 2,
    /// Used by a confirmed order.
    Used = 3,
}

impl CouponState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Issued, Self::Locked, Self::Used];

    /// From its stored number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }

    /// Its stored number.
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }
}

/// What is seen of a coupon that could not be locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is.
    pub user_id: String,
    /// Where it is.
    pub state: CouponState,
    /// Whether it can no longer be locked, by the store's clock at this look.
    pub expired: bool,
}

/// A coupon's row while nobody else can change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What any look sees of it.
    pub seen: Seen,
    /// Who locked or used it.
    pub gid: Option<Gid>,
    /// What it takes off the price.
    pub discount_minor: i64,
}

/// Where operations leave a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Which.
    pub coupon_id: &'a str,
    /// Where it is now.
    pub state: CouponState,
    /// Who locked or used it.
    pub gid: Option<Gid>,
}

/// The coupon rows as the decisions see them, inside the branch's local transaction.
///
/// Each change of a single operation is one guarded step that happens wholly or not at all. Lists come in the order of the
/// coupons' ids, each once, and take their rows in this order.
pub trait CouponStore: Send {
    /// How the store fails; the transaction is then rolled back.
    type Error: Send;

    /// `issued → locked` by `gid`, if the coupon is this user's and not expired by the store's clock at this step; the discount
    /// in minor units. `None`: nothing changed.
    fn lock(&mut self, claim: &Claim, gid: Gid) -> impl Future<Output = Result<Option<i64>, Self::Error>> + Send;

    /// Reads a coupon in a step of its own.
    fn look(&mut self, coupon_id: &str) -> impl Future<Output = Result<Option<Seen>, Self::Error>> + Send;

    /// `locked → used`, if `gid` has the lock.
    fn spend(&mut self, coupon_id: &str, gid: Gid) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// `locked → issued`, if `gid` has the lock.
    fn release(&mut self, coupon_id: &str, gid: Gid) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Reads these coupons, in their order; `None`: there is no such coupon. Nobody else changes them until the transaction ends.
    fn hold(&mut self, coupon_ids: &[&str]) -> impl Future<Output = Result<Vec<Option<Held>>, Self::Error>> + Send;

    /// Makes these changes to coupons that are held. Fails if one is not there.
    fn apply(&mut self, changes: &[Change<'_>]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locking {
    /// The coupon is locked.
    Locked {
        /// What it takes off the price.
        discount_minor: i64,
    },
    /// It is not, because of this.
    Refused(Refusal),
}

/// A locked coupon cannot be settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError<E> {
    /// The store failed; the same call may work later.
    #[error(transparent)]
    Store(E),
    /// The transaction does not have the lock that its branch says: somebody changed the coupon beside the framework. Needs an
    /// operator.
    #[error("coupon {coupon_id} is not locked by {gid}")]
    NotLocked {
        /// Which.
        coupon_id: String,
        /// By whom it should be.
        gid: Gid,
    },
}

/// Locks the coupon for the transaction, or says why not: `UNKNOWN_COUPON`, `NOT_OWNER`, `COUPON_USED`, `COUPON_LOCKED`,
/// `COUPON_EXPIRED`, the first of these that holds.
///
/// # Errors
/// The store's; then nothing may be committed.
pub async fn lock<S: CouponStore>(store: &mut S, claim: &Claim, gid: Gid) -> Result<Locking, S::Error> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(discount_minor) = store.lock(claim, gid).await? {
            return Ok(Locking::Locked { discount_minor });
        }
        // Written first, looked after. What is seen may be newer than what refused the lock; if it looks free now, lock again.
        if let Some(refusal) = why_not(claim, store.look(claim.coupon_id()).await?.as_ref()) {
            return Ok(Locking::Refused(refusal));
        }
    }
    Ok(Locking::Refused(locked(claim.coupon_id())))
}

fn why_not(claim: &Claim, seen: Option<&Seen>) -> Option<Refusal> {
    seen.map_or_else(|| Some(unknown(claim.coupon_id())), |seen| why_not_this(claim, seen))
}

/// Why a coupon that is there cannot be locked.
pub(crate) fn why_not_this(claim: &Claim, seen: &Seen) -> Option<Refusal> {
    let id = claim.coupon_id();
    if seen.user_id != claim.user_id() {
        return Some(Refusal::business("NOT_OWNER", format_args!("coupon {id} is somebody else's")));
    }
    match seen.state {
        CouponState::Used => Some(Refusal::business("COUPON_USED", format_args!("coupon {id} has been used"))),
        CouponState::Locked => Some(locked(id)),
        CouponState::Issued if seen.expired => {
            Some(Refusal::business("COUPON_EXPIRED", format_args!("coupon {id} has expired")))
        }
        CouponState::Issued => None,
    }
}

pub(crate) fn unknown(coupon_id: &str) -> Refusal {
    Refusal::business("UNKNOWN_COUPON", format_args!("there is no coupon {coupon_id}"))
}

fn locked(coupon_id: &str) -> Refusal {
    Refusal::business("COUPON_LOCKED", format_args!("coupon {coupon_id} is locked by another order"))
}

/// Uses the coupon that [`lock`] locked.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn spend<S: CouponStore>(store: &mut S, coupon_id: &str, gid: Gid) -> Result<(), SettleError<S::Error>> {
    let spent = store.spend(coupon_id, gid).await.map_err(SettleError::Store)?;
    check_locked(spent, coupon_id, gid)
}

/// Gives back the coupon that [`lock`] locked.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn release<S: CouponStore>(store: &mut S, coupon_id: &str, gid: Gid) -> Result<(), SettleError<S::Error>> {
    let released = store.release(coupon_id, gid).await.map_err(SettleError::Store)?;
    check_locked(released, coupon_id, gid)
}

fn check_locked<E>(was_locked: bool, coupon_id: &str, gid: Gid) -> Result<(), SettleError<E>> {
    if was_locked { Ok(()) } else { Err(not_locked(coupon_id, gid)) }
}

pub(crate) fn not_locked<E>(coupon_id: &str, gid: Gid) -> SettleError<E> {
    SettleError::NotLocked { coupon_id: coupon_id.to_owned(), gid }
}

#[cfg(test)]
mod tests;

//! What inventory decides, over a narrow view of its rows. Pure but for the awaits: no SQL, no clock, no gRPC; a simulation runs
//! the same decisions on a store of its own.

use std::future::Future;

use tcc_types::Refusal;

use crate::{Aim, Line, Lines, Reserved, Share, Split, aim::Look, batch::reserve_anywhere, buckets::Taken};

/// One row: a bucket of a SKU. In the order in which rows are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place<'a> {
    /// Of which SKU.
    pub sku: &'a str,
    /// Which of its buckets.
    pub bucket: u8,
}

/// What a row has that an operation may find missing, and what it says of its SKU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Free to be ordered.
    pub available: i64,
    /// Reserved by orders that are not decided yet.
    pub frozen: i64,
    /// Over how many buckets the SKU's free stock is spread: those below this number.
    pub buckets: u8,
    /// How many buckets the SKU has: all that are below this number. It never falls, and nobody makes another one without changing all
    /// of the SKU's rows; so who has one row locked knows which others there are.
    pub made: u8,
}

/// What several operations together do to one row: those that settle first, then those that reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// To which SKU.
    pub sku: &'a str,
    /// To which of its buckets.
    pub bucket: u8,
    /// Added to `available`; may be negative.
    pub available: i64,
    /// Added to `sold`. What `available` and `sold` get, `frozen` loses.
    pub sold: i64,
    /// How many must be frozen before: what is to be spent or released.
    pub settled: i64,
}

impl<'a> Change<'a> {
    /// Of which row.
    #[must_use]
    pub const fn place(&self) -> Place<'a> {
        Place { sku: self.sku, bucket: self.bucket }
    }

    /// Whether each operation can be had from these levels.
    #[must_use]
    pub const fn fits(&self, levels: Levels) -> bool {
        levels.frozen >= self.settled && levels.available + self.available >= 0
    }

    /// What takes it back.
    #[must_use]
    pub const fn undone(self) -> Self {
        Self { available: -self.available, sold: -self.sold, settled: 0, ..self }
    }

    /// Whether the row looks different afterwards.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.available != 0 || self.sold != 0
    }
}

/// What became of changes that were to be made only if all of them fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Each is made. What the rows had before, in the order of the changes, or nothing: a store need not look.
    All(Vec<Option<Levels>>),
    /// None is made. What each row has, in the order of the changes; `None`: there is no such row.
    Nothing(Vec<Option<Levels>>),
}

/// The stock rows as the decisions see them, inside the branch's local transaction.
///
/// Each change of a single share is one guarded step that happens wholly or not at all. Several changes come in the order of their
/// places, each place once, and take their rows in this order.
pub trait StockStore: Send {
    /// How the store fails; the transaction is then rolled back.
    type Error: Send;

    /// `available → frozen`, if that many are available: then returns the SKU's number of buckets ([`Levels::buckets`]).
    fn freeze(&mut self, share: Share<'_>) -> impl Future<Output = Result<Option<u8>, Self::Error>> + Send;

    /// `frozen → sold`, if that many are frozen; whether they are.
    fn spend(&mut self, share: Share<'_>) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// `frozen → available`, if that many are frozen; whether they are.
    fn release(&mut self, share: Share<'_>) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// What the SKU's first row has now; locks nothing. `None`: there is no such SKU.
    fn look(&mut self, sku: &str) -> impl Future<Output = Result<Option<Levels>, Self::Error>> + Send;

    /// What these rows have, in the order of the places; `None`: there is no such row, or, where the row was made while this waited for
    /// another one, perhaps there is: then the next call sees it. Nobody else changes the rows until the transaction ends. `at_once`:
    /// fails where it would have to wait, in such a way that the whole transaction runs anew.
    fn lock(
        &mut self,
        places: &[Place<'_>],
        at_once: bool,
    ) -> impl Future<Output = Result<Vec<Option<Levels>>, Self::Error>> + Send;

    /// Makes these changes if each of them fits ([`Change::fits`]). Either way nobody else changes the rows until the
    /// transaction ends. A change that is none is not written. Where it is likely that all fit, a store may begin with making them.
    fn apply_if_all_fit(
        &mut self,
        changes: &[Change<'_>],
        likely: bool,
    ) -> impl Future<Output = Result<Changed, Self::Error>> + Send;

    /// Makes these changes, which fit the levels that [`Self::apply_if_all_fit`] or [`Self::lock`] told in this transaction. Fails
    /// if a row is not there.
    fn apply(&mut self, changes: &[Change<'_>]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What became of an order's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// Every line is frozen, in these buckets.
    Frozen(Split),
    /// Not all can be frozen, because of this; what was is to be rolled back.
    Refused(Refusal),
}

/// A reservation cannot be settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError<E> {
    /// The store failed; the same call may work later.
    #[error(transparent)]
    Store(E),
    /// Less is frozen than the branch has reserved: somebody changed the stock beside the framework. Needs an operator.
    #[error("sku {sku}: fewer than {quantity} pieces are frozen")]
    NotFrozen {
        /// Of which.
        sku: String,
        /// What the branch holds.
        quantity: i64,
    },
}

/// Freezes every line, or refuses because of the first one, in SKU order, that cannot be had: `UNKNOWN_SKU` or `OUT_OF_STOCK`.
///
/// A line is taken from one bucket of its SKU where that has enough, and else from wherever the pieces are, with all of the SKU's
/// buckets locked. After a refusal the lines before it are still frozen: the caller rolls back to where it was before the call, as the
/// SDK does with every Try that is refused.
///
/// # Errors
/// The store's; then nothing may be committed.
pub async fn reserve<S: StockStore>(store: &mut S, lines: &Lines, aim: &mut Aim) -> Result<Reservation, S::Error> {
    let mut split = Split::new();
    for (index, line) in lines.iter().enumerate() {
        let mut at_once = false;
        if let Look::In(bucket) = aim.look(line.sku()) {
            let share = Share { sku: line.sku(), bucket, quantity: line.quantity() };
            if let Some(buckets) = store.freeze(share).await? {
                aim.learn(line.sku(), buckets, buckets);
                split.set(index, vec![Taken { bucket, quantity: line.quantity() }]);
                continue;
            }
            // Written first, looked after: only a line that was not frozen is worth the second statement.
            let Some(levels) = store.look(line.sku()).await? else { return Ok(Reservation::Refused(unknown_sku(line))) };
            if levels.made == 1 && levels.available < line.quantity() {
                // All that the SKU has, at this moment.
                return Ok(Reservation::Refused(out_of_stock(line)));
            }
            aim.learn(line.sku(), levels.buckets, levels.made);
            aim.look_everywhere(line.sku());
            // A database may have kept the row locked that had too few. Who waited now for one before it would be out of order.
            at_once = true;
        }
        match reserve_anywhere(store, line, aim, at_once).await? {
            Ok(taken) => split.set(index, taken),
            Err(refusal) => return Ok(Reservation::Refused(refusal)),
        }
    }
    Ok(Reservation::Frozen(split))
}

/// Fewer are available than the line wants.
pub(crate) fn out_of_stock(line: &Line) -> Refusal {
    let message = format_args!("sku {}: fewer than {} pieces are available", line.sku(), line.quantity()).to_string();
    Refusal::business("OUT_OF_STOCK", message)
}

/// There is no such SKU.
pub(crate) fn unknown_sku(line: &Line) -> Refusal {
    Refusal::business("UNKNOWN_SKU", format_args!("there is no sku {}", line.sku()))
}

/// Spends what [`reserve`] froze.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn spend<S: StockStore>(store: &mut S, reserved: &Reserved) -> Result<(), SettleError<S::Error>> {
    for share in reserved.shares() {
        let spent = store.spend(share).await.map_err(SettleError::Store)?;
        check_frozen(spent, share)?;
    }
    Ok(())
}

/// Gives back what [`reserve`] froze, to the buckets that it is from.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn release<S: StockStore>(store: &mut S, reserved: &Reserved) -> Result<(), SettleError<S::Error>> {
    for share in reserved.shares() {
        let released = store.release(share).await.map_err(SettleError::Store)?;
        check_frozen(released, share)?;
    }
    Ok(())
}

fn check_frozen<E>(was_frozen: bool, share: Share<'_>) -> Result<(), SettleError<E>> {
    if was_frozen { Ok(()) } else { Err(not_frozen(share)) }
}

/// Fewer are frozen than the branch holds.
pub(crate) fn not_frozen<E>(share: Share<'_>) -> SettleError<E> {
    SettleError::NotFrozen { sku: share.sku.to_owned(), quantity: share.quantity }
}

#[cfg(test)]
mod tests;

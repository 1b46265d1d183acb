//! What inventory decides, over a narrow view of its rows. Pure but for the awaits: no SQL, no clock, no gRPC; a simulation runs
//! the same decisions on a store of its own.

use std::future::Future;

use tcc_types::Refusal;

use crate::{Line, Lines};

/// What a SKU's row has that an operation may find missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Free to be ordered.
    pub available: i64,
    /// Reserved by orders that are not decided yet.
    pub frozen: i64,
}

/// What several operations together do to one SKU's row: those that settle first, then those that reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Of which.
    pub sku: &'a str,
    /// Added to `available`; may be negative.
    pub available: i64,
    /// Added to `sold`. What `available` and `sold` get, `frozen` loses.
    pub sold: i64,
    /// How many must be frozen before: what is to be spent or released.
    pub settled: i64,
}

impl Change<'_> {
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
    /// Each is made.
    All,
    /// None is made. What each SKU's row has, in the order of the changes; `None`: there is no such SKU.
    Nothing(Vec<Option<Levels>>),
}

/// The stock rows as the decisions see them, inside the branch's local transaction.
///
/// Each change of a single line is one guarded step that happens wholly (`true`) or not at all (`false`). Several changes come in
/// SKU order, each SKU once, and take their rows in this order.
pub trait StockStore: Send {
    /// How the store fails; the transaction is then rolled back.
    type Error: Send;

    /// `available → frozen`, if that many are available.
    fn freeze(&mut self, line: &Line) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// `frozen → sold`, if that many are frozen.
    fn spend(&mut self, line: &Line) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// `frozen → available`, if that many are frozen.
    fn release(&mut self, line: &Line) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Whether there is such a SKU at all.
    fn knows(&mut self, sku: &str) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Makes these changes if each of them fits ([`Change::fits`]). Either way nobody else changes the rows until the
    /// transaction ends. A change that is none is not written. Where it is likely that all fit, a store may begin with making them.
    fn apply_if_all_fit(
        &mut self,
        changes: &[Change<'_>],
        likely: bool,
    ) -> impl Future<Output = Result<Changed, Self::Error>> + Send;

    /// Makes these changes, which fit the levels that [`Self::apply_if_all_fit`] told in this transaction. Fails if a row is not
    /// there.
    fn apply(&mut self, changes: &[Change<'_>]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What became of an order's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// Every line is frozen.
    Frozen,
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
/// After a refusal the lines before it are still frozen: the caller rolls back to where it was before the call, as the SDK does
/// with every Try that is refused.
///
/// # Errors
/// The store's; then nothing may be committed.
pub async fn reserve<S: StockStore>(store: &mut S, lines: &Lines) -> Result<Reservation, S::Error> {
    for line in lines {
        if store.freeze(line).await? {
            continue;
        }
        // Written first, looked after: only a line that was not frozen is worth the second statement.
        let refusal = if store.knows(line.sku()).await? { out_of_stock(line) } else { unknown_sku(line) };
        return Ok(Reservation::Refused(refusal));
    }
    Ok(Reservation::Frozen)
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
pub async fn spend<S: StockStore>(store: &mut S, lines: &Lines) -> Result<(), SettleError<S::Error>> {
    for line in lines {
        let spent = store.spend(line).await.map_err(SettleError::Store)?;
        check_frozen(spent, line)?;
    }
    Ok(())
}

/// Gives back what [`reserve`] froze.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn release<S: StockStore>(store: &mut S, lines: &Lines) -> Result<(), SettleError<S::Error>> {
    for line in lines {
        let released = store.release(line).await.map_err(SettleError::Store)?;
        check_frozen(released, line)?;
    }
    Ok(())
}

fn check_frozen<E>(was_frozen: bool, line: &Line) -> Result<(), SettleError<E>> {
    if was_frozen { Ok(()) } else { Err(not_frozen(line)) }
}

/// Fewer are frozen than the line holds.
pub(crate) fn not_frozen<E>(line: &Line) -> SettleError<E> {
    SettleError::NotFrozen { sku: line.sku().to_owned(), quantity: line.quantity() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, lines};

    /// The code of a refusal, after which the store rolls back, as its transaction does.
    async fn refusal(store: &mut Memory, wanted: &[(&str, i64)]) -> String {
        let before = store.rows.clone();
        match reserve(store, &lines(wanted)).await {
            Ok(Reservation::Frozen) => panic!("not refused"),
            Ok(Reservation::Refused(refusal)) => {
                store.rows = before;
                refusal.code
            }
        }
    }

    #[tokio::test]
    async fn a_reservation_is_spent_or_released() {
        let mut store = Memory::with(&[("a", 10)]);
        assert_eq!(reserve(&mut store, &lines(&[("a", 3)])).await, Ok(Reservation::Frozen));
        assert_eq!(store.row("a"), (7, 3, 0));
        spend(&mut store, &lines(&[("a", 3)])).await.unwrap();
        assert_eq!(store.row("a"), (7, 0, 3));
        reserve(&mut store, &lines(&[("a", 7)])).await.unwrap();
        release(&mut store, &lines(&[("a", 7)])).await.unwrap();
        assert_eq!(store.row("a"), (7, 0, 3));
    }

    #[tokio::test]
    async fn rows_are_taken_in_sku_order_whatever_the_order_of_the_lines() {
        let mut store = Memory::with(&[("a", 9), ("b", 9), ("c", 9)]);
        reserve(&mut store, &lines(&[("c", 1), ("a", 1), ("b", 1)])).await.unwrap();
        assert_eq!(store.touched, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn the_first_line_that_cannot_be_had_says_why_and_no_row_after_it_is_touched() {
        let mut store = Memory::with(&[("a", 9), ("b", 9), ("c", 1), ("d", 9)]);
        assert_eq!(refusal(&mut store, &[("a", 1), ("b", 9), ("c", 2), ("d", 1)]).await, "OUT_OF_STOCK");
        assert_eq!(store.touched, ["a", "b", "c"]);
        assert_eq!(refusal(&mut store, &[("a", 1), ("c", 2), ("nil", 1)]).await, "OUT_OF_STOCK");
        assert_eq!(refusal(&mut store, &[("a", 1), ("nil", 1)]).await, "UNKNOWN_SKU");
        assert_eq!(store.row("a"), (9, 0, 0));
    }

    #[tokio::test]
    async fn settling_what_is_not_frozen_is_an_error() {
        let mut store = Memory::with(&[("a", 9)]);
        assert!(matches!(spend(&mut store, &lines(&[("a", 1)])).await, Err(SettleError::NotFrozen { .. })));
        assert!(matches!(release(&mut store, &lines(&[("b", 1)])).await, Err(SettleError::NotFrozen { .. })));
        assert_eq!(store.row("a"), (9, 0, 0));
    }
}

//! What inventory decides, over a narrow view of its rows. Pure but for the awaits: no SQL, no clock, no gRPC; a simulation runs
//! the same decisions on a store of its own.

use std::future::Future;

use tcc_types::Refusal;

use crate::{Line, Lines};

/// The stock rows as the decisions see them, inside the branch's local transaction.
///
/// Each change is one guarded step that happens wholly (`true`) or not at all (`false`).
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
        let refusal = if store.knows(line.sku()).await? {
            let message = format_args!("sku {}: fewer than {} pieces are available", line.sku(), line.quantity()).to_string();
            Refusal::business("OUT_OF_STOCK", message)
        } else {
            Refusal::business("UNKNOWN_SKU", format_args!("there is no sku {}", line.sku()))
        };
        return Ok(Reservation::Refused(refusal));
    }
    Ok(Reservation::Frozen)
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
    if was_frozen {
        return Ok(());
    }
    Err(SettleError::NotFrozen { sku: line.sku().to_owned(), quantity: line.quantity() })
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        convert::Infallible,
        future::{Future, ready},
    };

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Row {
        available: i64,
        frozen: i64,
        sold: i64,
    }

    /// An in-process store that also remembers in which order rows were touched.
    #[derive(Default)]
    struct Memory {
        rows: BTreeMap<String, Row>,
        touched: Vec<String>,
    }

    impl Memory {
        fn with(rows: &[(&str, i64)]) -> Self {
            let row = |(sku, available): &(&str, i64)| ((*sku).to_owned(), Row { available: *available, ..Row::default() });
            Self { rows: rows.iter().map(row).collect(), touched: Vec::new() }
        }

        fn step(
            &mut self,
            line: &Line,
            change: impl FnOnce(&mut Row, i64),
        ) -> impl Future<Output = Result<bool, Infallible>> + Send {
            self.touched.push(line.sku().to_owned());
            let done = self.rows.get_mut(line.sku()).is_some_and(|row| {
                let mut after = row.clone();
                change(&mut after, line.quantity());
                let possible = after.available >= 0 && after.frozen >= 0;
                if possible {
                    *row = after;
                }
                possible
            });
            ready(Ok(done))
        }

        fn row(&self, sku: &str) -> (i64, i64, i64) {
            let row = &self.rows[sku];
            (row.available, row.frozen, row.sold)
        }
    }

    impl StockStore for Memory {
        type Error = Infallible;

        fn freeze(&mut self, line: &Line) -> impl Future<Output = Result<bool, Infallible>> + Send {
            self.step(line, |row, quantity| (row.available, row.frozen) = (row.available - quantity, row.frozen + quantity))
        }

        fn spend(&mut self, line: &Line) -> impl Future<Output = Result<bool, Infallible>> + Send {
            self.step(line, |row, quantity| (row.frozen, row.sold) = (row.frozen - quantity, row.sold + quantity))
        }

        fn release(&mut self, line: &Line) -> impl Future<Output = Result<bool, Infallible>> + Send {
            self.step(line, |row, quantity| (row.frozen, row.available) = (row.frozen - quantity, row.available + quantity))
        }

        fn knows(&mut self, sku: &str) -> impl Future<Output = Result<bool, Infallible>> + Send {
            ready(Ok(self.rows.contains_key(sku)))
        }
    }

    fn lines(wanted: &[(&str, i64)]) -> Lines {
        Lines::new(wanted.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity))).unwrap()
    }

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

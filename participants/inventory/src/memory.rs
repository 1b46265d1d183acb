//! Stock in this process, for the tests of the decisions.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, ready},
};

use crate::{Change, Changed, Levels, Line, Lines, StockStore};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) available: i64,
    pub(crate) frozen: i64,
    pub(crate) sold: i64,
}

impl Row {
    const fn levels(&self) -> Levels {
        Levels { available: self.available, frozen: self.frozen }
    }
}

/// A store that also remembers in which order rows were touched, and how often rows were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) rows: BTreeMap<String, Row>,
    pub(crate) touched: Vec<String>,
    pub(crate) writes: usize,
}

impl Memory {
    pub(crate) fn with(rows: &[(&str, i64)]) -> Self {
        let row = |(sku, available): &(&str, i64)| ((*sku).to_owned(), Row { available: *available, ..Row::default() });
        Self { rows: rows.iter().map(row).collect(), ..Self::default() }
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

    pub(crate) fn row(&self, sku: &str) -> (i64, i64, i64) {
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

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], _likely: bool) -> Result<Changed, Infallible> {
        self.touched.extend(changes.iter().map(|change| change.sku.to_owned()));
        let levels: Vec<_> = changes.iter().map(|change| self.rows.get(change.sku).map(Row::levels)).collect();
        if changes.iter().zip(&levels).all(|(change, levels)| levels.is_some_and(|levels| change.fits(levels))) {
            let changes: Vec<_> = changes.iter().copied().filter(Change::is_any).collect();
            self.apply(&changes).await?;
            return Ok(Changed::All);
        }
        Ok(Changed::Nothing(levels))
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), Infallible> {
        for change in changes {
            let row = self.rows.get_mut(change.sku).expect("its level was told");
            assert!(change.is_any() && change.fits(row.levels()), "{change:?} {row:?}");
            row.available += change.available;
            row.sold += change.sold;
            row.frozen -= change.available + change.sold;
            self.writes += 1;
        }
        Ok(())
    }
}

/// Lines of an order.
pub(crate) fn lines(wanted: &[(&str, i64)]) -> Lines {
    Lines::new(wanted.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity))).unwrap()
}

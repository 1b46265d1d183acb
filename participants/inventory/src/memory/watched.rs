//! Stock in this process that is watched, for the tests of the decisions.

use std::{
    convert::Infallible,
    future::{Future, ready},
    ops::{Deref, DerefMut},
};

use tcc_types::Timestamp;

pub(crate) use super::StockRow as Row;
use super::{Sku, StockTable};
use crate::{Change, Changed, Levels, Lines, Place, Reserved, Share, StockStore};

/// A store that also remembers in which order rows were touched, which were locked without waiting, and how often rows were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    table: StockTable,
    pub(crate) touched: Vec<(String, u8)>,
    pub(crate) locked_at_once: Vec<(String, u8)>,
    pub(crate) writes: usize,
}

impl Memory {
    /// Each in one bucket.
    pub(crate) fn with(rows: &[(&str, i64)]) -> Self {
        Self::with_buckets(&rows.iter().map(|(sku, available)| (*sku, vec![*available])).collect::<Vec<_>>())
    }

    pub(crate) fn with_buckets(skus: &[(&str, Vec<i64>)]) -> Self {
        let mut store = Self::default();
        for (sku, available) in skus {
            store.put(sku, available.iter().map(|available| Row { available: *available, ..Row::default() }).collect());
        }
        store
    }

    /// Whatever is in the rows is what there was at first.
    pub(crate) fn put(&mut self, sku: &str, mut rows: Vec<Row>) {
        let buckets = u8::try_from(rows.len()).unwrap();
        rows.iter_mut().for_each(|row| row.initial = row.available + row.frozen + row.sold);
        self.skus.insert(sku.to_owned(), Sku { rows, buckets });
    }

    /// The sums over its buckets.
    pub(crate) fn row(&self, sku: &str) -> (i64, i64, i64) {
        let sums = self.skus[sku].sums();
        (sums.available, sums.frozen, sums.sold)
    }

    pub(crate) fn available(&self, sku: &str) -> Vec<i64> {
        self.skus[sku].rows.iter().map(|row| row.available).collect()
    }

    fn touch(&mut self, places: impl Iterator<Item = (String, u8)>) {
        let places: Vec<_> = places.collect();
        assert!(places.is_sorted() && places.windows(2).all(|pair| pair[0] != pair[1]), "{places:?}");
        self.touched.extend(places);
    }
}

fn owned(place: Place<'_>) -> (String, u8) {
    (place.sku.to_owned(), place.bucket)
}

impl Deref for Memory {
    type Target = StockTable;

    fn deref(&self) -> &StockTable {
        &self.table
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut StockTable {
        &mut self.table
    }
}

impl StockStore for Memory {
    type Error = Infallible;

    fn freeze(&mut self, share: Share<'_>) -> impl Future<Output = Result<Option<u8>, Infallible>> + Send {
        self.touched.push(owned(share.place()));
        ready(Ok(self.table.freeze(share, Timestamp::EPOCH).unwrap()))
    }

    fn spend(&mut self, share: Share<'_>) -> impl Future<Output = Result<bool, Infallible>> + Send {
        self.touched.push(owned(share.place()));
        ready(Ok(self.table.spend(share, Timestamp::EPOCH).unwrap()))
    }

    fn release(&mut self, share: Share<'_>) -> impl Future<Output = Result<bool, Infallible>> + Send {
        self.touched.push(owned(share.place()));
        ready(Ok(self.table.release(share, Timestamp::EPOCH).unwrap()))
    }

    fn look(&mut self, sku: &str) -> impl Future<Output = Result<Option<Levels>, Infallible>> + Send {
        ready(Ok(self.levels(Place { sku, bucket: 0 })))
    }

    async fn lock(&mut self, places: &[Place<'_>], at_once: bool) -> Result<Vec<Option<Levels>>, Infallible> {
        self.touch(places.iter().map(|place| owned(*place)));
        if at_once {
            self.locked_at_once.extend(places.iter().map(|place| owned(*place)));
        }
        Ok(places.iter().map(|place| self.levels(*place)).collect())
    }

    async fn apply_if_all_fit(&mut self, changes: &[Change<'_>], _likely: bool) -> Result<Changed, Infallible> {
        self.touch(changes.iter().map(|change| owned(change.place())));
        let levels: Vec<_> = changes.iter().map(|change| self.levels(change.place())).collect();
        if changes.iter().zip(&levels).all(|(change, levels)| levels.is_some_and(|levels| change.fits(levels))) {
            let changes: Vec<_> = changes.iter().copied().filter(Change::is_any).collect();
            self.apply(&changes).await?;
            return Ok(Changed::All(levels));
        }
        Ok(Changed::Nothing(levels))
    }

    async fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), Infallible> {
        assert!(changes.is_sorted_by_key(Change::place), "{changes:?}");
        for change in changes {
            let levels = self.levels(change.place()).expect("it was told");
            assert!(change.is_any() && change.fits(levels), "{change:?} {levels:?}");
            assert!(self.table.apply(*change, Timestamp::EPOCH).unwrap());
            self.writes += 1;
        }
        Ok(())
    }
}

/// Lines of an order.
pub(crate) fn lines(wanted: &[(&str, i64)]) -> Lines {
    Lines::new(wanted.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity))).unwrap()
}

/// What a branch holds of first buckets.
pub(crate) fn held(wanted: &[(&str, i64)]) -> Reserved {
    lines(wanted).into()
}

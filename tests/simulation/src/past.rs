//! What the participants' databases were a moment ago, and what is lost when one of them goes back to it.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use tcc_coupon::memory::CouponTables;
use tcc_database::memory::Memory;
use tcc_inventory::memory::StockTables;
use tcc_participant::memory::HasBranches;
use tcc_types::BranchKey;

/// From one moment that is kept to the next.
pub(crate) const MOMENT: Duration = Duration::from_millis(100);
/// Moments that are kept.
pub(crate) const PAST_MAX: usize = 20;

/// The last moments of one database, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Past<T>(VecDeque<T>);

/// Of all databases that may go back, and what is lost.
#[derive(Debug, Default)]
pub(crate) struct Pasts {
    pub(crate) inventory: Past<StockTables>,
    pub(crate) coupon: Past<CouponTables>,
    /// The branches whose rows are not, or no more, what was once committed. How these end is another matter.
    pub(crate) lost: BTreeSet<BranchKey>,
    /// When one of them last went back.
    pub(crate) lost_at: Option<Duration>,
}

impl<T: HasBranches> Past<T> {
    /// Keeps what is durable now.
    pub(crate) fn keep(&mut self, database: &Memory<T>) {
        self.0.push_back(database.durable());
        if self.0.len() > PAST_MAX {
            self.0.pop_front();
        }
    }

    /// Goes back by so many moments, or as far as is known; the branches whose rows are others then.
    pub(crate) fn fail_over(&mut self, database: &Memory<T>, back: usize) -> Vec<BranchKey> {
        let kept = self.0.len().saturating_sub(back).max(1);
        self.0.truncate(kept);
        let Some(then) = self.0.back() else { return Vec::new() };
        let now = database.visible();
        let changed = now.branches().changes_since(then.branches());
        let lost = changed.filter_map(|(then, now)| now.or(then)).map(|stored| stored.row.key.clone()).collect();
        database.fail_over(then.clone());
        lost
    }
}

//! Where a Try looks for its pieces first. Only hints: a wrong one costs a detour and never a wrong answer. Pure but for the lock
//! around what an instance remembers; called by the participant's handlers and by the decisions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tcc_types::BranchKey;

use crate::{
    Levels,
    buckets::{chosen, seed_of},
};

/// Most SKUs with several buckets that an instance remembers; of one that it has forgotten it tries the first bucket first.
const REMEMBERED_MAX: usize = 4_096;
/// Batches of an instance that run side by side look in neighbouring buckets: in so many.
const LANES: u64 = 2;
/// After so many batches an instance moves to other buckets, lest two that have met in one stay there together.
const MOVES_AFTER: u64 = 512;

/// Where to look for a SKU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// In this bucket; it is likely to have enough.
    In(u8),
    /// In all of this many at once.
    Everywhere(u8),
}

/// What is known of a SKU that has, or had, several buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    buckets: u8,
    made: u8,
    /// From the seed's bucket to the one that was the fullest when it was last looked at.
    shift: u8,
    everywhere: bool,
    /// A row has said so, and nobody looked for pieces: what is remembered of where they are stays.
    in_passing: bool,
}

/// What one operation, or one batch, knows of the SKUs that it tries to take.
#[derive(Clone, Debug, Default)]
pub struct Aim {
    seed: u64,
    /// Of a single operation the bucket is a matter of its key alone.
    alone: bool,
    known: BTreeMap<String, Known>,
}

impl Aim {
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(crate) fn look(&self, sku: &str) -> Look {
        match self.known.get(sku) {
            None => Look::In(0),
            Some(known) if known.everywhere => Look::Everywhere(known.made),
            Some(_) => Look::In(self.bucket(sku)),
        }
    }

    /// The bucket to take from if it has enough.
    pub(crate) fn bucket(&self, sku: &str) -> u8 {
        let Some(known) = self.known.get(sku) else { return 0 };
        let shift = if self.alone { 0 } else { u64::from(known.shift) };
        chosen(self.seed.wrapping_add(shift), known.buckets)
    }

    /// What a row says of its SKU.
    pub(crate) fn learn(&mut self, sku: &str, buckets: u8, made: u8) {
        match self.known.get_mut(sku) {
            Some(known) if known.buckets == buckets && known.made >= made => {}
            Some(known) => *known = Known { buckets, made: known.made.max(made), shift: 0, ..*known },
            None if made > 1 => {
                let known = Known { buckets, made, shift: 0, everywhere: false, in_passing: true };
                self.known.insert(sku.to_owned(), known);
            }
            None => {}
        }
    }

    /// The first bucket had too few: from now on all of them are looked at.
    pub(crate) fn look_everywhere(&mut self, sku: &str) {
        if let Some(known) = self.known.get_mut(sku) {
            (known.everywhere, known.in_passing) = (true, false);
        }
    }

    /// What all of its buckets have after so many pieces were asked for: if one has enough for as many again, that one is next.
    pub(crate) fn found(&mut self, sku: &str, wanted: i64, rows: impl Iterator<Item = (u8, Levels)>) {
        let Some(known) = self.known.get_mut(sku) else { return };
        let in_use = rows.filter(|(bucket, _)| *bucket < known.buckets);
        let fullest = in_use.max_by_key(|(bucket, levels)| (levels.available, std::cmp::Reverse(*bucket)));
        known.in_passing = false;
        known.everywhere = fullest.is_none_or(|(_, levels)| levels.available < wanted);
        if let Some((bucket, _)) = fullest {
            known.shift = (bucket + known.buckets - chosen(self.seed, known.buckets)) % known.buckets;
        }
    }
}

/// What an instance remembers.
#[derive(Debug, Default)]
pub(crate) struct Aims {
    known: Mutex<HashMap<String, Known>>,
    batches: AtomicU64,
    seed: AtomicU64,
}

impl Aims {
    /// For one operation.
    pub(crate) fn of_one<'a>(&self, key: &BranchKey, skus: impl Iterator<Item = &'a str>) -> Aim {
        Aim { seed: seed_of(key), alone: true, known: self.known(skus) }
    }

    /// For a batch, which takes all it wants of a SKU from one bucket.
    pub(crate) fn of_batch<'a>(&self, first: &BranchKey, skus: impl Iterator<Item = &'a str>) -> Aim {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        if batch.is_multiple_of(MOVES_AFTER) {
            self.seed.store(seed_of(first), Ordering::Relaxed);
        }
        let seed = self.seed.load(Ordering::Relaxed).wrapping_add(batch % LANES);
        Aim { seed, alone: false, known: self.known(skus) }
    }

    fn known<'a>(&self, skus: impl Iterator<Item = &'a str>) -> BTreeMap<String, Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return BTreeMap::new();
        }
        skus.filter_map(|sku| known.get_key_value(sku)).map(|(sku, known)| (sku.clone(), *known)).collect()
    }

    /// Remembers what was seen.
    pub(crate) fn remember(&self, aim: Aim) {
        if aim.known.is_empty() {
            return;
        }
        let mut remembered = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (sku, known) in aim.known {
            if let Some(before) = remembered.get_mut(&sku)
                && known.in_passing
                && before.buckets == known.buckets
            {
                before.made = before.made.max(known.made);
                continue;
            }
            if remembered.len() >= REMEMBERED_MAX && !remembered.contains_key(&sku) {
                let Some(any) = remembered.keys().next().cloned() else { continue };
                remembered.remove(&any);
            }
            remembered.insert(sku, Known { in_passing: false, ..known });
        }
    }
}

#[cfg(test)]
mod tests;

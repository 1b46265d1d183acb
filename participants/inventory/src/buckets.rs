//! How one SKU's stock is split over its buckets, the rows of the database that it has: from which of them an order takes, and how
//! much each of them gets. Pure; called by the decisions and by the books.

use tcc_types::{BranchKey, Invalid};

use crate::{Line, Lines};

/// Most buckets of one SKU. The database checks it too.
pub const BUCKETS_MAX: u8 = 64;

/// What an order took of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Below [`BUCKETS_MAX`].
    pub bucket: u8,
    /// Pieces: at least 1.
    pub quantity: i64,
}

/// From which buckets the lines of an order are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split(Vec<Vec<Taken>>);

impl Split {
    /// Nothing yet is from another bucket than the first.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Tells it of a line, by its place. What is told of no line, or is empty, is all from bucket 0.
    pub fn set(&mut self, line: usize, taken: Vec<Taken>) {
        if taken.iter().all(|taken| taken.bucket == 0) {
            return;
        }
        if self.0.len() <= line {
            self.0.resize_with(line + 1, Vec::new);
        }
        self.0[line] = taken;
    }

    /// Of each line, by its place. Empty: all is from bucket 0.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[Taken])> {
        self.0.iter().map(Vec::as_slice).enumerate()
    }

    fn of(&self, line: usize) -> &[Taken] {
        self.0.get(line).map_or(&[], Vec::as_slice)
    }
}

/// Some pieces in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Of which SKU.
    pub sku: &'a str,
    /// In which of its buckets.
    pub bucket: u8,
    /// How many: at least 1.
    pub quantity: i64,
}

/// What a branch holds, by the rows that it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    lines: Lines,
    split: Split,
}

impl Reserved {
    /// Checks and makes it.
    ///
    /// # Errors
    /// `shares`: a line's are not all of it, are of a bucket that cannot be, or are out of order.
    pub fn new(lines: Lines, split: Split) -> Result<Self, Invalid> {
        if split.0.len() > lines.iter().len() {
            return Err(Invalid::new("shares", "are of a line that is not there"));
        }
        for (line, taken) in lines.iter().zip(&split.0).filter(|(_, taken)| !taken.is_empty()) {
            let in_order = taken.windows(2).all(|pair| pair[0].bucket < pair[1].bucket);
            let possible =
                taken.iter().all(|taken| taken.bucket < BUCKETS_MAX && (1..=line.quantity()).contains(&taken.quantity));
            if !in_order || !possible || taken.iter().map(|taken| taken.quantity).sum::<i64>() != line.quantity() {
                return Err(Invalid::new("shares", "must be all of their line, of each bucket once, in order"));
            }
        }
        Ok(Self { lines, split })
    }

    /// In the order of SKU and bucket.
    pub fn shares(&self) -> impl Iterator<Item = Share<'_>> {
        self.lines.iter().enumerate().flat_map(|(index, line)| {
            let (sku, taken) = (line.sku(), self.split.of(index));
            let whole = taken.is_empty().then(|| Share { sku, bucket: 0, quantity: line.quantity() });
            whole.into_iter().chain(taken.iter().map(move |taken| Share {
                sku,
                bucket: taken.bucket,
                quantity: taken.quantity,
            }))
        })
    }
}

impl From<Lines> for Reserved {
    /// All from the first buckets.
    fn from(lines: Lines) -> Self {
        Self { lines, split: Split::new() }
    }
}

/// A number that a branch's first choice of a bucket is made from: the same for the same branch, and spread evenly over branches.
#[must_use]
pub fn seed_of(key: &BranchKey) -> u64 {
    // FNV-1a, then mixed: its low bits alone are not spread well.
    let bytes = key.gid.as_bytes().iter().chain(key.branch.as_str().as_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// The bucket of `buckets` that a seed chooses.
#[must_use]
pub fn chosen(seed: u64, buckets: u8) -> u8 {
    u8::try_from(seed % u64::from(buckets.max(1))).unwrap_or(0)
}

/// Takes a line from a SKU's free pieces by bucket: from the fullest alone if it has enough, else from the fullest ones together.
/// `None`: all of them together have too few.
pub(crate) fn take(line: &Line, free: impl Iterator<Item = (u8, i64)>) -> Option<Vec<Taken>> {
    let mut free: Vec<_> = free.filter(|(_, available)| *available > 0).collect();
    if free.iter().map(|(_, available)| *available).sum::<i64>() < line.quantity() {
        return None;
    }
    free.sort_unstable_by_key(|(bucket, available)| (std::cmp::Reverse(*available), *bucket));
    let mut wanted = line.quantity();
    let mut taken = Vec::new();
    for (bucket, available) in free {
        if wanted == 0 {
            break;
        }
        let quantity = available.min(wanted);
        taken.push(Taken { bucket, quantity });
        wanted -= quantity;
    }
    taken.sort_unstable_by_key(|taken| taken.bucket);
    Some(taken)
}

/// How much each bucket gets of a delivery, so that they have about the same then; nothing is taken from any.
pub(crate) fn poured(available: &[i64], quantity: i64) -> Vec<i64> {
    let mut order: Vec<usize> = (0..available.len()).collect();
    order.sort_by_key(|index| available[*index]);
    // The emptiest ones that reach one level together; each further one would stand above it.
    let (mut sum, mut count) = (quantity, 0);
    for index in &order {
        if count > 0 && available[*index] >= sum / count {
            break;
        }
        sum += available[*index];
        count += 1;
    }
    let mut shares = vec![0; available.len()];
    let mut left = quantity;
    for (place, index) in order.into_iter().enumerate() {
        let Some(rest) = i64::try_from(place).ok().filter(|place| *place < count).map(|place| count - place) else { break };
        let level = (sum + rest - 1) / rest;
        let share = (level - available[index]).clamp(0, left);
        shares[index] = share;
        sum -= available[index] + share;
        left -= share;
    }
    shares
}

/// How much each of `made` buckets has when `free` pieces are spread over the first `buckets` of them.
pub(crate) fn spread(free: i64, buckets: u8, made: u8) -> Vec<i64> {
    let (each, rest) = (free / i64::from(buckets.max(1)), free % i64::from(buckets.max(1)));
    (0..made).map(|bucket| if bucket < buckets { each + i64::from(i64::from(bucket) < rest) } else { 0 }).collect()
}

#[cfg(test)]
mod tests;

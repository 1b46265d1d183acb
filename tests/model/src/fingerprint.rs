//! States by a number, as the checker itself knows them.

use std::hash::Hash;

use ahash::RandomState;

/// The same for equal values, in every run; different ones have different ones but for an accident of one in 2^64.
pub(crate) fn fingerprint(value: &impl Hash) -> u64 {
    const SEEDS: RandomState =
        RandomState::with_seeds(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89);
    SEEDS.hash_one(value)
}

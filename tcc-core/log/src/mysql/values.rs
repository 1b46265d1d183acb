//! Statements over many rows at once: a list of rows is bound as one JSON text, so that there is one prepared text however many
//! rows there are. And how a statement's rows are told apart from those of others.

use serde::Serialize;
use tcc_types::{Entropy, Gid};

use crate::{Error, fault::Fault};

pub(super) use tcc_database::{
    mysql::{
        inserts::{Insert, Piece},
        lists::{encoded, is_brief, is_name},
    },
    mysql_insert, mysql_list as list,
};

/// Looks up each transaction `t` of a list by its primary key, in the list's order, and never in another way.
macro_rules! transactions {
    () => {
        " STRAIGHT_JOIN tcc_log_transactions AS t FORCE INDEX (PRIMARY) ON t.gid = UNHEX(v.g) "
    };
}
pub(super) use transactions;

/// The same with the branches `b` of each transaction of a list.
macro_rules! branches {
    () => {
        " STRAIGHT_JOIN tcc_log_branches AS b FORCE INDEX (PRIMARY) ON b.gid = UNHEX(v.g) "
    };
}
pub(super) use branches;

/// Rows as JSON texts, few but none too long; each a tuple in the order of the columns.
pub(super) fn lists<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Vec<String>, Fault> {
    let lists = tcc_database::mysql::lists::lists(rows);
    Ok(lists.map_err(|error| Error::Unusable(format!("a row cannot be stored: {error}")))?)
}

/// Gids as lists.
pub(super) fn gid_lists(gids: &[Gid]) -> Result<Vec<String>, Fault> {
    lists(gids.iter().map(|gid| (digits(*gid),)))
}

/// A gid as it stands in a list.
pub(super) fn digits(gid: Gid) -> String {
    sixteen(u128::from_be_bytes(*gid.as_bytes()))
}

fn sixteen(number: u128) -> String {
    format!("{number:032x}")
}

/// Marks for the rows that a statement changes: each statement takes one, and no two ever have the same.
pub(super) struct Marks(u128);

impl Marks {
    /// From a random number on, which no other writer's will reach.
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        Self(u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64()))
    }

    /// The next, as digits for `UNHEX`.
    pub(super) fn take(&mut self) -> String {
        self.0 = self.0.wrapping_add(1);
        sixteen(self.0)
    }
}

#[cfg(test)]
mod tests {
    use tcc_types::{SystemEntropy, Timestamp};

    use super::*;

    #[test]
    fn digits_sort_like_their_gids_and_have_one_length() {
        let mut gids: Vec<Gid> = (0..50).map(|ms| Gid::mint(Timestamp::from_millis(1 << ms.min(40)), &SystemEntropy)).collect();
        gids.sort_unstable();
        let digits: Vec<String> = gids.into_iter().map(digits).collect();
        assert!(digits.is_sorted() && digits.iter().all(|digits| digits.len() == 32));
    }

    #[test]
    fn no_mark_is_taken_twice() {
        let mut marks = Marks(u128::MAX - 1);
        let taken: std::collections::HashSet<String> = (0..4).map(|_| marks.take()).collect();
        assert_eq!(taken.len(), 4);
        assert_ne!(Marks::new(&SystemEntropy).take(), Marks::new(&SystemEntropy).take());
    }
}

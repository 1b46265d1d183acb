//! Statements over many rows at once: a list of rows is bound as one JSON text, so that there is one prepared text however many
//! rows there are. And how a statement's rows are told apart from those of others.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use tcc_types::{Entropy, Gid};

use crate::{Error, fault::Fault};

/// About how many bytes a text has at most that has more than one row: far below the smallest `max_allowed_packet` that is usual.
const LIST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A list of rows that is bound as one JSON text, as the table `v`; takes the columns' names and kinds.
macro_rules! list {
    ($first:ident $kind:ident $(, $name:ident $more:ident)*) => {
        concat!(
            "JSON_TABLE(?, '$[*]' COLUMNS (",
            crate::mysql::values::column!($first $kind),
            $(", ", crate::mysql::values::column!($name $more),)*
            ")) AS v"
        )
    };
}
pub(super) use list;

/// A column of a list. What is absent in a row is NULL; what does not fit is an error.
macro_rules! column {
    ($name:ident int) => {
        crate::mysql::values::column!(@ $name "BIGINT")
    };
    // 32 digits; `UNHEX` makes the 16 bytes of them.
    ($name:ident gid) => {
        crate::mysql::values::column!(@ $name "CHAR(32) CHARACTER SET ascii COLLATE ascii_bin")
    };
    ($name:ident id) => {
        crate::mysql::values::column!(@ $name "VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin")
    };
    // For `UNHEX` or `FROM_BASE64`.
    ($name:ident encoded) => {
        crate::mysql::values::column!(@ $name "LONGTEXT CHARACTER SET ascii COLLATE ascii_bin")
    };
    ($name:ident text) => {
        crate::mysql::values::column!(@ $name "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    };
    (@ $name:ident $type:literal) => {
        concat!(stringify!($name), " ", $type, " PATH '$.", stringify!($name), "' ERROR ON ERROR")
    };
}
pub(super) use column;

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

/// Rows as JSON texts, few but none too long.
pub(super) fn lists<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Vec<String>, Fault> {
    let mut lists = Vec::new();
    let mut list = Vec::new();
    for row in rows {
        let row = serde_json::to_vec(&row).map_err(|error| not_stored(&error))?;
        if !list.is_empty() && list.len() + row.len() > LIST_BYTES_MAX {
            lists.push(closed(&mut list)?);
        }
        list.push(if list.is_empty() { b'[' } else { b',' });
        list.extend(row);
    }
    if !list.is_empty() {
        lists.push(closed(&mut list)?);
    }
    Ok(lists)
}

fn closed(list: &mut Vec<u8>) -> Result<String, Fault> {
    list.push(b']');
    Ok(String::from_utf8(std::mem::take(list)).map_err(|error| not_stored(&error))?)
}

fn not_stored(error: &dyn std::error::Error) -> Error {
    Error::Unusable(format!("a row cannot be stored: {error}"))
}

/// A row that is only a gid.
#[derive(Serialize)]
struct OnlyGid {
    g: String,
}

/// Gids as lists.
pub(super) fn gid_lists(gids: &[Gid]) -> Result<Vec<String>, Fault> {
    lists(gids.iter().map(|gid| OnlyGid { g: digits(*gid) }))
}

/// A gid as it stands in a list.
pub(super) fn digits(gid: Gid) -> String {
    sixteen(u128::from_be_bytes(*gid.as_bytes()))
}

/// Bytes as they stand in a list.
pub(super) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
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
    fn a_list_is_split_before_it_is_too_long_and_a_long_row_stands_alone() {
        let row = |length: usize| OnlyGid { g: "x".repeat(length) };
        let lists = lists([row(1), row(2), row(LIST_BYTES_MAX), row(3), row(LIST_BYTES_MAX - 100), row(4)]).unwrap();
        let lengths = |list: &String| serde_json::from_str::<Vec<serde_json::Value>>(list).unwrap().len();
        assert_eq!(lists.iter().map(lengths).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(lists[0], r#"[{"g":"x"},{"g":"xx"}]"#);
    }

    #[test]
    fn nothing_is_no_list() {
        assert_eq!(gid_lists(&[]).unwrap(), Vec::<String>::new());
    }

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

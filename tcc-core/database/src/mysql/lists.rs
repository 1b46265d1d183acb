//! Statements over many rows at once on MySQL and MariaDB: a list of rows is bound as one JSON text, so that there is one prepared
//! text however many rows there are. Knows no tables; called by the transaction log and the participant SDK.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

/// About how many bytes a text has at most that has more than one row: far below the smallest `max_allowed_packet` that is usual.
pub const LIST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most characters of a `brief` column: what is decoded of it has less than 512 bytes, and so stays in memory on MariaDB.
const BRIEF_MAX: usize = 680;

/// Most characters of a `name` column.
const NAME_MAX: usize = 512;

/// A list of rows that is bound as one JSON text, as the table `v`; takes the columns' names and kinds, in the order of each row's
/// values (a server finds a value by its place for three quarters of what it costs by a name): `int`, `gid` (32 digits, for
/// `UNHEX`), `id` (ASCII), `name` (up to 512 characters), `text`, `encoded` (for `UNHEX` or `FROM_BASE64`), `brief` (the same if it
/// [`is_brief`](crate::mysql::lists::is_brief)). A list with a `text` or something `encoded` becomes a file on MariaDB, which costs
/// some milliseconds.
#[macro_export]
macro_rules! mysql_list {
    ($($columns:tt)+) => {
        concat!(
            "JSON_TABLE(?, '$[*]' COLUMNS (",
            $crate::mysql_columns!([0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] $($columns)+),
            ")) AS v"
        )
    };
}

/// The columns of a list, each with its place.
#[doc(hidden)]
#[macro_export]
macro_rules! mysql_columns {
    ([$place:literal $($places:literal)*] $name:ident $kind:ident) => {
        $crate::mysql_column!($place $name $kind)
    };
    ([$place:literal $($places:literal)*] $name:ident $kind:ident, $($more:tt)+) => {
        concat!($crate::mysql_column!($place $name $kind), ", ", $crate::mysql_columns!([$($places)*] $($more)+))
    };
}

/// A column of a list. What is null or absent in a row is NULL; what does not fit is an error.
#[doc(hidden)]
#[macro_export]
macro_rules! mysql_column {
    ($place:literal $name:ident int) => {
        $crate::mysql_column!(@ $place $name "BIGINT")
    };
    ($place:literal $name:ident gid) => {
        $crate::mysql_column!(@ $place $name "CHAR(32) CHARACTER SET ascii COLLATE ascii_bin")
    };
    ($place:literal $name:ident id) => {
        $crate::mysql_column!(@ $place $name "VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin")
    };
    ($place:literal $name:ident name) => {
        $crate::mysql_column!(@ $place $name "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    };
    ($place:literal $name:ident brief) => {
        $crate::mysql_column!(@ $place $name "VARCHAR(680) CHARACTER SET ascii COLLATE ascii_bin")
    };
    ($place:literal $name:ident encoded) => {
        $crate::mysql_column!(@ $place $name "LONGTEXT CHARACTER SET ascii COLLATE ascii_bin")
    };
    ($place:literal $name:ident text) => {
        $crate::mysql_column!(@ $place $name "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    };
    (@ $place:literal $name:ident $type:literal) => {
        concat!(stringify!($name), " ", $type, " PATH '$[", $place, "]' ERROR ON ERROR")
    };
}

/// Rows as JSON texts, few but none too long. Each row is a tuple: its values in the order of the list's columns, at most 16.
///
/// # Errors
/// A row is nothing that JSON has.
pub fn lists<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Vec<String>, serde_json::Error> {
    let mut lists = Vec::new();
    let mut list = String::new();
    for row in rows {
        let row = serde_json::to_string(&row)?;
        if !list.is_empty() && list.len() + row.len() > LIST_BYTES_MAX {
            lists.push(closed(&mut list));
        }
        list.push(if list.is_empty() { '[' } else { ',' });
        list.push_str(&row);
    }
    if !list.is_empty() {
        lists.push(closed(&mut list));
    }
    Ok(lists)
}

fn closed(list: &mut String) -> String {
    list.push(']');
    std::mem::take(list)
}

/// Whether bytes fit into a `brief` column once they are [`encoded`].
#[must_use]
pub const fn is_brief(bytes: &[u8]) -> bool {
    bytes.len() <= BRIEF_MAX / 4 * 3
}

/// Whether a text fits into a `name` column.
#[must_use]
pub const fn is_name(text: &str) -> bool {
    // A character has a byte or more.
    text.len() <= NAME_MAX
}

/// Bytes as they stand in a list, for `FROM_BASE64`.
#[must_use]
pub fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_before_it_is_too_long_and_a_long_row_stands_alone() {
        let row = |length: usize| ("x".repeat(length),);
        let lists = lists([row(1), row(2), row(LIST_BYTES_MAX), row(3), row(LIST_BYTES_MAX - 100), row(4)]).unwrap();
        let lengths = |list: &String| serde_json::from_str::<Vec<serde_json::Value>>(list).unwrap().len();
        assert_eq!(lists.iter().map(lengths).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(lists[0], r#"[["x"],["xx"]]"#);
    }

    #[test]
    fn a_column_is_found_by_its_place() {
        assert_eq!(
            mysql_list!(n int, label name),
            "JSON_TABLE(?, '$[*]' COLUMNS (n BIGINT PATH '$[0]' ERROR ON ERROR, \
             label VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]' ERROR ON ERROR)) AS v"
        );
    }

    #[test]
    fn nothing_is_no_list() {
        assert_eq!(lists(std::iter::empty::<(String,)>()).unwrap(), Vec::<String>::new());
    }
}

//! Inserts of many rows on MySQL and MariaDB whose values are bound one by one: in pieces of few fixed lengths, so that there are few
//! prepared texts. What is left after the whole pieces goes as a [list](super::lists). Knows no tables; called by the transaction
//! log and the gateway's orders.
//!
//! To the server a row costs about a third to a half of what one of a list costs. But each statement costs a round trip, so no
//! piece is shorter.

use super::lists::LIST_BYTES_MAX;

/// How many rows a long piece has.
pub const LONG: usize = 64;

/// How many rows a short piece has.
pub const SHORT: usize = 16;

/// The texts of an insert, as [`mysql_insert!`](crate::mysql_insert) makes them.
#[derive(Clone, Copy, Debug)]
pub struct Insert {
    /// For [`LONG`] rows.
    pub long: &'static str,
    /// For [`SHORT`] rows.
    pub short: &'static str,
}

/// Some of the rows of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a caller must do both")]
pub enum Piece<'a, T> {
    /// A text and its rows, whose values are bound row after row.
    Values(&'static str, &'a [T]),
    /// Rows for lists: too few for a text, or too long for one statement.
    List(&'a [T]),
}

impl Insert {
    /// The rows in pieces, in their order. `bytes` says about how long the values of a row are.
    pub fn pieces<T>(self, rows: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = Piece<'_, T>> {
        let mut rest = rows;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            for (length, text) in [(LONG, self.long), (SHORT, self.short)] {
                if let Some((piece, left)) = rest.split_at_checked(length)
                    && piece.iter().map(&bytes).sum::<usize>() <= LIST_BYTES_MAX
                {
                    rest = left;
                    return Some(Piece::Values(text, piece));
                }
            }
            let (piece, left) = rest.split_at(rest.len().min(SHORT));
            rest = left;
            Some(Piece::List(piece))
        })
    }
}

/// The texts of an insert: what stands before the rows, one row with its parameters, what stands after the rows; each a literal, or
/// what `concat!` takes for one.
#[macro_export]
macro_rules! mysql_insert {
    ($before:expr, $row:literal, $after:expr) => {
        $crate::mysql::inserts::Insert {
            long: concat!($before, $crate::mysql_rows!(64 $row), $after),
            short: concat!($before, $crate::mysql_rows!(16 $row), $after),
        }
    };
}

/// A row so many times.
#[doc(hidden)]
#[macro_export]
macro_rules! mysql_rows {
    (4 $row:literal) => {
        concat!($row, ", ", $row, ", ", $row, ", ", $row)
    };
    (16 $row:literal) => {
        $crate::mysql_rows!(@ 4 $row)
    };
    (64 $row:literal) => {
        $crate::mysql_rows!(@ 16 $row)
    };
    (@ $quarter:tt $row:literal) => {
        concat!(
            $crate::mysql_rows!($quarter $row),
            ", ",
            $crate::mysql_rows!($quarter $row),
            ", ",
            $crate::mysql_rows!($quarter $row),
            ", ",
            $crate::mysql_rows!($quarter $row)
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSERT: Insert = mysql_insert!("INSERT INTO t VALUES ", "(?, 1)", concat!(" ON ", "DUPLICATE"));

    fn lengths(rows: &[usize]) -> Vec<(usize, bool)> {
        let mut from = 0;
        let length = |piece| {
            let (piece, by_value) = match piece {
                Piece::Values(text, piece) => {
                    assert_eq!(text.matches("(?, 1)").count(), piece.len());
                    (piece, true)
                }
                Piece::List(piece) => (piece, false),
            };
            assert_eq!(piece, &rows[from..from + piece.len()]);
            from += piece.len();
            (piece.len(), by_value)
        };
        let lengths = INSERT.pieces(rows, |bytes| *bytes).map(length).collect();
        assert_eq!(from, rows.len());
        lengths
    }

    #[test]
    fn a_text_has_as_many_rows_as_its_piece() {
        for (text, rows) in [(INSERT.long, LONG), (INSERT.short, SHORT)] {
            let expected = vec!["(?, 1)"; rows].join(", ");
            assert_eq!(text, format!("INSERT INTO t VALUES {expected} ON DUPLICATE"));
        }
    }

    #[test]
    fn rows_go_in_their_order_in_long_pieces_then_in_short_ones_and_what_is_left_as_a_list() {
        for (rows, expected) in [
            (0, vec![]),
            (1, vec![(1, false)]),
            (15, vec![(15, false)]),
            (16, vec![(16, true)]),
            (39, vec![(16, true), (16, true), (7, false)]),
            (64, vec![(64, true)]),
            (145, vec![(64, true), (64, true), (16, true), (1, false)]),
        ] {
            assert_eq!(lengths(&(0..rows).collect::<Vec<_>>()), expected, "{rows}");
        }
    }

    #[test]
    fn a_piece_is_no_longer_than_a_list_may_be() {
        let mut rows = vec![LIST_BYTES_MAX / SHORT; 2 * SHORT];
        rows.extend([LIST_BYTES_MAX / SHORT + 1; SHORT]);
        rows.extend([0; LONG]);
        assert_eq!(lengths(&rows), [(16, true), (16, true), (16, false), (64, true)]);
    }
}

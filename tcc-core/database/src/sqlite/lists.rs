//! Statements over many rows at once on SQLite: bound `VALUES` lists of a few lengths, so that few texts exist and each stays prepared.
//!
//! Those that change rows say `OR FAIL`: whoever runs them rolls everything back when one fails, so SQLite need not copy each page
//! beforehand to be able to undo one statement. (It does so all the same for those that call a function, which may always fail.)
//!
//! Knows no tables; called by the transaction log, the participant SDK and participants.

use sqlx::{
    Arguments, AssertSqlSafe, Encode, SqliteConnection, Type,
    error::BoxDynError,
    sqlite::{Sqlite, SqliteArguments, SqliteRow},
};

/// Most rows of one statement. No row has more than 16 values, so this stays far below SQLite's 32,766 bound values.
pub const ROWS_MAX: usize = 256;

/// That the row of the list `v` is not padding, as a term of a `WHERE`. A literal, so that `concat!` can put it into a statement.
///
/// The planner takes a list for a very long one, and could, where it was told that a table is small (by `ANALYZE`; it may have grown
/// since), read all of the table for it. What is as unlikely as this is a short list, whose rows it looks up one by one.
#[macro_export]
macro_rules! sqlite_given {
    () => {
        "likelihood(v.column1 IS NOT NULL, 0.0000001)"
    };
}

/// Values to be bound, in order. Remembers the first that could not be encoded.
#[derive(Default)]
pub struct Values {
    arguments: SqliteArguments,
    problem: Option<BoxDynError>,
}

impl Values {
    /// Adds one.
    pub fn put<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(problem) = self.arguments.add(value) {
            self.problem.get_or_insert(problem);
        }
        self
    }

    fn into_arguments(self) -> Result<SqliteArguments, sqlx::Error> {
        match self.problem {
            Some(problem) => Err(sqlx::Error::Encode(problem)),
            None => Ok(self.arguments),
        }
    }
}

/// A statement with a list of rows in its middle.
#[derive(Clone, Copy, Debug)]
pub struct ManyRows {
    /// Before the list.
    pub head: &'static str,
    /// How many values a row has: 1 to 16.
    pub width: usize,
    /// Between the list and the end. Padding rows are all NULL: the statement must leave them out.
    pub tail: &'static str,
}

impl ManyRows {
    /// Runs it over all items and returns the rows of all its parts. `before` are the values bound in `head`.
    ///
    /// # Errors
    /// A part failed: those before it have run.
    pub async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        before: &[i64],
        items: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut rows = Vec::with_capacity(items.len());
        for part in items.chunks(ROWS_MAX) {
            let query = sqlx::query_with(AssertSqlSafe(self.text_for(part)), self.arguments(before, part, &bind)?);
            rows.extend(query.fetch_all(&mut *connection).await?);
        }
        Ok(rows)
    }

    /// As [`fetch`](Self::fetch), of a statement that returns no rows: how many it changed.
    ///
    /// # Errors
    /// A part failed: those before it have run.
    pub async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        before: &[i64],
        items: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        for part in items.chunks(ROWS_MAX) {
            let query = sqlx::query_with(AssertSqlSafe(self.text_for(part)), self.arguments(before, part, &bind)?);
            changed += query.execute(&mut *connection).await?.rows_affected();
        }
        Ok(changed)
    }

    /// Its text for that many rows.
    #[must_use]
    pub fn text(&self, rows: usize) -> String {
        let row_length = 2 * self.width + 2;
        let mut text = String::with_capacity(self.head.len() + self.tail.len() + rows * row_length);
        text.push_str(self.head);
        for row in 0..rows {
            text.push_str(if row == 0 { "(" } else { ",(" });
            for column in 0..self.width {
                text.push_str(if column == 0 { "?" } else { ",?" });
            }
            text.push(')');
        }
        text.push_str(self.tail);
        text
    }

    fn text_for<T>(&self, part: &[T]) -> String {
        self.text(length_for(part.len()))
    }

    fn arguments<T>(&self, before: &[i64], part: &[T], bind: impl Fn(&mut Values, &T)) -> Result<SqliteArguments, sqlx::Error> {
        let length = length_for(part.len());
        let mut values = Values::default();
        values.arguments.reserve(before.len() + length * self.width, 0);
        for value in before {
            values.put(*value);
        }
        for item in part {
            bind(&mut values, item);
        }
        for _ in 0..(length - part.len()) * self.width {
            values.put(None::<i64>);
        }
        values.into_arguments()
    }
}

/// How long a list is that has so many rows: a power of two, or three times one.
const fn length_for(rows: usize) -> usize {
    let power = rows.next_power_of_two();
    let less = power / 4 * 3;
    if rows <= less { less } else { power }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    #[test]
    fn a_text_has_as_many_rows_as_asked() {
        let statement = ManyRows { head: "VALUES ", width: 2, tail: " X" };
        assert_eq!(statement.text(1), "VALUES (?,?) X");
        assert_eq!(statement.text(3), "VALUES (?,?),(?,?),(?,?) X");
    }

    #[test]
    fn a_list_is_padded_by_less_than_a_half_and_never_beyond_the_most() {
        let lengths: std::collections::BTreeSet<_> = (1..=ROWS_MAX).map(length_for).collect();
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]);
        assert!((1..=ROWS_MAX).all(|rows| (rows..rows + rows.div_ceil(2).max(1)).contains(&length_for(rows))));
    }

    #[tokio::test]
    async fn all_items_are_in_some_statement_and_padding_in_none() {
        const INSERT: ManyRows =
            ManyRows { head: "INSERT INTO a SELECT * FROM (VALUES ", width: 1, tail: ") WHERE column1 IS NOT NULL" };
        const READ: ManyRows = ManyRows {
            head: "SELECT n + ? AS n FROM a WHERE n IN (SELECT column1 FROM (VALUES ",
            width: 1,
            tail: ") WHERE column1 IS NOT NULL)",
        };
        let bind = |values: &mut Values, item: &i64| {
            values.put(*item);
        };
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for count in [0, 1, 2, 3, ROWS_MAX, ROWS_MAX + 1, 3 * ROWS_MAX - 5] {
            sqlx::raw_sql("DROP TABLE IF EXISTS a; CREATE TABLE a (n INTEGER)").execute(&mut connection).await.unwrap();
            let items: Vec<i64> = (0..).take(count).collect();
            let inserted = INSERT.execute(&mut connection, &[], &items, bind).await.unwrap();
            assert_eq!(usize::try_from(inserted), Ok(count));
            let rows = READ.fetch(&mut connection, &[1000], &items, bind).await.unwrap();
            let mut read: Vec<i64> = rows.iter().map(|row| sqlx::Row::get(row, "n")).collect();
            read.sort_unstable();
            assert_eq!(read, items.iter().map(|item| item + 1000).collect::<Vec<_>>());
        }
    }
}

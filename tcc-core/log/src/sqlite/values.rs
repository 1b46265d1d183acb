//! Statements over many rows at once: bound `VALUES` lists whose lengths are powers of two, so that few texts exist and each
//! stays prepared.

use sqlx::{
    Arguments, AssertSqlSafe, Encode, SqliteConnection, Type,
    error::BoxDynError,
    sqlite::{Sqlite, SqliteArguments, SqliteRow},
};

use crate::fault::Fault;

/// Most rows of one statement. The widest row has 16 values, so this stays far below SQLite's 32,766 bound values.
const ROWS_MAX: usize = 256;

/// Values to be bound, in order. Remembers the first that could not be encoded.
#[derive(Default)]
pub(super) struct Values {
    arguments: SqliteArguments,
    problem: Option<BoxDynError>,
}

impl Values {
    /// Adds one.
    pub(super) fn put<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(problem) = self.arguments.add(value) {
            self.problem.get_or_insert(problem);
        }
        self
    }
}

/// A statement with a list of rows in its middle.
pub(super) struct ManyRows {
    /// Before the list.
    pub(super) head: &'static str,
    /// How many values a row has.
    pub(super) width: usize,
    /// Between the list and the end. Padding rows are all NULL: the statement must leave them out.
    pub(super) tail: &'static str,
}

impl ManyRows {
    /// Runs it over all items and returns the rows of all its parts. `before` are the values bound in `head`.
    pub(super) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        before: &[i64],
        items: &[T],
        bind: impl Fn(&mut Values, &T),
    ) -> Result<Vec<SqliteRow>, Fault> {
        let mut rows = Vec::with_capacity(items.len());
        for part in items.chunks(ROWS_MAX) {
            let length = part.len().next_power_of_two();
            let mut values = Values::default();
            for value in before {
                values.put(*value);
            }
            for item in part {
                bind(&mut values, item);
            }
            for _ in 0..(length - part.len()) * self.width {
                values.put(None::<i64>);
            }
            if let Some(problem) = values.problem {
                return Err(sqlx::Error::Encode(problem).into());
            }
            let query = sqlx::query_with(AssertSqlSafe(self.text(length)), values.arguments);
            rows.extend(query.fetch_all(&mut *connection).await?);
        }
        Ok(rows)
    }

    /// Its text for that many rows.
    pub(super) fn text(&self, rows: usize) -> String {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_as_many_rows_as_asked() {
        let statement = ManyRows { head: "VALUES ", width: 2, tail: " X" };
        assert_eq!(statement.text(1), "VALUES (?,?) X");
        assert_eq!(statement.text(3), "VALUES (?,?),(?,?),(?,?) X");
    }
}

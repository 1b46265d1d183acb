//! What a database that takes no SQL never returns: rows, columns, values, prepared statements. sqlx's traits ask for types of them;
//! of this one there is no value. Named by the driver and by nobody else.

use std::{borrow::Cow, convert::Infallible, marker::PhantomData};

use sqlx::{Column, ColumnIndex, Either, Row, SqlStr, Statement, Value, ValueRef};
use sqlx_core::impl_statement_query;

use super::{
    Tables,
    driver::{MemoryDatabase, NoArguments, NoType},
};

/// A row, a column, a value or a prepared statement.
#[derive(Clone, Debug)]
pub struct Nothing<T>(Infallible, PhantomData<fn() -> T>);

impl<T: Tables> Row for Nothing<T> {
    type Database = MemoryDatabase<T>;

    fn columns(&self) -> &[Self] {
        match self.0 {}
    }

    fn try_get_raw<I: ColumnIndex<Self>>(&self, _: I) -> Result<Self, sqlx::Error> {
        match self.0 {}
    }
}

impl<T: Tables> Column for Nothing<T> {
    type Database = MemoryDatabase<T>;

    fn ordinal(&self) -> usize {
        match self.0 {}
    }

    fn name(&self) -> &str {
        match self.0 {}
    }

    fn type_info(&self) -> &NoType {
        match self.0 {}
    }
}

impl<T: Tables> Value for Nothing<T> {
    type Database = MemoryDatabase<T>;

    fn as_ref(&self) -> Self {
        match self.0 {}
    }

    fn type_info(&self) -> Cow<'_, NoType> {
        match self.0 {}
    }

    fn is_null(&self) -> bool {
        match self.0 {}
    }
}

impl<T: Tables> ValueRef<'_> for Nothing<T> {
    type Database = MemoryDatabase<T>;

    fn to_owned(&self) -> Self {
        match self.0 {}
    }

    fn type_info(&self) -> Cow<'_, NoType> {
        match self.0 {}
    }

    fn is_null(&self) -> bool {
        match self.0 {}
    }
}

impl<T: Tables> Statement for Nothing<T> {
    type Database = MemoryDatabase<T>;

    fn into_sql(self) -> SqlStr {
        match self.0 {}
    }

    fn sql(&self) -> &SqlStr {
        match self.0 {}
    }

    fn parameters(&self) -> Option<Either<&[NoType], usize>> {
        match self.0 {}
    }

    fn columns(&self) -> &[Self] {
        match self.0 {}
    }

    impl_statement_query!(NoArguments<T>);
}

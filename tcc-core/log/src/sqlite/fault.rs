//! What an SQL error means for the caller. Only errors from before a commit come here: a failed commit is always unknown.

use std::{fmt, sync::Arc};

use crate::Error;

/// The meaning of an error that struck before the commit, so that nothing was written.
pub(super) fn nothing_done(error: &sqlx::Error) -> Error {
    let text = error.to_string();
    match error {
        sqlx::Error::Database(database) => match database.code().and_then(|code| code.parse::<i32>().ok()) {
            // The low byte is SQLite's primary code: a constraint, a mismatch, a damaged file, no database at all.
            Some(code) if matches!(code & 0xff, 11 | 19 | 20 | 26) => Error::Unusable(text),
            Some(_) | None => Error::Unavailable(text),
        },
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => Error::Unusable(text),
        // sqlx may add further errors at any time; whatever is not known to be lasting may pass.
        _ => Error::Unavailable(text),
    }
}

/// One failed commit as every caller of its batch hears of it.
#[derive(Clone, Debug)]
pub(super) struct FailedCommit(Arc<sqlx::Error>);

impl FailedCommit {
    pub(super) fn new(error: sqlx::Error) -> Self {
        Self(Arc::new(error))
    }

    /// The error for one caller.
    pub(super) fn unknown(&self) -> Error {
        Error::Unknown(sqlx::Error::Io(std::io::Error::other(self.clone())))
    }
}

impl fmt::Display for FailedCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit failed: {}", self.0)
    }
}

impl std::error::Error for FailedCommit {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Stored data that this program cannot read.
pub(super) fn damaged(what: &str) -> Error {
    Error::Unusable(format!("the transaction log holds a {what} that this program cannot read"))
}

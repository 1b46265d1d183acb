//! What goes wrong inside a backend, and what it means for the caller. Backends tell the meaning of their databases' codes; what
//! follows from it is decided here and in the writer.

use std::{fmt, sync::Arc};

use crate::Error;

/// What an SQL error means that struck before the commit, or that a commit was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The database gave up this transaction for the sake of another (a deadlock, a serialization failure, a lock that was
    /// waited for too long): the same again may succeed at once.
    Again,
    /// The connection or the database is of no use now, whatever is asked of it.
    Down,
    /// This may pass; other writes need not be affected.
    Unavailable,
    /// This does not pass: what was asked and what is stored do not fit.
    Unusable,
}

impl Meaning {
    /// Of errors that no database sent; `None`: of those that one did.
    pub(crate) fn of_driver(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Database(_) => None,
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. } => Some(Self::Unusable),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Some(Self::Down),
            // sqlx may add further errors at any time; whatever is not known to be lasting may pass.
            _ => Some(Self::Unavailable),
        }
    }
}

/// A statement, or what it returned, that went wrong before the commit: nothing was written.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database or its driver failed.
    Sql(sqlx::Error),
    /// Somebody else's commit came between two statements: the same again finds another state.
    Overtaken(&'static str),
    /// Anything else.
    Other(Error),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Fault {
    /// What it means, and the error that its caller gets.
    pub(crate) fn explain(self, meaning_of: impl Fn(&sqlx::Error) -> Meaning) -> (Meaning, Error) {
        match self {
            Self::Sql(sqlx::Error::PoolClosed) => (Meaning::Down, closed()),
            Self::Sql(error) => {
                let meaning = meaning_of(&error);
                let text = error.to_string();
                let error = match meaning {
                    Meaning::Again | Meaning::Down | Meaning::Unavailable => Error::Unavailable(text),
                    Meaning::Unusable => Error::Unusable(text),
                };
                (meaning, error)
            }
            Self::Overtaken(what) => (Meaning::Again, Error::Unavailable(what.to_owned())),
            Self::Other(error) => {
                let meaning = if error.is_retryable() { Meaning::Unavailable } else { Meaning::Unusable };
                (meaning, error)
            }
        }
    }

    /// The error that its caller gets.
    pub(crate) fn into_error(self, meaning_of: impl Fn(&sqlx::Error) -> Meaning) -> Error {
        self.explain(meaning_of).1
    }
}

/// The log was closed.
pub(crate) fn closed() -> Error {
    Error::Unavailable("it is closed".to_owned())
}

/// Stored data that this program cannot read.
pub(crate) fn damaged(what: &str) -> Error {
    Error::Unusable(format!("the transaction log holds a {what} that this program cannot read"))
}

/// One failed commit as every caller of its batch hears of it.
#[derive(Clone, Debug)]
pub(crate) struct FailedCommit(Arc<sqlx::Error>);

impl FailedCommit {
    pub(crate) fn new(error: sqlx::Error) -> Self {
        Self(Arc::new(error))
    }

    /// The commit was not answered in time.
    pub(crate) fn timed_out() -> Self {
        Self::new(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within `write_timeout_ms`")))
    }

    /// The error for one caller.
    pub(crate) fn unknown(&self) -> Error {
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

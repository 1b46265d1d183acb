//! Why the databases could not be compared. Never tells a URL: there may be a password in it.

use std::time::Duration;

/// Why the reconciler could not look.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting does not fit. Not retryable.
    #[error("{field}: {problem}")]
    Config {
        /// Which.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A database did not answer as it must. Retryable if the database comes back.
    #[error("the database of {whose}: {problem}")]
    Database {
        /// Whose it is.
        whose: String,
        /// What it said.
        problem: sqlx::Error,
    },
    /// A database did not answer in time. Retryable.
    #[error("the database of {whose} did not answer within statement_timeout_ms ({limit:?})")]
    Slow {
        /// Whose it is.
        whose: String,
        /// How long was waited.
        limit: Duration,
    },
    /// A stored value is none that the system writes. Not retryable.
    #[error("the database of {whose}: {problem}")]
    Damaged {
        /// Whose it is.
        whose: String,
        /// What cannot be read.
        problem: String,
    },
}

impl Error {
    pub(crate) fn config(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { field: field.into(), problem: problem.into() }
    }

    /// Whether the same run may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Config { .. } | Self::Damaged { .. } => false,
            Self::Database { .. } | Self::Slow { .. } => true,
        }
    }
}

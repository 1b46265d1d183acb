//! What can go wrong with a log, sorted by what a caller may conclude from it.

/// A log call that did not say what stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The write may or may not be durable. Settle it by repeating the same write.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(#[source] sqlx::Error),
    /// Nothing was written or read; the same call may work later.
    #[error("the transaction log is unavailable: {0}")]
    Unavailable(String),
    /// The writer's queue is full: nothing was written.
    #[error("the transaction log's queue is full ({limit} writes)")]
    Overloaded {
        /// `write_queue_max`.
        limit: usize,
    },
    /// Another process has this database.
    #[error("{path} is in use by another process: a SQLite transaction log belongs to one gateway")]
    InUse {
        /// The database's file.
        path: String,
    },
    /// The configuration or the stored data does not fit this program. Not retryable.
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// Whether the same call may succeed later. A write that is [`Error::Unknown`] must be repeated to learn what stands.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unknown(_) | Self::Unavailable(_) | Self::Overloaded { .. } => true,
            Self::InUse { .. } | Self::Unusable(_) => false,
        }
    }
}

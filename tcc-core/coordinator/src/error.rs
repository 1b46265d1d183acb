//! Why a request got no transaction; mapped to gRPC in [`crate::service`].

use tcc_types::{Gid, Invalid, TxStatus};

/// A request that was not carried out, or whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fields of the request are wrong. Nothing was started.
    #[error("invalid request: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Invalid>),
    /// There is no such transaction.
    #[error("no transaction {0}")]
    NotFound(Gid),
    /// The transaction has no such branch.
    #[error("transaction {gid} has no branch {branch}")]
    NoSuchBranch {
        /// Which transaction.
        gid: Gid,
        /// Which branch.
        branch: tcc_types::BranchId,
    },
    /// The idempotency key was used with another request. Nothing was started.
    #[error("the idempotency key was used for another request, which started transaction {gid}")]
    KeyReused {
        /// What it started.
        gid: Gid,
    },
    /// The gid was used with another request. Nothing was started.
    #[error("the gid {gid} was used for another request")]
    GidReused {
        /// Which.
        gid: Gid,
    },
    /// The branch id was enlisted with another participant or payload. Nothing was started.
    #[error("branch {branch} of transaction {gid} was enlisted with another participant or payload")]
    BranchReused {
        /// Which transaction.
        gid: Gid,
        /// Which branch.
        branch: tcc_types::BranchId,
    },
    /// The transaction is not in a state that allows it.
    #[error("{message}")]
    Precondition {
        /// UPPER_SNAKE_CASE.
        reason: &'static str,
        /// Which transaction.
        gid: Gid,
        /// Where it is.
        status: TxStatus,
        /// What would have to be.
        message: String,
    },
    /// A limit on work in progress is reached. Nothing was started; try again later.
    #[error("{limit_name} ({limit}) is reached")]
    Exhausted {
        /// The setting.
        limit_name: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The outcome is unknown, or nothing was done; repeating the same request is safe.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The gateway is shutting down and begins nothing. Repeat the request at another one, or later.
    #[error("shutting down")]
    Draining,
    /// A defect; details are in the log.
    #[error("internal error")]
    Internal,
}

impl Error {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Exhausted { .. } | Self::Unavailable(_) | Self::Draining => true,
            Self::Invalid(_)
            | Self::NotFound(_)
            | Self::NoSuchBranch { .. }
            | Self::KeyReused { .. }
            | Self::GidReused { .. }
            | Self::BranchReused { .. }
            | Self::Precondition { .. }
            | Self::Internal => false,
        }
    }
}

impl From<tcc_log::Error> for Error {
    fn from(error: tcc_log::Error) -> Self {
        match error {
            tcc_log::Error::Overloaded { limit } => Self::Exhausted { limit_name: "write_queue_max", limit: limit as u64 },
            error if error.is_retryable() => {
                tracing::warn!(%error, "the transaction log did not answer");
                Self::Unavailable("the transaction log did not answer".to_owned())
            }
            error => {
                tracing::error!(%error, "the transaction log failed");
                Self::Internal
            }
        }
    }
}

//! Why a call has no answer, and whether the same call may be sent again.

use std::time::Duration;

use tcc_types::Invalid;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A call without an answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is none, or nobody answers there.
    #[error("cannot connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// The coordinator said no, or nobody knows; see [`Error::is_retryable`].
    #[error("{:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The answer does not follow the contract.
    #[error("the answer does not follow the contract: {0}")]
    Malformed(String),
}

impl Error {
    /// Whether the same request may be sent again: it was refused for now, or its outcome is unknown.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Status(status) => is_repeatable(status),
            Self::Malformed(_) => false,
        }
    }

    /// The stable reason of `google.rpc.ErrorInfo` (`IDEMPOTENCY_KEY_REUSED`, `INVALID_FIELDS`, ...).
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Status(status) => status.get_details_error_info().map(|info| info.reason),
            Self::Connect(_) | Self::Malformed(_) => None,
        }
    }

    /// The fields that are wrong, if that is why.
    #[must_use]
    pub fn bad_fields(&self) -> Vec<Invalid> {
        let bad = match self {
            Self::Status(status) => status.get_details_bad_request(),
            Self::Connect(_) | Self::Malformed(_) => None,
        };
        let fields = bad.into_iter().flat_map(|bad| bad.field_violations);
        fields.map(|bad| Invalid::new(bad.field, bad.description)).collect()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

pub(crate) fn is_repeatable(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted => true,
        // A connection that breaks under a call comes as this, with the transport's error behind it.
        Code::Unknown => std::error::Error::source(status).is_some_and(|cause| cause.is::<tonic::transport::Error>()),
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// How long the server asks to wait.
pub(crate) fn asked_delay(status: &Status) -> Duration {
    status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default()
}

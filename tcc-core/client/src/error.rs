//! Why a call has no answer, and whether the same call may be sent again.

use std::time::Duration;

use prost::Message;
use tcc_types::Invalid;
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb::RetryInfo};

/// A call without an answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is none, or nobody answers there.
    #[error("cannot connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// The coordinator said no, or nobody knows; see [`Error::is_retryable`] and [`Error::nothing_started`].
    #[error("{:?}: {}", .status.code(), .status.message())]
    Status {
        /// The last attempt's.
        status: Box<Status>,
        /// The same call was sent before, and what came of that is not known.
        earlier_unknown: bool,
    },
    /// The answer does not follow the contract.
    #[error("the answer does not follow the contract: {0}")]
    Malformed(String),
}

impl Error {
    /// Whether the same request may be sent again: it was refused for now, or its outcome is unknown; see [`is_repeatable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Status { status, .. } => is_repeatable(status),
            Self::Malformed(_) => false,
        }
    }

    /// Whether it is certain that the call had no effect. Otherwise that is unknown, whether it may be repeated or not.
    ///
    /// Certain are an address where nobody answers, and, if no attempt before had an unknown outcome, INVALID_ARGUMENT,
    /// NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION and RESOURCE_EXHAUSTED as the coordinator's own answers.
    #[must_use]
    pub fn nothing_started(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Status { status, earlier_unknown } => !earlier_unknown && says_nothing_started(status),
            Self::Malformed(_) => false,
        }
    }

    /// The stable reason of `google.rpc.ErrorInfo` (`IDEMPOTENCY_KEY_REUSED`, `INVALID_FIELDS`, ...).
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Status { status, .. } => status.get_details_error_info().map(|info| info.reason),
            Self::Connect(_) | Self::Malformed(_) => None,
        }
    }

    /// The fields that are wrong, if that is why.
    #[must_use]
    pub fn bad_fields(&self) -> Vec<Invalid> {
        let bad = match self {
            Self::Status { status, .. } => status.get_details_bad_request(),
            Self::Connect(_) | Self::Malformed(_) => None,
        };
        let fields = bad.into_iter().flat_map(|bad| bad.field_violations);
        fields.map(|bad| Invalid::new(bad.field, bad.description)).collect()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Status { status: Box::new(status), earlier_unknown: false }
    }
}

/// Whether the same request, with the same gid or key, may be sent again: it was refused for now, or its outcome is unknown.
///
/// True for UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED and CANCELLED, and for every status with a
/// [source](std::error::Error::source). False does not mean that nothing was started: see [`Error::nothing_started`].
#[must_use]
pub fn is_repeatable(status: &Status) -> bool {
    if was_made_here(status) {
        return true;
    }
    match status.code() {
        // tonic reports its own timeout as CANCELLED.
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
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

/// Whether this answer to one attempt says that the attempt had no effect.
pub(crate) fn says_nothing_started(status: &Status) -> bool {
    if was_made_here(status) {
        return false;
    }
    match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::ResourceExhausted => {
            true
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::PermissionDenied
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// A server's answer has no source. A status with one was made on this side, of a connection that broke or was ended under the
/// call, and its code says nothing: a graceful GOAWAY comes as INTERNAL.
fn was_made_here(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// How long the server asks to wait; nothing where it says what cannot be.
///
/// Read here and not by tonic-types: prost-types 0.14 overflows at a delay of `i64::MIN` seconds, which a server or a proxy may send.
pub(crate) fn asked_delay(status: &Status) -> Duration {
    let details = tonic_types::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    let of_delay = details.iter().find(|detail| detail.type_url == "type.googleapis.com/google.rpc.RetryInfo");
    let asked = of_delay.and_then(|detail| RetryInfo::decode(detail.value.as_slice()).ok()?.retry_delay);
    let parts = asked.and_then(|asked| Some((u64::try_from(asked.seconds).ok()?, u32::try_from(asked.nanos).ok()?)));
    parts.filter(|(_, nanos)| *nanos < 1_000_000_000).map_or(Duration::ZERO, |(seconds, nanos)| Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A status whose details are this RetryInfo.
    fn asks(seconds: i64, nanos: i32) -> Status {
        let info = RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos }) };
        let detail =
            prost_types::Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info.encode_to_vec() };
        let details = tonic_types::Status { details: vec![detail], ..tonic_types::Status::default() };
        Status::with_details(Code::Unavailable, "later", details.encode_to_vec().into())
    }

    #[test]
    fn a_delay_that_cannot_be_is_none() {
        assert_eq!(asked_delay(&asks(1, 5)), Duration::new(1, 5));
        assert_eq!(asked_delay(&asks(i64::MAX, 0)), Duration::from_secs(i64::MAX.unsigned_abs()));
        for (seconds, nanos) in [(i64::MIN, 0), (-1, 0), (0, -1), (0, 1_000_000_000), (0, i32::MIN), (i64::MIN, i32::MIN)] {
            assert_eq!(asked_delay(&asks(seconds, nanos)), Duration::ZERO, "{seconds} {nanos}");
        }
        assert_eq!(asked_delay(&Status::unavailable("no details")), Duration::ZERO);
        assert_eq!(asked_delay(&Status::with_details(Code::Unavailable, "", vec![255].into())), Duration::ZERO);
    }

    const CODES: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    fn those(test: impl Fn(&Error) -> bool) -> Vec<Code> {
        CODES.into_iter().filter(|code| test(&Status::new(*code, "said").into())).collect()
    }

    #[test]
    fn a_servers_code_says_what_may_be_repeated_and_what_had_no_effect() {
        let repeatable = [Code::Cancelled, Code::DeadlineExceeded, Code::ResourceExhausted, Code::Unavailable];
        assert_eq!(those(Error::is_retryable), repeatable);
        let (bad, none, other) = (Code::InvalidArgument, Code::NotFound, Code::AlreadyExists);
        assert_eq!(those(Error::nothing_started), [bad, none, other, Code::ResourceExhausted, Code::FailedPrecondition]);
    }

    #[test]
    fn a_status_of_a_broken_connection_may_be_repeated_whatever_its_code() {
        for code in CODES {
            let mut status = Status::new(code, "broken");
            status.set_source(Arc::new(std::io::Error::other("reset")));
            let error = Error::from(status);
            assert_eq!((error.is_retryable(), error.nothing_started()), (true, false), "{code:?}");
        }
    }

    #[test]
    fn an_answer_that_breaks_the_contract_leaves_the_outcome_unknown() {
        assert!(!Error::Malformed("no transaction".to_owned()).nothing_started());
    }
}

//! A branch's row as the barrier sees it: only what decides, and only states that can be.

use tcc_types::{BranchRowStatus, Fingerprint, LogName, Payload, Refusal, TryCall};

/// What makes two Tries of one branch the same request. Deadlines are no part of it: a Try sent anew carries new ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Of the payload: its type URL and its bytes.
    pub fingerprint: Fingerprint,
    /// The coordinator's transaction log.
    pub coordinator: LogName,
}

impl From<&TryCall> for Request {
    fn from(call: &TryCall) -> Self {
        Self { fingerprint: call.payload.fingerprint(), coordinator: call.coordinator.clone() }
    }
}

/// A branch's row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    /// Reserved; neither spent nor released.
    Tried {
        /// What was asked.
        request: Request,
        /// What Try answered, repeated on every delivery.
        output: Option<Payload>,
    },
    /// The business said no.
    Refused {
        /// What was asked.
        request: Request,
        /// What Try answered, repeated on every delivery.
        refusal: Refusal,
    },
    /// Spent.
    Confirmed {
        /// What was asked.
        request: Request,
        /// What Try answered.
        output: Option<Payload>,
    },
    /// Released, or cancelled before anything was reserved.
    Cancelled {
        /// What was asked; `None`: no Try ever ran (an empty rollback).
        request: Option<Request>,
    },
}

impl Row {
    /// Its status.
    #[must_use]
    pub const fn status(&self) -> BranchRowStatus {
        match self {
            Self::Tried { .. } => BranchRowStatus::Tried,
            Self::Refused { .. } => BranchRowStatus::Refused,
            Self::Confirmed { .. } => BranchRowStatus::Confirmed,
            Self::Cancelled { .. } => BranchRowStatus::Cancelled,
        }
    }

    /// What its Try asked; `None`: no Try ever ran.
    #[must_use]
    pub const fn request(&self) -> Option<&Request> {
        match self {
            Self::Tried { request, .. } | Self::Refused { request, .. } | Self::Confirmed { request, .. } => Some(request),
            Self::Cancelled { request } => request.as_ref(),
        }
    }
}

//! What a user writes: three handlers, and the values they take and give.

use std::fmt;

use sqlx::error::DatabaseError;
use tcc_types::{BranchId, BranchKey, Gid, Invalid, Payload, Refusal};

use crate::{Database, within::BAD_REQUEST};

/// What a handler returns.
pub type Result<T, E = HandlerError> = std::result::Result<T, E>;

/// A connection of the participant's database, in an open transaction.
pub type ConnectionOf<P> = <<P as Participant>::Db as sqlx::Database>::Connection;

/// Something that reserves: the holder of the data in a branch.
///
/// Each handler runs inside the local transaction that also changes the branch's row, so it uses `conn` for everything it
/// writes, and never commits. It may run again after its transaction was rolled back: effects outside of `conn` are not undone.
///
/// A handler that fails (or panics, or is too slow) rolls its whole transaction back, and the caller, who is told *unknown*,
/// sends the operation again. Hand every SQL error on (`?`); the transaction may be gone after it. A business "no" is not an
/// error but [`Tried::Refused`].
pub trait Participant: Send + Sync + 'static {
    /// The database it lives in.
    type Db: Database;
    /// What a Try asks for. No map fields: the request's identity is its bytes, and their order varies.
    type Payload: prost::Message + prost::Name + Default;
    /// What was reserved: kept in the branch's row, and handed back to [`Participant::on_confirm`] or
    /// [`Participant::on_cancel`].
    type Reserved: prost::Message + Default;

    /// Reserves, or says no. What it changed before it says no is rolled back.
    fn on_try(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        payload: Self::Payload,
    ) -> impl Future<Output = Result<Tried<Self::Reserved>>> + Send;

    /// Spends what was reserved. There is no "no" any more: it succeeds, or it is sent again until it does.
    fn on_confirm(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        reserved: Self::Reserved,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Releases what was reserved. There is no "no": it succeeds, or it is sent again until it does.
    fn on_cancel(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        reserved: Self::Reserved,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Which branch a handler works for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BranchContext {
    /// Its transaction and its id.
    pub key: BranchKey,
}

impl BranchContext {
    /// For a branch.
    #[must_use]
    pub const fn new(key: BranchKey) -> Self {
        Self { key }
    }

    /// The transaction.
    #[must_use]
    pub const fn gid(&self) -> Gid {
        self.key.gid
    }

    /// The branch's id within its transaction.
    #[must_use]
    pub const fn branch_id(&self) -> &BranchId {
        &self.key.branch
    }
}

/// What became of a Try.
#[derive(Clone, Debug, PartialEq)]
pub enum Tried<R> {
    /// Yes.
    Reserved {
        /// For Confirm and Cancel.
        reserved: R,
        /// For the initiator; stored, and repeated on every delivery.
        output: Option<Payload>,
    },
    /// No, for good. Its `reason` is always stored as a business refusal.
    Refused(Refusal),
}

impl<R> Tried<R> {
    /// Yes.
    #[must_use]
    pub const fn reserved(reserved: R) -> Self {
        Self::Reserved { reserved, output: None }
    }

    /// Yes, with something that the initiator may want to know.
    #[must_use]
    pub fn reserved_with<O: prost::Message + prost::Name>(reserved: R, output: &O) -> Self {
        let output = Payload { type_url: O::type_url(), value: output.encode_to_vec().into() };
        Self::Reserved { reserved, output: Some(output) }
    }

    /// No: a stable code in UPPER_SNAKE_CASE for machines, a message for people. Both are cut to their limits.
    #[must_use]
    pub fn refused(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::Refused(Refusal::business(code, message))
    }

    /// No, because these fields of the payload are wrong: [`BAD_REQUEST`].
    #[must_use]
    pub fn bad_request(fields: &[Invalid]) -> Self {
        let problems: Vec<_> = fields.iter().map(ToString::to_string).collect();
        Self::refused(BAD_REQUEST, problems.join("; "))
    }
}

/// A handler failed: its outcome is unknown to the caller, and the cause is in the log only.
///
/// Made by `?` from any error, or from a text.
pub struct HandlerError(Box<dyn std::error::Error + Send + Sync>);

impl HandlerError {
    /// The cause.
    #[must_use]
    pub fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }

    /// What the database itself said, if that is in it, however deep.
    pub(crate) fn database_error(&self) -> Option<&dyn DatabaseError> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*self.0);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<sqlx::Error>() {
                return found.as_database_error();
            }
            // A transparent wrapper hands on its inner error's source and so hides that one, which is sqlx's.
            if let Some(found) = error.downcast_ref::<Box<dyn DatabaseError>>() {
                return Some(&**found);
            }
            cause = error.source();
        }
        None
    }
}

// Like `anyhow::Error`, it is no `std::error::Error` itself: that is what makes this conversion possible.
impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, error::Error as StdError};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("busy")]
    struct Busy;

    impl DatabaseError for Busy {
        fn message(&self) -> &str {
            "busy"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some("5".into())
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer<E: StdError + 'static>(#[source] E);

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Transparent<E: StdError + 'static>(E);

    fn busy() -> sqlx::Error {
        sqlx::Error::database(Busy)
    }

    #[test]
    fn a_database_error_is_found_in_and_below_the_users_own_errors() {
        for error in [
            HandlerError::from(busy()),
            HandlerError::from(Outer(busy())),
            HandlerError::from(Transparent(busy())),
            HandlerError::from(Transparent(Transparent(busy()))),
            HandlerError::from(Outer(Transparent(busy()))),
        ] {
            let found = error.database_error().map(DatabaseError::message);
            assert_eq!(found, Some("busy"), "{:?}", error.cause());
            assert!(crate::within::Error::Handler(error).is_retryable::<sqlx::Sqlite>());
        }
    }

    #[test]
    fn what_no_database_said_is_no_database_error() {
        for error in [HandlerError::from("no database here"), HandlerError::from(Outer(sqlx::Error::RowNotFound))] {
            assert!(error.database_error().is_none(), "{:?}", error.cause());
            assert!(!crate::within::Error::Handler(error).is_retryable::<sqlx::Sqlite>());
        }
    }
}

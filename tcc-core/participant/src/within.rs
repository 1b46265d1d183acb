//! One operation inside a transaction that is open already: the barrier, the handler, the row. The caller commits, and answers
//! only after that; on an error the caller rolls back.
//!
//! For callers that own the transaction themselves; [`Engine`](crate::Engine) goes this way too. A caller without a
//! [`Participant`] uses the barrier's own steps on [`Barrier`] (`tcc_barrier::try_branch` and its siblings).

use bytes::Bytes;
use prost::{Message, Name};
use sqlx::Connection;
use tcc_barrier::{BarrierStore, SettleStep, TryStep};
use tcc_types::{BranchKey, CancelCall, ConfirmCall, Payload, Refusal, SettleAnswer, TryAnswer, TryCall};
use tcc_wire::TYPE_URL_BYTES_MAX;

use crate::{Barrier, BranchContext, ConnectionOf, Database, HandlerError, Options, Participant, Tried};

/// The refusal code of a Try whose payload is of another type, does not decode, or is too large.
pub const BAD_REQUEST: &str = "BAD_REQUEST";

/// Why an operation's outcome is unknown. Internal: for the log, never for the wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The handler failed.
    #[error("handler: {0}")]
    Handler(HandlerError),
    /// The branch's row kept changing.
    #[error("the branch's row changed under every attempt")]
    Raced,
    /// The connection is not in a transaction that sqlx knows of: use `begin` or `begin_with`.
    #[error("the connection is not in a transaction")]
    NoTransaction,
    /// What Try reserved does not decode any more.
    #[error("the stored reservation does not decode: {0}")]
    Reserved(#[from] prost::DecodeError),
    /// Nobody could read the handler's output.
    #[error("the type URL of on_try's output has {size_bytes} bytes and must have 1 to {TYPE_URL_BYTES_MAX}")]
    OutputType {
        /// What it has.
        size_bytes: usize,
    },
    /// The handler's output is larger than the limit.
    #[error("the output of on_try has {size_bytes} bytes, more than payload_bytes_max ({payload_bytes_max})")]
    OutputTooLarge {
        /// What it has.
        size_bytes: usize,
        /// The limit.
        payload_bytes_max: u32,
    },
}

impl Error {
    /// True if the same transaction may succeed when it runs again from its beginning, at once.
    #[must_use]
    pub fn is_retryable<D: Database>(&self) -> bool {
        match self {
            Self::Database(error) => error.as_database_error().is_some_and(D::is_retryable),
            Self::Handler(error) => error.database_error().is_some_and(D::is_retryable),
            Self::Raced => true,
            Self::NoTransaction | Self::Reserved(_) | Self::OutputType { .. } | Self::OutputTooLarge { .. } => false,
        }
    }
}

impl From<tcc_barrier::Error<sqlx::Error>> for Error {
    fn from(error: tcc_barrier::Error<sqlx::Error>) -> Self {
        match error {
            tcc_barrier::Error::Store(error) => Self::Database(error),
            // The barrier's error may grow; whatever it adds, the operation had no effect that stands.
            _ => Self::Raced,
        }
    }
}

/// A Try in the caller's transaction.
///
/// A payload of another type, one that does not decode and one over `payload_bytes_max` are refused durably as
/// [`BAD_REQUEST`]: sending them again cannot help, and an error would only mean *unknown*.
///
/// Not cancel-safe: a caller that drops it rolls its transaction back.
///
/// # Errors
/// See [`Error`]; the transaction must be rolled back.
pub async fn try_branch<P: Participant>(
    participant: &P,
    conn: &mut ConnectionOf<P>,
    call: &TryCall,
    options: &Options,
) -> Result<TryAnswer, Error> {
    in_transaction::<P>(conn)?;
    match tcc_barrier::try_branch(&mut Barrier::<P::Db>::new(conn), call).await? {
        TryStep::Answer(answer) => return Ok(answer),
        TryStep::Reserve => {}
    }
    let payload = match decode::<P::Payload>(&call.payload, options.payload_bytes_max) {
        Ok(payload) => payload,
        Err(refusal) => return refuse::<P>(conn, &call.key, refusal).await,
    };
    // Between the row and the business: a "no" undoes what the handler did, and keeps the row.
    let mut savepoint = conn.begin().await?;
    let branch = BranchContext::new(call.key.clone());
    match participant.on_try(&mut savepoint, &branch, payload).await.map_err(Error::Handler)? {
        Tried::Refused(refusal) => {
            savepoint.rollback().await?;
            refuse::<P>(conn, &call.key, refusal).await
        }
        Tried::Reserved { reserved, output } => {
            savepoint.commit().await?;
            if let Some(output) = &output {
                check_output(output, options.payload_bytes_max)?;
            }
            let reserved = Bytes::from(reserved.encode_to_vec());
            Barrier::<P::Db>::new(conn).keep_reserved(&call.key, &reserved, output.as_ref()).await?;
            Ok(TryAnswer::Reserved(output))
        }
    }
}

/// A Confirm in the caller's transaction.
///
/// Not cancel-safe: a caller that drops it rolls its transaction back.
///
/// # Errors
/// See [`Error`]; the transaction must be rolled back.
pub async fn confirm<P: Participant>(
    participant: &P,
    conn: &mut ConnectionOf<P>,
    call: &ConfirmCall,
) -> Result<SettleAnswer, Error> {
    in_transaction::<P>(conn)?;
    match tcc_barrier::confirm(&mut Barrier::<P::Db>::new(conn), call).await? {
        SettleStep::Answer(answer) => Ok(answer),
        SettleStep::Apply(reserved) => {
            let branch = BranchContext::new(call.key.clone());
            let reserved = P::Reserved::decode(reserved)?;
            participant.on_confirm(conn, &branch, reserved).await.map_err(Error::Handler)?;
            P::Db::check_settled(conn, &call.key).await?;
            Ok(SettleAnswer::Done)
        }
    }
}

/// A Cancel in the caller's transaction.
///
/// Not cancel-safe: a caller that drops it rolls its transaction back.
///
/// # Errors
/// See [`Error`]; the transaction must be rolled back.
pub async fn cancel<P: Participant>(
    participant: &P,
    conn: &mut ConnectionOf<P>,
    call: &CancelCall,
) -> Result<SettleAnswer, Error> {
    in_transaction::<P>(conn)?;
    match tcc_barrier::cancel(&mut Barrier::<P::Db>::new(conn), call).await? {
        SettleStep::Answer(answer) => Ok(answer),
        SettleStep::Apply(reserved) => {
            let branch = BranchContext::new(call.key.clone());
            let reserved = P::Reserved::decode(reserved)?;
            participant.on_cancel(conn, &branch, reserved).await.map_err(Error::Handler)?;
            P::Db::check_settled(conn, &call.key).await?;
            Ok(SettleAnswer::Done)
        }
    }
}

/// An output over a limit would be an answer that nobody takes, on every delivery.
fn check_output(output: &Payload, payload_bytes_max: u32) -> Result<(), Error> {
    let (size_bytes, type_bytes) = (output.size_bytes(), output.type_url.len());
    if !(1..=TYPE_URL_BYTES_MAX).contains(&type_bytes) {
        return Err(Error::OutputType { size_bytes: type_bytes });
    }
    if exceeds(size_bytes, payload_bytes_max) {
        return Err(Error::OutputTooLarge { size_bytes, payload_bytes_max });
    }
    Ok(())
}

/// Outside of a transaction row and business would commit apart.
fn in_transaction<P: Participant>(conn: &ConnectionOf<P>) -> Result<(), Error> {
    if conn.is_in_transaction() { Ok(()) } else { Err(Error::NoTransaction) }
}

async fn refuse<P: Participant>(conn: &mut ConnectionOf<P>, key: &BranchKey, refusal: Refusal) -> Result<TryAnswer, Error> {
    // Cut to its limits, and with the only reason that has a row, whatever the handler made of it.
    // PostgreSQL's texts cannot hold a zero character.
    let refusal = Refusal::business(refusal.code.replace('\0', "\u{fffd}"), refusal.message.replace('\0', "\u{fffd}"));
    Barrier::<P::Db>::new(conn).keep_refusal(key, &refusal).await?;
    Ok(TryAnswer::Refused(refusal))
}

fn decode<M: Message + Name + Default>(payload: &Payload, payload_bytes_max: u32) -> Result<M, Refusal> {
    let refuse = |problem: std::fmt::Arguments<'_>| Refusal::business(BAD_REQUEST, problem);
    let size_bytes = payload.size_bytes();
    if exceeds(size_bytes, payload_bytes_max) {
        return Err(refuse(format_args!(
            "the payload has {size_bytes} bytes, more than payload_bytes_max ({payload_bytes_max})"
        )));
    }
    // Only what follows the last slash names the type; what stands before it says where to look the type up.
    let name = payload.type_url.rsplit('/').next().unwrap_or_default();
    let wanted = M::full_name();
    if name != wanted {
        return Err(refuse(format_args!("the payload is a {name}; this participant takes {wanted}")));
    }
    M::decode(payload.value.clone()).map_err(|error| refuse(format_args!("the payload is no valid {wanted}: {error}")))
}

fn exceeds(size_bytes: usize, limit_bytes: u32) -> bool {
    u64::try_from(size_bytes).is_ok_and(|size_bytes| size_bytes > u64::from(limit_bytes))
}

//! Operations inside a transaction that is open already: the barrier, the handler, the row. The caller commits, and answers only
//! after that; on an error the caller rolls back.
//!
//! For callers that own the transaction themselves; [`Engine`](crate::Engine) goes this way too. A caller without a
//! [`Participant`] uses the barrier's own steps on [`Barrier`] (`tcc_barrier::steps`).

mod batch;

use bytes::Bytes;
use prost::{Message, Name};
use sqlx::Connection;
use tcc_barrier::{Answer, BarrierStore, Call, Kept, Step};
use tcc_types::{CancelCall, ConfirmCall, Payload, Refusal, SettleAnswer, TryAnswer, TryCall};
use tcc_wire::TYPE_URL_BYTES_MAX;

pub use self::batch::batch;
#[cfg(feature = "conformance")]
pub(crate) use self::batch::one_by_one;
pub(crate) use self::batch::{Handlers, run as run_batch};
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
    /// The caller's mistake.
    #[error("the operations of a batch must be of different branches, in the order of their keys")]
    Unordered,
    /// The handler of a batch did not answer each Try.
    #[error("on_batch answered {answers} tries of {tries}")]
    Outcomes {
        /// How many it answered.
        answers: usize,
        /// How many it was given.
        tries: usize,
    },
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
            Self::Unordered
            | Self::Outcomes { .. }
            | Self::NoTransaction
            | Self::Reserved(_)
            | Self::OutputType { .. }
            | Self::OutputTooLarge { .. } => false,
        }
    }
}

impl Error {
    /// Whether one operation's row, statement or handler may be to blame, so that others may succeed now; otherwise the database does
    /// not answer, and would not answer them either.
    pub(crate) fn may_be_one_operations(&self) -> bool {
        match self {
            Self::Database(
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
            ) => false,
            Self::Database(_)
            | Self::Handler(_)
            | Self::Raced
            | Self::Unordered
            | Self::Outcomes { .. }
            | Self::NoTransaction
            | Self::Reserved(_)
            | Self::OutputType { .. }
            | Self::OutputTooLarge { .. } => true,
        }
    }
}

impl From<tcc_barrier::Error<sqlx::Error>> for Error {
    fn from(error: tcc_barrier::Error<sqlx::Error>) -> Self {
        match error {
            tcc_barrier::Error::Store(error) => Self::Database(error),
            tcc_barrier::Error::Unordered => Self::Unordered,
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
    match step::<P>(conn, Call::Try(call)).await? {
        Step::Reserve => reserve(participant, conn, call, options).await,
        Step::Answer(Answer::Tried(answer)) => Ok(answer),
        Step::Answer(Answer::Settled(_)) | Step::Apply(_) => Err(Error::Raced),
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
    let reserved = match step::<P>(conn, Call::Confirm(call)).await? {
        Step::Apply(reserved) => P::Reserved::decode(reserved)?,
        Step::Answer(Answer::Settled(answer)) => return Ok(answer),
        Step::Answer(Answer::Tried(_)) | Step::Reserve => return Err(Error::Raced),
    };
    let branch = BranchContext::new(call.key.clone());
    participant.on_confirm(conn, &branch, reserved).await.map_err(Error::Handler)?;
    P::Db::check_same(conn).await?;
    Ok(SettleAnswer::Done)
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
    let reserved = match step::<P>(conn, Call::Cancel(call)).await? {
        Step::Apply(reserved) => P::Reserved::decode(reserved)?,
        Step::Answer(Answer::Settled(answer)) => return Ok(answer),
        Step::Answer(Answer::Tried(_)) | Step::Reserve => return Err(Error::Raced),
    };
    let branch = BranchContext::new(call.key.clone());
    participant.on_cancel(conn, &branch, reserved).await.map_err(Error::Handler)?;
    P::Db::check_same(conn).await?;
    Ok(SettleAnswer::Done)
}

/// Any of the three.
pub(crate) async fn one<P: Participant>(
    participant: &P,
    conn: &mut ConnectionOf<P>,
    call: Call<'_>,
    options: &Options,
) -> Result<Answer, Error> {
    match call {
        Call::Try(call) => try_branch(participant, conn, call, options).await.map(Answer::Tried),
        Call::Confirm(call) => confirm(participant, conn, call).await.map(Answer::Settled),
        Call::Cancel(call) => cancel(participant, conn, call).await.map(Answer::Settled),
    }
}

/// What a single operation does next.
async fn step<P: Participant>(conn: &mut ConnectionOf<P>, call: Call<'_>) -> Result<Step, Error> {
    in_transaction::<P>(conn)?;
    P::Db::enter(conn).await?;
    let steps = tcc_barrier::steps(&mut Barrier::<P::Db>::new(conn), &[call]).await?;
    // One operation has one step.
    steps.into_iter().next().ok_or(Error::Raced)
}

/// The business of a Try whose row was inserted.
async fn reserve<P: Participant>(
    participant: &P,
    conn: &mut ConnectionOf<P>,
    call: &TryCall,
    options: &Options,
) -> Result<TryAnswer, Error> {
    let payload = match decode::<P::Payload>(&call.payload, options.payload_bytes_max) {
        Ok(payload) => payload,
        Err(refusal) => return refuse::<P>(conn, call, refusal).await,
    };
    // Between the row and the business: a "no" undoes what the handler did, and keeps the row.
    let mut savepoint = conn.begin().await?;
    let branch = BranchContext::new(call.key.clone());
    match participant.on_try(&mut savepoint, &branch, payload).await.map_err(Error::Handler)? {
        Tried::Refused(refusal) => {
            savepoint.rollback().await?;
            refuse::<P>(conn, call, refusal).await
        }
        Tried::Reserved { reserved, output } => {
            savepoint.commit().await?;
            let reserved = keepable(&reserved, output.as_ref(), options.payload_bytes_max)?;
            let kept = Kept { key: &call.key, reserved: &reserved, output: output.as_ref() };
            Barrier::<P::Db>::new(conn).keep_reserved(&[kept]).await?;
            Ok(TryAnswer::Reserved(output))
        }
    }
}

async fn refuse<P: Participant>(conn: &mut ConnectionOf<P>, call: &TryCall, refusal: Refusal) -> Result<TryAnswer, Error> {
    let refusal = storable(refusal);
    Barrier::<P::Db>::new(conn).keep_refusals(&[(&call.key, &refusal)]).await?;
    Ok(TryAnswer::Refused(refusal))
}

/// What was reserved, as it is stored. An output over a limit would be an answer that nobody takes, on every delivery.
fn keepable<R: Message>(reserved: &R, output: Option<&Payload>, payload_bytes_max: u32) -> Result<Bytes, Error> {
    if let Some(output) = output {
        check_output(output, payload_bytes_max)?;
    }
    Ok(Bytes::from(reserved.encode_to_vec()))
}

/// Cut to its limits, and with the only reason that has a row, whatever the handler made of it. PostgreSQL's texts cannot hold a
/// zero character.
fn storable(refusal: Refusal) -> Refusal {
    Refusal::business(refusal.code.replace('\0', "\u{fffd}"), refusal.message.replace('\0', "\u{fffd}"))
}

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

//! The narrow store that the protocol runs on: single statements, all in one open local transaction of the caller's.

use bytes::Bytes;
use tcc_types::{BranchKey, CancelCall, Payload, Refusal, Timestamp, TryCall};

use crate::Row;

/// What a look at a branch found, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its row, if it has one.
    pub row: Option<Row>,
    /// The database's clock at the looking statement.
    pub now: Timestamp,
}

/// The barrier's statements, inside one local transaction that the caller begins and commits.
///
/// Each call is one statement of its own, and sees what was committed before *that statement* began, not before the
/// transaction began (READ COMMITTED; on a database with one writer it is all the same). A write waits for another
/// transaction's uncommitted write to the same row. After an error the caller rolls the transaction back.
pub trait BarrierStore: Send {
    /// What can go wrong; always means that the transaction must be rolled back.
    type Error: Send;

    /// Inserts the row as tried, unless there is a row already or the database's clock, read in this statement, is past
    /// `not_after`. True if it inserted. `reserved` and the output are stored later, by [`BarrierStore::keep_reserved`].
    fn insert_tried(&mut self, call: &TryCall) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Makes a tried row confirmed; returns what was reserved, or `None` where no row was tried.
    fn confirm_tried(&mut self, key: &BranchKey) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;

    /// Makes a tried row cancelled; returns what was reserved, or `None` where no row was tried.
    fn cancel_tried(&mut self, key: &BranchKey) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;

    /// Inserts the row as cancelled by an empty rollback, unless there is a row already. True if it inserted.
    fn insert_cancelled(&mut self, call: &CancelCall) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Reads the row and the clock.
    fn look(&mut self, key: &BranchKey) -> impl Future<Output = Result<Look, Self::Error>> + Send;

    /// Stores what the business reserved and what Try answers, in the row inserted in this transaction.
    fn keep_reserved(
        &mut self,
        key: &BranchKey,
        reserved: &Bytes,
        output: Option<&Payload>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes the row inserted in this transaction refused.
    fn keep_refusal(&mut self, key: &BranchKey, refusal: &Refusal) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

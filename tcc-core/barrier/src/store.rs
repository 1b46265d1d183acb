//! The narrow store that the protocol runs on: single statements over many branches, all in one open local transaction of the
//! caller's.

use bytes::Bytes;
use tcc_types::{BranchKey, CancelCall, Decision, Payload, Refusal, Timestamp, TryCall};

use crate::Row;

/// What a look at some branches found, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Their rows, in the order of the question; `None`: it has none.
    pub rows: Vec<Option<Row>>,
    /// The database's clock at the looking statement.
    pub now: Timestamp,
}

/// What a Try reserved and answers: what its row keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// Of which branch.
    pub key: &'a BranchKey,
    /// For Confirm and Cancel.
    pub reserved: &'a Bytes,
    /// For the initiator; repeated on every delivery.
    pub output: Option<&'a Payload>,
}

/// The barrier's statements, inside one local transaction that the caller begins and commits.
///
/// Each call is about branches in ascending order of their keys, none of them twice, and answers in the same order. It is one
/// statement (or as many as the database needs to say which rows it changed), and sees what was committed before *that statement*
/// began, not before the transaction began (READ COMMITTED; on a database with one writer it is all the same). A write waits for
/// another transaction's uncommitted write to the same row, and takes rows in the order of the question. After an error the caller
/// rolls the transaction back.
///
/// No call is made about no branches at all.
pub trait BarrierStore: Send {
    /// What can go wrong; always means that the transaction must be rolled back.
    type Error: Send;

    /// Inserts each row as tried, unless there is a row already or the database's clock, read in this statement, is past
    /// its `not_after`. True for those that it inserted. `reserved` and the output are stored later, by
    /// [`BarrierStore::keep_reserved`].
    fn insert_tried(&mut self, calls: &[&TryCall]) -> impl Future<Output = Result<Vec<bool>, Self::Error>> + Send;

    /// Makes each tried row confirmed or cancelled; of those that it changed, returns what was reserved.
    fn settle_tried(
        &mut self,
        settles: &[(&BranchKey, Decision)],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, Self::Error>> + Send;

    /// Inserts each row as cancelled by an empty rollback, unless there is a row already. True for those that it inserted.
    fn insert_cancelled(&mut self, calls: &[&CancelCall]) -> impl Future<Output = Result<Vec<bool>, Self::Error>> + Send;

    /// Reads rows and the clock.
    fn look(&mut self, keys: &[&BranchKey]) -> impl Future<Output = Result<Look, Self::Error>> + Send;

    /// Stores what the business reserved and what Try answers, in rows that were inserted in this transaction.
    fn keep_reserved(&mut self, kept: &[Kept<'_>]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes rows that were inserted in this transaction refused.
    fn keep_refusals(&mut self, refused: &[(&BranchKey, &Refusal)]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

//! A store that answers a protocol's statements with what is on record, and then says which statement comes next.

use std::future::pending;

use bytes::Bytes;
use tcc_barrier::{BarrierStore, Kept, Look, Row};
use tcc_types::{BranchKey, CancelCall, Decision, Refusal, Timestamp, TryCall};

/// A statement about the one branch that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    InsertTried,
    Settle(Decision),
    InsertCancelled,
    Look,
    /// Of retention; not the protocol's.
    Delete,
}

/// What a statement answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Result {
    Inserted(bool),
    Settled(bool),
    Looked(Option<Row>, Timestamp),
}

/// The record, and the first statement beyond it.
pub(crate) struct Replay<'a> {
    results: std::slice::Iter<'a, Result>,
    asked: Option<Statement>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(results: &'a [Result]) -> Self {
        Self { results: results.iter(), asked: None }
    }

    /// The statement that has no answer yet.
    pub(crate) fn asked(&self) -> Option<Statement> {
        self.asked
    }

    /// The recorded answer; without one, the protocol goes no further.
    async fn answer(&mut self, statement: Statement) -> &'a Result {
        match self.results.next() {
            Some(result) => result,
            None => {
                self.asked = Some(statement);
                pending().await
            }
        }
    }
}

impl BarrierStore for Replay<'_> {
    type Error = &'static str;

    async fn insert_tried(&mut self, _: &[&TryCall]) -> std::result::Result<Vec<bool>, Self::Error> {
        match self.answer(Statement::InsertTried).await {
            Result::Inserted(inserted) => Ok(vec![*inserted]),
            Result::Settled(_) | Result::Looked(..) => Err(OTHER),
        }
    }

    async fn settle_tried(
        &mut self,
        settles: &[(&BranchKey, Decision)],
    ) -> std::result::Result<Vec<Option<Bytes>>, Self::Error> {
        let decision = settles.first().map_or(Decision::Cancel, |(_, decision)| *decision);
        match self.answer(Statement::Settle(decision)).await {
            Result::Settled(settled) => Ok(vec![settled.then(Bytes::new)]),
            Result::Inserted(_) | Result::Looked(..) => Err(OTHER),
        }
    }

    async fn insert_cancelled(&mut self, _: &[&CancelCall]) -> std::result::Result<Vec<bool>, Self::Error> {
        match self.answer(Statement::InsertCancelled).await {
            Result::Inserted(inserted) => Ok(vec![*inserted]),
            Result::Settled(_) | Result::Looked(..) => Err(OTHER),
        }
    }

    async fn look(&mut self, _: &[&BranchKey]) -> std::result::Result<Look, Self::Error> {
        match self.answer(Statement::Look).await {
            Result::Looked(row, now) => Ok(Look { rows: vec![row.clone()], now: *now }),
            Result::Inserted(_) | Result::Settled(_) => Err(OTHER),
        }
    }

    async fn keep_reserved(&mut self, _: &[Kept<'_>]) -> std::result::Result<(), Self::Error> {
        Ok(())
    }

    async fn keep_refusals(&mut self, _: &[(&BranchKey, &Refusal)]) -> std::result::Result<(), Self::Error> {
        Ok(())
    }
}

/// The protocol is deterministic: it never asks for something else than on record.
const OTHER: &str = "another statement than the recorded one";

//! Inventory's three handlers: from the wire's payload to the decisions and back. Decides nothing itself.

use std::marker::PhantomData;

use sqlx::migrate::Migrator;
use tcc_participant::{BranchContext, ConnectionOf, Database, HandlerError, Participant, Store, Tried};
use tcc_proto::inventory::v1::{ReserveStock, ReservedStock, StockLine};
use tcc_types::Invalid;

use crate::{Lines, Reservation, StockBooks, StockStore, release, reserve, spend};

/// A database that stock can be kept in.
pub trait StockDatabase: Database {
    /// The rows inside a local transaction.
    type Stock<'c>: StockStore<Error = sqlx::Error>;
    /// The keeper's view.
    type Books: StockBooks;

    /// What makes the tables.
    fn migrator() -> Migrator;

    /// The rows, on a connection that is in a transaction.
    fn stock(connection: &mut Self::Connection) -> Self::Stock<'_>;

    /// The keeper's view of an opened database.
    fn books(store: Store<Self>) -> Self::Books;
}

/// The participant `inventory`.
#[derive(Debug)]
pub struct Inventory<D>(PhantomData<fn() -> D>);

impl<D> Inventory<D> {
    /// It keeps nothing beside its database.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<D> Default for Inventory<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: StockDatabase> Participant for Inventory<D> {
    type Db = D;
    type Payload = ReserveStock;
    type Reserved = ReservedStock;

    async fn on_try(
        &self,
        conn: &mut ConnectionOf<Self>,
        _branch: &BranchContext,
        payload: ReserveStock,
    ) -> Result<Tried<ReservedStock>, HandlerError> {
        let lines = match lines_from_proto(payload.lines) {
            Ok(lines) => lines,
            Err(bad) => return Ok(Tried::bad_request(&bad)),
        };
        match reserve(&mut D::stock(conn), &lines).await? {
            Reservation::Frozen => Ok(Tried::reserved(ReservedStock { lines: lines_to_proto(&lines) })),
            Reservation::Refused(refusal) => Ok(Tried::Refused(refusal)),
        }
    }

    async fn on_confirm(
        &self,
        conn: &mut ConnectionOf<Self>,
        _branch: &BranchContext,
        reserved: ReservedStock,
    ) -> Result<(), HandlerError> {
        Ok(spend(&mut D::stock(conn), &stored_lines(reserved)?).await?)
    }

    async fn on_cancel(
        &self,
        conn: &mut ConnectionOf<Self>,
        _branch: &BranchContext,
        reserved: ReservedStock,
    ) -> Result<(), HandlerError> {
        Ok(release(&mut D::stock(conn), &stored_lines(reserved)?).await?)
    }
}

fn lines_from_proto(lines: Vec<StockLine>) -> Result<Lines, Vec<Invalid>> {
    Lines::new(lines.into_iter().map(|line| (line.sku, line.quantity)))
}

fn lines_to_proto(lines: &Lines) -> Vec<StockLine> {
    lines.iter().map(|line| StockLine { sku: line.sku().to_owned(), quantity: line.quantity() }).collect()
}

fn stored_lines(reserved: ReservedStock) -> Result<Lines, HandlerError> {
    lines_from_proto(reserved.lines).map_err(|bad| match bad.into_iter().next() {
        Some(bad) => HandlerError::from(bad),
        None => HandlerError::from("the stored reservation is malformed"),
    })
}

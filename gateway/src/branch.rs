//! The order's own branch: its row is written, confirmed and cancelled as a participant's business change. The decisions are pure
//! over a narrow view of the rows; the handlers only convert.

use std::{future::Future, marker::PhantomData};

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use tcc_coordinator::{Endpoint, Unknown};
use tcc_participant::{BranchContext, ConnectionOf, Database, Engine, HandlerError, Participant, Store, Tried};
use tcc_proto::order::v1::PlaceOrder;
use tcc_types::{CancelCall, ConfirmCall, Decision, Gid, Refusal, SettleAnswer, TryAnswer, TryCall};

use crate::{OrderBooks, Placed, plan::ORDER, wire::placed_from_proto};

/// The order rows as the decisions see them, inside the branch's local transaction.
pub trait OrderStore: Send {
    /// How the store fails; the transaction is then rolled back.
    type Error: Send;

    /// Adds a row `tried`, if there is none with this id.
    fn insert(&mut self, id: Gid, placed: &Placed) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// `tried → confirmed` or `tried → cancelled`, if it is tried.
    fn settle(&mut self, id: Gid, decision: Decision) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// What became of a new order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placing {
    /// Its row is there.
    Inserted,
    /// There is no row of it, because of this.
    Refused(Refusal),
}

/// An order's row cannot be settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError<E> {
    /// The store failed; the same call may work later.
    #[error(transparent)]
    Store(E),
    /// The branch is tried but the order's row is not: somebody changed it beside the framework. Needs an operator.
    #[error("order {0}: its row is not tried")]
    NotTried(Gid),
}

/// Inserts the order's row.
///
/// The branch must be the one that an order has: one transaction, one order.
///
/// # Errors
/// The store's; then nothing may be committed.
pub async fn place<S: OrderStore>(store: &mut S, branch: &BranchContext, placed: &Placed) -> Result<Placing, S::Error> {
    if branch.branch_id().as_str() != ORDER {
        let message = format_args!("the branch of an order must have the id {ORDER:?}").to_string();
        return Ok(Placing::Refused(Refusal::business("BAD_REQUEST", message)));
    }
    if store.insert(branch.gid(), placed).await? {
        Ok(Placing::Inserted)
    } else {
        Ok(Placing::Refused(Refusal::business("ORDER_EXISTS", "there is an order with this id")))
    }
}

/// Confirms or cancels the order's row.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
pub async fn settle<S: OrderStore>(store: &mut S, id: Gid, decision: Decision) -> Result<(), SettleError<S::Error>> {
    let was_tried = store.settle(id, decision).await.map_err(SettleError::Store)?;
    if was_tried { Ok(()) } else { Err(SettleError::NotTried(id)) }
}

/// A database that orders can be kept in.
pub trait OrderDatabase: Database {
    /// The rows inside a local transaction.
    type Orders<'c>: OrderStore<Error = sqlx::Error>;
    /// The gateway's view.
    type Books: OrderBooks;

    /// What makes the tables.
    fn migrator() -> Migrator;

    /// The rows, on a connection that is in a transaction.
    fn orders(connection: &mut Self::Connection) -> Self::Orders<'_>;

    /// The gateway's view of an opened database.
    fn books(store: Store<Self>) -> Self::Books;
}

/// The participant `order`.
#[derive(Debug)]
pub struct OrderBranch<D>(PhantomData<fn() -> D>);

impl<D> OrderBranch<D> {
    /// It keeps nothing beside its database.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<D> Default for OrderBranch<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: OrderDatabase> Participant for OrderBranch<D> {
    type Db = D;
    type Payload = PlaceOrder;
    // The row has everything, under the gid.
    type Reserved = ();

    async fn on_try(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        payload: PlaceOrder,
    ) -> Result<Tried<()>, HandlerError> {
        let placed = match placed_from_proto(payload) {
            Ok(placed) => placed,
            Err(bad) => {
                let problems: Vec<_> = bad.iter().map(ToString::to_string).collect();
                return Ok(Tried::refused("BAD_REQUEST", problems.join("; ")));
            }
        };
        match place(&mut D::orders(conn), branch, &placed).await? {
            Placing::Inserted => Ok(Tried::reserved(())),
            Placing::Refused(refusal) => Ok(Tried::Refused(refusal)),
        }
    }

    async fn on_confirm(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(settle(&mut D::orders(conn), branch.gid(), Decision::Confirm).await?)
    }

    async fn on_cancel(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(settle(&mut D::orders(conn), branch.gid(), Decision::Cancel).await?)
    }
}

/// A participant in this process, as the coordinator calls it.
pub struct InProcess<P: Participant>(pub Engine<P>);

#[async_trait]
impl<P: Participant> Endpoint for InProcess<P> {
    async fn try_branch(&self, call: TryCall) -> Result<TryAnswer, Unknown> {
        self.0.try_branch(call).await.map_err(|unknown| Unknown(unknown.to_string()))
    }

    async fn confirm(&self, call: ConfirmCall) -> Result<SettleAnswer, Unknown> {
        self.0.confirm(call).await.map_err(|unknown| Unknown(unknown.to_string()))
    }

    async fn cancel(&self, call: CancelCall) -> Result<SettleAnswer, Unknown> {
        self.0.cancel(call).await.map_err(|unknown| Unknown(unknown.to_string()))
    }
}

#[cfg(test)]
mod tests;

//! The order's own branch: its row is written, confirmed and cancelled as a participant's business change. The decisions are pure
//! over a narrow view of the rows, about one order or many; the handlers only convert.

use std::{future::Future, marker::PhantomData};

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use tcc_coordinator::{Endpoint, Unknown};
use tcc_participant::{
    Batch, BatchParticipant, BranchContext, ConnectionOf, Database, Engine, HandlerError, Participant, Store, Tried,
};
use tcc_proto::order::v1::PlaceOrder;
use tcc_types::{CancelCall, ConfirmCall, Decision, Gid, Invalid, Refusal, SettleAnswer, TryAnswer, TryCall};

use crate::{OrderBooks, Placed, plan::ORDER, wire::placed_from_proto};

/// The order rows as the decisions see them, inside the branch's local transaction. Lists are in ascending order of the ids, each
/// once.
pub trait OrderStore: Send {
    /// How the store fails; the transaction is then rolled back.
    type Error: Send;

    /// Adds a row `tried`, if there is none with this id.
    fn insert(&mut self, id: Gid, placed: &Placed) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// `tried → confirmed` or `tried → cancelled`, if it is tried.
    fn settle(&mut self, id: Gid, decision: Decision) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// As [`Self::insert`]; which of them it added.
    fn insert_all(&mut self, orders: &[(Gid, &Placed)]) -> impl Future<Output = Result<Vec<bool>, Self::Error>> + Send;

    /// As [`Self::settle`]; how many it changed.
    fn settle_all(&mut self, settles: &[(Gid, Decision)]) -> impl Future<Output = Result<usize, Self::Error>> + Send;
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
    /// The same, among several orders.
    #[error("the rows of {not_tried} of {orders} orders are not tried")]
    NotAllTried {
        /// How many are not.
        not_tried: usize,
        /// Of how many.
        orders: usize,
    },
}

/// Inserts the order's row.
///
/// The branch must be the one that an order has: one transaction, one order.
///
/// # Errors
/// The store's; then nothing may be committed.
pub async fn place<S: OrderStore>(store: &mut S, branch: &BranchContext, placed: &Placed) -> Result<Placing, S::Error> {
    if let Some(refusal) = no_order(branch) {
        return Ok(Placing::Refused(refusal));
    }
    store.insert(branch.gid(), placed).await.map(placing)
}

/// Inserts the rows of orders whose branches are in the order of their keys. What becomes of each is what [`place`] says.
///
/// # Errors
/// The store's; then nothing may be committed.
async fn place_all<S: OrderStore>(store: &mut S, orders: &[(BranchContext, Placed)]) -> Result<Vec<Placing>, S::Error> {
    let refusals: Vec<_> = orders.iter().map(|(branch, _)| no_order(branch)).collect();
    let sound = orders.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
    // One branch of a transaction at most has the id that an order's must have.
    let rows: Vec<_> = sound.map(|((branch, placed), _)| (branch.gid(), placed)).collect();
    let inserted = if rows.is_empty() { Vec::new() } else { store.insert_all(&rows).await? };
    let mut placings = inserted.into_iter().map(placing);
    let placing = |refusal: Option<Refusal>| refusal.map(Placing::Refused).or_else(|| placings.next());
    Ok(refusals.into_iter().filter_map(placing).collect())
}

/// Why a branch cannot be that of an order.
fn no_order(branch: &BranchContext) -> Option<Refusal> {
    if branch.branch_id().as_str() == ORDER {
        return None;
    }
    let message = format_args!("the branch of an order must have the id {ORDER:?}").to_string();
    Some(Refusal::business("BAD_REQUEST", message))
}

fn placing(inserted: bool) -> Placing {
    if inserted {
        Placing::Inserted
    } else {
        Placing::Refused(Refusal::business("ORDER_EXISTS", "there is an order with this id"))
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

/// Confirms or cancels the rows of several orders.
///
/// # Errors
/// [`SettleError`]; then nothing may be committed.
async fn settle_all<S: OrderStore>(store: &mut S, mut settles: Vec<(Gid, Decision)>) -> Result<(), SettleError<S::Error>> {
    if settles.is_empty() {
        return Ok(());
    }
    settles.sort_unstable_by_key(|(id, _)| *id);
    let settled = store.settle_all(&settles).await.map_err(SettleError::Store)?;
    match settles.len().saturating_sub(settled) {
        0 => Ok(()),
        not_tried => Err(SettleError::NotAllTried { not_tried, orders: settles.len() }),
    }
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
            Err(bad) => return Ok(malformed(&bad)),
        };
        place(&mut D::orders(conn), branch, &placed).await.map(tried).map_err(HandlerError::from)
    }

    async fn on_confirm(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(settle(&mut D::orders(conn), branch.gid(), Decision::Confirm).await?)
    }

    async fn on_cancel(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, (): ()) -> Result<(), HandlerError> {
        Ok(settle(&mut D::orders(conn), branch.gid(), Decision::Cancel).await?)
    }
}

impl<D: OrderDatabase> BatchParticipant for OrderBranch<D> {
    fn foresee(&self, _: &PlaceOrder) -> Option<Tried<()>> {
        Some(Tried::reserved(()))
    }

    async fn on_batch(&self, conn: &mut ConnectionOf<Self>, batch: Batch<Self>) -> Result<Vec<Tried<()>>, HandlerError> {
        let confirms = batch.confirms.iter().map(|(branch, ())| (branch.gid(), Decision::Confirm));
        let cancels = batch.cancels.iter().map(|(branch, ())| (branch.gid(), Decision::Cancel));
        // No row is another branch's too, so that settling and inserting one after the other cannot cross another batch.
        let mut rows = D::orders(conn);
        settle_all(&mut rows, confirms.chain(cancels).collect()).await?;
        let (mut orders, mut outcomes) = (Vec::with_capacity(batch.tries.len()), Vec::with_capacity(batch.tries.len()));
        for (branch, payload) in batch.tries {
            match placed_from_proto(payload) {
                Ok(placed) => {
                    orders.push((branch, placed));
                    outcomes.push(None);
                }
                Err(bad) => outcomes.push(Some(malformed(&bad))),
            }
        }
        let mut placings = place_all(&mut rows, &orders).await?.into_iter().map(tried);
        Ok(outcomes.into_iter().filter_map(|outcome| outcome.or_else(|| placings.next())).collect())
    }
}

fn malformed(bad: &[Invalid]) -> Tried<()> {
    let problems: Vec<_> = bad.iter().map(ToString::to_string).collect();
    Tried::refused("BAD_REQUEST", problems.join("; "))
}

fn tried(placing: Placing) -> Tried<()> {
    match placing {
        Placing::Inserted => Tried::reserved(()),
        Placing::Refused(refusal) => Tried::Refused(refusal),
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

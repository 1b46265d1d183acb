//! The order flow: an order goes down to the coordinator as a transaction, and comes back as what its row and its transaction
//! say together. Knows nothing of gRPC; decides nothing about transactions.

use tcc_coordinator::{Coordinator, Submit, TryOrder, TxView, Wait};
use tcc_types::{BranchId, BranchKey, Gid, Initiator, Timestamp};
use tracing::{Span, debug, field, instrument, warn};

use crate::{
    Error, Order, OrderBooks, OrderRow, OrderStatus, Placed, RowStatus,
    plan::{ORDER, plan},
    wire::{discount_minor, placed_from_payload},
};

/// Places orders and reads them.
///
/// Every call is cancel-safe: a dropped call never drops the order's transaction.
#[derive(Clone, Debug)]
pub struct Orders<B> {
    coordinator: Coordinator,
    books: B,
}

/// What is known of an order before its transaction is asked.
enum Known {
    /// It has a row.
    Row(OrderRow),
    /// It has none (yet): this is what its transaction was begun with.
    Begun(Placed),
}

impl Known {
    fn seen(self, transaction: &TxView) -> Order {
        match self {
            Self::Row(row) => Order::of_row(row, Some(transaction)),
            Self::Begun(placed) => Order::of_transaction(placed, transaction),
        }
    }
}

impl<B: OrderBooks> Orders<B> {
    /// Over a coordinator whose participant `order` keeps its rows where `books` reads them.
    #[must_use]
    pub fn new(coordinator: Coordinator, books: B) -> Self {
        Self { coordinator, books }
    }

    /// The coordinator.
    #[must_use]
    pub const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Places an order, and answers when it is decided, or held. The same order under the same key is placed once.
    ///
    /// # Errors
    /// Nothing stays reserved, but for [`tcc_coordinator::Error::Unavailable`], where nobody knows: repeat the request.
    #[instrument(level = "debug", name = "order", skip_all, fields(order_id = field::Empty))]
    pub async fn create(&self, placed: Placed, pay_by: Option<Timestamp>) -> Result<Order, Error> {
        let submit = Submit {
            initiator: placed.initiator().clone(),
            gid: None,
            key: Some(placed.order_key().clone()),
            branches: plan(&placed).map_err(|bad| Error::Invalid(vec![bad]))?,
            try_order: TryOrder::Parallel,
            hold: placed.hold(),
            try_until: None,
            decide_by: pay_by,
            wait: Wait::Decision,
        };
        let view = self.coordinator.submit(submit).await?;
        let order = Order { discount_minor: discount_minor(&view), ..Order::of_transaction(placed, &view) };
        Span::current().record("order_id", field::display(order.id));
        if let Some((resource, name)) = order.unknown_resource() {
            return Err(Error::NotFound { resource, name });
        }
        if order.status == OrderStatus::Held
            && let Err(error) = self.books.mark_held(order.id).await
        {
            // It is held all the same; only who reads it later may see it as pending.
            warn!(%error, "a held order was not marked");
        }
        debug!(status = ?order.status, "placed");
        Ok(order)
    }

    /// Asks for Confirm; the order says what stands.
    ///
    /// # Errors
    /// There is no such order, or nobody knows what stands.
    #[instrument(name = "order", skip_all, fields(order_id = %id))]
    pub async fn confirm(&self, id: Gid) -> Result<Order, Error> {
        match self.known(id).await? {
            Known::Row(row) if row.status != RowStatus::Tried => self.read(row).await,
            known => Ok(known.seen(&self.coordinator.confirm(id, Wait::Decision).await?)),
        }
    }

    /// Asks for Cancel; the order says what stands.
    ///
    /// # Errors
    /// As [`Self::confirm`].
    #[instrument(name = "order", skip_all, fields(order_id = %id))]
    pub async fn cancel(&self, id: Gid, by: Initiator) -> Result<Order, Error> {
        match self.known(id).await? {
            Known::Row(row) if row.status != RowStatus::Tried => self.read(row).await,
            known => Ok(known.seen(&self.coordinator.cancel(id, by, Wait::Decision).await?)),
        }
    }

    /// Reads one order.
    ///
    /// # Errors
    /// There is no such order, or a database does not answer.
    #[instrument(name = "order", skip_all, fields(order_id = %id))]
    pub async fn get(&self, id: Gid) -> Result<Order, Error> {
        match self.known(id).await? {
            Known::Row(row) => self.read(row).await,
            Known::Begun(placed) => Ok(Order::of_transaction(placed, &self.coordinator.get(id).await?)),
        }
    }

    /// Reads up to `limit` orders, newest first: those before `before` and of `user_id` if given. An order whose row is not
    /// there yet is not listed.
    ///
    /// # Errors
    /// A database does not answer.
    #[instrument(name = "orders", skip_all)]
    pub async fn list(&self, user_id: Option<&str>, before: Option<Gid>, limit: u32) -> Result<Vec<Order>, Error> {
        let rows = self.books.list(user_id, before, limit).await?;
        let branch = order_branch()?;
        let asks = |row: &&OrderRow| asks_its_transaction(row.status);
        let keys: Vec<_> = rows.iter().filter(asks).map(|row| BranchKey { gid: row.id, branch: branch.clone() }).collect();
        let mut views = self.coordinator.get_many(&keys).await?.into_iter();
        let orders = rows.into_iter().map(|row| {
            let view = if asks_its_transaction(row.status) { views.next().flatten() } else { None };
            Order::of_row(row, view.as_ref())
        });
        Ok(orders.collect())
    }

    /// A row with what its transaction adds. A confirmed row says everything itself.
    async fn read(&self, row: OrderRow) -> Result<Order, Error> {
        if !asks_its_transaction(row.status) {
            return Ok(Order::of_row(row, None));
        }
        match self.coordinator.get(row.id).await {
            Ok(view) => Ok(Order::of_row(row, Some(&view))),
            // Finished long ago, or lost.
            Err(tcc_coordinator::Error::NotFound(_)) => Ok(Order::of_row(row, None)),
            Err(error) => Err(error.into()),
        }
    }

    async fn known(&self, id: Gid) -> Result<Known, Error> {
        if let Some(row) = self.books.get(id).await? {
            return Ok(Known::Row(row));
        }
        let begun = self.coordinator.payload(id, &order_branch()?).await?;
        let of_an_order = begun.filter(|(participant, _)| participant.as_str() == ORDER);
        let placed = of_an_order.and_then(|(_, payload)| placed_from_payload(payload));
        placed.map(Known::Begun).ok_or_else(|| Error::no_order(id))
    }
}

/// A confirmed order's row says everything; of a cancelled one the transaction knows the reason.
fn asks_its_transaction(status: RowStatus) -> bool {
    match status {
        RowStatus::Tried | RowStatus::Cancelled => true,
        RowStatus::Confirmed => false,
    }
}

fn order_branch() -> Result<BranchId, Error> {
    BranchId::new(ORDER).map_err(|bad| Error::Invalid(vec![bad]))
}

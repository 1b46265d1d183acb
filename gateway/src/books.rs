//! The orders as the gateway reads them, whatever the database.

use std::future::Future;

use tcc_types::Gid;

use crate::OrderRow;

/// The orders of one database.
pub trait OrderBooks: Send + Sync + 'static {
    /// Reads one order.
    ///
    /// # Errors
    /// The database's; can be retried.
    fn get(&self, id: Gid) -> impl Future<Output = Result<Option<OrderRow>, sqlx::Error>> + Send;

    /// Reads up to `limit` orders by descending id, those before `before` and of `user_id` if given.
    ///
    /// # Errors
    /// The database's; can be retried.
    fn list(
        &self,
        user_id: Option<&str>,
        before: Option<Gid>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<OrderRow>, sqlx::Error>> + Send;

    /// Remembers that every branch of a held order was seen reserved. Changes nothing once the row is settled. Cancel-safe.
    ///
    /// # Errors
    /// The database's; can be retried.
    fn mark_held(&self, id: Gid) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

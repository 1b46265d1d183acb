//! The way of every write, whatever the database: queued, grouped into a batch, committed, answered. A database's own part is a
//! [`Backend`]: connections and statements. Its reads are a [`Reads`](crate::reads::Reads).

pub(crate) mod answers;
mod gathering;
pub(crate) mod plan;
mod task;
pub(crate) mod write;

use std::time::Duration;

use async_trait::async_trait;
use tcc_types::Timestamp;

use self::plan::Run;
pub(crate) use self::{
    gathering::Gathering,
    task::{Counters, Writer},
};
use crate::fault::{Fault, Meaning};

/// How one database is written to. Used by one writer; decides nothing, retries nothing, keeps no time limit: the writer does.
#[async_trait]
pub(crate) trait Backend: Send + 'static {
    /// An open connection. Dropping it closes it, and rolls back what it had begun.
    type Connection: Send;

    /// How long everything before a commit may take, and how long a commit; `None`: as long as it takes.
    fn write_timeout(&self) -> Option<Duration>;

    /// Opens a connection and sets what its session needs.
    async fn connect(&mut self) -> Result<Self::Connection, sqlx::Error>;

    /// Begins a transaction. Returns the database's clock, from then on the time of all that the transaction writes.
    async fn begin(&mut self, connection: &mut Self::Connection) -> Result<Timestamp, sqlx::Error>;

    /// Runs the statements of one run and sets the answers of all its asks. May be repeated in another transaction, after a
    /// rollback.
    async fn apply(&mut self, connection: &mut Self::Connection, run: &mut Run, now: Timestamp) -> Result<(), Fault>;

    /// Commits.
    async fn commit(&mut self, connection: &mut Self::Connection) -> Result<(), sqlx::Error>;

    /// Rolls back.
    async fn roll_back(&mut self, connection: &mut Self::Connection) -> Result<(), sqlx::Error>;

    /// Closes it in good order.
    async fn disconnect(&mut self, connection: Self::Connection) -> Result<(), sqlx::Error>;

    /// What an error means. Must be [`Meaning::Again`] only where the transaction is certainly rolled back, also if it is the
    /// answer to a commit.
    fn meaning_of(error: &sqlx::Error) -> Meaning;
}

//! The SDK on a database in memory, for simulations: one writes at a time, in the order of asking, and each commit is seen by others
//! before it is durable. It is treated as a server, so that everything that stands between a participant and a server can go wrong. No
//! rules here; opened by [`Store::in_memory`].
//!
//! Whoever keeps tables of its own beside the SDK's makes one value of both, and implements [`HasBranches`] for it.

mod table;

use std::sync::Arc;

use bytes::Bytes;
use sqlx::{
    Pool,
    error::DatabaseError,
    migrate::{MigrateError, Migrator},
};
use tcc_barrier::{Kept, Look};
use tcc_database::lease::Place;
use tcc_types::{BranchKey, CancelCall, Clock, Decision, Gid, Invalid, Refusal, Timestamp, TryCall};

pub use tcc_database::memory::{
    Calm, Memory, MemoryConnection, MemoryDatabase, MemoryError, MemoryOptions, Observer, Passing, Step, Tables, Weather, gone,
};

pub use self::table::{BranchTable, StoredBranch};
use crate::{BranchRow, Database, InDoubt, OldRow, OpenError, Options, Store};

/// Tables that have the SDK's rows among them.
pub trait HasBranches: Tables {
    /// They.
    fn branches(&self) -> &BranchTable;

    /// They.
    fn branches_mut(&mut self) -> &mut BranchTable;
}

/// The SDK's rows alone.
impl HasBranches for BranchTable {
    fn branches(&self) -> &BranchTable {
        self
    }

    fn branches_mut(&mut self) -> &mut BranchTable {
        self
    }
}

impl<T: HasBranches> Store<MemoryDatabase<T>> {
    /// On a database in memory, reached through this weather; the clock is the database's.
    ///
    /// # Errors
    /// An option is out of its range.
    pub fn in_memory(
        database: Memory<T>,
        weather: Arc<dyn Weather>,
        clock: Arc<dyn Clock>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        options.validate()?;
        let connect = MemoryOptions::new(database, weather, clock);
        let pool = |connections_max| connect.clone().pool(connections_max, options.connection_wait_max());
        Ok(Self::of_pools(pool(options.write_connections_max), pool(options.read_connections_max), options))
    }
}

type Conn<T> = MemoryConnection<T>;

impl<T: HasBranches> Database for MemoryDatabase<T> {
    const PLACE: Place = Place::Server;

    // There is one way to begin, which has no text.
    const BEGIN: &'static str = "BEGIN";

    async fn open(_: &str, _: &Options) -> Result<(Pool<Self>, Pool<Self>), OpenError> {
        let problem = "a database in memory has no URL: it is opened by `Store::in_memory`";
        Err(Invalid::new("database_url", problem).into())
    }

    /// Its tables are there from the beginning.
    async fn migrate(_: &Pool<Self>, _: Migrator) -> Result<(), MigrateError> {
        Ok(())
    }

    fn is_retryable(error: &dyn DatabaseError) -> bool {
        match error.try_downcast_ref() {
            Some(MemoryError::Conflict) => true,
            Some(MemoryError::Duplicate | MemoryError::Check | MemoryError::Full | MemoryError::Misuse) | None => false,
        }
    }

    const FORESEES: bool = true;

    async fn insert_tried(conn: &mut Conn<T>, calls: &[&TryCall]) -> Result<Vec<bool>, sqlx::Error> {
        conn.write(|tables, now| {
            let table = tables.branches_mut();
            Ok(calls.iter().map(|call| table.insert_tried(call, None, now)).collect())
        })
        .await
    }

    async fn insert_foreseen(
        conn: &mut Conn<T>,
        calls: &[&TryCall],
        foreseen: &[Option<Kept<'_>>],
    ) -> Result<Vec<bool>, sqlx::Error> {
        conn.write(|tables, now| {
            let table = tables.branches_mut();
            Ok(calls.iter().zip(foreseen).map(|(call, kept)| table.insert_tried(call, *kept, now)).collect())
        })
        .await
    }

    async fn settle_tried(conn: &mut Conn<T>, settles: &[(&BranchKey, Decision)]) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
        conn.write(|tables, now| {
            let table = tables.branches_mut();
            settles.iter().map(|(key, decision)| table.settle_tried(key, *decision, now)).collect()
        })
        .await
    }

    async fn insert_cancelled(conn: &mut Conn<T>, calls: &[&CancelCall]) -> Result<Vec<bool>, sqlx::Error> {
        conn.write(|tables, now| {
            let table = tables.branches_mut();
            Ok(calls.iter().map(|call| table.insert_cancelled(call, now)).collect())
        })
        .await
    }

    /// Whatever it sees is durable before the commit that tells it: commits become durable in their order.
    async fn look(conn: &mut Conn<T>, keys: &[&BranchKey]) -> Result<Look, sqlx::Error> {
        let look = |tables: &T, now| {
            let rows = keys.iter().map(|key| tables.branches().get(key).map(StoredBranch::barrier_row).transpose());
            Ok(Look { rows: rows.collect::<Result<_, sqlx::Error>>()?, now })
        };
        conn.read(look).await?
    }

    async fn check_same(conn: &mut Conn<T>) -> Result<(), sqlx::Error> {
        conn.write(|_, _| Ok(())).await
    }

    async fn keep_reserved(conn: &mut Conn<T>, kept: &[Kept<'_>]) -> Result<(), sqlx::Error> {
        conn.write(|tables, _| {
            let table = tables.branches_mut();
            kept.iter().try_for_each(|kept| table.keep_reserved(*kept))
        })
        .await
    }

    async fn keep_refusals(conn: &mut Conn<T>, refused: &[(&BranchKey, &Refusal)]) -> Result<(), sqlx::Error> {
        conn.write(|tables, _| {
            let table = tables.branches_mut();
            refused.iter().try_for_each(|(key, refusal)| table.keep_refusal(key, refusal))
        })
        .await
    }

    async fn branch_row(conn: &mut Conn<T>, key: &BranchKey) -> Result<Option<BranchRow>, sqlx::Error> {
        conn.read(|tables, _| tables.branches().get(key).map(|stored| stored.row.clone())).await
    }

    async fn count_tried(conn: &mut Conn<T>) -> Result<u64, sqlx::Error> {
        conn.read(|tables, _| tables.branches().count_tried()).await
    }

    async fn now(conn: &mut Conn<T>) -> Result<Timestamp, sqlx::Error> {
        conn.read(|_, now| now).await
    }

    async fn tried_due(conn: &mut Conn<T>, limit: u32) -> Result<Vec<InDoubt>, sqlx::Error> {
        conn.read(|tables, now| tables.branches().tried_due(now, limit)).await?
    }

    async fn postpone(conn: &mut Conn<T>, key: &BranchKey, ask_after: Timestamp, forgotten: bool) -> Result<bool, sqlx::Error> {
        conn.write(|tables, now| Ok(tables.branches_mut().postpone(key, ask_after, forgotten.then_some(now)))).await
    }

    async fn ended_page(
        conn: &mut Conn<T>,
        after: Option<&BranchKey>,
        minted_before: Gid,
        limit: u32,
    ) -> Result<Vec<OldRow>, sqlx::Error> {
        conn.read(|tables, _| tables.branches().ended_page(after, minted_before, limit)).await
    }

    async fn delete_ended(conn: &mut Conn<T>, row: &OldRow) -> Result<bool, sqlx::Error> {
        conn.write(|tables, _| Ok(tables.branches_mut().delete_ended(row))).await
    }

    async fn forgotten(conn: &mut Conn<T>, after: Option<&BranchKey>, limit: u32) -> Result<Vec<BranchRow>, sqlx::Error> {
        conn.read(|tables, _| tables.branches().forgotten(after, limit)).await
    }
}

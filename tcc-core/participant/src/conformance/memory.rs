//! The test participant's tables in memory.

use imbl::{OrdMap, Vector};
use tcc_types::{BranchKey, Op, Timestamp};

use super::{BenchDatabase, Books, Effects};
use crate::{
    Store,
    memory::{BranchTable, HasBranches, MemoryConnection, MemoryDatabase, MemoryError},
};

/// The SDK's rows, the stock and the ledger.
#[derive(Clone, Debug, Default)]
pub struct BenchTables {
    branches: BranchTable,
    stock: Stock,
    ledger: OrdMap<BranchKey, Vector<(Op, i64)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stock {
    initial: i64,
    available: i64,
    frozen: i64,
    sold: i64,
}

impl BenchTables {
    fn lines(&self, key: &BranchKey, op: Op) -> impl Iterator<Item = i64> {
        let lines = self.ledger.get(key).into_iter().flatten();
        lines.filter(move |(of, _)| *of == op).map(|(_, pieces)| *pieces)
    }
}

impl HasBranches for BenchTables {
    fn branches(&self) -> &BranchTable {
        &self.branches
    }

    fn branches_mut(&mut self) -> &mut BranchTable {
        &mut self.branches
    }
}

type Conn = MemoryConnection<BenchTables>;

async fn change(conn: &mut Conn, change: impl FnOnce(&mut Stock) + Send) -> Result<(), sqlx::Error> {
    conn.write(|tables, _| {
        change(&mut tables.stock);
        Ok(())
    })
    .await
}

impl BenchDatabase for MemoryDatabase<BenchTables> {
    async fn create_bench(store: &Store<Self>, initial: i64) -> Result<(), sqlx::Error> {
        let mut transaction = store.begin().await?;
        change(&mut transaction, |stock| *stock = Stock { initial, available: initial, ..Stock::default() }).await?;
        transaction.commit().await
    }

    async fn freeze(conn: &mut Conn, pieces: i64) -> Result<bool, sqlx::Error> {
        conn.write(|BenchTables { stock, .. }, _| {
            let fits = stock.available >= pieces;
            if fits {
                (stock.available, stock.frozen) = (stock.available - pieces, stock.frozen + pieces);
            }
            Ok(fits)
        })
        .await
    }

    async fn spend(conn: &mut Conn, pieces: i64) -> Result<(), sqlx::Error> {
        change(conn, |stock| (stock.frozen, stock.sold) = (stock.frozen - pieces, stock.sold + pieces)).await
    }

    async fn release(conn: &mut Conn, pieces: i64) -> Result<(), sqlx::Error> {
        change(conn, |stock| (stock.frozen, stock.available) = (stock.frozen - pieces, stock.available + pieces)).await
    }

    async fn record(conn: &mut Conn, key: &BranchKey, op: Op, pieces: i64) -> Result<(), sqlx::Error> {
        conn.write(|tables, _| {
            tables.ledger.entry(key.clone()).or_default().push_back((op, pieces));
            Ok(())
        })
        .await
    }

    async fn books(store: &Store<Self>) -> Result<Books, sqlx::Error> {
        let mut conn = store.read_pool().acquire().await?;
        let sum = |tables: &BenchTables| {
            let tried = tables.branches.tried().flat_map(|stored| tables.lines(&stored.row.key, Op::Try)).sum();
            let Stock { initial, available, frozen, sold } = tables.stock;
            Books { initial, available, frozen, sold, tried }
        };
        conn.read(|tables, _| sum(tables)).await
    }

    async fn lose_transaction(conn: &mut Conn) {
        let _ = conn.write(|_, _| Err::<(), _>(MemoryError::Check.into())).await;
    }

    async fn set_times(
        store: &Store<Self>,
        key: &BranchKey,
        not_after: Timestamp,
        changed_at: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = store.begin().await?;
        transaction
            .write(|tables, _| {
                let set = |row: &mut crate::BranchRow| (row.not_after, row.changed_at) = (not_after, changed_at);
                tables.branches.tamper(key, |stored| set(&mut stored.row));
                Ok(())
            })
            .await?;
        transaction.commit().await
    }

    async fn effects(store: &Store<Self>, key: &BranchKey) -> Result<Effects, sqlx::Error> {
        let mut conn = store.read_pool().acquire().await?;
        let count = |tables: &BenchTables, op| i64::try_from(tables.lines(key, op).count()).unwrap_or(i64::MAX);
        conn.read(|tables, _| Effects {
            reserved: count(tables, Op::Try),
            spent: count(tables, Op::Confirm),
            released: count(tables, Op::Cancel),
        })
        .await
    }
}

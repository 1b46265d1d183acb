//! Orders in memory, where one transaction writes at a time.

use sqlx::migrate::Migrator;
use tcc_participant::{
    Store,
    memory::{MemoryConnection, MemoryDatabase},
};
use tcc_types::{Decision, Gid};

use super::{Books, OrderRows, settled};
use crate::{OrderBooks, OrderDatabase, OrderRow, OrderStore, Placed, memory::OrderTables};

type Db = MemoryDatabase<OrderTables>;

impl OrderStore for OrderRows<'_, Db> {
    type Error = sqlx::Error;

    async fn insert(&mut self, id: Gid, placed: &Placed) -> Result<bool, sqlx::Error> {
        self.0.write(|tables, _| Ok(tables.orders.insert(id, placed))).await
    }

    async fn settle(&mut self, id: Gid, decision: Decision) -> Result<bool, sqlx::Error> {
        self.0.write(|tables, _| Ok(tables.orders.settle(id, settled(decision))?)).await
    }

    async fn insert_all(&mut self, orders: &[(Gid, &Placed)]) -> Result<Vec<bool>, sqlx::Error> {
        self.0.write(|tables, _| Ok(orders.iter().map(|(id, placed)| tables.orders.insert(*id, placed)).collect())).await
    }

    async fn settle_all(&mut self, settles: &[(Gid, Decision)]) -> Result<usize, sqlx::Error> {
        self.0
            .write(|tables, _| {
                let mut changed = 0;
                for (id, decision) in settles {
                    changed += usize::from(tables.orders.settle(*id, settled(*decision))?);
                }
                Ok(changed)
            })
            .await
    }
}

impl Books<Db> {
    async fn mark_held_once(&self, id: Gid) -> Result<(), sqlx::Error> {
        let mut transaction = self.store.begin().await?;
        transaction.write(|tables, _| Ok(tables.orders.mark_held(id)?)).await?;
        transaction.commit().await
    }

    async fn read<R>(&self, read: impl FnOnce(&OrderTables) -> R + Send) -> Result<R, sqlx::Error> {
        self.store.read_pool().acquire().await?.read(|tables, _| read(tables)).await
    }
}

impl OrderBooks for Books<Db> {
    async fn get(&self, id: Gid) -> Result<Option<OrderRow>, sqlx::Error> {
        self.read(|tables| tables.orders.order(id).cloned()).await
    }

    async fn list(&self, user_id: Option<&str>, before: Option<Gid>, limit: u32) -> Result<Vec<OrderRow>, sqlx::Error> {
        let wanted = |row: &&OrderRow| user_id.is_none_or(|user_id| row.placed.user_id() == user_id);
        self.read(|tables| match before {
            Some(before) => tables.orders.before(before).rev().filter(wanted).take(limit as usize).cloned().collect(),
            None => tables.orders.orders().rev().filter(wanted).take(limit as usize).cloned().collect(),
        })
        .await
    }

    async fn mark_held(&self, id: Gid) -> Result<(), sqlx::Error> {
        // Looking first spares repeated requests the commit.
        if !self.read(|tables| tables.orders.may_be_marked(id)).await? {
            return Ok(());
        }
        self.store.retrying(|| self.mark_held_once(id)).await
    }
}

impl OrderDatabase for Db {
    type Orders<'c> = OrderRows<'c, Self>;
    type Books = Books<Self>;

    /// Its tables are there from the beginning.
    fn migrator() -> Migrator {
        Migrator::with_migrations(Vec::new())
    }

    fn orders(connection: &mut MemoryConnection<OrderTables>) -> OrderRows<'_, Self> {
        OrderRows(connection)
    }

    fn books(store: Store<Self>) -> Books<Self> {
        Books::new(store)
    }
}

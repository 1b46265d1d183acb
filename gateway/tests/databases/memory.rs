//! The database in memory for the tests that run on every database: the few statements with which they go around the framework.

use std::sync::Arc;

use tcc_gateway::{Draft, Line, OrderRow, Placed, RowStatus, memory::OrderTable};
use tcc_participant::{
    Options, Store,
    memory::{Calm, MemoryError},
};
use tcc_types::SystemClock;

use super::{Fresh, InMemory, TestDatabase};

impl TestDatabase for InMemory {
    const LINES: &'static str = "lines";

    fn fresh() -> Fresh {
        Fresh::at(String::new())
    }

    async fn opened(fresh: &Fresh, options: &Options) -> Store<Self> {
        Store::in_memory(fresh.memory.clone(), Arc::new(Calm), Arc::new(SystemClock), options).unwrap()
    }

    async fn execute(store: &Store<Self>, statement: String) -> Result<(), sqlx::Error> {
        let mut transaction = store.begin().await?;
        transaction.write(|tables, _| Ok(update(&mut tables.orders, &statement)?)).await?;
        transaction.commit().await
    }
}

/// `UPDATE orders SET status = 4 WHERE order_id = '...'`: one column, of one row or of all.
fn update(orders: &mut OrderTable, statement: &str) -> Result<(), MemoryError> {
    let set = statement.strip_prefix("UPDATE orders SET ").unwrap();
    let (set, wanted) = set.split_once(" WHERE order_id = ").unwrap_or((set, ""));
    let wanted = wanted.trim_matches('\'');
    let (name, value) = set.split_once(" = ").unwrap();
    let ids: Vec<_> = orders.orders().map(|row| row.id).collect();
    for id in ids.into_iter().filter(|id| wanted.is_empty() || id.to_string() == wanted) {
        let mut changed = orders.order(id).unwrap().clone();
        put(&mut changed, name, value.trim_matches('\''))?;
        orders.change(id, |row| *row = changed)?;
    }
    Ok(())
}

fn put(row: &mut OrderRow, name: &str, value: &str) -> Result<(), MemoryError> {
    match name {
        "order_id" => row.id = value.parse().unwrap(),
        "status" => row.status = RowStatus::from_code(value.parse().unwrap()).ok_or(MemoryError::Check)?,
        "held" => row.held = value == "TRUE",
        "lines" => {
            let lines: Vec<(String, i64)> = serde_json::from_str(value).map_err(|_| MemoryError::Check)?;
            let placed = &row.placed;
            let draft = Draft {
                order_key: placed.order_key().as_str().to_owned(),
                initiator: placed.initiator().as_str().to_owned(),
                user_id: placed.user_id().to_owned(),
                lines: lines.into_iter().map(|(sku, quantity)| Line { sku, quantity }).collect(),
                coupon_id: placed.coupon_id().unwrap_or_default().to_owned(),
                hold: placed.hold(),
            };
            row.placed = Placed::new(draft).map_err(|_| MemoryError::Check)?;
        }
        _ => panic!("no column {name}"),
    }
    Ok(())
}

//! The database in memory for the tests that run on every database: the few statements with which they go around the framework.

use std::sync::Arc;

use tcc_inventory::memory::{StockRow, StockTable};
use tcc_participant::{
    Options, Store,
    memory::{Calm, MemoryError},
};
use tcc_types::SystemClock;

use super::{Fresh, InMemory, TestDatabase};

impl TestDatabase for InMemory {
    fn fresh() -> Fresh {
        Fresh::at(String::new())
    }

    async fn opened(fresh: &Fresh, options: &Options) -> Store<Self> {
        Store::in_memory(fresh.memory.clone(), Arc::new(Calm), Arc::new(SystemClock), options).unwrap()
    }

    async fn execute(store: &Store<Self>, statement: String) -> Result<(), sqlx::Error> {
        let mut transaction = store.begin().await?;
        transaction.write(|tables, _| Ok(update(&mut tables.stock, &statement)?)).await?;
        transaction.commit().await
    }

    async fn integers(store: &Store<Self>, select: String) -> Result<Vec<i64>, sqlx::Error> {
        let (name, rest) = select.strip_prefix("SELECT ").unwrap().split_once(" FROM stock WHERE sku = ").unwrap();
        let sku = rest.strip_suffix(" ORDER BY bucket").unwrap().trim_matches('\'');
        let mut conn = store.read_pool().acquire().await?;
        let read =
            |stock: &StockTable| stock.sku(sku).unwrap().rows.iter().map(|row| *column(&mut row.clone(), name)).collect();
        conn.read(|tables, _| read(&tables.stock)).await
    }
}

/// `UPDATE stock SET sold = 1, available = initial WHERE sku = 'apple' AND bucket = 0`: values are numbers or columns.
fn update(stock: &mut StockTable, statement: &str) -> Result<(), MemoryError> {
    let set = statement.strip_prefix("UPDATE stock SET ").unwrap();
    let (set, wanted) = set.split_once(" WHERE ").unwrap_or((set, ""));
    let is = |name: &str, value: &str| {
        let mut wanted = wanted.split(" AND ").filter_map(|wanted| wanted.split_once(" = "));
        wanted.all(|(of, is)| of != name || is.trim_matches('\'') == value)
    };
    let skus: Vec<_> = stock.skus().map(|(sku, _)| sku.to_owned()).filter(|sku| is("sku", sku)).collect();
    for sku in skus {
        stock.change(&sku, |rows| {
            for (_, row) in rows.rows.iter_mut().enumerate().filter(|(bucket, _)| is("bucket", &bucket.to_string())) {
                let mut before = *row;
                for (name, value) in set.split(", ").map(|set| set.split_once(" = ").unwrap()) {
                    *column(row, name) = value.parse().unwrap_or_else(|_| *column(&mut before, value));
                }
            }
        })?;
    }
    Ok(())
}

fn column<'a>(row: &'a mut StockRow, name: &str) -> &'a mut i64 {
    match name {
        "initial" => &mut row.initial,
        "available" => &mut row.available,
        "frozen" => &mut row.frozen,
        "sold" => &mut row.sold,
        _ => panic!("no column {name}"),
    }
}

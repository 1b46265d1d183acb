//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Executor, Row};
use tcc_participant::Options;
use tcc_servers::{Kind, shared};

use super::*;

/// Every access to the orders goes by their index, in each session of a participant.
#[tokio::test]
async fn rows_are_found_by_their_index() {
    let store = Store::<Postgres>::open(&shared(Kind::Postgres).create_database(), &Options::default()).await.unwrap();
    store.migrate(Postgres::migrator()).await.unwrap();
    let mut connection = store.write_pool().acquire().await.unwrap();
    // As nobody has looked at it yet, and as it was looked at when it was small and when it was large. Nearly all orders have ended.
    for filled in [None, Some(30), Some(300), Some(20_000)] {
        if let Some(rows) = filled {
            let fill = format!(
                "TRUNCATE orders; INSERT INTO orders SELECT 'o-' || n, 'k', 'shop', 'u1', '[]', NULL, FALSE, FALSE, 3 \
                 FROM generate_series(1, {rows}) AS n"
            );
            connection.execute(AssertSqlSafe(fill)).await.unwrap();
            connection.execute("VACUUM ANALYZE orders").await.unwrap();
        }
        for (mode, ids) in
            [("force_generic_plan", 256), ("force_custom_plan", 1), ("force_custom_plan", 8), ("force_custom_plan", 256)]
        {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            let rows = filled.map_or_else(|| "none".to_owned(), |rows| rows.to_string());
            let steps = explained(&mut connection, &format!("settle_{rows}_{mode}_{ids}"), ids).await;
            let on_orders: Vec<_> = steps.iter().filter(|step| step.contains(" on orders") && step.contains("Scan")).collect();
            assert_eq!(on_orders.len(), 1, "{steps:#?}");
            assert!(on_orders[0].contains("Index Scan using orders_pkey"), "{steps:#?}");
            // Without a condition it would walk through all of the index.
            assert!(steps.iter().any(|step| step.contains("Index Cond: (order_id = ")), "{steps:#?}");
        }
    }
}

async fn explained(connection: &mut PgConnection, name: &str, ids: usize) -> Vec<String> {
    connection.execute(AssertSqlSafe(format!("PREPARE {name} AS {SETTLE_ALL}"))).await.unwrap();
    let statuses = vec!["3"; ids].join(",");
    let ids: Vec<_> = (0..ids).map(|number| format!("o-{number}")).collect();
    let explain = format!("EXPLAIN EXECUTE {name}('{{{}}}', '{{{}}}')", ids.join(","), statuses);
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

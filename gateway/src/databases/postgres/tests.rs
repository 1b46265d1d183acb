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
    for filled in [false, true] {
        if filled {
            let fill = "INSERT INTO orders SELECT 'o-' || n, 'k', 'shop', 'u1', '[]', NULL, FALSE, FALSE, 1 \
                        FROM generate_series(1, 20000) AS n; ANALYZE orders";
            connection.execute(fill).await.unwrap();
        }
        let modes: &[&str] = if filled { &["force_generic_plan", "force_custom_plan"] } else { &["force_generic_plan"] };
        for mode in modes {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            let steps = explained(&mut connection, &format!("settle_{filled}_{mode}")).await;
            let on_orders: Vec<_> = steps.iter().filter(|step| step.contains(" on orders") && step.contains("Scan")).collect();
            assert_eq!(on_orders.len(), 1, "{steps:#?}");
            assert!(on_orders[0].contains("Index Scan using orders_pkey"), "{steps:#?}");
            // Without a condition it would walk through all of the index.
            assert!(steps.iter().any(|step| step.contains("Index Cond: (order_id = (v")), "{steps:#?}");
        }
    }
}

async fn explained(connection: &mut PgConnection, name: &str) -> Vec<String> {
    connection.execute(AssertSqlSafe(format!("PREPARE {name} AS {SETTLE_ALL}"))).await.unwrap();
    let ids: Vec<_> = (0..256).map(|number| format!("o-{number}")).collect();
    let explain = format!("EXPLAIN EXECUTE {name}('{{{}}}', '{{{}}}')", ids.join(","), vec!["3"; 256].join(","));
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

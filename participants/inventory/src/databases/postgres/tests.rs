//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Executor, Row};
use tcc_participant::Options;
use tcc_servers::{Kind, shared};

use super::*;

/// Every access to the stock goes by its index, in each session of a participant, whatever it knows of the table, and the rows
/// are locked in SKU order.
#[tokio::test]
async fn rows_are_found_by_their_index_and_locked_in_order() {
    let store = Store::<Postgres>::open(&shared(Kind::Postgres).create_database(), &Options::default()).await.unwrap();
    store.migrate(Postgres::migrator()).await.unwrap();
    let mut connection = store.write_pool().acquire().await.unwrap();
    let fills = [
        "",
        "INSERT INTO stock SELECT 'sku-' || n, 10, 10, 0, 0, 0 FROM generate_series(1, 20000) AS n; ANALYZE stock",
        "INSERT INTO stock SELECT 'hot-' || n, 10, 10, 0, 0, 0, b, 64, 64 FROM generate_series(1, 1000) AS n, \
         generate_series(0, 63) AS b; ANALYZE stock",
    ];
    for (filled, fill) in fills.into_iter().enumerate() {
        connection.execute(fill).await.unwrap();
        for mode in ["force_generic_plan", "force_custom_plan"] {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            for (name, text, lists) in [("lock", LOCK, 1), ("fitting", APPLY_FITTING, 4), ("apply", APPLY, 3)] {
                let steps = explained(&mut connection, &format!("{name}_{filled}_{mode}"), text, lists).await;
                let on_stock: Vec<_> =
                    steps.iter().filter(|step| step.contains(" on stock") && step.contains("Scan")).collect();
                assert!(
                    !on_stock.is_empty() && on_stock.iter().all(|step| step.contains("Index Scan using stock_pkey")),
                    "{steps:#?}"
                );
                // Without a condition it would walk through all of the index.
                let conditions = steps
                    .iter()
                    .filter(|step| {
                        step.contains(
                            "Index Cond: ((sku = ANY (ARRAY[v.sku])) AND (bucket >= v.bucket) AND (bucket <= v.bucket))",
                        )
                    })
                    .count();
                assert_eq!(conditions, on_stock.len(), "{steps:#?}");
                let place = |what: &str| steps.iter().position(|step| step.contains(what));
                if name == "lock" {
                    assert!(
                        place("LockRows").unwrap() < place("Sort Key: s.sku COLLATE \"C\", s.bucket").unwrap(),
                        "{steps:#?}"
                    );
                }
            }
        }
    }
}

async fn explained(connection: &mut PgConnection, name: &str, text: &str, lists: usize) -> Vec<String> {
    connection.execute(AssertSqlSafe(format!("PREPARE {name} AS {text}"))).await.unwrap();
    let skus: Vec<_> = (0..256).map(|number| format!("sku-{number}")).collect();
    let numbers = format!(", '{{{}}}'", vec!["0"; 256].join(",")).repeat(lists);
    let explain = format!("EXPLAIN EXECUTE {name}('{{{}}}'{numbers})", skus.join(","));
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

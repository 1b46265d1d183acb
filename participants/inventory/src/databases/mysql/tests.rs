//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Row, raw_sql};
use tcc_participant::Options;
use tcc_servers::{Kind, shared};

use super::*;

/// Every access to the stock goes by its key, in the order of the list, whatever the planner knows.
#[tokio::test]
async fn rows_are_found_by_their_key_in_the_order_of_the_list() {
    let store = Store::<MySql>::open(&shared(Kind::Mysql).create_database(), &Options::default()).await.unwrap();
    store.migrate(MySql::migrator()).await.unwrap();
    let mut connection = store.write_pool().acquire().await.unwrap();
    let fills = [
        "DO 0",
        "INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) \
         SELECT CONCAT('sku-', seq), 10, 10, 0, 0, 0 FROM seq_1_to_20000; ANALYZE TABLE stock",
        "INSERT INTO stock SELECT CONCAT('hot-', s.seq), 10, 10, 0, 0, 0, b.seq, 64, 64 FROM seq_1_to_1000 AS s, \
         seq_0_to_63 AS b; ANALYZE TABLE stock",
    ];
    for fill in fills {
        raw_sql(fill).execute(&mut *connection).await.unwrap();
        for count in [1, 256] {
            let skus: Vec<_> = (0..count).map(|number| format!("sku-{number}")).collect();
            let changes: Vec<_> = skus.iter().map(|sku| Change { sku, bucket: 0, available: 0, sold: 0, settled: 0 }).collect();
            for text in [LOCK, APPLY, APPLY_FITTING] {
                let list = change_lists(&changes).unwrap().remove(0);
                let text = text.replace("JSON_TABLE(?", &format!("JSON_TABLE('{list}'"));
                let explain = AssertSqlSafe(format!("EXPLAIN {text}"));
                let steps = raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
                let steps: Vec<(String, String)> = steps.iter().map(|step| (step.get("table"), step.get("type"))).collect();
                let [(first, _), (second, by)] = &steps[..] else { panic!("{steps:?}") };
                assert_eq!((first.as_str(), second.as_str(), by.as_str()), ("v", "s", "eq_ref"));
            }
        }
    }
}

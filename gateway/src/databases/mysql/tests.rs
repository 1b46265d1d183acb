//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Row, raw_sql};
use tcc_participant::Options;
use tcc_servers::{Kind, shared};

use super::*;

/// Every access to the orders goes by their key, in the order of the list, whatever the planner knows.
#[tokio::test]
async fn rows_are_found_by_their_key_in_the_order_of_the_list() {
    let store = Store::<MySql>::open(&shared(Kind::Mysql).create_database(), &Options::default()).await.unwrap();
    store.migrate(MySql::migrator()).await.unwrap();
    let mut connection = store.write_pool().acquire().await.unwrap();
    for filled in [false, true] {
        if filled {
            let fill = "INSERT INTO orders SELECT CONCAT('o-', seq), 'k', 'shop', 'u1', '[]', NULL, 0, 0, 1 FROM seq_1_to_20000; ANALYZE TABLE orders";
            raw_sql(fill).execute(&mut *connection).await.unwrap();
        }
        for count in [1, 256] {
            let rows = (0..count).map(|number| Settled { order_id: format!("o-{number}"), status: 3 });
            let list = lists(rows).unwrap().remove(0);
            let text = SETTLE_ALL.replace("JSON_TABLE(?", &format!("JSON_TABLE('{list}'"));
            let explain = AssertSqlSafe(format!("EXPLAIN {text}"));
            let steps = raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
            let steps: Vec<(String, String)> = steps.iter().map(|step| (step.get("table"), step.get("type"))).collect();
            let [(first, _), (second, by)] = &steps[..] else { panic!("{steps:?}") };
            assert_eq!((first.as_str(), second.as_str(), by.as_str()), ("v", "o", "eq_ref"));
        }
    }
}

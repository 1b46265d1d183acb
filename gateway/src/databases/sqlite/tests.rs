//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Row};
use tcc_participant::Options;

use super::*;

/// Every access to the orders goes by its key, one for each of the list.
#[tokio::test]
async fn rows_are_found_by_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/orders.db", folder.path().display());
    let store = Store::<Sqlite>::open(&url, &Options::default()).await.unwrap();
    store.migrate(Sqlite::migrator()).await.unwrap();
    for text in [SETTLE_ALL] {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
        let steps = sqlx::query(explain).bind("[]").fetch_all(store.write_pool()).await.unwrap();
        let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
        let [list, order] = &steps[..] else { panic!("{steps:?}") };
        assert!(list.starts_with("SCAN ") && list.contains("VIRTUAL TABLE"), "{steps:?}");
        assert!(order.starts_with("SEARCH ") && order.ends_with("USING PRIMARY KEY (order_id=?)"), "{steps:?}");
    }
}

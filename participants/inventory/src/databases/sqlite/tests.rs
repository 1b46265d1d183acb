//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Row};
use tcc_database::sqlite::lists::ROWS_MAX;
use tcc_participant::Options;

use super::*;

/// What makes the list up, or goes through it.
fn is_of_list(step: &str) -> bool {
    let made = step.contains("CONSTANT ROW") || step.contains("VALUES CLAUSE") || step == "SCAN v";
    made || ["MATERIALIZE ", "CO-ROUTINE ", "SCALAR SUBQUERY "].iter().any(|how| step.starts_with(how))
}

/// Every access to the stock goes by its key, one for each of the list.
#[tokio::test]
async fn rows_are_found_by_their_key_whatever_the_planner_knows_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/stock.db", folder.path().display());
    let store = Store::<Sqlite>::open(&url, &Options::default()).await.unwrap();
    store.migrate(Sqlite::migrator()).await.unwrap();
    let mut known = 0;
    for (rows, analyzed) in
        [(0, false), (0, true), (1, true), (2, true), (5, true), (60, true), (20_000, false), (20_000, true)]
    {
        let fill = format!(
            "WITH RECURSIVE s(n) AS (VALUES ({0}) UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) \
             INSERT INTO stock (sku, initial, available, frozen, sold, updated_at) \
             SELECT printf('sku %d', n), 0, 0, 0, 0, 0 FROM s WHERE {0} <= {rows}",
            known + 1
        );
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(store.write_pool()).await.unwrap();
        known = rows;
        if analyzed {
            sqlx::raw_sql("ANALYZE").execute(store.write_pool()).await.unwrap();
        }
        for statement in [READ, APPLY, APPLY_IF_ALL_FIT] {
            for length in [1, 2, 64, ROWS_MAX] {
                let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.text(length)));
                let steps = sqlx::query(explain).fetch_all(store.write_pool()).await.unwrap();
                let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
                let of_table: Vec<_> = steps.iter().filter(|step| !is_of_list(step)).collect();
                let by_key =
                    |step: &&String| step.starts_with("SEARCH ") && step.contains(" USING PRIMARY KEY (sku=? AND bucket=?)");
                assert!(!of_table.is_empty() && of_table.iter().all(by_key), "{rows} rows, analyzed: {analyzed}: {steps:?}");
            }
        }
    }
}

//! How the statements over many rows find them.

use sqlx::{AssertSqlSafe, Executor, Row};
use tcc_participant::Options;
use tcc_servers::{Kind, shared};

use super::*;

/// Every access to the coupons goes by their index, in each session of a participant, and the rows are locked in the order of their
/// ids. (With a plan of its own, a list that names a good part of few coupons may well be joined in another way.)
#[tokio::test]
async fn rows_are_found_by_their_index_and_locked_in_order() {
    let store = Store::<Postgres>::open(&shared(Kind::Postgres).create_database(), &Options::default()).await.unwrap();
    store.migrate(Postgres::migrator()).await.unwrap();
    let mut connection = store.write_pool().acquire().await.unwrap();
    for filled in [false, true] {
        if filled {
            let fill =
                "INSERT INTO coupons SELECT 'c-' || n, 'u1', 5, 0, 1 FROM generate_series(1, 20000) AS n; ANALYZE coupons";
            connection.execute(fill).await.unwrap();
        }
        let modes: &[&str] = if filled { &["force_generic_plan", "force_custom_plan"] } else { &["force_generic_plan"] };
        for mode in modes {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            for (name, text, lists) in [("hold", HOLD, 0), ("apply", APPLY, 2)] {
                let steps = explained(&mut connection, &format!("{name}_{filled}_{mode}"), text, lists).await;
                let on_coupons: Vec<_> =
                    steps.iter().filter(|step| step.contains(" on coupons") && step.contains("Scan")).collect();
                assert_eq!(on_coupons.len(), 1, "{steps:#?}");
                assert!(on_coupons[0].contains("Index Scan using coupons_pkey"), "{steps:#?}");
                // Without a condition it would walk through all of the index.
                let conditions = ["Index Cond: (coupon_id = (v", "Index Cond: (coupon_id = ANY (ARRAY["];
                let looked_up = steps.iter().any(|step| conditions.iter().any(|condition| step.contains(condition)));
                assert!(looked_up, "{steps:#?}");
                let place = |what: &str| steps.iter().position(|step| step.contains(what));
                if name == "hold" {
                    assert!(place("LockRows").unwrap() < place("Sort Key: c.coupon_id").unwrap(), "{steps:#?}");
                }
            }
        }
    }
}

async fn explained(connection: &mut PgConnection, name: &str, text: &str, lists: usize) -> Vec<String> {
    connection.execute(AssertSqlSafe(format!("PREPARE {name} AS {text}"))).await.unwrap();
    let ids: Vec<_> = (0..256).map(|number| format!("c-{number}")).collect();
    let numbers = format!(", '{{{}}}'", vec!["2"; 256].join(",")).repeat(lists);
    let explain = format!("EXPLAIN EXECUTE {name}('{{{}}}'{numbers})", ids.join(","));
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

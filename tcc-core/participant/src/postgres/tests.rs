//! How the statements over lists find their rows.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row as _};
use tcc_servers::{Kind, shared};

use super::*;

/// The plans of all statements, as lines, in the way in which a connection keeps them.
async fn plans(conn: &mut PgConnection) -> Vec<(&'static str, Vec<String>)> {
    let statements = [
        ("insert tried", INSERT_TRIED, 10),
        ("settle tried", SETTLE_TRIED, 3),
        ("insert cancelled", INSERT_CANCELLED, 3),
        ("look", LOOK, 2),
        ("keep reserved", KEEP_RESERVED, 5),
        ("keep refusals", KEEP_REFUSALS, 4),
    ];
    let mut plans = Vec::new();
    for (name, text, values) in statements {
        conn.execute(AssertSqlSafe(format!("PREPARE statement AS {text}"))).await.unwrap();
        let nulls = vec!["NULL"; values].join(", ");
        let explain = AssertSqlSafe(format!("EXPLAIN (COSTS OFF) EXECUTE statement({nulls})"));
        let lines = sqlx::raw_sql(explain).fetch_all(&mut *conn).await.unwrap();
        plans.push((name, lines.iter().map(|line| line.get::<String, _>(0).trim().to_owned()).collect()));
        conn.execute("DEALLOCATE statement").await.unwrap();
    }
    plans
}

/// Each list is walked from its beginning, and each of its rows is looked up by its whole key.
fn assert_by_key_in_order(name: &str, plan: &[String]) {
    let at = |what: &str| plan.iter().position(|line| line.contains(what));
    let whole = plan.join("\n");
    assert!(
        !["Seq Scan", "Hash", "Merge", "Sort", "Bitmap", "Materialize"].iter().any(|bad| whole.contains(bad)),
        "{name}: {whole}"
    );
    let list = at("Function Scan on ").unwrap_or_else(|| panic!("{name} has no list: {whole}"));
    if name.starts_with("insert ") {
        assert!(at("Nested Loop").is_none() && at("Conflict Arbiter Indexes: tcc_branches_pkey").is_some(), "{name}: {whole}");
        return;
    }
    let index = at("Index Scan using tcc_branches_pkey on ").unwrap_or_else(|| panic!("{name} does not use the key: {whole}"));
    // What is named first is what the loop goes through.
    assert!(at("Nested Loop").is_some_and(|nested| nested < list) && list < index, "{name}: {whole}");
    let condition = plan.get(index + 1).map_or("", String::as_str);
    assert!(
        condition.contains("Index Cond") && condition.contains("gid") && condition.contains("branch_id"),
        "{name}: {whole}"
    );
}

/// A connection keeps a plan for as long as nobody analyzes the table, which may have been empty then, and may be large now.
#[tokio::test]
async fn every_list_goes_by_key_in_its_order_whatever_the_planner_knows_of_the_table() {
    let url = shared(Kind::Postgres).create_database();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    tcc_database::postgres::migrate(&mut conn, &tcc_migrations::participant::postgres()).await.unwrap();
    conn.execute(AssertSqlSafe(session(&Options::default()))).await.unwrap();
    conn.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let mut known = 0;
    for (rows, analyzed) in [(0, false), (0, true), (1, true), (5, true), (60, true), (60_000, false), (60_000, true)] {
        let fill = format!(
            "INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, not_after, \
             ask_after, created_at, changed_at) SELECT lpad(n::text, 36, '0'), 'b', CASE WHEN n % 1000 = 0 THEN 1 ELSE 3 END, 0, \
             '', '', 'c', 0, n, 0, 0 FROM generate_series({}, {rows}) AS n",
            known + 1
        );
        conn.execute(AssertSqlSafe(fill)).await.unwrap();
        known = rows;
        if analyzed {
            conn.execute("VACUUM ANALYZE tcc_branches").await.unwrap();
        }
        for (name, plan) in plans(&mut conn).await {
            assert_by_key_in_order(&format!("{name} of {rows} rows, analyzed: {analyzed}"), &plan);
        }
    }
}

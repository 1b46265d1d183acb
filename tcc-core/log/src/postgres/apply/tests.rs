//! How the statements find their rows.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tcc_servers::{Kind, shared};

use super::{alone, begin, decide, enlist, progress};
use crate::{LogOptions, postgres::open::session};

/// Every access to a table goes by an index, whatever the planner thinks of tables that are new to it, and of lists whose length
/// it cannot know.
#[tokio::test]
async fn no_statement_scans_a_table_that_grows() {
    let url = shared(Kind::Postgres).create_database();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    tcc_database::postgres::migrate(&mut connection, &tcc_migrations::log::postgres()).await.unwrap();
    connection.execute(AssertSqlSafe(session(&LogOptions::default()))).await.unwrap();
    let statements = [
        ("begin", begin::INSERT, 15),
        ("branches", begin::INSERT_BRANCHES, 6),
        ("keys", begin::GIDS_BY_KEY, 2),
        ("enlist", enlist::RAISE, 2),
        ("lower", enlist::LOWER, 1),
        ("touch", crate::postgres::load::TOUCH, 1),
        ("decide", decide::DECIDE, 7),
        ("park", progress::PARK, 4),
        ("park branches", progress::PARK_BRANCHES, 7),
        ("finish", progress::FINISH, 2),
        ("unstick", progress::UNSTICK, 1),
        ("due", alone::DUE, 2),
        ("lease", alone::LEASE, 4),
        ("renew", alone::RENEW, 4),
        ("settle", alone::SETTLE, 2),
        ("make due", alone::MAKE_DUE, 2),
        ("minted", alone::MINTED, 3),
        ("delete", alone::DELETE, 1),
        ("delete branches", alone::DELETE_BRANCHES, 1),
    ];
    // As a log finds them: at its very first start, analyzed when there was nothing yet or only little, and after some time. Between
    // two rounds of autovacuum a table can grow from any of these to a million rows, and a plan that was kept is not made anew.
    for (filled, rows) in [None, Some(0), Some(30), Some(300), Some(3_000), Some(20_000)].into_iter().enumerate() {
        if let Some(rows) = rows {
            let fill = format!(
                "TRUNCATE tcc_log_transactions, tcc_log_branches; \
                 INSERT INTO tcc_log_transactions (gid, status, initiator, try_order, decides, branch_count, try_until, \
                 decide_by, created_at, decided_at, finished_at, next_attempt_at, owner) \
                 SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 3, 'shop', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0 \
                 FROM generate_series(1, {rows}) AS n; \
                 INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) \
                 SELECT gid, 'b0', 0, 'inventory', '', '' FROM tcc_log_transactions"
            );
            connection.execute(AssertSqlSafe(fill)).await.unwrap();
            connection.execute("VACUUM ANALYZE").await.unwrap();
        }
        for (index, (name, text, values)) in statements.iter().enumerate() {
            let prepared = format!("s{filled}_{index}");
            connection.execute(AssertSqlSafe(format!("PREPARE {prepared} AS {text}"))).await.unwrap();
            let types = "SELECT array_to_string(parameter_types, ' ') FROM pg_prepared_statements WHERE name = $1";
            let types: String = sqlx::query_scalar(types).bind(&prepared).fetch_one(&mut connection).await.unwrap();
            assert_eq!(types.split(' ').count(), *values, "{name}: {types}");
            // A plan for any values, and plans for lists of one, of a few and of many.
            for rows in [0, 1, 8, 256] {
                let mode = if rows == 0 { "force_generic_plan" } else { "force_custom_plan" };
                connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
                let given: Vec<String> = types.split(' ').map(|kind| value(kind, rows)).collect();
                let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE {prepared}({})", given.join(", ")));
                let found = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
                let steps: Vec<String> = found.iter().map(|row| row.get(0)).collect();
                looks_up(name, rows, &steps);
            }
        }
    }
}

/// A value of a statement's parameter; of so many elements if it is a list.
fn value(kind: &str, rows: usize) -> String {
    let (element, one) = match kind.trim_end_matches("[]") {
        "bytea" => ("bytea", "decode(lpad(to_hex(n), 32, '0'), 'hex')"),
        "text" => ("text", "n::text"),
        "integer" => ("integer", "n::integer"),
        "smallint" => ("smallint", "n::smallint"),
        "bigint" => ("bigint", "n::bigint"),
        other => panic!("a parameter of {other}"),
    };
    match (kind.ends_with("[]"), rows) {
        (true, 0) => "NULL".to_owned(),
        // Given as it is, and not as a query: the planner counts its elements.
        (true, rows) => {
            let elements = (1..=rows).map(|n| one.replace("(n)", &format!("({n})")).replace("n::", &format!("{n}::")));
            format!("ARRAY[{}]::{element}[]", elements.collect::<Vec<_>>().join(", "))
        }
        (false, _) => one.replace("(n)", "(1)").replace("n::", "1::"),
    }
}

/// Whether each step that reads one of the log's tables looks its rows up.
fn looks_up(name: &str, rows: usize, steps: &[String]) {
    for (step, next) in steps.iter().zip(steps.iter().skip(1).chain([&String::new()])) {
        assert!(!step.contains("Seq Scan") && !step.contains("Join"), "{name} of {rows}: {steps:#?}");
        let of_log = step.contains(" using tcc_log_") || step.contains("Index Scan on tcc_log_");
        // What is due and of the other kind is not even looked at.
        assert!(name != "due" || !of_log || next.contains("(has_stuck = "), "{name} of {rows}: {steps:#?}");
        // Without a condition it would walk through all of the index.
        assert!(!of_log || next.contains("Index Cond"), "{name} of {rows}: {steps:#?}");
    }
}

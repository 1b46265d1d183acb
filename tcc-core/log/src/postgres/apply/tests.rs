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
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
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
        ("due", alone::DUE, 1),
        ("lease", alone::LEASE, 4),
        ("renew", alone::RENEW, 4),
        ("settle", alone::SETTLE, 2),
        ("make due", alone::MAKE_DUE, 2),
        ("minted", alone::MINTED, 3),
        ("delete", alone::DELETE, 1),
        ("delete branches", alone::DELETE_BRANCHES, 1),
    ];
    // As a log finds them: at its very first start, and after some time.
    for filled in [false, true] {
        if filled {
            let fill = "INSERT INTO tcc_log_transactions (gid, status, initiator, try_order, decides, branch_count, try_until, \
                        decide_by, created_at, decided_at, finished_at, next_attempt_at, owner) \
                        SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 3, 'shop', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0 \
                        FROM generate_series(1, 20000) AS n; \
                        INSERT INTO tcc_log_branches (gid, branch_id, seq, participant, type_url, payload) \
                        SELECT gid, 'b0', 0, 'inventory', '', '' FROM tcc_log_transactions; ANALYZE";
            connection.execute(fill).await.unwrap();
        }
        for (index, (name, text, values)) in statements.iter().enumerate() {
            let prepared = format!("s{}_{index}", u8::from(filled));
            connection.execute(AssertSqlSafe(format!("PREPARE {prepared} AS {text}"))).await.unwrap();
            let nulls = vec!["NULL"; *values].join(", ");
            let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE {prepared}({nulls})"));
            let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            for (step, next) in steps.iter().zip(steps.iter().skip(1).chain([&String::new()])) {
                assert!(!step.contains("Seq Scan") && !step.contains("Join"), "{name}: {steps:#?}");
                let of_log = step.contains(" using tcc_log_") || step.contains("Index Scan on tcc_log_");
                // Without a condition it would walk through all of the index.
                assert!(!of_log || next.contains("Index Cond"), "{name}: {steps:#?}");
            }
        }
    }
}

//! How the statements find their rows, and what they count.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, query, raw_sql};
use tcc_servers::{Kind, shared};
use tcc_types::{Gid, SystemClock, SystemEntropy};

use super::{MARKED, TOUCH, alone, begin, decide, enlist, marked, progress};
use crate::{
    DatabaseLog, LogOptions, NewTransaction, TxLog,
    conformance::samples,
    mysql::{
        load,
        values::{Marks, digits, gid_lists},
    },
};

/// A log with a history, and a connection as its writer has one.
async fn with_history() -> (DatabaseLog, MySqlConnection) {
    let database_url = shared(Kind::Mysql).create_database();
    let options = LogOptions { database_url: database_url.clone(), ..LogOptions::default() };
    let log = DatabaseLog::open(options, Arc::new(SystemClock)).await.unwrap();
    let mut connection = MySqlConnection::connect(&database_url).await.unwrap();
    raw_sql(tcc_database::mysql::SESSION).execute(&mut connection).await.unwrap();
    for round in 0..200 {
        let gid = samples::gid(log.now());
        if round % 20 == 0 {
            log.begin(NewTransaction { gid, ..samples::keyed(log.now(), &format!("k{round}")) }).await.unwrap();
        } else {
            log.begin_cancelled(gid, samples::initiator("market")).await.unwrap();
        }
    }
    (log, connection)
}

/// With values in the place of parameters.
fn explained(text: &str, gids: &[Gid]) -> String {
    let list = gids.iter().map(|gid| format!("{{\"g\":\"{}\"}}", digits(*gid))).collect::<Vec<_>>().join(",");
    let text = text.replace("JSON_TABLE(?", &format!("JSON_TABLE('[{list}]'")).replace("UNHEX(?)", "UNHEX('00')");
    let values = [
        ("gid > ?", "gid > X'01'"),
        ("gid < ?", "gid < X'02'"),
        ("gid = ?", "gid = X'01'"),
        ("branch_id = ?", "branch_id = 'b0'"),
    ];
    let text = values.into_iter().fold(text, |text, (parameter, value)| text.replace(parameter, value));
    format!("EXPLAIN {}", text.replace('?', "100"))
}

/// Every access to a table goes by an index and a given value, whatever the planner knows.
#[tokio::test]
async fn no_statement_scans_a_table_that_grows() {
    let (log, mut connection) = with_history().await;
    let texts = [
        ("begin", begin::INSERT),
        ("branches", begin::INSERT_BRANCHES),
        ("brief branches", begin::INSERT_BRIEF_BRANCHES),
        ("keys", begin::GIDS_BY_KEY),
        ("enlist", enlist::RAISE),
        ("lower", enlist::LOWER),
        ("decide", decide::DECIDE),
        ("decide brief", decide::DECIDE_BRIEF),
        ("park", progress::PARK),
        ("park branches", progress::PARK_BRANCHES),
        ("finish", progress::FINISH),
        ("ended with stuck", progress::ENDED_WITH_STUCK),
        ("unstick", progress::UNSTICK),
        ("marked", MARKED),
        ("touch", TOUCH),
        ("due", alone::DUE),
        ("lease", alone::LEASE),
        ("renew", alone::RENEW),
        ("minted", alone::MINTED),
        ("lock ended", alone::LOCK_ENDED),
        ("delete branches", alone::DELETE_BRANCHES),
        ("delete", alone::DELETE),
        ("unfinished", alone::UNFINISHED),
        ("settle", alone::SETTLE),
        ("heads", load::HEADS),
        ("load branches", load::BRANCHES),
        ("branch keys", load::BRANCH_KEYS),
    ];
    let mut looked_up = 0;
    for analyzed in [false, true] {
        if analyzed {
            raw_sql("ANALYZE TABLE tcc_log_transactions, tcc_log_branches").execute(&mut connection).await.unwrap();
        }
        for (name, text) in texts {
            for count in [1, 200] {
                let gids: Vec<Gid> = (0..count).map(|_| samples::gid(log.now())).collect();
                let text = AssertSqlSafe(explained(text, &gids));
                for step in raw_sql(text).fetch_all(&mut connection).await.unwrap() {
                    let (table, kind): (Option<String>, Option<String>) = (step.get("table"), step.get("type"));
                    let (table, kind) = (table.unwrap_or_default(), kind.unwrap_or_default());
                    if ["t", "b", "tcc_log_transactions", "tcc_log_branches"].contains(&&*table) {
                        let by_value = ["const", "eq_ref", "ref", "range"].contains(&&*kind);
                        assert!(by_value, "{name}: {table} by {kind}");
                        // One byte of the kind, and nine of an instant that may be NULL: what is due and of the other kind is not
                        // even looked at.
                        let key_len: Option<String> = step.get("key_len");
                        assert!(name != "due" || key_len.as_deref() == Some("10"), "{name}: {key_len:?}");
                        looked_up += 1;
                    }
                }
            }
        }
    }
    assert!(looked_up > 50, "{looked_up}");
}

/// Callers rely on it: what counts as many as it was given changed them all.
#[tokio::test]
async fn an_insert_counts_what_it_made_once_and_what_was_in_its_way_twice() {
    let (log, mut connection) = with_history().await;
    let insert = begin::INSERT.replace("SELECT UNHEX(v.g), v.status, v.initiator", "SELECT UNHEX(v.g), 5, 'market'").replace(
        "v.try_order, v.decides, v.branch_count, v.try_until, v.decide_by, v.created_at, v.decided_at, v.decided_at, \
         v.next_attempt_at, v.cause, v.owner",
        "1, 1, 0, 0, 0, 0, 0, 0, 0, '{}', 0",
    );
    let mut marks = Marks::new(&SystemEntropy);
    let gids: Vec<Gid> = (0..3).map(|_| samples::gid(log.now())).collect();
    for (given, counted, made) in [(&gids[..2], 2, 2), (&gids[..2], 4, 0), (&gids[1..], 3, 1)] {
        let mark = marks.take();
        let list = gid_lists(given).unwrap().remove(0);
        let done = query(AssertSqlSafe(insert.clone())).bind(&mark).bind(list).execute(&mut connection).await.unwrap();
        assert_eq!(done.rows_affected(), counted);
        assert_eq!(marked(&mut connection, given, &mark).await.unwrap().len(), made);
    }
}

//! How the statements over lists find their rows, and that one of many parts answers in its order.

use sqlx::{AssertSqlSafe, Connection};
use tcc_database::sqlite::lists::ROWS_MAX;
use tcc_types::{BranchId, Gid, LogName, Payload};

use super::*;

const STATEMENTS: [(&str, ManyRows); 6] = [
    ("insert tried", INSERT_TRIED),
    ("settle tried", SETTLE_TRIED),
    ("insert cancelled", INSERT_CANCELLED),
    ("look", LOOK),
    ("keep reserved", KEEP_RESERVED),
    ("keep refusals", KEEP_REFUSALS),
];

async fn database() -> SqliteConnection {
    let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    tcc_migrations::participant::sqlite().run(&mut conn).await.unwrap();
    conn
}

/// The list is gone through, and each of its rows is looked up by its whole key; an insert has nothing to look up.
async fn assert_by_key(conn: &mut SqliteConnection, what: &str) {
    for (name, statement) in STATEMENTS {
        for rows in [1, 2, 64, ROWS_MAX] {
            let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.text(rows)));
            let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(text).fetch_all(&mut *conn).await.unwrap();
            let of_table: Vec<&str> = plan
                .iter()
                .map(|(.., step)| step.as_str())
                .filter(|step| !step.contains("CONSTANT ROW") && !step.contains("VALUES CLAUSE"))
                .filter(|step| !["SCAN v", "SCAN (subquery-1)"].contains(step) && !step.starts_with("MATERIALIZE "))
                .filter(|step| !step.starts_with("CO-ROUTINE "))
                .map(|step| step.trim_end_matches(" LEFT-JOIN"))
                .collect();
            let by_key: &[&str] =
                if name.starts_with("insert ") { &[] } else { &["SEARCH t USING PRIMARY KEY (gid=? AND branch_id=?)"] };
            assert_eq!(of_table, by_key, "{what}, {name} of {rows}: {plan:?}");
        }
    }
}

#[tokio::test]
async fn every_list_goes_by_key_whatever_the_planner_knows_of_the_table() {
    let mut conn = database().await;
    let mut known = 0;
    for (rows, analyzed) in
        [(0, false), (0, true), (1, true), (2, true), (5, true), (60, true), (20_000, false), (20_000, true)]
    {
        let fill = format!(
            "WITH RECURSIVE s(n) AS (VALUES ({0}) UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) \
             INSERT INTO tcc_branches (gid, branch_id, status, empty, type_url, request_fingerprint, coordinator, not_after, \
             ask_after, created_at, changed_at) SELECT printf('%036d', n), 'b', iif(n % 1000 = 0, 1, 3), 0, '', x'', 'c', 0, n, 0, 0 \
             FROM s WHERE {0} <= {rows}",
            known + 1
        );
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut conn).await.unwrap();
        known = rows;
        if analyzed {
            sqlx::raw_sql("ANALYZE").execute(&mut conn).await.unwrap();
        }
        assert_by_key(&mut conn, &format!("{rows} rows, analyzed: {analyzed}")).await;
    }
}

fn calls(count: usize) -> Vec<TryCall> {
    let gid = Gid::first_of(Timestamp::from_millis(1));
    let call = |n: usize| TryCall {
        key: BranchKey { gid, branch: BranchId::new(format!("b{n:04}")).unwrap() },
        payload: Payload { type_url: format!("type {n}"), value: Bytes::new() },
        // Every seventh is late.
        not_after: Timestamp::from_millis(if n % 7 == 6 { 1 } else { 1 << 43 }),
        ask_after: Timestamp::from_millis(1 << 43),
        coordinator: LogName::new("log").unwrap(),
    };
    (0..count).map(call).collect()
}

/// Longer than a statement is, not a power of two, and only some of it changes anything.
#[tokio::test]
async fn a_long_list_is_several_statements_and_answers_in_its_order() {
    let mut conn = database().await;
    let calls = calls(2 * ROWS_MAX + 44);
    let late = |n: usize| n % 7 == 6;
    let keys: Vec<&BranchKey> = calls.iter().map(|call| &call.key).collect();
    let all: Vec<&TryCall> = calls.iter().collect();
    let inserted = insert_tried(&mut conn, &all, &vec![None; all.len()]).await.unwrap();
    assert_eq!(inserted, (0..calls.len()).map(|n| !late(n)).collect::<Vec<_>>());
    assert_eq!(insert_tried(&mut conn, &all, &vec![None; all.len()]).await.unwrap(), vec![false; calls.len()]);

    let reserved: Vec<Bytes> = (0..calls.len()).map(|n| n.to_string().into()).collect();
    let outputs: Vec<Payload> =
        reserved.iter().map(|value| Payload { type_url: "output".to_owned(), value: value.clone() }).collect();
    let kept = |n: usize| Kept { key: keys[n], reserved: &reserved[n], output: n.is_multiple_of(2).then_some(&outputs[n]) };
    let tried: Vec<usize> = (0..calls.len()).filter(|n| !late(*n)).collect();
    let (refused, reserving) = tried.split_at(20);
    keep_reserved(&mut conn, &reserving.iter().map(|n| kept(*n)).collect::<Vec<_>>()).await.unwrap();
    let refusals: Vec<Refusal> = refused.iter().map(|n| Refusal::business("NO", format!("no {n}"))).collect();
    let refused: Vec<_> = refused.iter().map(|n| keys[*n]).zip(&refusals).collect();
    keep_refusals(&mut conn, &refused).await.unwrap();
    // They are not tried any more, so a second time there is nothing to keep.
    assert!(keep_refusals(&mut conn, &refused).await.is_err());

    let looked = look(&mut conn, &keys).await.unwrap();
    assert!(looked.now > Timestamp::from_millis(1));
    for (n, row) in looked.rows.into_iter().enumerate() {
        let request = Request::from(&calls[n]);
        let expected = match refused.iter().find(|(key, _)| *key == keys[n]) {
            _ if late(n) => None,
            Some((_, refusal)) => Some(tcc_barrier::Row::Refused { request, refusal: (*refusal).clone() }),
            None => Some(tcc_barrier::Row::Tried { request, output: kept(n).output.cloned() }),
        };
        assert_eq!(row, expected, "{n}");
    }

    let settles: Vec<_> =
        keys.iter().enumerate().map(|(n, key)| (*key, if n % 3 == 0 { Decision::Cancel } else { Decision::Confirm })).collect();
    let settled = settle_tried(&mut conn, &settles).await.unwrap();
    let had: Vec<_> = (0..calls.len()).map(|n| reserving.contains(&n).then(|| reserved[n].clone())).collect();
    assert_eq!(settled, had);
    let cancels: Vec<_> =
        keys.iter().map(|key| CancelCall { key: (*key).clone(), not_after: Timestamp::from_millis(1) }).collect();
    let recorded = insert_cancelled(&mut conn, &cancels.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(recorded, (0..calls.len()).map(late).collect::<Vec<_>>());
    let looked = look(&mut conn, &keys).await.unwrap().rows;
    for (n, row) in looked.iter().enumerate() {
        let cancelled = late(n) || n % 3 == 0 && reserving.contains(&n);
        assert_eq!(matches!(row, Some(tcc_barrier::Row::Cancelled { .. })), cancelled, "{n}");
    }
}

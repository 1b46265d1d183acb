//! How the statements over lists find their rows, and what they count.

use bytes::Bytes;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, raw_sql};
use tcc_servers::{Kind, shared};
use tcc_types::{BranchId, Gid};

use super::*;

/// The tables, with a history, and a connection in a participant's session.
async fn with_history() -> MySqlConnection {
    const FILL: &str = "INSERT INTO tcc_branches (gid, branch_id, status, `empty`, type_url, request_fingerprint, coordinator, \
         not_after, ask_after, created_at, changed_at) SELECT lpad(seq, 36, '0'), 'b', IF(seq % 1000 = 0, 1, 3), 0, '', '', 'c', \
         0, seq, 0, 0 FROM seq_1_to_20000";
    let url = shared(Kind::Mysql).create_database();
    let mut conn = MySqlConnection::connect(&url).await.unwrap();
    tcc_database::mysql::migrate(&mut conn, tcc_migrations::participant::mysql()).await.unwrap();
    raw_sql(FILL).execute(&mut conn).await.unwrap();
    conn
}

fn key(n: usize) -> BranchKey {
    BranchKey { gid: Gid::first_of(Timestamp::from_millis(1)), branch: BranchId::new(format!("b{n:04}")).unwrap() }
}

/// Every access to the table is by its primary key, whatever the planner knows of it, in the order of the list.
#[tokio::test]
async fn every_list_goes_by_key_in_its_order_whatever_the_planner_knows_of_the_table() {
    let mut conn = with_history().await;
    let statements = [
        ("settle tried", SETTLE_TRIED),
        ("marked", MARKED),
        ("touch", TOUCH),
        ("look", LOOK),
        ("keep reserved", KEEP_RESERVED),
        ("keep brief", KEEP_BRIEF),
        ("keep refusals", KEEP_REFUSALS),
    ];
    for analyzed in [false, true] {
        if analyzed {
            raw_sql("ANALYZE TABLE tcc_branches").execute(&mut conn).await.unwrap();
        }
        for (name, text) in statements {
            for count in [1, 256] {
                let keys: Vec<_> = (0..count).map(key).collect();
                let list = places(&keys.iter().collect::<Vec<_>>()).unwrap().remove(0);
                let text = text.replace("JSON_TABLE(?", &format!("JSON_TABLE('{list}'")).replace('?', "1");
                let steps = raw_sql(AssertSqlSafe(format!("EXPLAIN {text}"))).fetch_all(&mut conn).await.unwrap();
                let column = |name: &str| -> Vec<String> {
                    steps.iter().map(|step| step.get::<Option<String>, _>(name).unwrap_or_default()).collect()
                };
                assert_eq!(column("table"), ["v", "t"], "{name}");
                assert_eq!((&column("type")[1], &column("key")[1]), (&"eq_ref".to_owned(), &"PRIMARY".to_owned()), "{name}");
                assert_eq!(column("ref")[1].replace("*any*.", ""), "v.gid,v.branch_id", "{name}");
                assert!(!column("Extra").join(" ").contains("filesort"), "{name}");
            }
        }
    }
}

/// The number of rows that an insert counts does not tell which it made: that is what the mark is for.
#[tokio::test]
async fn an_insert_counts_what_it_made_once_and_what_was_there_twice() {
    let mut conn = with_history().await;
    let calls: Vec<_> = (0..3).map(|n| CancelCall { key: key(n), not_after: Timestamp::from_millis(1) }).collect();
    for (from, to, made) in [(0, 2, vec![true, true]), (0, 2, vec![false, false]), (1, 3, vec![false, true])] {
        let calls: Vec<_> = calls[from..to].iter().collect();
        assert_eq!(insert_cancelled(&mut conn, &calls).await.unwrap(), made);
    }
}

/// Whatever the Tries have in common, each row has what its Try said, and a late one has none.
#[tokio::test]
async fn tries_are_stored_alike_whether_they_ask_alike_or_not() {
    const LATE: usize = 2;
    let mut conn = with_history().await;
    let (short, long) = (Bytes::from_static(b"short"), Bytes::from(vec![7; 5_000]));
    let output = tcc_types::Payload { type_url: "answer".to_owned(), value: Bytes::from_static(b"yes") };
    let mut at = 0;
    for (types, logs) in [(1, 1), (2, 1), (1, 2)] {
        for reserved in [&short, &long] {
            let call = |n: usize| tcc_types::TryCall {
                key: key(at + n),
                payload: tcc_types::Payload { type_url: format!("type-{}", n % types), value: Bytes::new() },
                not_after: Timestamp::from_millis(if n == LATE { 1 } else { (1 << 43) + n as i64 }),
                ask_after: Timestamp::from_millis((1 << 44) + n as i64),
                coordinator: tcc_types::LogName::new(format!("log-{}", n % logs)).unwrap(),
            };
            let calls: Vec<_> = (0..5).map(call).collect();
            let kept = |(n, call)| {
                let call: &tcc_types::TryCall = call;
                (n != 1).then_some(Kept { key: &call.key, reserved, output: (n > 2).then_some(&output) })
            };
            let foreseen: Vec<_> = calls.iter().enumerate().map(kept).collect();
            let inserted = insert_tried(&mut conn, &calls.iter().collect::<Vec<_>>(), &foreseen).await.unwrap();
            assert_eq!(inserted, [true, true, false, true, true]);
            let text = "SELECT type_url, coordinator, not_after, ask_after, reserved, output_type_url, output_value \
                        FROM tcc_branches WHERE branch_id = ?";
            for ((n, call), kept) in calls.iter().enumerate().zip(&foreseen) {
                let row = query(text).bind(call.key.branch.as_str()).fetch_optional(&mut conn).await.unwrap();
                assert_eq!(row.is_none(), n == LATE);
                let Some(row) = row else { continue };
                let asked: (String, String) = (row.get(0), row.get(1));
                assert_eq!(asked, (call.payload.type_url.clone(), call.coordinator.as_str().to_owned()));
                let times: (i64, i64) = (row.get(2), row.get(3));
                assert_eq!(times, (call.not_after.as_micros(), call.ask_after.as_micros()));
                let stored: (Option<Vec<u8>>, Option<String>, Option<Vec<u8>>) = (row.get(4), row.get(5), row.get(6));
                let output = kept.and_then(|kept| kept.output);
                let expected = (
                    kept.map(|kept| kept.reserved.to_vec()),
                    output.map(|output| output.type_url.clone()),
                    output.map(|output| output.value.to_vec()),
                );
                assert_eq!(stored, expected);
            }
            at += calls.len();
        }
    }
}

/// One list is two texts then, and a place is one in both.
#[tokio::test]
async fn a_long_list_is_several_statements_and_answers_in_its_order() {
    let mut conn = with_history().await;
    let keys: Vec<_> = (0..4).map(key).collect();
    let calls: Vec<_> = keys
        .iter()
        .map(|key| tcc_types::TryCall {
            key: key.clone(),
            payload: tcc_types::Payload { type_url: "t".to_owned(), value: Bytes::new() },
            not_after: Timestamp::from_millis(1 << 43),
            ask_after: Timestamp::from_millis(1 << 43),
            coordinator: tcc_types::LogName::new("log").unwrap(),
        })
        .collect();
    assert_eq!(insert_tried(&mut conn, &calls.iter().collect::<Vec<_>>(), &[None; 4]).await.unwrap(), [true; 4]);
    let reserved: Vec<Bytes> = (0..4_u8).map(|n| vec![n; 1024 * 1024].into()).collect();
    let kept: Vec<_> = keys.iter().zip(&reserved).map(|(key, reserved)| Kept { key, reserved, output: None }).collect();
    keep_reserved(&mut conn, &kept).await.unwrap();
    let settles: Vec<_> = keys.iter().map(|key| (key, Decision::Confirm)).collect();
    let settled = settle_tried(&mut conn, &settles).await.unwrap();
    assert!(settled.iter().zip(&reserved).all(|(settled, reserved)| settled.as_ref() == Some(reserved)));
}

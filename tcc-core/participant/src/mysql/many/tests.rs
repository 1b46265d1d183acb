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

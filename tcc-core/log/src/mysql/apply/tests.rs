//! How the statements find their rows, and what they count.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, query, raw_sql};
use tcc_database::mysql::inserts::{LONG, SHORT};
use tcc_servers::{Kind, shared};
use tcc_types::{Clock, Gid, Payload, SystemClock, SystemEntropy, TxStatus};

use super::{MARKED, TOUCH, alone, begin, decide, enlist, marked, progress};
use crate::{
    Begun, DatabaseLog, LogOptions, NewBranch, NewTransaction, TxLog, TxRecord,
    conformance::samples,
    mysql::{
        load,
        values::{Marks, digits, gid_lists},
    },
    writer::write::{Ask, BeginCancelled, Beginning, Write},
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
    let list = gids.iter().map(|gid| format!("[\"{}\"]", digits(*gid))).collect::<Vec<_>>().join(",");
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
        "v.try_order, v.decides, v.branch_count, v.try_until, v.decide_by, ?, v.decided_at, v.decided_at, v.next_attempt_at, \
         v.cause, v.owner",
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

/// Begins `mine`, each with two branches, in one transaction with `others`, which are cancelled; what each of the two was told.
async fn begun_at_once(
    connection: &mut MySqlConnection,
    mine: Vec<NewTransaction>,
    others: Vec<Gid>,
) -> (Vec<Begun>, Vec<TxRecord>) {
    let (mut begins, mut begun, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
    for new in mine {
        let (ask, reply) = Ask::new(new);
        begins.push(Beginning::New(ask));
        begun.push(reply);
    }
    for gid in others {
        let (ask, reply) = Ask::new(BeginCancelled { gid, by: samples::initiator("market") });
        begins.push(Beginning::Cancelled(ask));
        cancelled.push(reply);
    }
    let mut transaction = connection.begin().await.unwrap();
    let mut marks = Marks::new(&SystemEntropy);
    begin::apply(&mut transaction, &mut begins, samples::past(SystemClock.now()), &mut marks).await.unwrap();
    transaction.commit().await.unwrap();
    for beginning in begins {
        Write::Begin(beginning).deliver();
    }
    let mut told = (Vec::new(), Vec::new());
    for reply in begun {
        told.0.push(reply.await.unwrap().unwrap());
    }
    for reply in cancelled {
        told.1.push(reply.await.unwrap().unwrap());
    }
    told
}

/// Long pieces, short ones and a list in one batch, and in each of them transactions that are there already, by gid and by key.
#[tokio::test]
async fn a_batch_in_pieces_tells_each_what_stands_and_stores_all_of_the_others() {
    const COUNT: usize = LONG + 2 * SHORT + 10;
    // Of each kind of piece of branches, one that is too long for a list of brief ones.
    const LENGTHY: [usize; 3] = [25, 82, COUNT - 1];
    let (log, mut connection) = with_history().await;
    let found = |number: &usize| number % 7 == 3;
    let mut gids: Vec<Gid> = (0..COUNT).map(|_| samples::gid(log.now())).collect();
    gids.sort_unstable();
    let new = |number: usize| NewTransaction {
        gid: gids[number],
        try_until: samples::future(log.now()).plus(Duration::from_millis(number as u64)),
        decide_by: samples::future(log.now()).plus(Duration::from_millis(1_000 + number as u64)),
        branches: vec![samples::branch("b0"), long_branch("b1", if LENGTHY.contains(&number) { 5_000 } else { 3 })],
        ..samples::keyed(log.now(), &format!("many{number:04}"))
    };
    let mine: Vec<NewTransaction> = (0..COUNT).map(new).collect();
    let standing = |number: usize| match number % 2 {
        0 => mine[number].clone(),
        _ => NewTransaction { key: mine[number].key.clone(), ..samples::transaction(log.now(), 1) },
    };
    let standing: Vec<(usize, NewTransaction)> = (0..COUNT).filter(found).map(|number| (number, standing(number))).collect();
    for (_, new) in &standing {
        assert!(matches!(log.begin(new.clone()).await.unwrap(), Begun::Inserted { .. }));
    }
    let cancelled: Vec<Gid> = (0..5).map(|_| samples::gid(log.now())).collect();

    for round in 0..2 {
        let (told, records) = begun_at_once(&mut connection, mine.clone(), cancelled.clone()).await;
        for (number, (told, new)) in told.iter().zip(&mine).enumerate() {
            let before = standing.iter().find(|(other, _)| *other == number).map(|(_, standing)| standing);
            let stands = before.unwrap_or(new);
            match told {
                Begun::Inserted { .. } => assert!(round == 0 && before.is_none(), "{number}"),
                Begun::Exists(record) => {
                    assert!(round == 1 || before.is_some(), "{number}");
                    assert_eq!(record.gid, stands.gid, "{number}");
                }
            }
            let record = log.load(stands.gid).await.unwrap().unwrap();
            assert_eq!(record.key, stands.key, "{number}");
            assert_eq!((record.try_until, record.decide_by), (stands.try_until, stands.decide_by), "{number}");
            assert_eq!((record.fingerprint, record.owner), (Some(stands.fingerprint), stands.owner), "{number}");
            assert_eq!((record.decided_at, record.finished_at, &record.cause), (None, None, &None), "{number}");
            let branches: Vec<_> = record.branches.into_iter().map(|branch| (branch.branch, branch.payload)).collect();
            let expected: Vec<_> = stands.branches.iter().map(|new| (new.branch.clone(), new.payload.clone())).collect();
            assert_eq!(branches, expected, "{number}");
            if stands.gid != new.gid {
                assert!(log.load(new.gid).await.unwrap().is_none(), "{number}");
            }
        }
        assert_eq!(records.iter().map(|record| record.gid).collect::<Vec<_>>(), cancelled);
        for record in &records {
            assert_eq!((record.status, record.finished_at), (TxStatus::Cancelled, Some(record.created_at)));
            assert_eq!(log.load(record.gid).await.unwrap().as_ref(), Some(record));
        }
    }
}

fn long_branch(text: &str, bytes: usize) -> NewBranch {
    let branch = samples::branch(text);
    NewBranch { payload: Payload { value: vec![7; bytes].into(), ..branch.payload }, ..branch }
}

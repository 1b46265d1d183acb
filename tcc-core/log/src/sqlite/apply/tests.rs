//! What happens inside one transaction, where the order of the writes is known exactly.

use sqlx::{ConnectOptions, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tcc_database::sqlite::lists::ManyRows;
use tcc_machine::Choice;
use tcc_types::{Gid, Timestamp, TxStatus};

use super::{alone, apply, begin, decide, enlist, progress};
use crate::{
    Begun, Decide, Decided, Enlisted, NewTransaction,
    conformance::samples,
    sqlite::load,
    writer::{
        plan::plan,
        write::{Ask, BeginCancelled, Beginning, Enlist, Reply, Write},
    },
};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(super) async fn database() -> SqliteConnection {
    let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
    tcc_migrations::log::sqlite().run(&mut connection).await.unwrap();
    connection
}

/// Runs all of them as one batch.
async fn run(connection: &mut SqliteConnection, writes: Vec<Write>) {
    for mut run in plan(writes) {
        apply(connection, &mut run, NOW).await.unwrap();
        run.into_writes().for_each(Write::deliver);
    }
}

fn begin_of(new: &NewTransaction) -> (Write, Reply<Begun>) {
    let (ask, reply) = Ask::new(new.clone());
    (Write::Begin(Beginning::New(ask)), reply)
}

fn cancelled_of(gid: Gid) -> (Write, Reply<crate::TxRecord>) {
    let (ask, reply) = Ask::new(BeginCancelled { gid, by: samples::initiator("market") });
    (Write::Begin(Beginning::Cancelled(ask)), reply)
}

fn decide_of(decide: Decide) -> (Write, Reply<Decided>) {
    let (ask, reply) = Ask::new(decide);
    (Write::Decide(ask), reply)
}

fn finish_of(gid: Gid) -> (Write, Reply<()>) {
    let (ask, reply) = Ask::new(gid);
    (Write::Finish(ask), reply)
}

fn enlist_of(gid: Gid, branch: &str) -> (Write, Reply<Enlisted>) {
    let (ask, reply) = Ask::new(Enlist { gid, branch: samples::branch(branch), branches_max: 3 });
    (Write::Enlist(ask), reply)
}

fn is_new(begun: &Begun) -> bool {
    matches!(begun, Begun::Inserted { .. })
}

#[tokio::test]
async fn of_two_begins_under_one_key_in_a_batch_the_first_wins() {
    let mut connection = database().await;
    let (first, second) = (samples::keyed(NOW, "k"), samples::keyed(NOW, "k"));
    let ((one, won), (two, lost)) = (begin_of(&first), begin_of(&second));
    run(&mut connection, vec![one, two]).await;
    assert!(is_new(&won.await.unwrap().unwrap()));
    match lost.await.unwrap().unwrap() {
        Begun::Exists(record) => assert_eq!((record.gid, record.branches.len()), (first.gid, 1)),
        begun @ Begun::Inserted { .. } => panic!("{begun:?}"),
    }
}

#[tokio::test]
async fn a_begin_that_loses_its_key_leaves_its_gid_to_the_next() {
    let mut connection = database().await;
    let holder = samples::keyed(NOW, "k");
    let loser = samples::keyed(NOW, "k");
    let next = NewTransaction { key: None, branches: vec![samples::branch("of-next")], ..loser.clone() };
    let ((one, _), (two, lost), (three, won)) = (begin_of(&holder), begin_of(&loser), begin_of(&next));
    run(&mut connection, vec![one, two, three]).await;
    assert!(!is_new(&lost.await.unwrap().unwrap()));
    assert!(is_new(&won.await.unwrap().unwrap()));
    let stored = load::load(&mut connection, &[next.gid]).await.unwrap().remove(&next.gid).unwrap();
    assert_eq!(stored.key, None);
    assert_eq!(stored.branches[0].branch, samples::branch_id("of-next"));
}

#[tokio::test]
async fn of_a_begin_and_a_cancelled_record_in_a_batch_the_first_wins() {
    let mut connection = database().await;
    let (first, second) = (samples::transaction(NOW, 1), samples::transaction(NOW, 1));
    let ((a, begun), (b, record)) = (begin_of(&first), cancelled_of(first.gid));
    let ((c, late_record), (d, late)) = (cancelled_of(second.gid), begin_of(&second));
    run(&mut connection, vec![a, b, c, d]).await;
    assert!(is_new(&begun.await.unwrap().unwrap()));
    assert_eq!(record.await.unwrap().unwrap().status, TxStatus::Trying);
    assert_eq!(late_record.await.unwrap().unwrap().status, TxStatus::Cancelled);
    assert!(!is_new(&late.await.unwrap().unwrap()));
}

#[tokio::test]
async fn of_two_decisions_in_a_batch_the_first_stands_for_both() {
    let mut connection = database().await;
    for cancel_first in [true, false] {
        let new = samples::transaction(NOW, 1);
        let mut decides = vec![samples::confirm(NOW, new.gid, 1), samples::cancel(NOW, new.gid)];
        if cancel_first {
            decides.reverse();
        }
        let stands = if cancel_first { TxStatus::Cancelling } else { TxStatus::Confirming };
        let ((one, _begun), (two, first), (three, second)) =
            (begin_of(&new), decide_of(decides.remove(0)), decide_of(decides.remove(0)));
        run(&mut connection, vec![one, two, three]).await;
        let first = first.await.unwrap().unwrap();
        assert!(matches!(first, Decided::Stands { status, .. } if status == stands), "{first:?}");
        assert_eq!(second.await.unwrap().unwrap(), first);
    }
}

#[tokio::test]
async fn a_confirm_that_misses_its_count_leaves_the_decision_to_the_next() {
    let mut connection = database().await;
    let new = samples::transaction(NOW, 2);
    let ((one, _begun), (two, missed), (three, stands)) =
        (begin_of(&new), decide_of(samples::confirm(NOW, new.gid, 1)), decide_of(samples::confirm(NOW, new.gid, 2)));
    run(&mut connection, vec![one, two, three]).await;
    assert_eq!(missed.await.unwrap().unwrap(), Decided::CountMoved { branch_count: 2 });
    assert!(matches!(stands.await.unwrap().unwrap(), Decided::Stands { status: TxStatus::Confirming, .. }));
}

#[tokio::test]
async fn a_batch_keeps_the_order_of_each_transaction() {
    let mut connection = database().await;
    let new = samples::open(NOW, 1);
    // Before its begin there is nothing to decide or to finish, and enlisting ends with the decision.
    let (early_decide, early) = decide_of(samples::cancel(NOW, new.gid));
    let (begin, begun) = begin_of(&new);
    let (early_finish, _) = finish_of(new.gid);
    let (enlist, enlisted) = enlist_of(new.gid, "in-time");
    let (twice, exists) = enlist_of(new.gid, "in-time");
    let (third, third_in) = enlist_of(new.gid, "third");
    let (fourth, full) = enlist_of(new.gid, "fourth");
    let (decide, decided) = decide_of(samples::confirm(NOW, new.gid, 3));
    let (late, closed) = enlist_of(new.gid, "late");
    let (finish, _) = finish_of(new.gid);
    let (after, ended) = decide_of(samples::cancel(NOW, new.gid));
    run(&mut connection, vec![early_decide, begin, early_finish, enlist, twice, third, fourth, decide, late, finish, after])
        .await;
    assert_eq!(early.await.unwrap().unwrap(), Decided::Missing);
    assert!(is_new(&begun.await.unwrap().unwrap()));
    assert_eq!(enlisted.await.unwrap().unwrap(), Enlisted::Inserted { branch_count: 2 });
    assert!(matches!(exists.await.unwrap().unwrap(), Enlisted::Exists(_)));
    assert_eq!(third_in.await.unwrap().unwrap(), Enlisted::Inserted { branch_count: 3 });
    assert_eq!(full.await.unwrap().unwrap(), Enlisted::Full);
    assert!(matches!(decided.await.unwrap().unwrap(), Decided::Stands { status: TxStatus::Confirming, .. }));
    assert_eq!(closed.await.unwrap().unwrap(), Enlisted::Closed(TxStatus::Confirming));
    assert!(matches!(ended.await.unwrap().unwrap(), Decided::Stands { status: TxStatus::Confirmed, .. }));
}

#[tokio::test]
async fn a_batch_larger_than_a_statement_is_written_whole() {
    let mut connection = database().await;
    let (mut writes, mut begun, mut decided) = (Vec::new(), Vec::new(), Vec::new());
    let news: Vec<NewTransaction> = (0..700).map(|index| samples::transaction(NOW, index % 4)).collect();
    for (index, new) in news.iter().enumerate() {
        let (write, reply) = begin_of(new);
        writes.push(write);
        begun.push(reply);
        // Every third one has the wrong number of votes.
        let votes = new.branches.len() + usize::from(index.is_multiple_of(3));
        let choice = Choice::Confirm { votes: u32::try_from(votes).unwrap() };
        let (write, reply) = decide_of(Decide { gid: new.gid, choice, owner: samples::OWNER, next_attempt_at: NOW });
        writes.push(write);
        decided.push(reply);
    }
    run(&mut connection, writes).await;
    for reply in begun {
        assert!(is_new(&reply.await.unwrap().unwrap()));
    }
    for (index, reply) in decided.into_iter().enumerate() {
        let stands = matches!(reply.await.unwrap().unwrap(), Decided::Stands { .. });
        assert_eq!(stands, !index.is_multiple_of(3), "{index}");
    }
    let gids: Vec<Gid> = news.iter().map(|new| new.gid).collect();
    let stored = load::load(&mut connection, &gids).await.unwrap();
    for new in &news {
        let ids: Vec<_> = stored[&new.gid].branches.iter().map(|branch| &branch.branch).collect();
        assert_eq!(ids, new.branches.iter().map(|branch| &branch.branch).collect::<Vec<_>>());
    }
}

/// Every access to a table goes by an index and a given value.
#[tokio::test]
async fn no_statement_scans_a_table_that_grows() {
    let mut connection = database().await;
    let many: [(&str, &ManyRows); 16] = [
        ("begin", &begin::INSERT),
        ("branches", &begin::INSERT_BRANCHES),
        ("keys", &begin::GIDS_BY_KEY),
        ("enlist", &enlist::RAISE),
        ("decide", &decide::DECIDE),
        ("park", &progress::PARK),
        ("park branches", &progress::PARK_BRANCHES),
        ("finish", &progress::FINISH),
        ("unstick", &progress::UNSTICK),
        ("lease", &alone::LEASE),
        ("renew", &alone::RENEW),
        ("delete branches", &alone::DELETE_BRANCHES),
        ("delete", &alone::DELETE),
        ("heads", &load::HEADS),
        ("load branches", &load::BRANCHES),
        ("branch keys", &crate::sqlite::read::BRANCH_KEYS),
    ];
    let single = [
        ("due", alone::DUE),
        ("minted", alone::MINTED),
        ("release", alone::RELEASE),
        ("unfinished", alone::UNFINISHED),
        ("settle", alone::SETTLE),
    ];
    let texts = many.iter().flat_map(|(name, statement)| [1, 2, 64, 256].map(|rows| (*name, statement.text(rows))));
    for (name, text) in texts.chain(single.map(|(name, text)| (name, text.to_owned()))) {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"))).fetch_all(&mut connection).await;
        for row in plan.unwrap() {
            let step: String = row.get("detail");
            let of_log = [" t", " b", " tcc_log_transactions", " tcc_log_branches"];
            let scans = of_log.iter().any(|table| step == format!("SCAN{table}") || step.starts_with(&format!("SCAN{table} ")));
            // The partial indexes hold only what is unfinished or stuck.
            assert!(!scans || step.contains("INDEX tcc_log_transactions_due"), "{name}: {step}");
            // What is due and of the other kind is not even looked at.
            assert!(name != "due" || step.ends_with("(has_stuck=? AND next_attempt_at<?)"), "{name}: {step}");
            assert!(!step.contains("AUTOMATIC"), "{name}: {step}");
        }
    }
}

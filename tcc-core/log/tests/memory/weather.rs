//! What weather and crashes do to what was asked for.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use tcc_database::memory::{Memory, MemoryError, Passing, Step, Weather, gone};
use tcc_log::{
    Begun, Change, DatabaseLog, Decided, Due, Error, LogOptions, LogTables, NewTransaction, Owner, TxLog,
    conformance::samples::{cancel, confirm, keyed, transaction},
};
use tcc_types::{FingerprintBuilder, Gid, LogName, TxStatus};
use tokio::time::Instant;

use super::{START, Told, Turn, Virtual, gateway};

const GONE: Turn = Turn::Fails(gone);
const CONFLICT: Turn = Turn::Fails(|| MemoryError::Conflict.into());
const FULL: Turn = Turn::Fails(|| MemoryError::Full.into());

fn is_new(begun: &Result<Begun, Error>) -> bool {
    matches!(begun, Ok(Begun::Inserted { .. }))
}

fn is_unknown<A>(answer: &Result<A, Error>) -> bool {
    matches!(answer, Err(Error::Unknown(_)))
}

fn is_unavailable<A>(answer: &Result<A, Error>) -> bool {
    matches!(answer, Err(Error::Unavailable(_)))
}

fn status_in(tables: &LogTables, gid: Gid) -> Option<TxStatus> {
    tables.transaction(gid).map(|record| record.status)
}

async fn begun(log: &DatabaseLog) -> Gid {
    let new = transaction(log.now(), 2);
    assert!(is_new(&log.begin(new.clone()).await));
    new.gid
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_unknown_and_repeating_tells_what_stands() {
    let (log, database, weather) = gateway();
    let new = keyed(log.now(), "k");
    weather.next(Step::Answer, GONE);
    assert!(is_unknown(&log.begin(new.clone()).await));
    assert!(matches!(log.begin(new.clone()).await, Ok(Begun::Exists(record)) if record.gid == new.gid));
    weather.next(Step::Answer, GONE);
    assert!(is_unknown(&log.decide(confirm(log.now(), new.gid, 1)).await));
    assert_eq!(status_in(&database.durable(), new.gid), Some(TxStatus::Confirming));
    let decided = log.decide(cancel(log.now(), new.gid)).await;
    assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Confirming, .. })), "{decided:?}");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_did_not_arrive_is_unknown_and_repeating_writes_it() {
    let (log, database, weather) = gateway();
    let gid = begun(&log).await;
    weather.next(Step::Commit, GONE);
    assert!(is_unknown(&log.decide(confirm(log.now(), gid, 2)).await));
    assert_eq!(status_in(&database.visible(), gid), Some(TxStatus::Trying));
    let decided = log.decide(cancel(log.now(), gid)).await;
    assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Cancelling, .. })), "{decided:?}");
}

/// It was told to nobody: its caller is answered unknown, and another decision may stand.
#[tokio::test]
async fn a_crash_takes_back_a_decision_that_was_not_synced() {
    let (log, database, weather) = gateway();
    let gid = begun(&log).await;
    weather.next(Step::Sync, Turn::Waits);
    let crash = async {
        weather.arrived.notified().await;
        assert_eq!(status_in(&database.visible(), gid), Some(TxStatus::Confirming));
        assert_eq!(status_in(&database.durable(), gid), Some(TxStatus::Trying));
        database.crash();
        weather.let_go.notify_one();
    };
    let (decided, ()) = futures::join!(log.decide(confirm(log.now(), gid, 2)), crash);
    assert!(is_unknown(&decided), "{decided:?}");
    assert_eq!(status_in(&database.visible(), gid), Some(TxStatus::Trying));
    let decided = log.decide(cancel(log.now(), gid)).await;
    assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Cancelling, .. })), "{decided:?}");
    assert_eq!(status_in(&database.durable(), gid), Some(TxStatus::Cancelling));
}

/// Whoever is told of another's decision has committed after it: a crash cannot take it back any more.
#[tokio::test]
async fn a_decision_that_another_gateway_was_told_of_is_durable() {
    let (log, database, weather) = gateway();
    let other = crate::log(&database, 512, true);
    let gid = begun(&log).await;
    weather.next(Step::Sync, Turn::Waits);
    let meet = async {
        weather.arrived.notified().await;
        let decided = other.decide(cancel(log.now(), gid)).await;
        assert!(matches!(decided, Ok(Decided::Stands { status: TxStatus::Confirming, .. })), "{decided:?}");
        database.crash();
        weather.let_go.notify_one();
    };
    let (decided, ()) = futures::join!(log.decide(confirm(log.now(), gid, 2)), meet);
    assert!(is_unknown(&decided), "{decided:?}");
    assert_eq!(status_in(&database.visible(), gid), Some(TxStatus::Confirming));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_run_again_and_told_only_when_it_stays() {
    let (log, database, weather) = gateway();
    weather.next(Step::Statement, CONFLICT);
    weather.next(Step::Commit, CONFLICT);
    let gid = begun(&log).await;
    assert!(weather.is_over());
    assert_eq!((log.stats().conflicts, log.stats().commits), (2, 1));
    for _ in 0..5 {
        weather.next(Step::Statement, CONFLICT);
    }
    assert!(is_unavailable(&log.decide(cancel(log.now(), gid)).await));
    assert_eq!(status_in(&database.visible(), gid), Some(TxStatus::Trying));
    assert!(log.decide(cancel(log.now(), gid)).await.is_ok());
    assert_eq!(weather.passed(Step::Connect), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_unavailable_and_leaves_nothing() {
    let (log, database, weather) = gateway();
    weather.next(Step::Statement, FULL);
    assert!(is_unavailable(&log.begin(transaction(log.now(), 1)).await));
    assert_eq!(database.visible().transaction_count(), 0);
    begun(&log).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_log_goes_on_with_new_connections() {
    let (log, database, weather) = gateway();
    let gid = begun(&log).await;
    assert!(log.load(gid).await.unwrap().is_some());
    assert_eq!(weather.passed(Step::Connect), 2);
    database.crash();
    // The writer's next connection takes the place of the lost one; a reader that was used just now is believed to stand.
    let later = begun(&log).await;
    assert!(is_unavailable(&log.load(gid).await));
    assert_eq!(weather.passed(Step::Connect), 3);
    for gid in [gid, later] {
        assert!(log.load(gid).await.unwrap().is_some());
    }
    assert_eq!(weather.passed(Step::Connect), 4);
    // One that was not used for a while is asked first.
    database.crash();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(log.load(gid).await.unwrap().is_some());
    assert_eq!(weather.passed(Step::Connect), 5);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_does_not_answer_is_given_up() {
    let (log, database, weather) = gateway();
    // On its way there nothing was written.
    for step in [Step::Connect, Step::Begin, Step::Statement] {
        weather.next(step, Turn::Waits);
        assert!(is_unavailable(&log.begin(transaction(log.now(), 1)).await), "{step:?}");
        assert!(weather.is_over());
    }
    assert_eq!(database.visible().transaction_count(), 0);
    for (step, count) in [(Step::Commit, 0), (Step::Sync, 1), (Step::Answer, 2)] {
        weather.next(step, Turn::Waits);
        assert!(is_unknown(&log.begin(transaction(log.now(), 1)).await), "{step:?}");
        assert_eq!(database.visible().transaction_count(), count, "{step:?}");
    }
    for step in [Step::Connect, Step::Read] {
        weather.next(step, Turn::Waits);
        assert!(is_unavailable(&log.count_by_status().await), "{step:?}");
    }
    // None of those who gave up holds anything.
    let gid = begun(&log).await;
    assert!(log.load(gid).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_measured_from_its_statement_and_all_else_from_the_transactions_begin() {
    let (log, _database, weather) = gateway();
    let began = log.now();
    weather.next(Step::Statement, Turn::Takes(Duration::from_secs(2)));
    let new = NewTransaction { next_attempt_at: began, ..transaction(began, 1) };
    assert_eq!(log.begin(new.clone()).await.unwrap(), Begun::Inserted { created_at: began });
    weather.next(Step::Statement, Turn::Takes(Duration::from_secs(2)));
    let claimed = log.claim(Owner(7), Due::Fresh, 1, Duration::from_secs(10)).await.unwrap();
    assert_eq!(claimed[0].next_attempt_at, began.plus(Duration::from_secs(14)));
    assert_eq!(log.now(), began.plus(Duration::from_secs(4)));
}

#[tokio::test]
async fn options_are_checked_though_there_is_no_url_and_the_tables_keep_their_name() {
    let open = |options| {
        let clock = Arc::new(Virtual(Instant::now()));
        let opened = DatabaseLog::in_memory(options, crate::database(), Arc::<Told>::default(), clock, true);
        opened.map_err(|error| error.to_string())
    };
    let without_url = LogOptions { database_url: String::new(), ..LogOptions::default() };
    assert!(open(without_url.clone()).is_ok());
    let problem = open(LogOptions { batch_max: 0, ..without_url.clone() }).unwrap_err();
    assert!(problem.starts_with("batch_max:"), "{problem}");
    let problem = open(LogOptions { name: LogName::new("other").unwrap(), ..without_url }).unwrap_err();
    assert!(problem.contains("`main`") && problem.contains("`other`"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn an_observer_sees_what_each_commit_changed() {
    let (log, database, _weather) = gateway();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let of_observer = Arc::clone(&seen);
    database.observe(Box::new(move |before, after| {
        let changes = after.changes_since(before).map(|change| match change {
            Change::Inserted(record) => (record.gid, None, Some(record.status)),
            Change::Updated { before, after } => (after.gid, Some(before.status), Some(after.status)),
            Change::Deleted(record) => (record.gid, Some(record.status), None),
        });
        of_observer.lock().unwrap().push(changes.collect::<Vec<_>>());
    }));
    let (one, two) = (begun(&log).await, begun(&log).await);
    log.decide(confirm(log.now(), two, 2)).await.unwrap();
    log.decide(cancel(log.now(), two)).await.unwrap();
    log.finish(two).await.unwrap();
    log.delete_ended(None, log.now().plus(Duration::from_secs(60)), 10).await.unwrap();
    let (trying, confirming) = (TxStatus::Trying, TxStatus::Confirming);
    let expected = [
        vec![(one, None, Some(trying))],
        vec![(two, None, Some(trying))],
        vec![(two, Some(trying), Some(confirming))],
        // The loser of the decision commits, too.
        vec![],
        vec![(two, Some(confirming), Some(TxStatus::Confirmed))],
        vec![(two, Some(TxStatus::Confirmed), None)],
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(database.visible().transactions().map(|record| record.gid).collect::<Vec<_>>(), [one]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_log_neither_reads_nor_writes() {
    let (log, database, weather) = gateway();
    let gid = begun(&log).await;
    log.close().await;
    let steps = weather.passed(Step::Begin) + weather.passed(Step::Read);
    assert!(is_unavailable(&log.load(gid).await) && is_unavailable(&log.count_by_status().await));
    assert!(is_unavailable(&log.begin(transaction(START, 1)).await));
    assert_eq!(weather.passed(Step::Begin) + weather.passed(Step::Read), steps);
    assert_eq!(database.durable().transaction_count(), 1);
}

/// Delays and failures from a counter, and what passed when.
#[derive(Debug)]
struct Changeable {
    began: Instant,
    passed: Mutex<Vec<(Duration, Step)>>,
}

impl Weather for Changeable {
    fn pass(&self, step: Step) -> Passing<'_> {
        let mut passed = self.passed.lock().unwrap();
        passed.push((self.began.elapsed(), step));
        let number = passed.len() as u64;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_micros(number * 7_919 % 1_000)).await;
            match number % 23 {
                0 => Err(gone()),
                11 if step != Step::Sync && step != Step::Answer => Err(MemoryError::Conflict.into()),
                _ => Ok(()),
            }
        })
    }
}

/// Two gateways with many callers each; what passed, what was answered, and what is left.
async fn busy_hour() -> (Vec<(Duration, Step)>, String) {
    let weather = Arc::new(Changeable { began: Instant::now(), passed: Mutex::default() });
    let database: Memory<LogTables> = crate::database();
    let open = || {
        let (weather, clock) = (Arc::<Changeable>::clone(&weather), Arc::new(Virtual(weather.began)));
        DatabaseLog::in_memory(LogOptions::default(), database.clone(), weather, clock, true).unwrap()
    };
    let logs = [open(), open()];
    let life = async |number: u64| {
        let (log, gid) = (&logs[(number % 2) as usize], Gid::first_of(START.plus(Duration::from_millis(number / 2))));
        let fingerprint = FingerprintBuilder::new("sample").finish();
        let begun = log.begin(NewTransaction { gid, fingerprint, ..transaction(START, 2) }).await;
        let read = log.load(gid).await;
        let decided = log.decide(if number.is_multiple_of(3) { cancel(START, gid) } else { confirm(START, gid, 2) }).await;
        let finished = log.finish(gid).await;
        format!("{begun:?} {read:?} {decided:?} {finished:?}")
    };
    let answers = join_all((0..100).map(life)).await;
    for log in &logs {
        log.close().await;
    }
    let passed = weather.passed.lock().unwrap().clone();
    (passed, format!("{answers:#?} {:#?}", database.visible()))
}

#[tokio::test(start_paused = true)]
async fn the_same_calls_in_the_same_weather_take_the_same_steps_to_the_same_end() {
    let (passed, left) = busy_hour().await;
    assert!(left.contains("Confirmed") && left.contains("Cancelled") && left.contains("Unknown"), "{left}");
    let (passed_again, left_again) = busy_hour().await;
    assert_eq!(passed, passed_again);
    assert!(left == left_again, "{left} {left_again}");
}

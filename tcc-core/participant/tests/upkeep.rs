//! The background work as a server starts it: it settles what is in doubt by itself, survives a source that panics, and stops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::Sqlite;
use tcc_participant::{
    Options, OutcomeSource, Store, Unanswered, Upkeep,
    conformance::{Answers, BenchDatabase, Effects, Fixture, State},
};
use tcc_types::{BranchRowStatus, Clock, Gid, LogName, Outcome, OutcomeQuery, SystemClock, SystemEntropy, Timestamp, TryCall};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

async fn start(change: impl FnOnce(&mut Options)) -> (Fixture<Sqlite>, TempDir) {
    let folder = TempDir::new().expect("a folder is made");
    let url = format!("sqlite://{}", folder.path().join("participant.db").display());
    let mut options = Options::default();
    options.upkeep.sweep_interval_ms = 20;
    options.upkeep.sweep_backoff_ms_max = 20;
    options.upkeep.retention_interval_ms = 100;
    change(&mut options);
    (Fixture::new(Store::open(&url, &options).await.expect("the database opens")).await, folder)
}

async fn in_doubt(f: &Fixture<Sqlite>) -> TryCall {
    let call = TryCall { ask_after: Timestamp::from_millis(1), ..f.new_call() };
    f.assert_yes(f.try_branch(&call).await);
    call
}

/// Waits as long as it takes; a test that never gets there is stopped by its runner.
async fn until(mut reached: impl AsyncFnMut() -> bool) {
    while !reached().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn no_row_is_tried(f: &Fixture<Sqlite>) -> bool {
    f.store().count_tried().await.expect("it counts") == 0
}

#[tokio::test]
async fn a_reservation_in_doubt_is_settled_without_anybody_calling() {
    let (f, _folder) = start(|_| ()).await;
    let answers = Answers::default();
    let upkeep = Upkeep::start(&f.engine, Some(answers.clone()), &CancellationToken::new());
    for (outcome, status, effects) in [
        (Outcome::Confirmed, BranchRowStatus::Confirmed, Effects::SPENT),
        (Outcome::Cancelled, BranchRowStatus::Cancelled, Effects::RELEASED),
    ] {
        let call = TryCall { ask_after: Timestamp::from_millis(1), ..f.new_call() };
        answers.set(&call.key, outcome);
        f.assert_yes(f.try_branch(&call).await);
        until(|| no_row_is_tried(&f)).await;
        f.assert_branch(&call, Some(status), effects).await;
    }
    upkeep.stop().await;
}

#[tokio::test]
async fn rows_that_ended_long_ago_are_deleted_without_anybody_calling() {
    let (f, _folder) = start(|_| ()).await;
    let kept = f.branch_in(State::Cancelled).await;
    let mut old = f.new_call();
    let long_ago = SystemClock.now().minus(Duration::from_secs(30 * 86_400));
    old.key.gid = Gid::mint(long_ago, &SystemEntropy);
    f.cancel(&old).await;
    Sqlite::set_times(f.store(), &old.key, long_ago, long_ago).await.expect("its times are set");
    let upkeep = Upkeep::start::<_, Answers>(&f.engine, None, &CancellationToken::new());
    until(async || f.store().branch_row(&old.key).await.expect("the row is read").is_none()).await;
    upkeep.stop().await;
    assert!(f.store().branch_row(&kept.key).await.expect("the row is read").is_some());
}

#[tokio::test]
async fn after_the_shutdown_nothing_is_asked_any_more() {
    let (f, _folder) = start(|_| ()).await;
    let answers = Answers::default();
    let shutdown = CancellationToken::new();
    let upkeep = Upkeep::start(&f.engine, Some(answers.clone()), &shutdown);
    shutdown.cancel();
    upkeep.stop().await;
    let call = in_doubt(&f).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(answers.sizes(), [0; 0]);
    f.assert_branch(&call, Some(BranchRowStatus::Tried), Effects::RESERVED).await;
    f.engine.close().await;
}

/// Never answers its first question.
#[derive(Clone, Default)]
struct Hanging(Arc<AtomicU32>);

impl OutcomeSource for Hanging {
    async fn outcomes(&self, _: &LogName, _: &[OutcomeQuery]) -> Result<Vec<Outcome>, Unanswered> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_question_without_an_answer_does_not_hold_up_the_end() {
    let (f, _folder) = start(|_| ()).await;
    let call = in_doubt(&f).await;
    let hanging = Hanging::default();
    let upkeep = Upkeep::start(&f.engine, Some(hanging.clone()), &CancellationToken::new());
    until(async || hanging.0.load(Ordering::SeqCst) > 0).await;
    upkeep.stop().await;
    f.assert_branch(&call, Some(BranchRowStatus::Tried), Effects::RESERVED).await;
}

/// Panics at its first question.
#[derive(Clone, Default)]
struct Panicking(Arc<AtomicU32>);

impl OutcomeSource for Panicking {
    async fn outcomes(&self, _: &LogName, queries: &[OutcomeQuery]) -> Result<Vec<Outcome>, Unanswered> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "injected panic");
        Ok(vec![Outcome::Cancelled; queries.len()])
    }
}

#[tokio::test]
async fn a_source_that_panics_does_not_end_the_sweeps() {
    let (f, _folder) = start(|_| ()).await;
    let call = in_doubt(&f).await;
    let panicking = Panicking::default();
    let upkeep = Upkeep::start(&f.engine, Some(panicking.clone()), &CancellationToken::new());
    until(|| no_row_is_tried(&f)).await;
    upkeep.stop().await;
    assert!(panicking.0.load(Ordering::SeqCst) > 1);
    f.assert_branch(&call, Some(BranchRowStatus::Cancelled), Effects::RELEASED).await;
}

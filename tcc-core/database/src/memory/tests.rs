//! What a database in memory keeps, and what a crash takes back.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Fails at one step, while it is told to.
#[derive(Debug)]
struct FailsAt(Step);

impl Weather for FailsAt {
    fn pass(&self, step: Step) -> Passing<'_> {
        let fails = step == self.0;
        Box::pin(async move { if fails { Err(gone()) } else { Ok(()) } })
    }
}

fn set(to: u32) -> impl FnOnce(&mut u32) -> Result<(), sqlx::Error> {
    move |number| {
        *number = to;
        Ok(())
    }
}

fn increment(number: &mut u32) -> Result<(), sqlx::Error> {
    *number += 1;
    Ok(())
}

async fn calm(database: &Memory<u32>) -> Session<u32> {
    database.connect(Arc::new(Calm)).await.unwrap()
}

async fn commit_under(database: &Memory<u32>, weather: impl Weather) -> Result<(), sqlx::Error> {
    let mut session = database.connect(Arc::new(weather)).await?;
    session.begin().await?;
    session.write(increment).await?;
    session.commit().await
}

#[tokio::test]
async fn a_commit_is_durable_once_it_is_answered_and_a_dropped_transaction_leaves_nothing() {
    let database = Memory::new(0);
    commit_under(&database, Calm).await.unwrap();
    assert_eq!((database.visible(), database.durable()), (1, 1));
    let mut session = calm(&database).await;
    session.begin().await.unwrap();
    session.write(set(9)).await.unwrap();
    drop(session);
    assert_eq!((database.visible(), database.durable()), (1, 1));
}

#[tokio::test]
async fn where_a_commit_fails_decides_what_is_left_of_it() {
    for (step, visible, durable) in
        [(Step::Begin, 0, 0), (Step::Statement, 0, 0), (Step::Commit, 0, 0), (Step::Sync, 1, 0), (Step::Answer, 1, 1)]
    {
        let database = Memory::new(0);
        commit_under(&database, FailsAt(step)).await.unwrap_err();
        assert_eq!((database.visible(), database.durable()), (visible, durable), "{step:?}");
        database.crash();
        assert_eq!(database.visible(), durable, "{step:?}");
    }
}

#[tokio::test]
async fn a_later_commit_makes_earlier_ones_durable_and_so_does_the_database_by_itself() {
    let database = Memory::new(0);
    commit_under(&database, FailsAt(Step::Sync)).await.unwrap_err();
    commit_under(&database, Calm).await.unwrap();
    assert_eq!(database.durable(), 2);
    commit_under(&database, FailsAt(Step::Sync)).await.unwrap_err();
    assert_eq!(database.durable(), 2);
    database.sync();
    assert_eq!(database.durable(), 3);
}

#[tokio::test]
async fn a_failover_ends_every_session_and_leaves_what_the_replica_had() {
    let database = Memory::new(0);
    commit_under(&database, Calm).await.unwrap();
    let replica = database.durable();
    commit_under(&database, Calm).await.unwrap();
    commit_under(&database, FailsAt(Step::Sync)).await.unwrap_err();
    let mut session = calm(&database).await;
    session.begin().await.unwrap();
    database.fail_over(replica);
    assert!(session.commit().await.is_err());
    database.sync();
    assert_eq!((database.visible(), database.durable()), (1, 1));
}

#[tokio::test]
async fn a_crash_ends_every_session_and_what_it_had_begun() {
    let database = Memory::new(0);
    let mut session = calm(&database).await;
    session.begin().await.unwrap();
    session.write(set(9)).await.unwrap();
    database.crash();
    assert!(session.write(set(9)).await.is_err());
    assert!(session.commit().await.is_err());
    assert!(session.ping().await.is_err());
    assert_eq!(database.visible(), 0);
    commit_under(&database, Calm).await.unwrap();
    assert_eq!(database.durable(), 1);
}

#[tokio::test]
async fn a_failed_statement_leaves_nothing_but_a_rollback_unless_a_savepoint_was_set_before() {
    let database = Memory::new(0);
    let mut session = calm(&database).await;
    session.begin().await.unwrap();
    session.write(set(1)).await.unwrap();
    session.save().await.unwrap();
    let failed = session.write(|number| {
        *number = 2;
        Err::<(), _>(MemoryError::Conflict.into())
    });
    failed.await.unwrap_err();
    assert!(session.write(|_| Ok(())).await.is_err());
    session.roll_back();
    assert_eq!(session.read(|number| *number).await.unwrap(), 1);
    session.commit().await.unwrap();
    assert_eq!(database.durable(), 1);
    session.begin().await.unwrap();
    session.write(|_| Err::<(), _>(MemoryError::Full.into())).await.unwrap_err();
    session.commit().await.unwrap_err();
    assert!(!session.is_in_transaction());
    assert_eq!(database.visible(), 1);
}

#[tokio::test]
async fn transactions_take_turns_and_readers_do_not_wait() {
    let database = Memory::new(0);
    let mut first = calm(&database).await;
    first.begin().await.unwrap();
    first.write(set(7)).await.unwrap();
    let second = commit_under(&database, Calm);
    tokio::pin!(second);
    assert!(futures_pending(second.as_mut()).await);
    assert_eq!(calm(&database).await.read(|number| *number).await.unwrap(), 0);
    first.commit().await.unwrap();
    second.await.unwrap();
    assert_eq!(database.durable(), 8);
}

#[tokio::test]
async fn an_observer_sees_each_commit_with_what_was_there_before() {
    let (database, sum) = (Memory::new(0), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&sum);
    database.observe(Box::new(move |before, after| {
        assert_eq!(before + 1, *after);
        seen.fetch_add(u64::from(*after), Ordering::Relaxed);
    }));
    for _ in 0..3 {
        commit_under(&database, Calm).await.unwrap();
    }
    assert_eq!(sum.load(Ordering::Relaxed), 6);
}

/// Whether it waits for something.
async fn futures_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

//! Local transactions of the user's own beside the branches': run anew where the database asks for it, as the engine does with its
//! own.

use crate::{Database, Store};

impl<D: Database> Store<D> {
    /// Runs a whole local transaction, and runs it anew when the database asks for that (busy, deadlock, serialization
    /// failure), at most `attempts_max` times. `transaction` begins it ([`Store::begin`]) and commits it, and is called once
    /// for each attempt.
    ///
    /// Cancel-safe: a dropped call's transaction is rolled back, or the commit is under way.
    ///
    /// # Errors
    /// The database's, of the last attempt.
    pub async fn retrying<T, F>(&self, transaction: impl Fn() -> F + Send) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        let mut attempt = 1;
        loop {
            match transaction().await {
                Err(error) if attempt < self.options().attempts_max && asks_for_another_attempt::<D>(&error) => {
                    tracing::debug!(%error, attempt, "the local transaction runs anew");
                    attempt += 1;
                    tokio::task::yield_now().await;
                }
                ended => return ended,
            }
        }
    }
}

fn asks_for_another_attempt<D: Database>(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(D::is_retryable)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use sqlx::Sqlite;
    use tcc_database::lease::Transaction;
    use tempfile::TempDir;

    use super::*;
    use crate::Options;

    async fn opened(folder: &TempDir) -> Store<Sqlite> {
        let url = format!("sqlite://{}/a.db", folder.path().display());
        let options = Options { attempts_max: 3, lock_wait_ms_max: 1, ..Options::default() };
        Store::open(&url, &options).await.unwrap()
    }

    /// Begins until the holder of the write lock is gone, which is before the attempt with this number; how often it began, and
    /// what became of it.
    async fn begun_beside(holder: Transaction<Sqlite>, gone_before: u32, store: &Store<Sqlite>) -> (u32, bool) {
        let (holder, attempts) = (Mutex::new(Some(holder)), AtomicU32::new(0));
        let ended = store
            .retrying(|| async {
                if attempts.fetch_add(1, Ordering::Relaxed) + 1 == gone_before {
                    let held = holder.lock().unwrap().take();
                    if let Some(held) = held {
                        held.rollback().await?;
                    }
                }
                store.begin().await?.commit().await
            })
            .await;
        (attempts.into_inner(), ended.is_ok())
    }

    #[tokio::test]
    async fn a_transaction_that_finds_the_database_busy_runs_anew_up_to_attempts_max() {
        let folder = tempfile::tempdir().unwrap();
        let (holds, waits) = (opened(&folder).await, opened(&folder).await);
        for (gone_before, expected) in [(1, (1, true)), (3, (3, true)), (4, (3, false))] {
            let holder = holds.begin().await.unwrap();
            assert_eq!(begun_beside(holder, gone_before, &waits).await, expected, "{gone_before}");
        }
    }

    #[tokio::test]
    async fn what_no_other_attempt_can_help_runs_once() {
        let folder = tempfile::tempdir().unwrap();
        let (store, attempts) = (opened(&folder).await, AtomicU32::new(0));
        let failed = store
            .retrying(|| async {
                attempts.fetch_add(1, Ordering::Relaxed);
                let mut transaction = store.begin().await?;
                sqlx::query("INSERT INTO nowhere VALUES (1)").execute(&mut *transaction).await?;
                transaction.commit().await
            })
            .await;
        assert!(failed.is_err());
        assert_eq!(attempts.into_inner(), 1);
    }
}

//! What stands between a machine and a database: the time that things take, and whatever goes wrong at the moment.

use std::{
    collections::BTreeSet,
    fmt, io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tcc_database::memory::{MemoryError, Passing, Step, Weather, gone};
use tokio::{sync::Notify, time::sleep};

use crate::{
    dice::Dice,
    place::{Db, Host},
    world::{Point, World},
};

/// How a database is at the moment.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    now: Mutex<Now>,
    healed: Notify,
}

/// See [`Conditions`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Now {
    /// Its process is not there.
    pub(crate) is_down: bool,
    /// Nothing that these send arrives, and nothing comes back, until that is healed; then their connections are reset.
    pub(crate) cut: BTreeSet<Host>,
    /// So long each sync takes beside the usual.
    pub(crate) sync_takes: Duration,
    /// Nothing more can be written.
    pub(crate) is_full: bool,
    /// So many statements in a thousand are given up for the sake of another transaction.
    pub(crate) conflicts_per_mille: u32,
    /// So many commits in a thousand are never sent, and so many are made and never answered.
    pub(crate) lost_commits_per_mille: u32,
}

impl Conditions {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now());
        self.healed.notify_waiters();
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is in the way of this machine; whether it had to.
    async fn reach(&self, host: Host) -> bool {
        let mut waited = false;
        loop {
            let mut healed = pin!(self.healed.notified());
            healed.as_mut().enable();
            if !self.now().cut.contains(&host) {
                return waited;
            }
            waited = true;
            healed.await;
        }
    }
}

/// One machine's way to one database.
pub(crate) struct Line {
    world: Arc<World>,
    host: Host,
    db: Db,
    dice: Dice,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.host, self.db)
    }
}

impl Line {
    pub(crate) fn between(world: &Arc<World>, host: Host, db: Db) -> Arc<dyn Weather> {
        let dice = world.dice(format_args!("{host} to {db}"));
        Arc::new(Self { world: Arc::clone(world), host, db, dice })
    }

    async fn go(&self, step: Step) -> Result<(), sqlx::Error> {
        self.world.coverage().steps += 1;
        self.world.visit(self.host, Point::Database(self.db, step)).await;
        let conditions = &self.world.conditions[&self.db];
        if conditions.reach(self.host).await {
            return Err(gone());
        }
        let now = conditions.now().clone();
        if now.is_down {
            return Err(sqlx::Error::Io(io::Error::from(io::ErrorKind::ConnectionRefused)));
        }
        match step {
            Step::Sync => sleep(self.dice.millis(1..=4) + now.sync_takes).await,
            Step::Statement if now.is_full => return Err(database(MemoryError::Full)),
            Step::Statement if self.dice.happens(now.conflicts_per_mille) => return Err(database(MemoryError::Conflict)),
            Step::Commit | Step::Answer if self.dice.happens(now.lost_commits_per_mille) => {
                self.world.tell(self.host, format_args!("loses its connection to {} at {step:?}", self.db));
                return Err(gone());
            }
            Step::Connect | Step::Begin | Step::Statement | Step::Read | Step::Commit | Step::Answer => {}
        }
        Ok(())
    }
}

impl Weather for Line {
    fn pass(&self, step: Step) -> Passing<'_> {
        Box::pin(self.go(step))
    }
}

fn database(error: MemoryError) -> sqlx::Error {
    sqlx::Error::Database(Box::new(error))
}

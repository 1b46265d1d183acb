//! What the tests of the log in memory share: weather that does what a test says, and clocks that it moves.

mod equivalence;
mod weather;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tcc_database::memory::{Memory, Passing, Step, Weather};
use tcc_log::{DatabaseLog, LogOptions, LogTables};
use tcc_types::{Clock, Timestamp};
use tokio::{sync::Notify, time::Instant};

/// What happens at a step.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// It fails.
    Fails(fn() -> sqlx::Error),
    /// It takes that long.
    Takes(Duration),
    /// It waits until it is let go.
    Waits,
}

/// Weather that does what it is told, in order, and is calm otherwise.
#[derive(Debug, Default)]
struct Told {
    turns: Mutex<VecDeque<(Step, Turn)>>,
    passed: Mutex<Vec<Step>>,
    arrived: Notify,
    let_go: Notify,
}

impl Told {
    /// At the next of these steps that comes once all turns before have come, this happens.
    fn next(&self, step: Step, turn: Turn) {
        self.turns.lock().unwrap().push_back((step, turn));
    }

    fn passed(&self, step: Step) -> usize {
        self.passed.lock().unwrap().iter().filter(|passed| **passed == step).count()
    }

    /// Nothing is left of what it was told.
    fn is_over(&self) -> bool {
        self.turns.lock().unwrap().is_empty()
    }
}

impl Weather for Told {
    fn pass(&self, step: Step) -> Passing<'_> {
        self.passed.lock().unwrap().push(step);
        let turn = self.turns.lock().unwrap().pop_front_if(|(at, _)| *at == step);
        Box::pin(async move {
            match turn {
                None => Ok(()),
                Some((_, Turn::Fails(error))) => Err(error()),
                Some((_, Turn::Takes(duration))) => {
                    tokio::time::sleep(duration).await;
                    Ok(())
                }
                Some((_, Turn::Waits)) => {
                    self.arrived.notify_one();
                    self.let_go.notified().await;
                    Ok(())
                }
            }
        })
    }
}

/// 2026-01-01, about.
const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Tokio's time as a clock, so that it stands still while tokio's does.
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        START.plus(self.0.elapsed())
    }
}

/// A clock that stands still until it is moved.
struct Still(AtomicI64);

impl Still {
    fn pass(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A gateway with one writer, its database, and its weather.
fn gateway() -> (DatabaseLog, Memory<LogTables>, Arc<Told>) {
    let (database, weather) = (crate::database(), Arc::<Told>::default());
    let options = LogOptions { batches_in_flight_max: 1, finish_delay_ms: 0, ..LogOptions::default() };
    let clock = Arc::new(Virtual(Instant::now()));
    let log = DatabaseLog::in_memory(options, database.clone(), Arc::<Told>::clone(&weather), clock, true).unwrap();
    (log, database, weather)
}

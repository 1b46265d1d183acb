//! How much the coordinator takes on: refused early, before anything is durable, and never a second phase.

mod gate;

use std::{sync::Arc, time::Duration};

use tcc_log::Due;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::gate::{Gate, Ticket};
use crate::{Config, Error};

/// The places there are.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: Arc<Gate>,
    in_flight_max: usize,
    idle: Arc<Semaphore>,
    recovery: Arc<Semaphore>,
    recovery_stuck: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    watches_max: usize,
}

/// A driver's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code, reason = "held, not read")] Held);

#[derive(Debug)]
#[allow(dead_code, reason = "held, not read")]
enum Held {
    InFlight(Ticket),
    Counted(OwnedSemaphorePermit),
    Nothing,
}

impl Place {
    /// For a driver that must run whatever the load: it carries out or asks after what was begun before.
    pub(crate) fn unbounded() -> Self {
        Self(Held::Nothing)
    }
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            in_flight: Gate::new(
                config.transactions_in_flight_max,
                config.admission_queue_max,
                // A transaction's lease begins before it waits.
                Duration::from_millis(config.admission_wait_ms.min(config.lease_ms / 4)),
            ),
            in_flight_max: config.transactions_in_flight_max,
            idle: places(config.idle_drivers_max),
            recovery: places(config.recovery_in_flight_max),
            recovery_stuck: places(config.recovery_stuck_max),
            watches: places(config.watches_max),
            watches_max: config.watches_max,
        }
    }

    /// For a new transaction. Waits a moment for its turn.
    ///
    /// Cancel-safe: a dropped call gives its turn up.
    pub(crate) async fn admit(&self) -> Result<Place, Error> {
        let limit = self.in_flight_max as u64;
        match self.in_flight.enter().await {
            Ok(ticket) => Ok(Place(Held::InFlight(ticket))),
            Err(gate::Refused) => Err(Error::Exhausted { limit_name: "transactions_in_flight_max", limit }),
        }
    }

    /// For a driver that waits for a request; `None`: it should wait in the log.
    pub(crate) fn idle(&self) -> Option<Place> {
        Arc::clone(&self.idle).try_acquire_owned().ok().map(|permit| Place(Held::Counted(permit)))
    }

    /// For a transaction of this kind that recovery takes up; `None`: later.
    pub(crate) fn recover(&self, due: Due) -> Option<Place> {
        Arc::clone(self.recovery(due)).try_acquire_owned().ok().map(|permit| Place(Held::Counted(permit)))
    }

    /// How many more of this kind recovery may take up now.
    pub(crate) fn recoverable(&self, due: Due) -> usize {
        self.recovery(due).available_permits()
    }

    /// Apart, since a stuck transaction holds its place for as long as its participant says nothing.
    const fn recovery(&self, due: Due) -> &Arc<Semaphore> {
        match due {
            Due::Fresh => &self.recovery,
            Due::Stuck => &self.recovery_stuck,
        }
    }

    /// For a stream that watches a transaction.
    pub(crate) fn watch(&self) -> Result<Place, Error> {
        let limit = self.watches_max as u64;
        let permit = Arc::clone(&self.watches).try_acquire_owned();
        permit.map(|permit| Place(Held::Counted(permit))).map_err(|_| Error::Exhausted { limit_name: "watches_max", limit })
    }
}

//! The log on a database in memory, for simulations: production's writer and answers, on tables that are a value. Its weather decides
//! what takes time and what fails; nothing here does, and nothing here depends on chance.
//!
//! Used by simulations and tests only: what it keeps ends with the process.

mod apply;
mod read;
mod tables;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tcc_database::{
    lease,
    memory::{Memory, MemoryError, Session, Weather},
};
use tcc_types::{Clock, Timestamp};

pub use self::tables::{Change, LogTables};
use self::{apply::Given, read::Readers};
use crate::{
    Error, LogOptions,
    fault::{Fault, Meaning},
    log::Opened,
    writer::{Backend, plan::Run},
};

/// How a database in memory is written to.
pub(crate) struct InMemory {
    database: Memory<LogTables>,
    weather: Arc<dyn Weather>,
    clock: Arc<dyn Clock>,
    shared: bool,
    connect_timeout: Duration,
    write_timeout: Duration,
}

/// Checks the options and whose log it is. Connects nowhere: whoever writes or reads does, when there is something to do.
pub(crate) fn open(
    options: &LogOptions,
    database: Memory<LogTables>,
    weather: Arc<dyn Weather>,
    clock: Arc<dyn Clock>,
    shared: bool,
) -> Result<Opened<InMemory>, Error> {
    options.check_limits()?;
    options.check_name(database.visible().name().as_str())?;
    let another = || InMemory {
        database: database.clone(),
        weather: Arc::clone(&weather),
        clock: Arc::clone(&clock),
        shared,
        connect_timeout: Duration::from_millis(options.connect_timeout_ms),
        write_timeout: Duration::from_millis(options.write_timeout_ms),
    };
    let (backend, more) = (another(), (1..options.batches_in_flight_max).map(|_| another()).collect());
    let reads = Arc::new(Readers::new(options, database.clone(), Arc::clone(&weather)));
    Ok(Opened { backend, connection: None, more, reads, clock, shared })
}

#[async_trait]
impl Backend for InMemory {
    type Connection = Session<LogTables>;

    fn write_timeout(&self) -> Option<Duration> {
        Some(self.write_timeout)
    }

    async fn connect(&mut self) -> Result<Session<LogTables>, sqlx::Error> {
        let connecting = self.database.connect(Arc::clone(&self.weather));
        lease::within(self.connect_timeout, "no connection within `connect_timeout_ms`", connecting).await
    }

    async fn begin(&mut self, session: &mut Session<LogTables>) -> Result<Timestamp, sqlx::Error> {
        session.begin().await?;
        Ok(self.clock.now())
    }

    async fn apply(&mut self, session: &mut Session<LogTables>, run: &mut Run, now: Timestamp) -> Result<(), Fault> {
        apply::apply(session, run, Given { now, clock: &*self.clock, shared: self.shared }).await
    }

    async fn commit(&mut self, session: &mut Session<LogTables>) -> Result<(), sqlx::Error> {
        session.commit().await
    }

    async fn roll_back(&mut self, session: &mut Session<LogTables>) -> Result<(), sqlx::Error> {
        session.roll_back();
        Ok(())
    }

    async fn disconnect(&mut self, session: Session<LogTables>) -> Result<(), sqlx::Error> {
        drop(session);
        Ok(())
    }

    fn meaning_of(error: &sqlx::Error) -> Meaning {
        meaning_of(error)
    }
}

/// As of a server's errors.
fn meaning_of(error: &sqlx::Error) -> Meaning {
    Meaning::of_driver(error).unwrap_or_else(|| {
        let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MemoryError>());
        match error {
            Some(MemoryError::Conflict) => Meaning::Again,
            Some(MemoryError::Duplicate | MemoryError::Check) => Meaning::Unusable,
            Some(MemoryError::Full | MemoryError::Misuse) => Meaning::Down,
            None => Meaning::Unavailable,
        }
    })
}

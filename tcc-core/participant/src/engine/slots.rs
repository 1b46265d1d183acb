//! How many operations may be under way. Tries cannot take all the room: a rush of new reservations must not hold up the end of
//! those that stand.

use std::sync::Arc;

use tcc_types::Op;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::Unknown;
use crate::Options;

/// Room for one operation, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(
    #[allow(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>,
    #[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit,
);

/// The room there is.
pub(super) struct Slots {
    operations: Limit,
    tries: Limit,
}

struct Limit {
    name: &'static str,
    limit: u32,
    permits: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            operations: Limit::new("operations_in_flight_max", options.operations_in_flight_max),
            tries: Limit::new("tries_in_flight_max", options.tries_in_flight_max),
        }
    }

    pub(super) fn take(&self, op: Op) -> Result<Slot, Unknown> {
        let tries = match op {
            Op::Try => Some(self.tries.take()?),
            Op::Confirm | Op::Cancel => None,
        };
        Ok(Slot(tries, self.operations.take()?))
    }

    pub(super) fn close(&self) {
        self.tries.permits.close();
        self.operations.permits.close();
    }
}

impl Limit {
    fn new(name: &'static str, limit: u32) -> Self {
        let permits = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { name, limit, permits: Arc::new(Semaphore::new(permits)) }
    }

    fn take(&self) -> Result<OwnedSemaphorePermit, Unknown> {
        self.permits.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => Unknown::Overloaded { limit_name: self.name, limit: self.limit },
            TryAcquireError::Closed => Unknown::ShuttingDown,
        })
    }
}

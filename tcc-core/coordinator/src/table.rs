//! Which transactions have a driver in this process. At most one driver a transaction; that is efficiency, not safety.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tcc_types::Gid;
use tokio::sync::{mpsc, watch};

use crate::{TxView, driver::Command};

/// The way to a driver.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<TxView>,
}

/// Drivers by transaction.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<HashMap<Gid, Handle>>);

impl Table {
    pub(crate) fn get(&self, gid: Gid) -> Option<Handle> {
        self.lock().get(&gid).cloned()
    }

    /// Enters a driver, unless there is one: then that one is returned and the new one must not start.
    pub(crate) fn enter(&self, gid: Gid, handle: Handle) -> Result<(), Handle> {
        match self.lock().entry(gid) {
            Entry::Occupied(there) => Err(there.get().clone()),
            Entry::Vacant(place) => {
                place.insert(handle);
                Ok(())
            }
        }
    }

    /// Takes a driver out, unless a command has reached it: then it gets that one and goes on.
    pub(crate) fn leave_if_idle(&self, gid: Gid, commands: &mut mpsc::Receiver<Command>) -> Option<Command> {
        let mut table = self.lock();
        if let Ok(command) = commands.try_recv() {
            return Some(command);
        }
        table.remove(&gid);
        None
    }

    /// Takes a driver out.
    pub(crate) fn leave(&self, gid: Gid) {
        self.lock().remove(&gid);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Gid, Handle>> {
        // Every critical section is one map operation: a panic cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

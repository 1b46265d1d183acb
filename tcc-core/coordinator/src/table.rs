//! Which transactions have a driver in this process. At most one driver a transaction; that is efficiency, not safety.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tcc_types::Gid;
use tokio::sync::{mpsc, watch};

use crate::{TxView, driver::Order};

/// The way to a driver.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) view: watch::Receiver<TxView>,
}

/// Drivers by transaction.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<HashMap<Gid, Handle>>);

/// A driver's entry. However the driver ends, also by a panic, its entry goes with it, and never another driver's.
#[derive(Debug)]
pub(crate) struct Seat {
    table: Arc<Table>,
    gid: Gid,
    orders: mpsc::WeakSender<Order>,
}

impl Table {
    pub(crate) fn get(&self, gid: Gid) -> Option<Handle> {
        self.lock().get(&gid).cloned()
    }

    /// Enters a driver, unless there is one: then that one is returned and the new one must not start.
    pub(crate) fn enter(self: &Arc<Self>, gid: Gid, handle: &Handle) -> Result<Seat, Handle> {
        match self.lock().entry(gid) {
            Entry::Occupied(there) => Err(there.get().clone()),
            Entry::Vacant(place) => {
                place.insert(handle.clone());
                Ok(Seat { table: Arc::clone(self), gid, orders: handle.orders.downgrade() })
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Gid, Handle>> {
        // Every critical section is one map operation: a panic cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // While the entry is this driver's, it holds a sender; so a failed upgrade means that it is not.
        let own = self.orders.upgrade().zip(table.get(&self.gid)).is_some_and(|(own, there)| own.same_channel(&there.orders));
        if own {
            table.remove(&self.gid);
        }
    }
}

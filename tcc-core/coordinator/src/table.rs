//! Which transactions have a driver in this process. At most one driver a transaction; that is efficiency, not safety.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tcc_log::{Decides, TxRecord};
use tcc_types::Gid;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    TxView,
    driver::{Command, Order},
    view::steps,
};

/// The way to a driver.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) view: watch::Receiver<TxView>,
    pub(crate) decides: Decides,
    pub(crate) since: Instant,
}

impl Handle {
    /// Whether recovery takes it from its driver when the lease is not prolonged. An undecided transaction that waits for a
    /// request is anybody's who is asked.
    fn is_leased(&self) -> bool {
        let status = self.view.borrow().status;
        match self.decides {
            Decides::AtVotes => !status.has_ended(),
            Decides::OnRequest | Decides::OnRequestOpen => status.decision().is_some() && !status.has_ended(),
        }
    }

    /// Tells the driver that others may have changed the transaction. One whose queue is full hears it the next time.
    pub(crate) fn look(&self) {
        let (taken, _) = oneshot::channel();
        let _ = self.orders.try_send(Order { command: Box::new(Command::Look), taken });
    }

    /// Whether the log has a decision or an end that the driver has not shown yet.
    pub(crate) fn is_behind(&self, record: &TxRecord) -> bool {
        steps(record.status) > steps(self.view.borrow().status)
    }
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

    /// Whose leases have to be prolonged: what has been driven here for longer than `age`.
    pub(crate) fn leased_for(&self, age: Duration) -> Vec<Gid> {
        // Only few live that long; the lock is held for no longer than it takes to look.
        let old = self
            .lock()
            .iter()
            .filter(|(_, handle)| handle.since.elapsed() >= age)
            .map(|(gid, handle)| (*gid, handle.clone()))
            .collect::<Vec<_>>();
        old.into_iter().filter(|(_, handle)| handle.is_leased()).map(|(gid, _)| gid).collect()
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

//! What a user writes for many operations at once: one handler beside the three of [`Participant`].

use std::fmt;

use crate::{BranchContext, ConnectionOf, Participant, Result, Tried};

/// The operations of one local transaction that have business to do, each on a branch of its own.
#[non_exhaustive]
pub struct Batch<P: Participant + ?Sized> {
    /// What is to be reserved, or refused.
    pub tries: Vec<(BranchContext, P::Payload)>,
    /// What is to be spent.
    pub confirms: Vec<(BranchContext, P::Reserved)>,
    /// What is to be released.
    pub cancels: Vec<(BranchContext, P::Reserved)>,
}

impl<P: Participant + ?Sized> Batch<P> {
    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tries.is_empty() && self.confirms.is_empty() && self.cancels.is_empty()
    }
}

impl<P: Participant + ?Sized> Default for Batch<P> {
    fn default() -> Self {
        Self { tries: Vec::new(), confirms: Vec::new(), cancels: Vec::new() }
    }
}

impl<P: Participant + ?Sized> fmt::Debug for Batch<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("tries", &self.tries.len())
            .field("confirms", &self.confirms.len())
            .field("cancels", &self.cancels.len())
            .finish()
    }
}

/// A participant that does the business of many operations in a few statements, so that they share a local transaction on any
/// database. Hand it to [`Engine::batched`](crate::Engine::batched).
///
/// Where it fails, its transaction is rolled back and its operations run in halves, down to the one that is to blame. A single
/// operation is a batch of one; the handlers of [`Participant`] are for those who have a transaction of their own
/// ([`within`](crate::within)).
pub trait BatchParticipant: Participant {
    /// What a Try of this payload reserves and answers if it is not refused, where that is known before: it is then written
    /// together with the branch's row, which saves a second write of it. What [`BatchParticipant::on_batch`] returns is what counts.
    fn foresee(&self, payload: &Self::Payload) -> Option<Tried<Self::Reserved>> {
        let _ = payload;
        None
    }

    /// Spends, releases and reserves. Returns what became of each Try, in their order.
    ///
    /// Several batches may run at the same time, also in other processes: rows that they share are taken in one order, for the
    /// whole batch and not for each kind of operation, or the database will find them waiting for each other.
    ///
    /// A Try that is refused must leave nothing behind: there is no savepoint around it, unlike in [`Participant::on_try`].
    ///
    /// # Errors
    /// As the handlers of [`Participant`]: everything is rolled back. No error of the database may be ignored: one may mean that it has
    /// ended the transaction (MySQL after a deadlock), and each statement after it then commits by itself.
    fn on_batch(
        &self,
        conn: &mut ConnectionOf<Self>,
        batch: Batch<Self>,
    ) -> impl Future<Output = Result<Vec<Tried<Self::Reserved>>>> + Send;
}

//! What the clients were told, and when. Pure.

use std::{collections::BTreeSet, time::Duration};

use tcc_proto::order::v1::{CreateOrderRequest, OrderStatus};

/// One acknowledgement that a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) order_key: String,
    pub(crate) order_id: String,
    pub(crate) status: OrderStatus,
    /// Which gateway said so.
    pub(crate) gateway: usize,
    /// It was for an order with a coupon.
    pub(crate) with_coupon: bool,
    /// When it was asked, since the beginning.
    pub(crate) sent: Duration,
    /// When it answered, since the beginning.
    pub(crate) at: Duration,
}

/// Everything that all clients were told, in no order between clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) told: Vec<Told>,
    /// Orders whose clients never got an answer, or one that no server may give, each as a sentence.
    pub(crate) problems: Vec<String>,
    /// Keys of orders that nobody may find confirmed: cancelled or left by whoever holds them, or more than there is.
    pub(crate) never_confirmed: BTreeSet<String>,
    /// Keys of orders that were held and then confirmed by whoever holds them, long before their time.
    pub(crate) to_be_confirmed: BTreeSet<String>,
    /// Orders whose clients went away before they had an answer, and that nobody asked for again.
    pub(crate) abandoned: Vec<CreateOrderRequest>,
    /// How often a request was sent again.
    pub(crate) repeats: u64,
    /// The time from an order's first sending to its first acknowledgement.
    pub(crate) latencies: Vec<Duration>,
}

impl History {
    /// Adds what another client was told.
    pub(crate) fn extend(&mut self, other: Self) {
        self.told.extend(other.told);
        self.problems.extend(other.problems);
        self.never_confirmed.extend(other.never_confirmed);
        self.to_be_confirmed.extend(other.to_be_confirmed);
        self.abandoned.extend(other.abandoned);
        self.repeats += other.repeats;
        self.latencies.extend(other.latencies);
    }

    /// When the first order was acknowledged after `at`.
    pub(crate) fn first_after(&self, at: Duration) -> Option<Duration> {
        self.told.iter().map(|told| told.at).filter(|told| *told > at).min()
    }
}

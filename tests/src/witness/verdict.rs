//! Finds out whether what the clients were told is what is stored. Pure, so that it can be tested that each kind of violation is
//! found.

use std::collections::{BTreeMap, BTreeSet};

use tcc_proto::order::v1::OrderStatus;

use super::history::{History, Told};

/// Where a stored order or transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not ended.
    Open,
    /// Spent.
    Confirmed,
    /// Released.
    Cancelled,
}

/// One row of the log, or of the orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) order_key: String,
    pub(crate) order_id: String,
    pub(crate) fate: Fate,
}

/// The pieces of one SKU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shelf {
    /// All that were ever there.
    pub(crate) initial: i64,
    /// Still reserved.
    pub(crate) frozen: i64,
    /// Spent, as the stock says.
    pub(crate) sold: i64,
    /// Spent, as the confirmed orders say.
    pub(crate) ordered: i64,
}

/// What the databases have once everything has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// The transaction log's.
    pub(crate) transactions: Vec<Stored>,
    /// The orders' own rows.
    pub(crate) orders: Vec<Stored>,
    /// Pieces by SKU.
    pub(crate) shelves: BTreeMap<String, Shelf>,
    /// Coupons that are still locked.
    pub(crate) locked_coupons: Vec<String>,
    /// Branch rows that are still tried, each as words.
    pub(crate) tried_rows: Vec<String>,
}

/// What must never be; each a sentence for one order, SKU, coupon or row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    /// Acknowledged as confirmed or held, and not there.
    pub(crate) lost: Vec<String>,
    /// One order key, and more than one order that is not cancelled, or more than one id.
    pub(crate) doubled: Vec<String>,
    /// More sold, or promised by confirmed orders, than there was.
    pub(crate) oversold: Vec<String>,
    /// Still reserved after everything has ended.
    pub(crate) leaked: Vec<String>,
    /// Acknowledged as one outcome, and another stands.
    pub(crate) contradicted: Vec<String>,
}

impl Violations {
    /// How many of each kind.
    pub(crate) fn in_words(&self) -> String {
        let Self { lost, doubled, oversold, leaked, contradicted } = self;
        let [lost, doubled, oversold, leaked, contradicted] = [lost, doubled, oversold, leaked, contradicted].map(Vec::len);
        format!("{lost} lost, {doubled} doubled, {oversold} oversold, {leaked} leaked, {contradicted} contradicted")
    }

    /// Every sentence.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        [&self.lost, &self.doubled, &self.oversold, &self.leaked, &self.contradicted].into_iter().flatten()
    }
}

/// Compares what was told with what is stored.
pub(crate) fn violations(history: &History, evidence: &Evidence) -> Violations {
    let transactions = by_id(&evidence.transactions);
    let orders = by_id(&evidence.orders);
    let mut found = Violations {
        doubled: doubled(history, evidence),
        oversold: oversold(evidence),
        leaked: leaked(evidence),
        ..Violations::default()
    };
    for (order_id, order) in told_by_id(history) {
        let stored = Fates { log: transactions.get(order_id).copied(), row: orders.get(order_id).copied() };
        if let Some(sentence) = lost(order_id, &order, stored) {
            found.lost.push(sentence);
        }
        if let Some(sentence) = contradicted(order_id, &order, stored) {
            found.contradicted.push(sentence);
        }
        if let Some(sentence) = turned(order_id, &order) {
            found.contradicted.push(sentence);
        }
    }
    found.contradicted.extend(against_their_will(history, evidence));
    found
}

/// What the clients were told of one order.
struct Order<'a> {
    order_key: &'a str,
    told: Vec<&'a Told>,
}

impl Order<'_> {
    fn was(&self, status: OrderStatus) -> bool {
        self.told.iter().any(|told| told.status == status)
    }
}

/// Where one order is, as its transaction and its own row say.
#[derive(Clone, Copy)]
struct Fates {
    log: Option<Fate>,
    row: Option<Fate>,
}

fn by_id(stored: &[Stored]) -> BTreeMap<&str, Fate> {
    stored.iter().map(|one| (one.order_id.as_str(), one.fate)).collect()
}

fn told_by_id(history: &History) -> BTreeMap<&str, Order<'_>> {
    let mut orders: BTreeMap<&str, Order<'_>> = BTreeMap::new();
    for told in &history.told {
        let order = || Order { order_key: &told.order_key, told: Vec::new() };
        orders.entry(&told.order_id).or_insert_with(order).told.push(told);
    }
    orders
}

fn lost(order_id: &str, order: &Order<'_>, stored: Fates) -> Option<String> {
    let key = order.order_key;
    let Fates { log, row } = stored;
    if order.was(OrderStatus::Confirmed) && (log, row) != (Some(Fate::Confirmed), Some(Fate::Confirmed)) {
        return Some(format!(
            "order {key} ({order_id}) was acknowledged as confirmed; its transaction is {log:?}, its row {row:?}"
        ));
    }
    if order.was(OrderStatus::Cancelled) && log.is_none() {
        return Some(format!("order {key} ({order_id}) was acknowledged as cancelled; the log has no such transaction"));
    }
    if order.was(OrderStatus::Held) && (log.is_none() || row.is_none()) {
        return Some(format!("order {key} ({order_id}) was acknowledged as held; its transaction is {log:?}, its row {row:?}"));
    }
    None
}

fn contradicted(order_id: &str, order: &Order<'_>, stored: Fates) -> Option<String> {
    let key = order.order_key;
    let Fates { log, row } = stored;
    if !order.was(OrderStatus::Cancelled) {
        return None;
    }
    if order.was(OrderStatus::Confirmed) {
        return Some(format!("order {key} ({order_id}) was acknowledged as confirmed and as cancelled"));
    }
    let confirmed = [log, row].contains(&Some(Fate::Confirmed));
    confirmed
        .then(|| format!("order {key} ({order_id}) was acknowledged as cancelled; its transaction is {log:?}, its row {row:?}"))
}

/// Whoever asks after an order was decided is told so.
fn turned(order_id: &str, order: &Order<'_>) -> Option<String> {
    let decided = order.told.iter().filter(|told| told.status != OrderStatus::Held).map(|told| told.at).min()?;
    let held = order.told.iter().find(|told| told.status == OrderStatus::Held && told.sent > decided)?;
    let key = order.order_key;
    Some(format!("order {key} ({order_id}) was acknowledged as decided at {decided:?} and as held at {:?}", held.at))
}

/// What became of an order is what whoever placed it had asked for.
fn against_their_will(history: &History, evidence: &Evidence) -> Vec<String> {
    let stored = || evidence.transactions.iter().chain(&evidence.orders);
    let confirmed = stored().filter(|one| one.fate == Fate::Confirmed && history.never_confirmed.contains(&one.order_key));
    let confirmed = confirmed.map(|one| format!("order {} is confirmed, and nobody asked for that", one.order_key));
    let cancelled = stored().filter(|one| one.fate == Fate::Cancelled && history.to_be_confirmed.contains(&one.order_key));
    let cancelled = cancelled.map(|one| format!("order {} was held, is cancelled, and nobody asked for that", one.order_key));
    confirmed.chain(cancelled).collect()
}

fn doubled(history: &History, evidence: &Evidence) -> Vec<String> {
    let mut told: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in &history.told {
        told.entry(&one.order_key).or_default().insert(&one.order_id);
    }
    let mut alive = told.clone();
    for one in evidence.transactions.iter().chain(&evidence.orders) {
        match one.fate {
            Fate::Open | Fate::Confirmed => {
                alive.entry(&one.order_key).or_default().insert(&one.order_id);
            }
            Fate::Cancelled => {}
        }
    }
    let twice = |ids: &&BTreeSet<&str>| ids.len() > 1;
    let sentence = |(key, ids): (&&str, &BTreeSet<&str>)| {
        let by_clients = told.get(key).filter(twice).map(|ids| format!("clients were told the ids {ids:?} for {key}"));
        by_clients.unwrap_or_else(|| format!("of {ids:?}, all of {key}, more than one was told of or is not cancelled"))
    };
    alive.iter().filter(|(_, ids)| twice(ids)).map(sentence).collect()
}

fn oversold(evidence: &Evidence) -> Vec<String> {
    let too_many = evidence.shelves.iter().filter(|(_, shelf)| shelf.sold.max(shelf.ordered) > shelf.initial);
    let sentence = |(sku, shelf): (&String, &Shelf)| {
        let Shelf { initial, sold, ordered, .. } = shelf;
        format!("{sku}: of {initial} pieces {sold} are sold, and confirmed orders have {ordered}")
    };
    too_many.map(sentence).collect()
}

fn leaked(evidence: &Evidence) -> Vec<String> {
    let frozen = evidence.shelves.iter().filter(|(_, shelf)| shelf.frozen != 0);
    let frozen = frozen.map(|(sku, shelf)| format!("{sku}: {} are still frozen", shelf.frozen));
    let locked = evidence.locked_coupons.iter().map(|coupon| format!("coupon {coupon} is still locked"));
    let tried = evidence.tried_rows.iter().map(|row| format!("{row} is still tried"));
    frozen.chain(locked).chain(tried).collect()
}

#[cfg(test)]
mod tests;

//! Figures from what was broken and what the clients were told. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{inflict::Inflicted, plan::Fault};
use crate::{
    harness::{Links, Party, Store},
    witness::Told,
};

/// Orders that were first acknowledged in each whole second of the time in which orders were placed.
pub(crate) fn per_second(told: &[Told], length: Duration) -> Vec<u64> {
    let mut first: HashMap<&str, Duration> = HashMap::new();
    for one in told {
        let at = first.entry(&one.order_key).or_insert(one.at);
        *at = one.at.min(*at);
    }
    let mut seconds = vec![0; usize::try_from(length.as_secs()).unwrap_or(0)];
    for at in first.into_values() {
        if let Some(second) = usize::try_from(at.as_secs()).ok().and_then(|second| seconds.get_mut(second)) {
            *second += 1;
        }
    }
    seconds
}

/// The share of seconds in which an order was acknowledged, in a thousand.
pub(crate) fn available_per_mille(per_second: &[u64]) -> u64 {
    let with = per_second.iter().filter(|orders| **orders > 0).count();
    (with * 1_000).checked_div(per_second.len()).unwrap_or(0) as u64
}

/// How long it took after each kind of fault; sorted. And after how many faults nobody ordered who would have needed what was hit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recoveries {
    pub(crate) by_kind: BTreeMap<&'static str, Vec<Duration>>,
    pub(crate) unmeasured: usize,
}

impl Recoveries {
    /// Of every kind; sorted.
    pub(crate) fn all(&self) -> Vec<Duration> {
        let mut all: Vec<Duration> = self.by_kind.values().flatten().copied().collect();
        all.sort_unstable();
        all
    }
}

/// For each fault, the time from its mending until an order was acknowledged that had been sent after it and needed what was hit: that
/// gateway, or the coupons. Other faults may last meanwhile.
pub(crate) fn recoveries(inflicted: &[Inflicted], told: &[Told], store: Store, gateways: usize) -> Recoveries {
    let links = Links::pairs(store, gateways);
    let mut answers: HashMap<Hit, Answers> = HashMap::new();
    let mut recoveries = Recoveries::default();
    for one in inflicted.iter().filter(|one| one.happened) {
        let hit = Hit::of(one.fault, &links);
        let answers = answers.entry(hit).or_insert_with(|| Answers::new(told.iter().filter(|told| hit.meets(told))));
        match answers.first_sent_after(one.ended) {
            Some(at) => recoveries.by_kind.entry(one.fault.kind()).or_default().push(at - one.ended),
            None => recoveries.unmeasured += 1,
        }
    }
    recoveries.by_kind.values_mut().for_each(|of_kind| of_kind.sort_unstable());
    recoveries
}

/// What an order needs that a fault has hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Hit {
    gateway: Option<usize>,
    coupons: bool,
}

impl Hit {
    fn of(fault: Fault, links: &[(Party, Party)]) -> Self {
        let parties = match fault {
            Fault::Kill(party) | Fault::Stop(party) | Fault::FullDisk(party) => [Some(party), None],
            Fault::KillDatabase | Fault::FullDatabaseDisk => [None, None],
            Fault::Link(number, _) => links.get(number).map_or([None, None], |(from, to)| [Some(*from), Some(*to)]),
        };
        let mut hit = Self::default();
        for party in parties.into_iter().flatten() {
            match party {
                Party::Gateway(index) => hit.gateway = Some(index),
                Party::Coupon => hit.coupons = true,
                Party::Clients | Party::Inventory | Party::Database(_) => {}
            }
        }
        hit
    }

    fn meets(self, told: &Told) -> bool {
        self.gateway.is_none_or(|gateway| gateway == told.gateway) && (!self.coupons || told.with_coupon)
    }
}

/// When requests were sent, and when the first was answered that was sent then or later.
struct Answers(Vec<(Duration, Duration)>);

impl Answers {
    fn new<'a>(told: impl Iterator<Item = &'a Told>) -> Self {
        let mut answers: Vec<(Duration, Duration)> = told.map(|told| (told.sent, told.at)).collect();
        answers.sort_unstable();
        let mut first = Duration::MAX;
        for (_, at) in answers.iter_mut().rev() {
            first = first.min(*at);
            *at = first;
        }
        Self(answers)
    }

    fn first_sent_after(&self, time: Duration) -> Option<Duration> {
        let next = self.0.partition_point(|(sent, _)| *sent < time);
        self.0.get(next).map(|(_, at)| *at)
    }
}

/// How many faults of each kind there were.
pub(crate) fn by_kind(inflicted: &[Inflicted]) -> BTreeMap<&'static str, u64> {
    let mut kinds = BTreeMap::new();
    for one in inflicted.iter().filter(|one| one.happened) {
        *kinds.entry(one.fault.kind()).or_insert(0) += 1;
    }
    kinds
}

/// The value below which so many of a hundred lie, of sorted values.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
}

#[cfg(test)]
mod tests {
    use tcc_proto::order::v1::OrderStatus;

    use super::*;
    use crate::chaos::plan::Disturbance;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn told(gateway: usize, sent: u64, answered: u64) -> Told {
        let (order_key, order_id, status) = (format!("k-{answered}"), "id".to_owned(), OrderStatus::Confirmed);
        Told { order_key, order_id, status, gateway, with_coupon: false, sent: at(sent), at: at(answered) }
    }

    fn inflicted(fault: Fault, ended: u64, happened: bool) -> Inflicted {
        Inflicted { fault, place: String::new(), began: at(0), ended: at(ended), happened }
    }

    #[test]
    fn a_second_without_an_order_is_not_available_and_an_order_counts_once() {
        let mut answers = [told(0, 0, 100), told(0, 0, 900), told(0, 0, 2_500), told(0, 0, 3_100), told(0, 0, 1_100)];
        answers[4].order_key = answers[1].order_key.clone();
        let seconds = per_second(&answers, at(3_200));
        assert_eq!(seconds, [2, 0, 1]);
        assert_eq!(available_per_mille(&seconds), 666);
        assert_eq!(available_per_mille(&[]), 0, "nothing was measured");
    }

    #[test]
    fn recovery_is_the_first_order_sent_after_the_mending_at_the_gateway_that_was_hit() {
        let answers = [told(0, 900, 1_050), told(0, 1_100, 1_200), told(1, 1_300, 1_500)];
        let recovery = |fault| recoveries(&[inflicted(fault, 1_000, true)], &answers, Store::Postgres, 3).all();
        assert_eq!(recovery(Fault::Kill(Party::Gateway(0))), [at(200)]);
        assert_eq!(recovery(Fault::Kill(Party::Gateway(1))), [at(500)]);
        assert_eq!(recovery(Fault::Kill(Party::Gateway(2))), []);
        assert_eq!(recovery(Fault::Kill(Party::Inventory)), [at(200)]);
        assert_eq!(recovery(Fault::KillDatabase), [at(200)]);
        let links = Links::pairs(Store::Postgres, 3);
        let from_inventory = links.iter().position(|pair| *pair == (Party::Inventory, Party::Gateway(1))).expect("a link");
        assert_eq!(recovery(Fault::Link(from_inventory, Disturbance::Cut)), [at(500)]);
        assert_eq!(recovery(Fault::Kill(Party::Coupon)), [], "nobody had a coupon");
        let later = [told(0, 1_001, 9_000), told(0, 1_002, 1_100)];
        let fault = [inflicted(Fault::KillDatabase, 1_000, true)];
        assert_eq!(recoveries(&fault, &later, Store::Postgres, 3).all(), [at(100)], "who asked first may be answered last");
    }

    #[test]
    fn what_did_not_happen_is_not_counted() {
        let faults = [inflicted(Fault::KillDatabase, 1, true), inflicted(Fault::Link(0, Disturbance::LosesAnswer), 1, false)];
        assert_eq!(by_kind(&faults), [("kill -9 of the database", 1)].into());
        let measured = recoveries(&faults, &[told(0, 2, 3)], Store::Sqlite, 1);
        assert_eq!((measured.all(), measured.unmeasured), (vec![at(2)], 0));
        assert_eq!(recoveries(&faults, &[], Store::Sqlite, 1).unmeasured, 1);
    }

    #[test]
    fn percentiles_of_sorted_values() {
        let values: Vec<Duration> = (1..=200).map(at).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&values, percent)), [Some(at(101)), Some(at(199)), Some(at(200))]);
        assert_eq!(percentile(&[], 50), None);
    }
}

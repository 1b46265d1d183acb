//! Figures from what was broken and what the clients were told. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::{inflict::Inflicted, plan::Fault};
use crate::{
    harness::{Links, Party, Store},
    witness::Told,
};

/// Orders that were acknowledged in each second of the run. The last one is not whole.
pub(crate) fn per_second(told: &[Told], elapsed: Duration) -> Vec<u64> {
    let mut seconds = vec![0; usize::try_from(elapsed.as_secs()).unwrap_or(0) + 1];
    for one in told {
        if let Some(second) = usize::try_from(one.at.as_secs()).ok().and_then(|second| seconds.get_mut(second)) {
            *second += 1;
        }
    }
    seconds
}

/// The share of whole seconds in which an order was acknowledged, in a thousand.
pub(crate) fn available_per_mille(per_second: &[u64]) -> u64 {
    let whole = &per_second[..per_second.len().saturating_sub(1)];
    let with = whole.iter().filter(|orders| **orders > 0).count();
    (with * 1_000).checked_div(whole.len()).unwrap_or(0) as u64
}

/// For each fault, the time from its mending until an order was acknowledged that had been sent after it, by the gateway that was hit if
/// it was one; other faults may last meanwhile. Faults after which nobody ordered there are left out. Sorted.
pub(crate) fn recoveries(inflicted: &[Inflicted], told: &[Told], store: Store, gateways: usize) -> Vec<Duration> {
    let links = Links::pairs(store, gateways);
    let mut recoveries: Vec<Duration> = inflicted
        .iter()
        .filter(|one| one.happened)
        .filter_map(|one| {
            let hit = gateway_of(one.fault, &links);
            let after = told.iter().filter(|told| told.sent >= one.ended && hit.is_none_or(|gateway| gateway == told.gateway));
            Some(after.map(|told| told.at).min()? - one.ended)
        })
        .collect();
    recoveries.sort_unstable();
    recoveries
}

/// The gateway that a fault hits alone.
fn gateway_of(fault: Fault, links: &[(Party, Party)]) -> Option<usize> {
    let parties = match fault {
        Fault::Kill(party) | Fault::Stop(party) | Fault::FullDisk(party) => [Some(party), None],
        Fault::KillDatabase | Fault::FullDatabaseDisk => [None, None],
        Fault::Link(number, _) => links.get(number).map_or([None, None], |(from, to)| [Some(*from), Some(*to)]),
    };
    parties.into_iter().flatten().find_map(|party| match party {
        Party::Gateway(index) => Some(index),
        Party::Clients | Party::Inventory | Party::Coupon | Party::Database(_) => None,
    })
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
        let (order_key, order_id) = ("k".to_owned(), "id".to_owned());
        Told { order_key, order_id, status: OrderStatus::Confirmed, gateway, sent: at(sent), at: at(answered) }
    }

    fn inflicted(fault: Fault, ended: u64, happened: bool) -> Inflicted {
        Inflicted { fault, place: String::new(), began: at(0), ended: at(ended), happened }
    }

    #[test]
    fn a_second_without_an_order_is_not_available_and_the_last_one_is_not_whole() {
        let seconds = per_second(&[told(0, 0, 100), told(0, 0, 900), told(0, 0, 2_500), told(0, 0, 3_100)], at(3_200));
        assert_eq!(seconds, [2, 0, 1, 1]);
        assert_eq!(available_per_mille(&seconds), 666);
        assert_eq!(available_per_mille(&[5]), 0, "nothing was measured");
    }

    #[test]
    fn recovery_is_the_first_order_sent_after_the_mending_at_the_gateway_that_was_hit() {
        let answers = [told(0, 900, 1_050), told(0, 1_100, 1_200), told(1, 1_300, 1_500)];
        let recovery = |fault| recoveries(&[inflicted(fault, 1_000, true)], &answers, Store::Postgres, 3);
        assert_eq!(recovery(Fault::Kill(Party::Gateway(0))), [at(200)]);
        assert_eq!(recovery(Fault::Kill(Party::Gateway(1))), [at(500)]);
        assert_eq!(recovery(Fault::Kill(Party::Gateway(2))), []);
        assert_eq!(recovery(Fault::Kill(Party::Inventory)), [at(200)]);
        assert_eq!(recovery(Fault::KillDatabase), [at(200)]);
        let links = Links::pairs(Store::Postgres, 3);
        let from_inventory = links.iter().position(|pair| *pair == (Party::Inventory, Party::Gateway(1))).expect("a link");
        assert_eq!(recovery(Fault::Link(from_inventory, Disturbance::Cut)), [at(500)]);
    }

    #[test]
    fn what_did_not_happen_is_not_counted() {
        let faults = [inflicted(Fault::KillDatabase, 1, true), inflicted(Fault::Link(0, Disturbance::LosesAnswer), 1, false)];
        assert_eq!(by_kind(&faults), [("kill -9 of the database", 1)].into());
        assert_eq!(recoveries(&faults, &[told(0, 2, 3)], Store::Sqlite, 1), [at(2)]);
    }

    #[test]
    fn percentiles_of_sorted_values() {
        let values: Vec<Duration> = (1..=200).map(at).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&values, percent)), [Some(at(101)), Some(at(199)), Some(at(200))]);
        assert_eq!(percentile(&[], 50), None);
    }
}

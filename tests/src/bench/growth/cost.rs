//! What an order costs, told apart from what goes on without any. Pure: others count, this divides.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

/// Rows read and written, and pages looked at in the database's own memory, whether or not they had to be read first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Touched {
    pub(crate) rows: f64,
    pub(crate) pages: f64,
}

/// By table or index, or by whatever the database tells.
pub(crate) type ByRelation = BTreeMap<String, Touched>;

/// Counted twice for equally long, by processes that started on the same rows and did the same few orders at first: with orders
/// after those, and without any.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cost<T> {
    /// What orders add, for each.
    pub(crate) per_order: T,
    /// What orders add and what goes on anyway, for each order too: it depends on how many there are in a second.
    pub(crate) with_background: T,
    /// What goes on without orders, in a second. What a process does as it starts, before its first orders and as it ends is in it;
    /// those orders themselves are not.
    pub(crate) at_rest_per_second: T,
}

/// Of how many orders, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Basis {
    pub(crate) orders: u64,
    /// Before those, in both counts.
    pub(crate) first_orders: u64,
    pub(crate) lasted: Duration,
    /// How much more went on anyway beside the orders than without them: 1 where it is the same, since both took as long.
    pub(crate) background: f64,
}

impl Basis {
    /// Of one figure.
    fn cost(self, with_orders: f64, at_rest: f64) -> [f64; 3] {
        let orders = self.orders as f64;
        let first_orders = self.first_orders as f64;
        let per_order = (with_orders - at_rest * self.background) / (orders + first_orders * (1.0 - self.background));
        let background = at_rest - per_order * first_orders;
        [per_order, per_order + background * self.background / orders, background / self.lasted.as_secs_f64()]
    }
}

impl Cost<f64> {
    pub(crate) fn of(with_orders: f64, at_rest: f64, basis: Basis) -> Self {
        let [per_order, with_background, at_rest_per_second] = basis.cost(with_orders, at_rest);
        Self { per_order, with_background, at_rest_per_second }
    }
}

impl Cost<ByRelation> {
    /// What is in one of the counts only was nothing in the other.
    pub(crate) fn of(with_orders: &ByRelation, at_rest: &ByRelation, basis: Basis) -> Self {
        let mut cost =
            Self { per_order: ByRelation::new(), with_background: ByRelation::new(), at_rest_per_second: ByRelation::new() };
        for name in with_orders.keys().chain(at_rest.keys()) {
            let [all, part] = [with_orders, at_rest].map(|counts| counts.get(name).copied().unwrap_or_default());
            let (rows, pages) = (basis.cost(all.rows, part.rows), basis.cost(all.pages, part.pages));
            let [per_order, with_background, at_rest_per_second] =
                [0, 1, 2].map(|of| Touched { rows: rows[of], pages: pages[of] });
            cost.per_order.insert(name.clone(), per_order);
            cost.with_background.insert(name.clone(), with_background);
            cost.at_rest_per_second.insert(name.clone(), at_rest_per_second);
        }
        cost
    }

    /// All relations together.
    pub(crate) fn sum(&self) -> Cost<Touched> {
        Cost {
            per_order: sum(&self.per_order),
            with_background: sum(&self.with_background),
            at_rest_per_second: sum(&self.at_rest_per_second),
        }
    }
}

impl Cost<Touched> {
    pub(crate) fn rows(&self) -> Cost<f64> {
        self.each(|touched| touched.rows)
    }

    pub(crate) fn pages(&self) -> Cost<f64> {
        self.each(|touched| touched.pages)
    }

    fn each(&self, of: impl Fn(&Touched) -> f64) -> Cost<f64> {
        Cost {
            per_order: of(&self.per_order),
            with_background: of(&self.with_background),
            at_rest_per_second: of(&self.at_rest_per_second),
        }
    }
}

/// What was counted from one reading to the next; what is new in the later one counted from nothing.
pub(crate) fn less(later: &ByRelation, earlier: &ByRelation) -> ByRelation {
    let one = |(name, later): (&String, &Touched)| {
        let earlier = earlier.get(name).copied().unwrap_or_default();
        (name.clone(), Touched { rows: later.rows - earlier.rows, pages: later.pages - earlier.pages })
    };
    later.iter().map(one).collect()
}

fn sum(counts: &ByRelation) -> Touched {
    counts.values().fold(Touched::default(), |sum, one| Touched { rows: sum.rows + one.rows, pages: sum.pages + one.pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, f64, f64)]) -> ByRelation {
        of.iter().map(|&(name, rows, pages)| (name.to_owned(), Touched { rows, pages })).collect()
    }

    #[test]
    fn what_goes_on_without_orders_is_not_put_down_to_them() {
        let basis = Basis { orders: 100, first_orders: 0, lasted: Duration::from_secs(10), background: 1.0 };
        let with_orders = counts(&[("transactions", 500.0, 900.0), ("orders", 300.0, 600.0)]);
        let at_rest = counts(&[("transactions", 100.0, 300.0), ("audit", 10.0, 0.0)]);
        let cost = Cost::<ByRelation>::of(&with_orders, &at_rest, basis);
        assert_eq!(cost.per_order, counts(&[("transactions", 4.0, 6.0), ("orders", 3.0, 6.0), ("audit", -0.1, 0.0)]));
        assert_eq!(cost.sum().pages(), Cost { per_order: 12.0, with_background: 15.0, at_rest_per_second: 30.0 });
        assert_eq!(cost.sum().pages(), Cost::<f64>::of(1_500.0, 300.0, basis));
    }

    #[test]
    fn the_first_orders_of_both_counts_are_not_what_goes_on_anyway() {
        // 7 for each order, 30 a second anyway.
        let basis = Basis { orders: 100, first_orders: 20, lasted: Duration::from_secs(10), background: 1.0 };
        let cost = Cost::<f64>::of(120.0 * 7.0 + 300.0, 20.0 * 7.0 + 300.0, basis);
        assert_eq!(cost, Cost { per_order: 7.0, with_background: 10.0, at_rest_per_second: 30.0 });
    }

    #[test]
    fn what_goes_on_less_often_beside_orders_is_taken_off_less() {
        // 7 for each order; 30 a second anyway, and half of that beside orders.
        let basis = Basis { orders: 100, first_orders: 20, lasted: Duration::from_secs(10), background: 0.5 };
        let cost = Cost::<f64>::of(120.0 * 7.0 + 150.0, 20.0 * 7.0 + 300.0, basis);
        assert_eq!(cost, Cost { per_order: 7.0, with_background: 8.5, at_rest_per_second: 30.0 });
    }

    #[test]
    fn a_reading_counts_from_the_one_before() {
        let later = counts(&[("a", 5.0, 7.0), ("new", 1.0, 2.0)]);
        assert_eq!(less(&later, &counts(&[("a", 2.0, 3.0)])), counts(&[("a", 3.0, 4.0), ("new", 1.0, 2.0)]));
    }
}

//! What one run found, and the medians of several. Pure.

use std::time::Duration;

use serde::Serialize;

use super::{cell::Cell, load::Tally};

/// What a run found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) orders_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// `None`: it cannot be measured here.
    pub(crate) commits_per_order: Option<f64>,
    /// As above.
    pub(crate) fsyncs_per_order: Option<f64>,
    /// gRPC messages that the gateway sent to its participants; as above.
    pub(crate) messages_per_order: Option<f64>,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) cell: Cell,
    pub(crate) repetition: u32,
    /// The machine's load average before and after.
    pub(crate) machine_load: [f64; 2],
    /// Figures, or why there are none.
    pub(crate) outcome: Result<Figures, Vec<String>>,
}

/// One quantity of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figures {
    /// Of what was counted in a window of this length.
    pub(crate) fn of(tally: &Tally, length: Duration) -> Self {
        let quantile = |quantile: f64| tally.latency_us.value_at_quantile(quantile) as f64;
        Self {
            orders_per_second: tally.done as f64 / length.as_secs_f64(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            ..Self::default()
        }
    }
}

impl Spread {
    /// `None`: of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_whatever_the_order() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(Spread::of([9.0, 1.0, 4.0]), Some(Spread { median: 4.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of([9.0, 1.0, 4.0, 2.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
    }
}

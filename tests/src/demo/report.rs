//! The demo's result as aligned tables.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use tcc_proto::{coupon::v1::CouponState, inventory::v1::Stock, order::v1::OrderStatus};

use super::place::Placed;
use crate::{
    cli::{align_right, coupon_word, stock_table, table},
    explain,
    harness::Ledger,
};

/// Latencies above are counted as this.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Prints every table.
pub(crate) fn print(placed: &[Placed], elapsed: Duration, ledger: &Ledger) {
    println!("{}\n", outcomes(placed));
    let stock: Vec<Stock> = ledger
        .stock
        .iter()
        .map(|row| Stock {
            sku: row.sku.clone(),
            initial: row.initial,
            available: row.available,
            frozen: row.frozen,
            sold: row.sold,
            ..Stock::default()
        })
        .collect();
    println!("{}\n", stock_table(&stock));
    println!("{}\n", coupons(ledger));
    println!("{}\n", latencies(placed, elapsed));
}

fn outcomes(placed: &[Placed]) -> comfy_table::Table {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for one in placed {
        let (outcome, code) = match &one.order {
            None => ("no answer", String::new()),
            Some(order) => (
                explain::status_word(order.status()),
                order.refusal.as_ref().map(|refusal| format!("{}: {}", refusal.participant, refusal.code)).unwrap_or_default(),
            ),
        };
        *counts.entry((one.kind, outcome, code)).or_default() += 1;
    }
    let mut table = table(&["orders", "outcome", "refused by", "number"]);
    for ((kind, outcome, code), count) in counts {
        table.add_row([kind.name().to_owned(), outcome.to_owned(), code, count.to_string()]);
    }
    for status in [OrderStatus::Confirmed, OrderStatus::Cancelled] {
        let count = placed.iter().flat_map(|one| &one.order).filter(|order| order.status() == status).count();
        table.add_row(["all".to_owned(), explain::status_word(status).to_owned(), String::new(), count.to_string()]);
    }
    align_right(&mut table, 3..4);
    table
}

fn coupons(ledger: &Ledger) -> comfy_table::Table {
    let mut table = table(&["coupons", "number"]);
    for state in [CouponState::Issued, CouponState::Locked, CouponState::Used] {
        let count = ledger.coupons.iter().filter(|coupon| coupon.state == state).count();
        table.add_row([coupon_word(state).to_owned(), count.to_string()]);
    }
    align_right(&mut table, 1..2);
    table
}

fn latencies(placed: &[Placed], elapsed: Duration) -> comfy_table::Table {
    let mut table = table(&["orders", "per second", "p50 ms", "p99 ms", "max ms", "sent again"]);
    // Three digits; the bounds are constants that fit, so a histogram always comes of them.
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, 3) else { return table };
    for one in placed {
        histogram.saturating_record(u64::try_from(one.latency.as_micros()).unwrap_or(LATENCY_US_MAX));
    }
    let millis = |micros: u64| format!("{}.{}", micros / 1_000, micros % 1_000 / 100);
    let per_second = placed.len() as u128 * 1_000 / elapsed.as_millis().max(1);
    let repeats: u32 = placed.iter().map(|one| one.repeats).sum();
    table.add_row([
        placed.len().to_string(),
        per_second.to_string(),
        millis(histogram.value_at_quantile(0.5)),
        millis(histogram.value_at_quantile(0.99)),
        millis(histogram.max()),
        repeats.to_string(),
    ]);
    align_right(&mut table, 0..6);
    table
}

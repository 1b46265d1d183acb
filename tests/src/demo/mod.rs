//! `cargo run --release`: the whole system on this machine, orders flowing, a participant killed on the way, and a verdict on
//! the books as the last line.

mod place;
mod plan;
mod progress;
mod report;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use futures::stream::{StreamExt, TryStreamExt};
use tcc_proto::{
    coupon::v1::IssueCouponRequest, inventory::v1::AddStockRequest, order::v1::OrderStatus, tcc::v1::TransactionStatus,
};
use tcc_types::{Clock, SystemClock};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{
    place::{AllBack, At, Placed, not_shown, place},
    plan::{Plan, Planned},
    progress::Progress,
};
use crate::{
    harness::{Cluster, ClusterConfig, Gateways, Ledger, Party, Role, Scope, broken_rules},
    store_args::StoreArgs,
};

/// How long inventory stays dead.
const DOWN_FOR: Duration = Duration::from_millis(700);
/// Everything ends within this, or the verdict is bad.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
const SEED_CONCURRENCY: usize = 16;
const COUPON_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// Broken rules that are printed; the count tells of the rest.
const PRINTED_MAX: usize = 50;

/// How much to order.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Orders to place.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    orders: u32,
    /// Orders under way at the same time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: u32,
    /// The same seed plans the same orders.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the processes log, in the language of `RUST_LOG`.
    #[arg(long, default_value = "warn")]
    log: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs it and prints the verdict.
pub async fn run(args: DemoArgs) -> ExitCode {
    let (text, code) = match attempt(args).await {
        Ok(broken) => verdict(&broken),
        Err(error) => (format!("error: {error:#}\nverdict: none, the demo did not come to its end"), 2),
    };
    println!("{text}");
    ExitCode::from(code)
}

/// What is printed last, and the exit code.
fn verdict(broken: &[String]) -> (String, u8) {
    if broken.is_empty() {
        return ("verdict: books balance".to_owned(), 0);
    }
    let mut text: String = broken.iter().take(PRINTED_MAX).map(|rule| format!("broken: {rule}\n")).collect();
    text.push_str(&format!("verdict: {} rules broken", broken.len()));
    (text, 1)
}

async fn attempt(args: DemoArgs) -> anyhow::Result<Vec<String>> {
    let config = ClusterConfig { log_filter: args.log.clone(), ..ClusterConfig::temporary(std::env::current_exe()?) };
    let mut cluster = Cluster::start(args.store.clone().apply(config)?).await?;
    let gateways: Vec<String> = cluster.gateway_addresses().iter().map(ToString::to_string).collect();
    println!(
        "gateway {}, inventory {}, coupon {}, {}",
        gateways.join(" and "),
        cluster.address(Role::Inventory),
        cluster.address(Role::Coupon),
        cluster.whereabouts()
    );
    let result = order_and_check(&mut cluster, &args).await;
    if !matches!(&result, Ok(broken) if broken.is_empty()) {
        println!("{}", cluster.log_tails());
        println!("databases and logs stay in {}", cluster.keep_folder().display());
    }
    let broken = result?;
    cluster.stop().await?;
    Ok(broken)
}

async fn order_and_check(cluster: &mut Cluster, args: &DemoArgs) -> anyhow::Result<Vec<String>> {
    let plan = Plan::new(args.orders as usize, args.seed);
    seed(cluster, &plan).await?;
    println!("{} SKUs in stock, {} coupons issued", plan.stock.len(), plan.coupons.len());

    let gateways = Gateways::new(cluster.all_orders());
    let first = place(At { gateways: &gateways, first: 0 }, &plan.first, &AllBack::new(true)).await;
    if first.order.as_ref().map(|order| order.status()) != Some(OrderStatus::Confirmed) {
        bail!("the first order was not confirmed: {first:?}");
    }
    let started = Instant::now();
    let mut placed = place_all(cluster, gateways, plan.orders, args.concurrency as usize).await?;
    let elapsed = started.elapsed();

    let mut broken: Vec<String> = Vec::new();
    if let Err(open) = cluster.quiet(QUIET_WITHIN).await? {
        broken.push(format!("after {QUIET_WITHIN:?} {open}"));
    }
    let ledger = cluster.ledger().await?;
    println!();
    report::print(&placed, elapsed, &ledger);
    placed.push(first);
    broken.extend(placed.iter().flat_map(|one| one.problems.iter().cloned()));
    broken.extend(not_shown(&placed));
    broken.extend(broken_rules(&ledger, Scope::AtRestOrdersOnly));
    broken.extend(cluster.disagreements_at_rest().await?);
    broken.extend(forgotten(&placed, &ledger));
    Ok(broken)
}

async fn seed(cluster: &Cluster, plan: &Plan) -> anyhow::Result<()> {
    let inventory = cluster.inventory();
    let stock = plan.stock.iter().map(|(sku, quantity)| {
        let mut inventory = inventory.clone();
        let request = AddStockRequest { receipt_id: format!("demo-{sku}"), sku: sku.clone(), quantity: *quantity };
        async move { inventory.add_stock(request).await }
    });
    futures::stream::iter(stock).buffer_unordered(SEED_CONCURRENCY).try_for_each(|_| async { Ok(()) }).await?;

    let now = SystemClock.now();
    let coupons = cluster.coupons();
    let issues = plan.coupons.iter().map(|coupon| {
        let mut coupons = coupons.clone();
        let expires_at = if coupon.expired { now.minus(COUPON_LIFE) } else { now.plus(COUPON_LIFE) };
        let request = IssueCouponRequest {
            coupon_id: coupon.coupon_id.clone(),
            user_id: coupon.user_id.clone(),
            discount_minor: 500,
            expires_at: Some(tcc_wire::timestamp_to_proto(expires_at)),
        };
        async move { coupons.issue_coupon(request).await }
    });
    futures::stream::iter(issues).buffer_unordered(SEED_CONCURRENCY).try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}

/// Places every order, so many at a time, and kills inventory and, if there are several, a gateway on the way.
async fn place_all(
    cluster: &mut Cluster,
    gateways: Gateways,
    orders: Vec<Planned>,
    concurrency: usize,
) -> anyhow::Result<Vec<Placed>> {
    let total = orders.len();
    let mut progress = Progress::new(total as u64);
    let tell = progress.teller();
    let (done_count, done_counts) = watch::channel(0_usize);
    let all_back = Arc::new(AllBack::new(false));
    let collect = async {
        let mut workers = JoinSet::new();
        let (results, mut placed) = mpsc::channel(concurrency);
        let orders = Arc::new(orders);
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..concurrency {
            workers.spawn(work(
                gateways.clone(),
                Arc::clone(&orders),
                Arc::clone(&next),
                Arc::clone(&all_back),
                results.clone(),
            ));
        }
        drop(results);
        let mut all = Vec::with_capacity(total);
        while let Some(one) = placed.recv().await {
            all.push(one);
            progress.step();
            done_count.send_replace(all.len());
        }
        // A worker that panicked has left its order unplaced.
        while let Some(joined) = workers.join_next().await {
            joined.context("a client failed")?;
        }
        progress.finish();
        anyhow::Ok(all)
    };
    let (all, broke) = tokio::join!(collect, break_and_mend(cluster, done_counts, total, &all_back, tell));
    broke?;
    all
}

async fn work(
    gateways: Gateways,
    orders: Arc<Vec<Planned>>,
    next: Arc<AtomicUsize>,
    all_back: Arc<AllBack>,
    results: mpsc::Sender<Placed>,
) {
    loop {
        // Every gateway gets its share.
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(planned) = orders.get(number) else { return };
        let at = At { gateways: &gateways, first: number };
        if results.send(place(at, planned, &all_back).await).await.is_err() {
            return;
        }
    }
}

/// Kills the inventory participant in the middle of the orders and brings it back; then kills a gateway, if others are left to
/// take over what it had under way.
async fn break_and_mend(
    cluster: &mut Cluster,
    mut done_counts: watch::Receiver<usize>,
    total: usize,
    all_back: &AllBack,
    tell: impl Fn(&str),
) -> anyhow::Result<()> {
    done_counts.wait_for(|done| *done >= total * 2 / 5).await.context("no order was placed")?;
    cluster.kill(Role::Inventory).await?;
    tell("inventory killed (SIGKILL)");
    tokio::time::sleep(DOWN_FOR).await;
    cluster.restart(Role::Inventory).await?;
    all_back.store(true, Ordering::Release);
    tell("inventory is back");
    let last = cluster.gateways() - 1;
    if last > 0 {
        done_counts.wait_for(|done| *done >= total * 3 / 5).await.context("no order was placed")?;
        cluster.kill(Party::Gateway(last)).await?;
        tell("a gateway killed (SIGKILL); the others go on");
    }
    Ok(())
}

/// Orders that were acknowledged and are no longer there, or tell another outcome.
fn forgotten(placed: &[Placed], ledger: &Ledger) -> Vec<String> {
    let mut known: BTreeMap<&str, OrderStatus> =
        ledger.orders.iter().map(|order| (order.order_id.as_str(), order.status)).collect();
    let mut broken = Vec::new();
    for order in placed.iter().filter_map(|one| one.order.as_ref()) {
        let found = known.remove(order.order_id.as_str());
        // Its gateway may have died before the order's own Try: a Cancel that finds nothing leaves nothing to list, and only the
        // transaction knows of it.
        let never_tried = || {
            let transaction = ledger.transactions.get(&order.order_id);
            order.status() == OrderStatus::Cancelled && transaction == Some(&TransactionStatus::Cancelled)
        };
        let there = found.map_or_else(never_tried, |found| found == order.status());
        if !there {
            broken.push(format!("order {} was acknowledged as {:?} and is {found:?}", order.order_key, order.status()));
        }
    }
    for (order_id, status) in known {
        broken.push(format!("order {order_id} ({status:?}) is one that nobody was told of"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use tcc_proto::order::v1::Order;

    use super::*;
    use crate::harness::OrderRow;

    #[test]
    fn an_acknowledged_order_that_is_not_there_is_told_unless_it_was_cancelled_before_it_had_a_row() {
        let placed = |status: OrderStatus| {
            let order = Order { order_id: "g-1".to_owned(), status: status.into(), ..Order::default() };
            vec![Placed {
                kind: plan::Kind::Plain,
                order: Some(order),
                latency: Duration::ZERO,
                repeats: 0,
                shown: true,
                problems: Vec::new(),
            }]
        };
        let ledger = |row: Option<OrderStatus>, transaction: TransactionStatus| Ledger {
            orders: row
                .map(|status| OrderRow { order_id: "g-1".to_owned(), status, lines: BTreeMap::new(), coupon_id: String::new() })
                .into_iter()
                .collect(),
            transactions: BTreeMap::from([("g-1".to_owned(), transaction)]),
            ..Ledger::default()
        };
        let (yes, no) = (OrderStatus::Confirmed, OrderStatus::Cancelled);
        let (confirmed, cancelled) = (TransactionStatus::Confirmed, TransactionStatus::Cancelled);
        let sound = [(yes, Some(yes), confirmed), (no, Some(no), cancelled), (no, None, cancelled)];
        for (told, row, transaction) in sound {
            assert_eq!(forgotten(&placed(told), &ledger(row, transaction)), Vec::<String>::new());
        }
        let bad = [(yes, None, confirmed), (yes, Some(no), cancelled), (no, Some(yes), confirmed), (no, None, confirmed)];
        for (told, row, transaction) in bad {
            assert_eq!(forgotten(&placed(told), &ledger(row, transaction)).len(), 1, "{told:?} {row:?} {transaction:?}");
        }
        assert_eq!(forgotten(&[], &ledger(Some(yes), confirmed)).len(), 1, "nobody was told of it");
    }

    #[test]
    fn broken_rules_are_told_and_fail_the_process() {
        assert_eq!(verdict(&[]), ("verdict: books balance".to_owned(), 0));
        let (text, code) = verdict(&["apple: 1 are still frozen".to_owned(), "x".to_owned()]);
        assert_eq!(text, "broken: apple: 1 are still frozen\nbroken: x\nverdict: 2 rules broken");
        assert_eq!(code, 1);
        let many = vec![String::new(); 1_000];
        assert_eq!(verdict(&many).0.lines().last(), Some("verdict: 1000 rules broken"));
    }
}

//! The reconciler on a running system: it finds nothing while orders flow or wait, and every fault that is planted, with its ids.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures::future::try_join_all;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, SqliteConnection, raw_sql};
use tcc_cluster::{
    harness::{ClusterConfig, Owner, Role, Scope, Store},
    stage::{Stage, eventually, held, order, with_coupon},
};
use tcc_proto::{
    coupon::v1::{CouponState, GetCouponRequest},
    order::v1::{CancelOrderRequest, ConfirmOrderRequest, OrderStatus},
};
use tcc_reconcile::{Config, Finding, Outcome, Reconciler};
use tcc_types::Gid;

use super::quick;

/// Long enough for a second look at what is under way, short enough for a test.
const GRACE_MS: u64 = 300;
/// Clients that order at the same time.
const CLIENTS: usize = 16;
/// Orders that flow at least while the reconciler runs again and again.
const ORDERS_MIN: u64 = 300;
/// Runs of the reconciler at least.
const RUNS_MIN: usize = 3;

async fn on(store: Store) -> anyhow::Result<Stage> {
    let stage = Stage::start(ClusterConfig { store, ..quick() }).await?;
    stage.stock("apple", 100_000).await?;
    Ok(stage)
}

/// One client: orders, orders with a coupon, refused orders, and holds that are confirmed or cancelled, until it is told to stop.
async fn orders_flow(stage: &Stage, client: usize, stop: &AtomicBool, placed: &AtomicU64) -> anyhow::Result<()> {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let request = order(&format!("k-{client}-{number}"), &[("apple", if number % 5 == 4 { 1_000_000 } else { 1 })]);
        match number % 4 {
            0 => {
                let coupon_id = format!("c-{client}-{number}");
                stage.coupon(&coupon_id, "alice").await?;
                stage.place(with_coupon(request, &coupon_id)).await?;
            }
            1 => drop(stage.place(request).await?),
            hold => {
                let order_id = stage.place(held(request)).await?.order_id;
                if hold == 2 {
                    stage.orders().confirm_order(ConfirmOrderRequest { order_id }).await?;
                } else {
                    stage.orders().cancel_order(CancelOrderRequest { order_id }).await?;
                }
            }
        }
        placed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn nothing_disagrees_while_orders_flow(store: Store) -> anyhow::Result<()> {
    let stage = on(store).await?;
    let (stop, placed) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients = try_join_all((0..CLIENTS).map(|client| orders_flow(&stage, client, &stop, &placed)));
    let looks = async {
        let (mut runs, mut in_flight) = (0, 0);
        while runs < RUNS_MIN || placed.load(Ordering::Relaxed) < ORDERS_MIN {
            runs += 1;
            // Also pages far smaller than what there is: then the walk goes on for long while everything moves.
            let page_size = if runs % 2 == 0 { 7 } else { 512 };
            let config = Config { page_size, ..stage.reconcile_config(GRACE_MS) };
            let report = Reconciler::open(config).await?.run(&|_| {}).await?;
            in_flight += report.counts.in_flight;
            assert_eq!(report.outcome(false), Outcome::Agree, "{report}");
            assert!(report.not_looked_at.is_empty(), "{report}");
        }
        stop.store(true, Ordering::Relaxed);
        println!("{store}: {runs} runs while orders flowed, {in_flight} differences were work in flight");
        anyhow::Ok(())
    };
    tokio::try_join!(async { anyhow::Ok(clients.await?) }, looks)?;
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    let report = stage.reconcile(0).await?;
    assert!(report.counts.transactions >= placed.load(Ordering::Relaxed), "{report}");
    assert!(report.counts.rows >= 2 * report.counts.transactions && report.counts.resources > 0, "{report}");
    stage.finish().await
}

async fn a_decision_that_is_on_its_way_is_no_disagreement(store: Store) -> anyhow::Result<()> {
    let mut stage = on(store).await?;
    stage.coupon("c-1", "alice").await?;
    let order_id = stage.place(held(with_coupon(order("k-1", &[("apple", 2)]), "c-1"))).await?.order_id;
    stage.kill(Role::Inventory).await?;
    stage.orders().confirm_order(ConfirmOrderRequest { order_id }).await?;
    eventually("the coupon is used, and the stock still frozen", async || {
        let coupon = stage.coupons().get_coupon(GetCouponRequest { coupon_id: "c-1".to_owned() }).await?.into_inner().coupon;
        Ok(coupon.is_some_and(|coupon| coupon.state() == CouponState::Used).then_some(()))
    })
    .await?;
    let report = stage.reconcile(GRACE_MS).await?;
    assert_eq!(report.outcome(false), Outcome::Agree, "{report}");
    stage.restart(Role::Inventory).await?;
    stage.finish().await
}

/// Runs SQL that somebody types into a database by hand.
async fn by_hand(stage: &Stage, owner: Owner, sql: &str) -> anyhow::Result<()> {
    let (url, sql) = (stage.database_url(owner), AssertSqlSafe(sql.to_owned()));
    let changed = match url.split(':').next().unwrap() {
        "sqlite" => raw_sql(sql).execute(&mut SqliteConnection::connect(url).await?).await?.rows_affected(),
        "postgres" => raw_sql(sql).execute(&mut PgConnection::connect(url).await?).await?.rows_affected(),
        _ => raw_sql(sql).execute(&mut MySqlConnection::connect(url).await?).await?.rows_affected(),
    };
    assert_eq!(changed, 1, "{}: it changed another number of rows than one", owner.name());
    Ok(())
}

/// A gid as the log's database writes it.
fn bytes(store: Store, gid: &str) -> String {
    let gid: Gid = gid.parse().unwrap();
    let hex: String = gid.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    match store {
        Store::Sqlite | Store::Mysql => format!("x'{hex}'"),
        Store::Postgres => format!("decode('{hex}', 'hex')"),
    }
}

/// What a finding is about, in the words of a report.
fn place(finding: &Finding) -> String {
    let gid = finding.gid.map(|gid| gid.to_string()).unwrap_or_default();
    let branch = finding.branch.as_ref().map_or("", |branch| branch.as_str());
    let participant = finding.participant.as_deref().unwrap_or_default();
    format!("{} {gid} {branch} {participant} {}", finding.rule, finding.resource.as_deref().unwrap_or_default())
}

async fn every_planted_fault_is_found_with_its_ids(store: Store) -> anyhow::Result<()> {
    let stage = on(store).await?;
    for sku in ["pear", "plum"] {
        stage.stock(sku, 100).await?;
    }
    let mut ids = Vec::new();
    for number in 0..7 {
        let coupon_id = format!("c-{number}");
        stage.coupon(&coupon_id, "alice").await?;
        let placed = stage.place(with_coupon(order(&format!("k-{number}"), &[("apple", 1)]), &coupon_id)).await?;
        assert_eq!(placed.status(), OrderStatus::Confirmed);
        ids.push(placed.order_id);
    }
    stage.must_balance(Scope::AtRestOrdersOnly).await?;
    let [released, unknown, lost, freed, other_status, halved, twice] = ids.try_into().unwrap();
    stage.coupon("c-hold", "alice").await?;
    let spent = stage.place(held(with_coupon(order("k-spent", &[("plum", 1)]), "c-hold"))).await?.order_id;
    let orphan = stage.place(held(order("k-orphan", &[("plum", 2)]))).await?.order_id;
    assert_eq!(stage.reconcile(0).await?.outcome(false), Outcome::Agree, "holds are no disagreement");

    let log = |gid: &str| bytes(store, gid);
    let faults = [
        (Owner::Inventory, format!("UPDATE tcc_branches SET status = 4 WHERE gid = '{released}'")),
        (Owner::Log, format!("DELETE FROM tcc_log_transactions WHERE gid = {}", log(&unknown))),
        (Owner::Inventory, format!("DELETE FROM tcc_branches WHERE gid = '{lost}'")),
        (Owner::Coupon, format!("UPDATE coupons SET state = 1, gid = NULL WHERE gid = '{freed}'")),
        (Owner::Orders, format!("UPDATE orders SET status = 4 WHERE order_id = '{other_status}'")),
        (Owner::Log, format!("DELETE FROM tcc_log_branches WHERE gid = {} AND branch_id = 'coupon'", log(&halved))),
        (Owner::Coupon, format!("UPDATE tcc_branches SET status = 1 WHERE gid = '{twice}'")),
        (Owner::Coupon, format!("UPDATE tcc_branches SET status = 3 WHERE gid = '{spent}'")),
        (Owner::Log, format!("DELETE FROM tcc_log_transactions WHERE gid = {}", log(&orphan))),
        (Owner::Inventory, "UPDATE stock SET frozen = frozen + 1, available = available - 1 WHERE sku = 'pear'".to_owned()),
        // Five of seven confirmed rows of apple are left by now: less than five sold contradicts them.
        (Owner::Inventory, "UPDATE stock SET sold = sold - 3, available = available + 3 WHERE sku = 'apple'".to_owned()),
    ];
    for (owner, sql) in &faults {
        by_hand(&stage, *owner, sql).await?;
    }
    let wanted = [
        format!("cancelled_but_transaction_confirmed {released} stock inventory "),
        format!("ended_but_transaction_unknown {unknown} order order "),
        format!("ended_but_transaction_unknown {unknown} stock inventory "),
        format!("ended_but_transaction_unknown {unknown} coupon coupon "),
        format!("row_missing {lost} stock inventory "),
        format!("coupon_differs_from_its_branch {freed} coupon coupon c-3"),
        format!("order_differs_from_its_branch {other_status} order order {other_status}"),
        format!("branches_missing_in_the_log {halved}   "),
        format!("branch_not_in_transaction {halved} coupon coupon "),
        format!("tried_but_settled_in_the_log {twice} coupon coupon "),
        format!("coupon_differs_from_its_branch {twice} coupon coupon c-6"),
        format!("confirmed_but_undecided {spent} coupon coupon "),
        format!("coupon_differs_from_its_branch {spent} coupon coupon c-hold"),
        format!("tried_but_transaction_unknown {orphan} order order "),
        format!("tried_but_transaction_unknown {orphan} stock inventory "),
        "frozen_is_not_what_tried_rows_hold   inventory pear, bucket 0".to_owned(),
        "sold_is_less_than_confirmed_rows_spent   inventory apple, bucket 0".to_owned(),
    ];
    let wanted = BTreeSet::from(wanted);
    let report = stage.reconcile(GRACE_MS).await?;
    println!("{store}: {report}");
    let found: Vec<String> = report.disagreements.iter().map(place).collect();
    assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), wanted, "{report}");
    assert_eq!(found.len(), wanted.len(), "one was told twice: {report}");
    assert_eq!(report.outcome(false), Outcome::Disagree);
    Ok(())
}

on_each_store!(
    nothing_disagrees_while_orders_flow,
    a_decision_that_is_on_its_way_is_no_disagreement,
    every_planted_fault_is_found_with_its_ids,
);

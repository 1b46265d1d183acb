//! Whether a system's books balance after load, and tell the same as its clients were told.

use std::time::Duration;

use tcc_proto::order::v1::OrderStatus;

use super::{cell::Contender, load::Tally};
use crate::harness::{Cluster, Ledger, Scope, broken_rules};

/// Everything ends within this after load has ended.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// Sentences that are kept of one run.
const PROBLEMS_MAX: usize = 20;

/// What is wrong, each as a sentence. Empty: the run counts.
pub(crate) async fn of_cluster(cluster: &Cluster, tally: &Tally, contender: Contender) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    if let Err(open) = cluster.quiet(QUIET_WITHIN).await? {
        problems.push(format!("after {QUIET_WITHIN:?} {open}"));
    }
    let ledger = cluster.ledger().await?;
    problems.extend(broken_rules(&ledger, Scope::AtRestOrdersOnly));
    match contender {
        Contender::Ours | Contender::Floor => problems.extend(cluster.disagreements_at_rest().await?),
        // The tables of an older build may be others than the reconciler knows.
        Contender::Against => {}
    }
    problems.extend(told_and_kept(tally, &ledger));
    problems.truncate(PROBLEMS_MAX);
    Ok(problems)
}

/// Answers that were not to be, and orders that were told otherwise than they are kept.
fn told_and_kept(tally: &Tally, ledger: &Ledger) -> Vec<String> {
    let mut problems = Vec::new();
    if tally.failed > 0 {
        let first = tally.first_failure.as_deref().unwrap_or("it is not known how");
        problems.push(format!("{} orders did not end as they must; the first: {first}", tally.failed));
        return problems;
    }
    let kept = |status| ledger.orders.iter().filter(|order| order.status == status).count() as u64;
    let confirmed = kept(OrderStatus::Confirmed);
    if confirmed != tally.confirmed {
        problems.push(format!("{} orders were told to be confirmed, {confirmed} are", tally.confirmed));
    }
    let cancelled = kept(OrderStatus::Cancelled);
    // A branch that is cancelled before its Try ran leaves no order to list.
    if cancelled > tally.refused {
        problems.push(format!("{} orders were told to be refused, {cancelled} are cancelled", tally.refused));
    }
    if tally.confirmed + tally.refused == 0 {
        problems.push("no order ended".to_owned());
    }
    problems
}

//! Places one planned order as a careful client does, and judges the answers.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tcc_proto::order::v1::{
    CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, Order, OrderStatus, order_service_client::OrderServiceClient,
};
use tonic::{Status, transport::Channel};

use super::plan::{Kind, Planned};
use crate::{
    explain,
    harness::{Gateways, order_at_any},
};

/// Refusals that say "a participant did not answer in time": legal for an order that was begun before the one that is killed
/// is back.
const NOT_IN_TIME: [&str; 3] = ["TIMED_OUT", "LATE", "SUSPENDED"];

/// Whether every participant has come back for good.
pub(crate) type AllBack = AtomicBool;

/// What became of a planned order.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) kind: Kind,
    /// The last order that the server acknowledged.
    pub(crate) order: Option<Order>,
    /// From sending it until its decision, or its hold, was acknowledged.
    pub(crate) latency: Duration,
    /// How often it was sent again.
    pub(crate) repeats: u32,
    /// It had the outcome that its kind is there to show.
    pub(crate) shown: bool,
    /// Answers that no server may give, each as a sentence.
    pub(crate) problems: Vec<String>,
}

/// Where an order is placed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) gateways: &'a Gateways,
    /// The number of the gateway that is asked first.
    pub(crate) first: usize,
}

/// Places it, and confirms or cancels it if it is held.
pub(crate) async fn place(at: At<'_>, planned: &Planned, all_back: &AllBack) -> Placed {
    // Asked before the order is sent: one that was begun earlier may have met the participant dead.
    let in_time = all_back.load(Ordering::Acquire);
    let request = CreateOrderRequest {
        order_key: planned.order_key.clone(),
        user_id: planned.user_id.clone(),
        lines: planned.lines.clone(),
        coupon_id: planned.coupon_id.clone(),
        hold: planned.kind.holds(),
        pay_by: None,
    };
    let mut placed =
        Placed { kind: planned.kind, order: None, latency: Duration::ZERO, repeats: 0, shown: false, problems: Vec::new() };
    let started = Instant::now();
    let created = match planned.kind {
        Kind::Repeated => create_twice(at, &request, &mut placed).await,
        Kind::Plain
        | Kind::WithCoupon
        | Kind::TooMany
        | Kind::ForeignCoupon
        | Kind::UsedCoupon
        | Kind::ExpiredCoupon
        | Kind::HoldConfirm
        | Kind::HoldCancel => order_at_any(at.gateways, at.first, &request).await,
    };
    placed.latency = started.elapsed();
    let order = match created {
        Ok((order, repeats)) => {
            placed.repeats += repeats;
            settle(at, planned, order, &mut placed).await
        }
        Err(status) => Err(status),
    };
    match order {
        Ok(order) => {
            placed.shown = shows(planned.kind, &order);
            placed.problems.extend(judge(planned, &order, in_time));
            placed.order = Some(order);
        }
        Err(status) => placed.problems.push(format!("{}: {}", planned.order_key, explain::error(&status))),
    }
    placed
}

/// Two callers with one key at the same time, at two gateways if there are two, and both must get the same order.
async fn create_twice(at: At<'_>, request: &CreateOrderRequest, placed: &mut Placed) -> Result<(Order, u32), Status> {
    let (one, other) =
        tokio::join!(order_at_any(at.gateways, at.first, request), order_at_any(at.gateways, at.first + 1, request));
    let (one, other) = (one?, other?);
    if one.0.order_id != other.0.order_id || one.0.status != other.0.status {
        placed.problems.push(format!(
            "{}: the same key gave order {} ({:?}) and order {} ({:?})",
            request.order_key,
            one.0.order_id,
            one.0.status(),
            other.0.order_id,
            other.0.status()
        ));
    }
    placed.repeats += other.1;
    Ok(one)
}

/// Decides a held order, at another gateway if there is one; a repeated request gets what was decided.
async fn settle(at: At<'_>, planned: &Planned, order: Order, placed: &mut Placed) -> Result<Order, Status> {
    if order.status() != OrderStatus::Held {
        return Ok(order);
    }
    if !planned.kind.holds() {
        placed.problems.push(format!("{}: came back held", planned.order_key));
    }
    let confirm = planned.kind == Kind::HoldConfirm;
    let decide = |mut client: OrderServiceClient<Channel>| {
        let order_id = order.order_id.clone();
        async move {
            let decided = if confirm {
                client.confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order
            } else {
                client.cancel_order(CancelOrderRequest { order_id }).await?.into_inner().order
            };
            decided.ok_or_else(|| Status::internal("the answer has no order"))
        }
    };
    let (order, repeats) = at.gateways.repeat(at.first + 1, decide).await?;
    placed.repeats += repeats;
    Ok(order)
}

fn code(order: &Order) -> &str {
    order.refusal.as_ref().map(|refusal| refusal.code.as_str()).unwrap_or_default()
}

/// Whether the outcome is the one that this kind of order is there to show.
fn shows(kind: Kind, order: &Order) -> bool {
    match order.status() {
        OrderStatus::Confirmed => kind.refusal().is_none() && code(order).is_empty(),
        OrderStatus::Cancelled => kind.refusal() == Some(code(order)),
        OrderStatus::Unspecified | OrderStatus::Pending | OrderStatus::Held => false,
    }
}

/// What is wrong if the outcome is none that this order may have; `in_time`: every participant was there from its beginning on.
fn judge(planned: &Planned, order: &Order, in_time: bool) -> Option<String> {
    let code = code(order);
    let cancelled = order.status() == OrderStatus::Cancelled;
    let fits = shows(planned.kind, order)
        || (cancelled && planned.scarce && code == "OUT_OF_STOCK")
        || (cancelled && !in_time && NOT_IN_TIME.contains(&code));
    let outcome = explain::status_word(order.status());
    let when = if in_time { " with every participant there" } else { "" };
    (!fits).then(|| format!("{} ({}) came back {outcome} {code}{when}", planned.order_key, planned.kind.name()))
}

/// The kinds of which orders were placed and none had the outcome that it is there to show, each as a sentence.
pub(crate) fn not_shown(placed: &[Placed]) -> Vec<String> {
    let mut shown: BTreeMap<Kind, bool> = BTreeMap::new();
    for one in placed {
        *shown.entry(one.kind).or_default() |= one.shown;
    }
    let missing = shown.into_iter().filter(|(_, shown)| !shown);
    missing.map(|(kind, _)| format!("no order ({}) had the outcome that it is there to show", kind.name())).collect()
}

#[cfg(test)]
mod tests {
    use tcc_proto::order::v1::Refusal;

    use super::*;

    fn planned(kind: Kind) -> Planned {
        Planned {
            kind,
            order_key: "k-1".to_owned(),
            user_id: "alice".to_owned(),
            lines: Vec::new(),
            coupon_id: String::new(),
            scarce: false,
        }
    }

    fn order(status: OrderStatus, code: &str) -> Order {
        let refusal = (!code.is_empty()).then(|| Refusal { code: code.to_owned(), ..Refusal::default() });
        Order { status: status.into(), refusal, ..Order::default() }
    }

    #[test]
    fn an_order_may_be_late_only_if_it_was_begun_before_everybody_was_back() {
        for code in NOT_IN_TIME {
            let late = order(OrderStatus::Cancelled, code);
            assert_eq!(judge(&planned(Kind::Plain), &late, false), None);
            let told = judge(&planned(Kind::Plain), &late, true).unwrap();
            assert!(told.contains(code) && told.contains("every participant"), "{told}");
        }
        assert_eq!(judge(&planned(Kind::Plain), &order(OrderStatus::Confirmed, ""), true), None);
        assert_eq!(judge(&planned(Kind::TooMany), &order(OrderStatus::Cancelled, "OUT_OF_STOCK"), true), None);
        assert!(judge(&planned(Kind::TooMany), &order(OrderStatus::Confirmed, ""), false).is_some());
        assert!(judge(&planned(Kind::Plain), &order(OrderStatus::Cancelled, "OUT_OF_STOCK"), false).is_some());
        let scarce = Planned { scarce: true, ..planned(Kind::Plain) };
        assert_eq!(judge(&scarce, &order(OrderStatus::Cancelled, "OUT_OF_STOCK"), true), None);
    }

    #[test]
    fn a_kind_that_never_had_its_outcome_is_told() {
        let placed = |kind, order: Order| Placed {
            kind,
            shown: shows(kind, &order),
            order: Some(order),
            latency: Duration::ZERO,
            repeats: 0,
            problems: Vec::new(),
        };
        let late = || order(OrderStatus::Cancelled, "TIMED_OUT");
        let mut all = vec![placed(Kind::Plain, order(OrderStatus::Confirmed, "")), placed(Kind::Plain, late())];
        assert_eq!(not_shown(&all), Vec::<String>::new());
        all.push(placed(Kind::UsedCoupon, late()));
        assert_eq!(not_shown(&all), ["no order (used coupon) had the outcome that it is there to show"]);
    }
}

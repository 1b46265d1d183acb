//! Places one planned order as a careful client does, and judges the answers.

use std::time::{Duration, Instant};

use tcc_proto::order::v1::{
    CancelOrderRequest, ConfirmOrderRequest, CreateOrderRequest, Order, OrderStatus, order_service_client::OrderServiceClient,
};
use tonic::{Status, transport::Channel};

use super::plan::{Kind, Planned};
use crate::{
    explain,
    harness::{order_with_retry, repeat},
};

/// Refusals that say "a participant did not answer in time": legal for any order while one is down.
const NOT_IN_TIME: [&str; 3] = ["TIMED_OUT", "LATE", "SUSPENDED"];

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
    /// Answers that no server may give, each as a sentence.
    pub(crate) problems: Vec<String>,
}

/// Places it, and confirms or cancels it if it is held.
pub(crate) async fn place(client: OrderServiceClient<Channel>, planned: &Planned) -> Placed {
    let request = CreateOrderRequest {
        order_key: planned.order_key.clone(),
        user_id: planned.user_id.clone(),
        lines: planned.lines.clone(),
        coupon_id: planned.coupon_id.clone(),
        hold: planned.kind.holds(),
        pay_by: None,
    };
    let mut placed = Placed { kind: planned.kind, order: None, latency: Duration::ZERO, repeats: 0, problems: Vec::new() };
    let started = Instant::now();
    let created = match planned.kind {
        Kind::Repeated => create_twice(&client, &request, &mut placed).await,
        Kind::Plain
        | Kind::WithCoupon
        | Kind::TooMany
        | Kind::ForeignCoupon
        | Kind::UsedCoupon
        | Kind::ExpiredCoupon
        | Kind::HoldConfirm
        | Kind::HoldCancel => order_with_retry(client.clone(), &request).await,
    };
    placed.latency = started.elapsed();
    let order = match created {
        Ok((order, repeats)) => {
            placed.repeats += repeats;
            settle(client, planned, order, &mut placed).await
        }
        Err(status) => Err(status),
    };
    match order {
        Ok(order) => {
            judge(planned, &order, &mut placed.problems);
            placed.order = Some(order);
        }
        Err(status) => placed.problems.push(format!("{}: {}", planned.order_key, explain::error(&status))),
    }
    placed
}

/// Two callers with one key at the same time, and both must get the same order.
async fn create_twice(
    client: &OrderServiceClient<Channel>,
    request: &CreateOrderRequest,
    placed: &mut Placed,
) -> Result<(Order, u32), Status> {
    let (one, other) = tokio::join!(order_with_retry(client.clone(), request), order_with_retry(client.clone(), request));
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

/// Decides a held order; a repeated request gets what was decided.
async fn settle(
    client: OrderServiceClient<Channel>,
    planned: &Planned,
    order: Order,
    placed: &mut Placed,
) -> Result<Order, Status> {
    if order.status() != OrderStatus::Held {
        return Ok(order);
    }
    if !planned.kind.holds() {
        placed.problems.push(format!("{}: came back held", planned.order_key));
    }
    let confirm = planned.kind == Kind::HoldConfirm;
    let (order, repeats) = repeat(|| {
        let (mut client, order_id) = (client.clone(), order.order_id.clone());
        async move {
            let decided = if confirm {
                client.confirm_order(ConfirmOrderRequest { order_id }).await?.into_inner().order
            } else {
                client.cancel_order(CancelOrderRequest { order_id }).await?.into_inner().order
            };
            decided.ok_or_else(|| Status::internal("the answer has no order"))
        }
    })
    .await?;
    placed.repeats += repeats;
    Ok(order)
}

/// Whether the outcome is one that this order may have.
fn judge(planned: &Planned, order: &Order, problems: &mut Vec<String>) {
    let code = order.refusal.as_ref().map(|refusal| refusal.code.as_str()).unwrap_or_default();
    let fits = match order.status() {
        OrderStatus::Confirmed => planned.kind.refusal().is_none() && code.is_empty(),
        OrderStatus::Cancelled => {
            planned.kind.refusal() == Some(code) || (planned.scarce && code == "OUT_OF_STOCK") || NOT_IN_TIME.contains(&code)
        }
        OrderStatus::Unspecified | OrderStatus::Pending | OrderStatus::Held => false,
    };
    if !fits {
        let outcome = explain::status_word(order.status());
        problems.push(format!("{} ({}) came back {outcome} {code}", planned.order_key, planned.kind.name()));
    }
}

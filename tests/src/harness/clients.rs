//! Calling the cluster as a careful client does: an unknown outcome is asked again under the same key.

use std::{sync::Arc, time::Duration};

use tcc_client::is_repeatable;
use tcc_proto::order::v1::{CreateOrderRequest, Order, order_service_client::OrderServiceClient};
use tcc_types::{Entropy, SystemEntropy};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt;

/// How often an order is sent before the client gives up: with the pauses below, about a minute.
pub const RETRIES_MAX: u32 = 120;
const PAUSE_BASE: Duration = Duration::from_millis(50);
const PAUSE_CAP: Duration = Duration::from_secs(1);

/// Waits before attempt `attempt + 1`: what the server asks for, or capped exponential backoff; with full jitter.
async fn pause(status: &Status, attempt: u32) {
    let doubled = PAUSE_BASE.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(PAUSE_CAP);
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
    let wait = asked.min(PAUSE_CAP) + SystemEntropy.jitter(doubled);
    tokio::time::sleep(wait).await;
}

/// Asks again while the outcome is unknown. Also tells how often it asked again.
///
/// # Errors
/// The first answer that is not repeatable, or the last one after [`RETRIES_MAX`].
pub async fn repeat<T, A>(mut ask: impl FnMut() -> A) -> Result<(T, u32), Status>
where
    A: Future<Output = Result<T, Status>>,
{
    let mut attempt = 0;
    loop {
        match ask().await {
            Ok(answer) => return Ok((answer, attempt)),
            Err(status) if is_repeatable(&status) && attempt < RETRIES_MAX => pause(&status, attempt).await,
            Err(status) => return Err(status),
        }
        attempt += 1;
    }
}

/// Places an order, repeating it under its key while the outcome is unknown. Also tells how often it was sent again.
///
/// # Errors
/// As [`repeat`].
pub async fn order_with_retry(
    client: OrderServiceClient<Channel>,
    request: &CreateOrderRequest,
) -> Result<(Order, u32), Status> {
    order_at_any(&Gateways::new(vec![client]), 0, request).await
}

/// As [`order_with_retry`], asking first one gateway and then, whenever the outcome is unknown, the next.
///
/// # Errors
/// As [`repeat`].
pub async fn order_at_any(gateways: &Gateways, first: usize, request: &CreateOrderRequest) -> Result<(Order, u32), Status> {
    gateways
        .repeat(first, |mut client| {
            let request = request.clone();
            async move { client.create_order(request).await?.into_inner().order.ok_or_else(no_order) }
        })
        .await
}

fn no_order() -> Status {
    Status::internal("the answer has no order")
}

/// The orders of several gateways, of which any will do.
#[derive(Clone, Debug)]
pub struct Gateways(Arc<[OrderServiceClient<Channel>]>);

impl Gateways {
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn new(clients: Vec<OrderServiceClient<Channel>>) -> Self {
        assert!(!clients.is_empty(), "no gateway to ask");
        Self(clients.into())
    }

    /// Asks one gateway, and as long as the outcome is unknown the next, and so on in turn.
    ///
    /// # Errors
    /// As [`repeat`].
    pub async fn repeat<T, A>(
        &self,
        first: usize,
        mut ask: impl FnMut(OrderServiceClient<Channel>) -> A,
    ) -> Result<(T, u32), Status>
    where
        A: Future<Output = Result<T, Status>>,
    {
        let mut turns = self.0.iter().cycle().skip(first % self.0.len());
        repeat(|| match turns.next() {
            Some(client) => ask(client.clone()),
            None => unreachable!("a cycle of one or more does not end"),
        })
        .await
    }
}

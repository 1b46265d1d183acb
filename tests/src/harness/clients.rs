//! Calling the cluster as a careful client does: an unknown outcome is asked again under the same key.

use std::time::Duration;

use tcc_proto::order::v1::{CreateOrderRequest, Order, order_service_client::OrderServiceClient};
use tcc_types::{Entropy, SystemEntropy};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

/// How often an order is sent before the client gives up: with the pauses below, about a minute.
pub const RETRIES_MAX: u32 = 120;
const PAUSE_BASE: Duration = Duration::from_millis(50);
const PAUSE_CAP: Duration = Duration::from_secs(1);

/// Whether the same request under the same key may be sent again.
#[must_use]
pub fn is_repeatable(status: &Status) -> bool {
    match status.code() {
        // tonic reports its own timeout, and a connection that broke under a call, as one of these.
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::Unknown => is_transport(status),
        _ => false,
    }
}

// A connection that is cut while an answer is under way comes as UNKNOWN, with the transport's error as its source.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some() || status.message().contains("transport error") || status.message().contains("h2")
}

/// Waits before attempt `attempt + 1`: what the server asks for, or capped exponential backoff; with full jitter.
pub async fn pause(status: &Status, attempt: u32) {
    let doubled = PAUSE_BASE.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(PAUSE_CAP);
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
    let wait = asked.min(PAUSE_CAP) + SystemEntropy.jitter(doubled);
    tokio::time::sleep(wait).await;
}

/// Places an order, repeating it under its key while the outcome is unknown. Also tells how often it was sent again.
///
/// # Errors
/// The first answer that is neither the order nor repeatable, or the last one after [`RETRIES_MAX`].
pub async fn order_with_retry(
    mut client: OrderServiceClient<Channel>,
    request: &CreateOrderRequest,
) -> Result<(Order, u32), Status> {
    let mut attempt = 0;
    loop {
        let status = match client.create_order(request.clone()).await {
            Ok(response) => {
                let order = response.into_inner().order.ok_or_else(|| Status::internal("the answer has no order"))?;
                return Ok((order, attempt));
            }
            Err(status) => status,
        };
        if !is_repeatable(&status) || attempt >= RETRIES_MAX {
            return Err(status);
        }
        pause(&status, attempt).await;
        attempt += 1;
    }
}

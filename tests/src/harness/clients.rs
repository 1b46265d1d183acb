//! Calling the cluster as a careful client does: an unknown outcome is asked again under the same key.

use std::time::Duration;

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
    repeat(|| {
        let (mut client, request) = (client.clone(), request.clone());
        async move {
            let response = client.create_order(request).await?;
            response.into_inner().order.ok_or_else(|| Status::internal("the answer has no order"))
        }
    })
    .await
}

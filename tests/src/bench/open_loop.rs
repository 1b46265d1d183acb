//! Load at a fixed rate: orders begin when they are due, whether or not earlier ones have ended, and their latency counts from
//! when they were due. So a stall is felt by every order that was due in it, as it is by users.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tcc_proto::order::v1::order_service_client::OrderServiceClient;
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::transport::Channel;

use super::{
    load::{Tallies, all, place},
    orders::Orders,
};

/// Orders that can be under way. When so many are, the next wait here, and their latency grows.
const UNDER_WAY_MAX: usize = 2_048;
/// Sleeps shorter than this are not worth waking up for: orders due within it begin together.
const GRAIN: Duration = Duration::from_micros(100);

/// Places orders at this rate until the window ends, and waits for the last answers.
pub(crate) async fn drive(
    clients: &[OrderServiceClient<Channel>],
    orders: Arc<Orders>,
    rate: u32,
    tallies: Arc<Tallies>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let due = Arc::new(Semaphore::new(0));
    let mut tasks = JoinSet::new();
    for client in clients.iter().cycle().take(UNDER_WAY_MAX) {
        tasks.spawn(open(client.clone(), Arc::clone(&orders), (start, rate), Arc::clone(&due), Arc::clone(&tallies)));
    }
    // A thread, since the runtime's timers are a millisecond coarse, which would be most of a short latency.
    let open = Arc::clone(&tallies);
    let clock = tokio::task::spawn_blocking(move || {
        let mut told: u64 = 0;
        while open.is_open() {
            let wanted = due_by(start.elapsed(), rate);
            due.add_permits(usize::try_from(wanted - told).unwrap_or(0));
            told = wanted;
            let next = start + due_at(told, rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()).max(GRAIN));
        }
        due.close();
        told
    });
    let told = clock.await?;
    all(tasks).await?;
    for number in orders.take()..told {
        tallies.never_began(start + due_at(number, rate));
    }
    Ok(())
}

/// Orders that are due by then; the first is due at once.
fn due_by(elapsed: Duration, rate: u32) -> u64 {
    let whole = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000;
    u64::try_from(whole).unwrap_or(u64::MAX - 1) + 1
}

/// When the order with this number, from 0, is due.
fn due_at(number: u64, rate: u32) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

async fn open(
    mut client: OrderServiceClient<Channel>,
    orders: Arc<Orders>,
    (start, rate): (Instant, u32),
    due: Arc<Semaphore>,
    tallies: Arc<Tallies>,
) {
    // Closed when the window ends.
    while let Ok(permit) = due.acquire().await {
        permit.forget();
        let number = orders.take();
        place(&mut client, &orders, number, start + due_at(number, rate), &tallies).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_due_at_even_distances_and_none_is_left_out() {
        for rate in [1, 3, 700, 20_000] {
            let mut begun = 0;
            for micros in (0..2_000_000).step_by(137) {
                let due = due_by(Duration::from_micros(micros), rate);
                assert!(due >= begun);
                begun = due;
                assert!(due_at(due - 1, rate) <= Duration::from_micros(micros) + Duration::from_nanos(1));
                assert!(due_at(due, rate) + Duration::from_nanos(1) > Duration::from_micros(micros));
            }
            assert_eq!(due_by(Duration::from_secs(2), rate), u64::from(rate) * 2 + 1);
        }
    }
}

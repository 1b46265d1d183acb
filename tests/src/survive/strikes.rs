//! Kills one process after the other while orders flow, and brings each back a little later.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tcc_types::{Entropy, SystemEntropy};
use tokio::{task::block_in_place, time::sleep};

use super::watch::Watch;
use crate::{
    harness::{Cluster, Party, Role},
    witness::History,
};

const DOWN_MIN: Duration = Duration::from_millis(500);
const DOWN_MAX: Duration = Duration::from_secs(2);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// One gateway after the other.
    Gateway,
    /// The database server, with everything on it.
    Database,
    /// The inventory participant.
    Inventory,
}

/// One kill; times are since the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) killed_at: Duration,
    pub(crate) back_at: Duration,
}

/// Kills and brings back, one strike in each period, until the time is over.
#[derive(Debug)]
pub(crate) struct Striker<'a> {
    cluster: &'a mut Cluster,
    target: Target,
    watch: &'a Watch,
    started: Instant,
    /// The number of each gateway's present run.
    owners: Vec<i64>,
}

impl<'a> Striker<'a> {
    /// `owners`: the number of each gateway's run.
    pub(crate) fn new(
        cluster: &'a mut Cluster,
        target: Target,
        watch: &'a Watch,
        started: Instant,
        owners: Vec<i64>,
    ) -> anyhow::Result<Self> {
        let own_server = target != Target::Database || cluster.server().is_some();
        ensure!(own_server, "--kill database needs a private server: --store postgres or mysql, without --database-url");
        Ok(Self { cluster, target, watch, started, owners })
    }

    pub(crate) async fn strike_until(
        &mut self,
        end: Duration,
        period: Duration,
        mut tell: impl FnMut(&str),
    ) -> anyhow::Result<Vec<Strike>> {
        let mut strikes = Vec::new();
        let mut next = period;
        while next < end {
            sleep(next.saturating_sub(self.started.elapsed())).await;
            let number = strikes.len();
            let killed_at = self.kill(number).await?;
            tell(&format!("{} kills of {}", number + 1, self.name()));
            sleep(DOWN_MIN + SystemEntropy.jitter(DOWN_MAX - DOWN_MIN)).await;
            self.bring_back(number).await?;
            strikes.push(Strike { killed_at, back_at: self.started.elapsed() });
            // Somebody is up for a while between two strikes, however long it took to come back.
            next = (next + period).max(self.started.elapsed() + period / 4);
        }
        sleep(end.saturating_sub(self.started.elapsed())).await;
        Ok(strikes)
    }

    const fn name(&self) -> &'static str {
        match self.target {
            Target::Gateway => "gateways",
            Target::Database => "the database server",
            Target::Inventory => "inventory",
        }
    }

    async fn kill(&mut self, number: usize) -> anyhow::Result<Duration> {
        let gateway = number % self.cluster.gateways();
        let at = self.started.elapsed();
        match self.target {
            Target::Gateway => {
                self.cluster.kill(Party::Gateway(gateway)).await?;
                self.watch.killed(self.owners[gateway], at).await?;
            }
            Target::Database => block_in_place(|| self.server()?.kill())?,
            Target::Inventory => self.cluster.kill(Role::Inventory).await?,
        }
        Ok(at)
    }

    async fn bring_back(&mut self, number: usize) -> anyhow::Result<()> {
        match self.target {
            Target::Gateway => {
                let gateway = number % self.cluster.gateways();
                self.cluster.restart(Party::Gateway(gateway)).await?;
                // Nobody else starts meanwhile: the greatest number is the one that it has just taken.
                self.owners[gateway] = self.watch.newest_owner().await?;
            }
            Target::Database => block_in_place(|| self.server()?.restart())?,
            Target::Inventory => self.cluster.restart(Role::Inventory).await?,
        }
        Ok(())
    }

    fn server(&self) -> anyhow::Result<&tcc_servers::Server> {
        self.cluster.server().context("there is no private server")
    }
}

/// How long orders were interrupted by one kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interruption {
    /// From the kill until an order was acknowledged after the return.
    pub(crate) since_kill: Duration,
    /// From the return until then.
    pub(crate) since_return: Duration,
}

/// The interruption of each kill after which an order was acknowledged again.
pub(crate) fn interruptions(strikes: &[Strike], history: &History) -> Vec<Interruption> {
    let interruption = |strike: &Strike| {
        let first = history.first_after(strike.back_at)?;
        Some(Interruption { since_kill: first - strike.killed_at, since_return: first - strike.back_at })
    };
    strikes.iter().filter_map(interruption).collect()
}

#[cfg(test)]
mod tests {
    use tcc_proto::order::v1::OrderStatus;

    use super::*;
    use crate::witness::Told;

    #[test]
    fn an_interruption_ends_with_the_first_answer_after_the_return() {
        let at = Duration::from_millis;
        let told = |millis| Told {
            order_key: "k".to_owned(),
            order_id: "id".to_owned(),
            status: OrderStatus::Confirmed,
            gateway: 0,
            with_coupon: false,
            sent: at(0),
            at: at(millis),
        };
        let history = History { told: [90, 100, 1_700, 1_600].map(told).into(), ..History::default() };
        let strikes = [Strike { killed_at: at(100), back_at: at(1_500) }, Strike { killed_at: at(2_000), back_at: at(3_000) }];
        assert_eq!(interruptions(&strikes, &history), [Interruption { since_kill: at(1_500), since_return: at(100) }]);
    }
}

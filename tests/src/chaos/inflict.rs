//! Carries out a plan: breaks what it says when it says so, and mends it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::future::try_join_all;
use tcc_servers::Server;
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::plan::{Disturbance, Fault, Planned};
use crate::harness::{Cluster, Exited, Link, Links, Party};

/// A process that does not come back within this, with its database up and down, never will.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// Between two starts of a process that ends because its database is down.
const START_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Beyond this a full disk takes nothing.
const FULL_BYTES: u64 = 1;

/// A fault that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inflicted {
    pub(crate) fault: Fault,
    /// Where, in words.
    pub(crate) place: String,
    /// Since the beginning.
    pub(crate) began: Duration,
    /// When it was mended, a process that was killed serving again.
    pub(crate) ended: Duration,
    /// Whether there was anything to be harmed; else it is not counted.
    pub(crate) happened: bool,
}

/// Who breaks things.
#[derive(Debug)]
pub(crate) struct Inflictor<'a> {
    cluster: Mutex<&'a mut Cluster>,
    server: Option<Arc<Server>>,
    links: Links,
    started: Instant,
    inflicted: Mutex<Vec<Inflicted>>,
    /// What must not happen by itself.
    problems: Mutex<Vec<String>>,
}

impl<'a> Inflictor<'a> {
    pub(crate) fn new(cluster: &'a mut Cluster, started: Instant) -> Self {
        let (server, links) = (cluster.databases().own_server(), cluster.links().clone());
        let cluster = Mutex::new(cluster);
        Self { cluster, server, links, started, inflicted: Mutex::default(), problems: Mutex::default() }
    }

    /// Carries out every lane.
    ///
    /// # Errors
    /// Something does not come back.
    pub(crate) async fn carry_out(&self, lanes: &[Vec<Planned>], tell: impl Fn(&str)) -> anyhow::Result<()> {
        try_join_all(lanes.iter().map(|lane| self.lane(lane, &tell))).await?;
        let gateways = self.cluster().gateways();
        for party in Party::processes(gateways) {
            self.lives(party).await?;
        }
        Ok(())
    }

    /// What was done, in the order of its beginning, and what has happened by itself that must not.
    pub(crate) fn done(self) -> (Vec<Inflicted>, Vec<String>) {
        let mut inflicted = self.inflicted.into_inner().unwrap_or_else(PoisonError::into_inner);
        inflicted.sort_by_key(|one| one.began);
        (inflicted, self.problems.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn lane(&self, lane: &[Planned], tell: &impl Fn(&str)) -> anyhow::Result<()> {
        for Planned { at, lasts, fault } in lane {
            sleep(at.saturating_sub(self.started.elapsed())).await;
            let began = self.started.elapsed();
            let (place, happened) = self.inflict(*fault, *lasts).await.with_context(|| format!("{fault:?} at {began:?}"))?;
            let ended = self.started.elapsed();
            let mut inflicted = self.inflicted.lock().unwrap_or_else(PoisonError::into_inner);
            inflicted.push(Inflicted { fault: *fault, place, began, ended, happened });
            tell(&format!("{} faults", inflicted.len()));
        }
        Ok(())
    }

    /// Breaks, waits and mends; tells where, and whether there was anything to break.
    async fn inflict(&self, fault: Fault, lasts: Duration) -> anyhow::Result<(String, bool)> {
        match fault {
            Fault::Kill(party) | Fault::Stop(party) | Fault::FullDisk(party) => {
                let lives = self.lives(party).await?;
                if lives {
                    self.harm(fault, party, lasts).await?;
                }
                Ok((party.to_string(), lives))
            }
            Fault::KillDatabase => {
                self.on_server(Server::kill).await?;
                sleep(lasts).await;
                self.on_server(Server::restart).await?;
                Ok(("database".to_owned(), true))
            }
            Fault::FullDatabaseDisk => {
                self.on_server(|server| server.limit_files(Some(FULL_BYTES))).await?;
                sleep(lasts).await;
                self.on_server(|server| server.limit_files(None)).await?;
                self.on_server(Server::revive).await?;
                Ok(("database".to_owned(), true))
            }
            Fault::Link(number, disturbance) => {
                let link = self.links.all().get(number).with_context(|| format!("there is no link {number}"))?;
                Ok((link.to_string(), disturb(link, disturbance, lasts).await))
            }
        }
    }

    async fn harm(&self, fault: Fault, party: Party, lasts: Duration) -> anyhow::Result<()> {
        match fault {
            Fault::Stop(_) => {
                self.cluster().freeze(party)?;
                sleep(lasts).await;
                self.cluster().thaw(party)
            }
            Fault::FullDisk(_) => {
                self.cluster().limit_files(party, Some(FULL_BYTES))?;
                sleep(lasts).await;
                self.cluster().limit_files(party, None)
            }
            Fault::Kill(_) | Fault::KillDatabase | Fault::FullDatabaseDisk | Fault::Link(..) => {
                let mut child = self.cluster().take(party)?;
                child.kill().await?;
                sleep(lasts).await;
                self.bring_back(party).await
            }
        }
    }

    /// Whether a process still runs. That one has ended by itself is a problem; it is brought back.
    async fn lives(&self, party: Party) -> anyhow::Result<bool> {
        let mut child = self.cluster().take(party)?;
        let Some(status) = child.has_ended()? else {
            self.cluster().put(party, child)?;
            return Ok(true);
        };
        let sentence = format!("{party} ended by itself ({status}); the end of its log:\n{}", child.log_tail());
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(sentence);
        self.bring_back(party).await?;
        Ok(false)
    }

    /// Starts a process again and again until it serves, as whoever watches over processes would: while its database is down or cut
    /// off it cannot.
    async fn bring_back(&self, party: Party) -> anyhow::Result<()> {
        let launch = self.cluster().launch(party, None)?;
        let give_up = Instant::now() + BACK_WITHIN;
        loop {
            match launch.start().await {
                Ok(child) => return self.cluster().put(party, child),
                Err(error) if error.is::<Exited>() && Instant::now() < give_up => sleep(START_AGAIN_AFTER).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn on_server(&self, act: impl FnOnce(&Server) -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
        let Some(server) = self.server.clone() else { bail!("there is no database server of our own") };
        spawn_blocking(move || act(&server)).await.context("the database server could not be told")?
    }

    /// Never held across an await.
    fn cluster(&self) -> MutexGuard<'_, &'a mut Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn disturb(link: &Link, disturbance: Disturbance, lasts: Duration) -> bool {
    let proxy = &link.proxy;
    if let Some(harm) = disturbance.harm() {
        let happened = matches!(timeout(lasts, proxy.harm(harm)).await, Ok(Ok(())));
        proxy.calm();
        return happened;
    }
    let before = proxy.touched();
    proxy.set(disturbance.traffic());
    sleep(lasts).await;
    if disturbance == Disturbance::Drop {
        proxy.cut();
    }
    proxy.calm();
    proxy.touched() > before
}

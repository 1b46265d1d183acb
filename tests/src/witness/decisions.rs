//! Reads the log again and again: a decision that was once there must stand, and its transaction with it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use tcc_types::Gid;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::evidence::Decided;
use crate::harness::{AnyRow, Snapshot, Store};

/// Between two looks: so long at least, and so many times as long as the last one took, so that it costs the system little.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 20;
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A look that takes longer found a database that is silent.
const LOOK_WITHIN: Duration = Duration::from_secs(20);
/// Sentences that are kept.
const SENTENCES_MAX: usize = 50;

/// What the log has said so far.
#[derive(Debug)]
pub(crate) struct Decisions {
    store: Store,
    url: String,
    seen: BTreeMap<Vec<u8>, Decided>,
    /// Looks that came to their end.
    pub(crate) looks: u64,
    /// What has changed that must not, each as a sentence.
    pub(crate) changed: Vec<String>,
}

impl Decisions {
    /// Of the log at this URL.
    pub(crate) fn new(store: Store, url: &str) -> Self {
        Self { store, url: url.to_owned(), seen: BTreeMap::new(), looks: 0, changed: Vec::new() }
    }

    /// Looks until it is told to stop. A database that is down is looked at later.
    pub(crate) async fn watch(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let look = async {
                let began = Instant::now();
                // A server may be down: that is what is tried here. What is read is checked.
                let looked = self.look().await.is_ok();
                sleep(if looked { (began.elapsed() * PAUSE_FACTOR).clamp(PAUSE_MIN, PAUSE_MAX) } else { PAUSE_MIN }).await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = look => {}
            }
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) async fn look(&mut self) -> anyhow::Result<()> {
        let rows = timeout(LOOK_WITHIN, self.read()).await.context("the log is silent")?.context("the log cannot be read")?;
        let row = |row: &AnyRow| anyhow::Ok((row.bytes(0)?, Decided::of(row.integer(1)?)?));
        match rows.iter().map(row).collect::<anyhow::Result<_>>() {
            Ok(now) => self.see(now),
            Err(error) => self.note(format!("{error:#}")),
        }
        self.looks += 1;
        Ok(())
    }

    async fn read(&self) -> sqlx::Result<Vec<AnyRow>> {
        let mut log = Snapshot::begin(self.store, &self.url).await?;
        let rows = log.all("SELECT gid, status FROM tcc_log_transactions").await?;
        match self.store {
            Store::Sqlite | Store::Postgres => {}
            // Without a binary log InnoDB shows commits a moment before they are on disk, and these servers are killed.
            Store::Mysql => drop(log.all("FLUSH ENGINE LOGS").await?),
        }
        Ok(rows)
    }

    fn note(&mut self, sentence: String) {
        if self.changed.len() < SENTENCES_MAX {
            self.changed.push(sentence);
        }
    }

    /// How many have been seen decided.
    pub(crate) fn decided(&self) -> usize {
        self.seen.values().filter(|decided| **decided != Decided::Nothing).count()
    }

    fn see(&mut self, now: BTreeMap<Vec<u8>, Decided>) {
        for (gid, before) in std::mem::take(&mut self.seen) {
            match now.get(&gid) {
                Some(now) if before.may_become(*now) => {}
                Some(now) => self.note(format!("the log said {before:?} of {} and then {now:?}", named(&gid))),
                None => self.note(format!("the log said {before:?} of {} and then has it no more", named(&gid))),
            }
        }
        self.seen = now;
    }
}

fn named(gid: &[u8]) -> String {
    Gid::from_bytes(gid).map_or_else(|_| format!("{gid:?}"), |gid| gid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(of_each: &[Option<Decided>]) -> Vec<String> {
        let mut decisions = Decisions::new(Store::Sqlite, "");
        for decided in of_each {
            decisions.see(decided.iter().map(|decided| (vec![0xab], *decided)).collect());
        }
        decisions.changed
    }

    #[test]
    fn what_goes_on_is_no_change_and_what_turns_back_is() {
        use Decided::{Cancel, Cancelled, Confirm, Confirmed, Nothing};

        for sound in [[None, Some(Nothing), Some(Confirm), Some(Confirmed)], [None, None, Some(Cancel), Some(Cancelled)]] {
            assert!(seen(&sound).is_empty(), "{sound:?}");
        }
        for broken in [[Confirm, Cancel], [Cancel, Nothing], [Confirmed, Confirm], [Cancelled, Confirmed]] {
            assert_eq!(seen(&broken.map(Some)).len(), 1, "{broken:?}");
        }
        assert_eq!(seen(&[Some(Confirm), None]), ["the log said Confirm of [171] and then has it no more"]);
    }
}

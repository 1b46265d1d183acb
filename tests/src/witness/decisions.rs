//! Reads the log again and again: a decision that was once there must stand, and its transaction with it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::evidence::Decided;
use crate::harness::{AnyRow, Snapshot, Store};

/// Between two looks: so long at least, and so many times as long as the last one took, so that it costs the system little.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 20;
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
            let began = Instant::now();
            // What a server that is down says is no matter here.
            let _ = self.look().await;
            let pause = PAUSE_MIN.max(began.elapsed() * PAUSE_FACTOR);
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) async fn look(&mut self) -> anyhow::Result<()> {
        let sql = "SELECT gid, status FROM tcc_log_transactions";
        let rows = Snapshot::begin(self.store, &self.url).await?.all(sql).await.context("the log cannot be read")?;
        let row = |row: &AnyRow| anyhow::Ok((row.bytes(0)?, Decided::of(row.integer(1)?)?));
        self.see(rows.iter().map(row).collect::<anyhow::Result<_>>()?);
        self.looks += 1;
        Ok(())
    }

    /// How many have been seen decided.
    pub(crate) fn decided(&self) -> usize {
        self.seen.values().filter(|decided| **decided != Decided::Nothing).count()
    }

    fn see(&mut self, now: BTreeMap<Vec<u8>, Decided>) {
        for (gid, before) in &self.seen {
            let sentence = match now.get(gid) {
                Some(now) if before.may_become(*now) => continue,
                Some(now) => format!("the log said {before:?} of {} and then {now:?}", hexadecimal(gid)),
                None => format!("the log said {before:?} of {} and then has it no more", hexadecimal(gid)),
            };
            if self.changed.len() < SENTENCES_MAX {
                self.changed.push(sentence);
            }
        }
        self.seen = now;
    }
}

fn hexadecimal(gid: &[u8]) -> String {
    gid.iter().map(|byte| format!("{byte:02x}")).collect()
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
        assert_eq!(seen(&[Some(Confirm), None]), ["the log said Confirm of ab and then has it no more"]);
    }
}

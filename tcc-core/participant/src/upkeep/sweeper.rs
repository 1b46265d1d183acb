//! Asks the coordinators about reservations past their `ask_after`, and obeys. Decides nothing about any branch itself: what it
//! is told goes through the engine, on the same path as the coordinator's own Confirm and Cancel, so that it does not matter who
//! comes first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use tcc_types::{
    BranchKey, BranchRowStatus, CancelCall, ConfirmCall, Entropy, LogName, Outcome, OutcomeQuery, SettleAnswer, Timestamp,
};
use tokio::time::Instant;

use super::{UpkeepOptions, bounded_write};
use crate::{Database, Engine, InDoubt, OutcomeSource, Participant, Store, Unanswered, Unknown, outcomes::ask};

/// Rows that one transaction postpones: their locks must not be held for long.
const POSTPONES_MAX: usize = 64;

/// What one sweep did, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Confirmed, or found to be so.
    pub(crate) confirmed: u32,
    /// Cancelled, or found to be so.
    pub(crate) cancelled: u32,
    /// To ask again later.
    pub(crate) postponed: u32,
    /// Of those, the ones that wait for an operator.
    pub(crate) forgotten: u32,
    /// As they were, for the next sweep.
    pub(crate) left: u32,
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.confirmed += other.confirmed;
        self.cancelled += other.cancelled;
        self.postponed += other.postponed;
        self.forgotten += other.forgotten;
        self.left += other.left;
    }
}

/// The sweeper of one participant.
pub(crate) struct Sweeper<P: Participant, S> {
    engine: Engine<P>,
    source: Arc<S>,
    entropy: Arc<dyn Entropy>,
    /// Coordinators that did not answer, and when they are asked again. Only configured ones get here, so they are few.
    silent: BTreeMap<LogName, Silence>,
}

#[derive(Clone, Copy)]
struct Silence {
    times: u32,
    until: Instant,
}

/// A row that has to be asked about again.
struct Postpone {
    key: BranchKey,
    ask_after: Timestamp,
    forgotten: bool,
}

/// What became of one row that was to be confirmed or cancelled.
enum Settled {
    Done(Outcome),
    /// It failed: it must not be at the head of the next batch, where it would keep others out.
    Failed,
    /// There was no room for it.
    Left,
}

impl<P: Participant, S: OutcomeSource> Sweeper<P, S> {
    /// Of an engine's database.
    pub(crate) fn new(engine: Engine<P>, source: Arc<S>, entropy: Arc<dyn Entropy>) -> Self {
        Self { engine, source, entropy, silent: BTreeMap::new() }
    }

    pub(super) fn options(&self) -> &UpkeepOptions {
        &self.store().options().upkeep
    }

    fn store(&self) -> &Store<P::Db> {
        self.engine.store()
    }

    /// Asks about everything that is due, batch by batch, and ends when a batch was the last one, or some of its rows could
    /// neither be settled nor put off: those would be the next batch again.
    ///
    /// Cancel-safe: what it began to settle runs to its end, and the rest is due as before.
    pub(crate) async fn sweep(&mut self) -> Swept {
        let mut swept = Swept::default();
        loop {
            let due = match self.store().tried_due(self.options().sweep_batch_max).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(%error, "cannot read which reservations are past their ask_after");
                    break;
                }
            };
            if due.is_empty() {
                break;
            }
            let full = due.len() >= self.options().sweep_batch_max as usize;
            let step = self.batch(due, full).await;
            swept.add(step);
            if !full || step.left > 0 {
                break;
            }
        }
        // What is only left was told when its coordinator did not answer.
        if swept != (Swept { left: swept.left, ..Swept::default() }) {
            let Swept { confirmed, cancelled, postponed, forgotten, left } = swept;
            tracing::info!(confirmed, cancelled, postponed, forgotten, left, "asked about reservations past their ask_after");
        }
        swept
    }

    /// One batch: each coordinator is asked once, side by side, so that one that is slow holds up no other's rows.
    async fn batch(&mut self, due: Vec<InDoubt>, full: bool) -> Swept {
        let mut groups: BTreeMap<LogName, Vec<InDoubt>> = BTreeMap::new();
        for row in due {
            groups.entry(row.coordinator.clone()).or_default().push(row);
        }
        let this = &*self;
        let steps = groups.into_iter().map(|(coordinator, rows)| async move {
            let (step, answered) = this.group(&coordinator, rows, full).await;
            (coordinator, step, answered)
        });
        let steps = join_all(steps).await;
        let mut swept = Swept::default();
        for (coordinator, step, answered) in steps {
            swept.add(step);
            match answered {
                Some(true) => drop(self.silent.remove(&coordinator)),
                Some(false) => self.keep_silent(coordinator),
                None => {}
            }
        }
        swept
    }

    /// One coordinator's rows of a batch, and whether it answered; `None` if it was not asked, or is not known.
    async fn group(&self, coordinator: &LogName, rows: Vec<InDoubt>, full: bool) -> (Swept, Option<bool>) {
        if self.silent.get(coordinator).is_some_and(|silence| Instant::now() < silence.until) {
            return (self.leave(rows, full).await, None);
        }
        let query =
            |row: &InDoubt| OutcomeQuery { key: row.key.clone(), row_status: BranchRowStatus::Tried, not_after: row.not_after };
        let queries: Vec<_> = rows.iter().map(query).collect();
        match ask(&*self.source, coordinator, &queries).await {
            Ok(outcomes) => (self.obey(coordinator, rows, outcomes).await, Some(true)),
            Err(Unanswered::NoSource) => {
                let (count, example) = (rows.len(), rows.first().map(|row| row.key.to_string()));
                tracing::warn!(
                    %coordinator, count, example,
                    "reservations of a coordinator that is not configured: nobody can be asked about them"
                );
                (self.put_off(rows, self.ask_again()).await, None)
            }
            Err(Unanswered::NoAnswer(problem)) => {
                tracing::warn!(%coordinator, problem, count = rows.len(), "the coordinator does not tell what became of them");
                (self.leave(rows, full).await, Some(false))
            }
        }
    }

    /// Rows without an answer stay as they are. Only where they fill a batch they are put off, so that they keep no other
    /// coordinator's rows out.
    async fn leave(&self, rows: Vec<InDoubt>, full: bool) -> Swept {
        if full {
            return self.put_off(rows, self.options().sweep_interval()).await;
        }
        Swept { left: count(rows.len()), ..Swept::default() }
    }

    async fn put_off(&self, rows: Vec<InDoubt>, pause: Duration) -> Swept {
        let Some(now) = self.now().await else {
            return Swept { left: count(rows.len()), ..Swept::default() };
        };
        let later = rows.into_iter().map(|row| self.later(row.key, now.plus(pause), false)).collect();
        self.postpone(later).await
    }

    /// Does what the coordinator said of each row.
    async fn obey(&self, coordinator: &LogName, rows: Vec<InDoubt>, outcomes: Vec<Outcome>) -> Swept {
        let in_flight = self.store().options().operations_in_flight_max / 2;
        let in_flight = self.options().sweep_in_flight_max.min(in_flight).max(1) as usize;
        let (mut settle, mut wait, mut strange) = (Vec::new(), Vec::new(), Vec::new());
        for (row, outcome) in rows.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Confirmed | Outcome::Cancelled => settle.push((row, outcome)),
                Outcome::AskAgain { .. } | Outcome::Forgotten => wait.push((row, outcome)),
                Outcome::Finished | Outcome::NotMine => {
                    strange.push((row.key.clone(), outcome));
                    wait.push((row, outcome));
                }
            }
        }
        if let Some((example, outcome)) = strange.first() {
            let count = strange.len();
            tracing::warn!(%coordinator, count, %example, ?outcome, "a strange answer about a reservation: it is asked again");
        }
        let settled = stream::iter(settle).map(|(row, outcome)| async move {
            let settled = self.settle(&row, outcome).await;
            (row, settled)
        });
        let settled: Vec<_> = settled.buffer_unordered(in_flight).collect().await;

        let mut swept = Swept::default();
        let mut failed = Vec::new();
        for (row, settled) in settled {
            match settled {
                Settled::Done(Outcome::Confirmed) => swept.confirmed += 1,
                Settled::Done(_) => swept.cancelled += 1,
                Settled::Failed => failed.push(row.key),
                Settled::Left => swept.left += 1,
            }
        }
        swept.add(self.wait(wait, failed).await);
        swept
    }

    /// Through the engine, like the coordinator's own call.
    async fn settle(&self, row: &InDoubt, outcome: Outcome) -> Settled {
        let key = row.key.clone();
        let answer = if outcome == Outcome::Confirmed {
            self.engine.confirm(ConfirmCall { key }).await
        } else {
            self.engine.cancel(CancelCall { key, not_after: row.not_after }).await
        };
        match answer {
            Ok(SettleAnswer::Done) => Settled::Done(outcome),
            // The row is not tried any more, so that there is nothing left to ask; but somebody told it otherwise.
            Ok(SettleAnswer::Violation(violation)) => {
                tracing::error!(branch = %row.key, ?outcome, %violation, "the branch ended otherwise than its transaction");
                Settled::Done(outcome)
            }
            Err(Unknown::Overloaded { .. } | Unknown::ShuttingDown) => Settled::Left,
            // The engine has logged why.
            Err(Unknown::TooSlow { .. } | Unknown::Panicked | Unknown::Failed) => Settled::Failed,
        }
    }

    /// Puts off the rows that were not settled.
    async fn wait(&self, rows: Vec<(InDoubt, Outcome)>, failed: Vec<BranchKey>) -> Swept {
        if rows.is_empty() && failed.is_empty() {
            return Swept::default();
        }
        // The clock now, not before the question: the answer may have taken long.
        let Some(now) = self.now().await else {
            return Swept { left: count(rows.len() + failed.len()), ..Swept::default() };
        };
        let mut later = Vec::with_capacity(rows.len() + failed.len());
        let soon = now.plus(self.options().sweep_interval());
        later.extend(failed.into_iter().map(|key| self.later(key, soon, false)));
        for (row, outcome) in rows {
            later.push(match outcome {
                // Bounded, so that no wrong clock can put a reservation off for ever.
                Outcome::AskAgain { at } => {
                    let last = now.plus(Duration::from_millis(self.options().ask_again_ms_max));
                    self.later(row.key, at.max(soon).min(last), false)
                }
                Outcome::Forgotten => {
                    self.warn_once(&row).await;
                    let probe = Duration::from_millis(self.options().forgotten_probe_ms);
                    self.later(row.key, now.plus(probe), true)
                }
                Outcome::Confirmed | Outcome::Cancelled | Outcome::Finished | Outcome::NotMine => {
                    self.later(row.key, now.plus(self.ask_again()), false)
                }
            });
        }
        self.postpone(later).await
    }

    /// Some time after that instant, so that rows that were put off together do not come back together everywhere.
    fn later(&self, key: BranchKey, ask_after: Timestamp, forgotten: bool) -> Postpone {
        let jitter = self.entropy.jitter(self.options().sweep_interval());
        Postpone { key, ask_after: ask_after.plus(jitter), forgotten }
    }

    async fn postpone(&self, mut rows: Vec<Postpone>) -> Swept {
        // In the order of keys, as everybody locks them.
        rows.sort_by(|one, other| one.key.cmp(&other.key));
        let mut swept = Swept::default();
        for some in rows.chunks(POSTPONES_MAX) {
            match bounded_write(self.store(), || postpone_all(self.store(), some)).await {
                Ok(()) => {
                    swept.postponed += count(some.len());
                    swept.forgotten += count(some.iter().filter(|row| row.forgotten).count());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot put off reservations that have to be asked about again");
                    swept.left += count(some.len());
                }
            }
        }
        swept
    }

    /// An operator has to look at it. Said when it is new; after that it is listed ([`Store::forgotten`]).
    async fn warn_once(&self, row: &InDoubt) {
        let known = self.store().branch_row(&row.key).await.ok().flatten().and_then(|row| row.forgotten_at);
        if known.is_none() {
            tracing::warn!(
                branch = %row.key, coordinator = %row.coordinator,
                "the coordinator has forgotten the transaction of this reservation: it stays until an operator settles it"
            );
        }
    }

    async fn now(&self) -> Option<Timestamp> {
        self.store().now().await.inspect_err(|error| tracing::warn!(%error, "cannot read the database's clock")).ok()
    }

    fn ask_again(&self) -> Duration {
        Duration::from_millis(self.options().ask_again_ms)
    }

    fn keep_silent(&mut self, coordinator: LogName) {
        let times = self.silent.get(&coordinator).map_or(0, |silence| silence.times);
        let pause = self.entropy.jitter(backoff(self.options(), times));
        let silence = Silence { times: times.saturating_add(1), until: Instant::now() + pause };
        self.silent.insert(coordinator, silence);
    }
}

/// The longest pause after so many failures.
fn backoff(options: &UpkeepOptions, failures: u32) -> Duration {
    let doubled = options.sweep_interval_ms.saturating_mul(1_u64.checked_shl(failures).unwrap_or(u64::MAX));
    Duration::from_millis(doubled.min(options.sweep_backoff_ms_max))
}

async fn postpone_all<D: Database>(store: &Store<D>, rows: &[Postpone]) -> Result<(), sqlx::Error> {
    let mut transaction = store.begin().await?;
    for row in rows {
        // A row that is not tried any more has been settled meanwhile: all the better.
        D::postpone(&mut transaction, &row.key, row.ask_after, row.forgotten).await?;
    }
    transaction.commit().await
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

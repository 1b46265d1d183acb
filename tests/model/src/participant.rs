//! A participant: the barrier that ships on rows in memory, and the simplest business there is. Each operation is one local transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use tcc_barrier::{Answer, BarrierStore, Call, Kept, Look, Request, Row, Step, steps};
use tcc_types::{BranchKey, CancelCall, Decision, Refusal, SettleAnswer, Timestamp, TryAnswer, TryCall};

use crate::state::Place;

/// Effects beyond the first are not told apart: a broken rule must not make for endless states.
const TOO_MANY: u8 = 2;

/// What operations did to one branch, ever: its row may go, this stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Effects {
    pub(crate) reserved: u8,
    pub(crate) spent: u8,
    pub(crate) released: u8,
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stored {
    pub(crate) row: Row,
    pub(crate) not_after: Timestamp,
    /// Of a Try.
    pub(crate) ask_after: Timestamp,
    pub(crate) changed_at: Timestamp,
}

/// Its database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Participant {
    pub(crate) rows: BTreeMap<Place, Stored>,
    pub(crate) effects: BTreeMap<Place, Effects>,
    /// Below zero only where a rule is broken.
    pub(crate) available: i8,
    pub(crate) frozen: i8,
    pub(crate) sold: i8,
    /// By how many milliseconds its clock is ahead of the log's.
    pub(crate) ahead_ms: i64,
}

/// The two clocks of one local transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// The database's.
    pub(crate) now: Timestamp,
    /// What rows keep as the time of their last change: a constant where nothing depends on it, so that states do not differ by it.
    pub(crate) changed_at: Timestamp,
}

impl Participant {
    pub(crate) const fn new(available: i8, ahead_ms: i64) -> Self {
        Self { rows: BTreeMap::new(), effects: BTreeMap::new(), available, frozen: 0, sold: 0, ahead_ms }
    }

    /// Its database's clock when the log's says `now`.
    pub(crate) fn clock(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.as_micros() + self.ahead_ms * 1_000)
    }

    /// A reservation of another request under this branch.
    pub(crate) fn reserve_for_another(&mut self, at: Place, call: &TryCall, changed_at: Timestamp) {
        let row = Row::Tried { request: Request::from(call), output: None };
        self.rows.insert(at, Stored { row, not_after: call.not_after, ask_after: call.ask_after, changed_at });
        self.effects.entry(at).or_default().reserved += 1;
        self.available = self.available.saturating_sub(1);
        self.frozen = self.frozen.saturating_add(1);
    }

    /// A reservation that was never there, as after a restore.
    pub(crate) fn lose(&mut self, at: Place) {
        if self.rows.remove(&at).is_some() {
            self.effects.insert(at, Effects::default());
            self.available = self.available.saturating_add(1);
            self.frozen = self.frozen.saturating_sub(1);
        }
    }

    /// Runs an operation and commits it; `None`: the barrier gave up, and everything is rolled back.
    pub(crate) fn run(&mut self, at: Place, call: Call<'_>, clocks: Clocks) -> Option<Answer> {
        let mut row = self.rows.get(&at).cloned();
        let mut rows = OneRow { row: &mut row, clocks };
        // Nothing in memory waits for anything.
        let step = steps(&mut rows, &[call]).now_or_never()?.ok()?.pop()?;
        let mut effects = self.effects.get(&at).copied().unwrap_or_default();
        let answer = match (step, call) {
            (Step::Answer(answer), _) => answer,
            (Step::Reserve, Call::Try(call)) if self.available <= 0 => {
                let refusal = Refusal::business("OUT_OF_STOCK", "");
                rows.keep_refusals(&[(&call.key, &refusal)]).now_or_never()?.ok()?;
                Answer::Tried(TryAnswer::Refused(refusal))
            }
            (Step::Reserve, _) => {
                effects.reserved = (effects.reserved + 1).min(TOO_MANY);
                self.available = self.available.saturating_sub(1);
                self.frozen = self.frozen.saturating_add(1);
                Answer::Tried(TryAnswer::Reserved(None))
            }
            (Step::Apply(_), Call::Confirm(_)) => {
                effects.spent = (effects.spent + 1).min(TOO_MANY);
                self.frozen = self.frozen.saturating_sub(1);
                self.sold = self.sold.saturating_add(1);
                Answer::Settled(SettleAnswer::Done)
            }
            (Step::Apply(_), _) => {
                effects.released = (effects.released + 1).min(TOO_MANY);
                self.frozen = self.frozen.saturating_sub(1);
                self.available = self.available.saturating_add(1);
                Answer::Settled(SettleAnswer::Done)
            }
        };
        if let Some(row) = row {
            self.rows.insert(at, row);
        }
        if effects != Effects::default() {
            self.effects.insert(at, effects);
        }
        Some(answer)
    }
}

/// The barrier's statements on one branch, within one local transaction that nobody else's crosses.
struct OneRow<'a> {
    row: &'a mut Option<Stored>,
    clocks: Clocks,
}

impl BarrierStore for OneRow<'_> {
    type Error = std::convert::Infallible;

    async fn insert_tried(&mut self, calls: &[&TryCall]) -> Result<Vec<bool>, Self::Error> {
        let Clocks { now, changed_at } = self.clocks;
        let inserted = calls.iter().map(|call| {
            let is_new = self.row.is_none() && now <= call.not_after;
            if is_new {
                let row = Row::Tried { request: Request::from(*call), output: None };
                *self.row = Some(Stored { row, not_after: call.not_after, ask_after: call.ask_after, changed_at });
            }
            is_new
        });
        Ok(inserted.collect())
    }

    async fn settle_tried(&mut self, settles: &[(&BranchKey, Decision)]) -> Result<Vec<Option<Bytes>>, Self::Error> {
        let settled = settles.iter().map(|(_, decision)| {
            let stored = self.row.as_mut()?;
            let Row::Tried { request, output } = &stored.row else { return None };
            let (request, output) = (request.clone(), output.clone());
            stored.row = match decision {
                Decision::Confirm => Row::Confirmed { request, output },
                Decision::Cancel => Row::Cancelled { request: Some(request) },
            };
            stored.changed_at = self.clocks.changed_at;
            Some(Bytes::new())
        });
        Ok(settled.collect())
    }

    async fn insert_cancelled(&mut self, calls: &[&CancelCall]) -> Result<Vec<bool>, Self::Error> {
        let changed_at = self.clocks.changed_at;
        let inserted = calls.iter().map(|call| {
            let is_new = self.row.is_none();
            if is_new {
                let row = Row::Cancelled { request: None };
                *self.row = Some(Stored { row, not_after: call.not_after, ask_after: Timestamp::EPOCH, changed_at });
            }
            is_new
        });
        Ok(inserted.collect())
    }

    async fn look(&mut self, keys: &[&BranchKey]) -> Result<Look, Self::Error> {
        let row = self.row.as_ref().map(|stored| stored.row.clone());
        Ok(Look { rows: vec![row; keys.len()], now: self.clocks.now })
    }

    async fn keep_reserved(&mut self, _: &[Kept<'_>]) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn keep_refusals(&mut self, refused: &[(&BranchKey, &Refusal)]) -> Result<(), Self::Error> {
        for (_, refusal) in refused {
            if let Some(stored) = self.row.as_mut()
                && let Row::Tried { request, .. } = &stored.row
            {
                stored.row = Row::Refused { request: request.clone(), refusal: (*refusal).clone() };
            }
        }
        Ok(())
    }
}

//! A participant: the barrier that ships on rows in memory, and the simplest business there is. Each operation is one local transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use tcc_barrier::{Answer, BarrierStore, Call, Kept, Look, Request, Row, Step, steps};
use tcc_types::{BranchKey, CancelCall, Decision, Refusal, SettleAnswer, Timestamp, TryAnswer, TryCall};

/// What operations did to one branch, ever: its row may go, this stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Effects {
    pub(crate) reserved: u8,
    pub(crate) spent: u8,
    pub(crate) released: u8,
}

/// Its database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Participant {
    pub(crate) rows: BTreeMap<BranchKey, Row>,
    pub(crate) effects: BTreeMap<BranchKey, Effects>,
    /// Below zero only where a rule is broken.
    pub(crate) available: i8,
    pub(crate) frozen: i8,
    pub(crate) sold: i8,
}

impl Participant {
    pub(crate) const fn new(available: i8) -> Self {
        Self { rows: BTreeMap::new(), effects: BTreeMap::new(), available, frozen: 0, sold: 0 }
    }

    /// Runs an operation and commits it; `None`: the barrier gave up, and everything is rolled back.
    pub(crate) fn run(&mut self, call: Call<'_>, now: Timestamp) -> Option<Answer> {
        let mut changed = self.clone();
        let answer = changed.apply(call, now)?;
        *self = changed;
        Some(answer)
    }

    fn apply(&mut self, call: Call<'_>, now: Timestamp) -> Option<Answer> {
        let mut rows = Rows { rows: &mut self.rows, now };
        // Nothing in memory waits for anything.
        let step = steps(&mut rows, &[call]).now_or_never()?.ok()?.pop()?;
        let effects = self.effects.entry(call.key().clone()).or_default();
        match (step, call) {
            (Step::Answer(answer), _) => Some(answer),
            (Step::Reserve, Call::Try(call)) if self.available <= 0 => {
                let refusal = Refusal::business("OUT_OF_STOCK", "");
                rows.keep_refusals(&[(&call.key, &refusal)]).now_or_never()?.ok()?;
                Some(Answer::Tried(TryAnswer::Refused(refusal)))
            }
            (Step::Reserve, _) => {
                effects.reserved += 1;
                self.available -= 1;
                self.frozen += 1;
                Some(Answer::Tried(TryAnswer::Reserved(None)))
            }
            (Step::Apply(_), Call::Confirm(_)) => {
                effects.spent += 1;
                self.frozen -= 1;
                self.sold += 1;
                Some(Answer::Settled(SettleAnswer::Done))
            }
            (Step::Apply(_), _) => {
                effects.released += 1;
                self.frozen -= 1;
                self.available += 1;
                Some(Answer::Settled(SettleAnswer::Done))
            }
        }
    }
}

/// The barrier's statements, within one local transaction that nobody else's crosses.
struct Rows<'a> {
    rows: &'a mut BTreeMap<BranchKey, Row>,
    now: Timestamp,
}

impl BarrierStore for Rows<'_> {
    type Error = std::convert::Infallible;

    async fn insert_tried(&mut self, calls: &[&TryCall]) -> Result<Vec<bool>, Self::Error> {
        let inserted = calls.iter().map(|call| {
            let is_new = !self.rows.contains_key(&call.key) && self.now <= call.not_after;
            if is_new {
                self.rows.insert(call.key.clone(), Row::Tried { request: Request::from(*call), output: None });
            }
            is_new
        });
        Ok(inserted.collect())
    }

    async fn settle_tried(&mut self, settles: &[(&BranchKey, Decision)]) -> Result<Vec<Option<Bytes>>, Self::Error> {
        let settled = settles.iter().map(|(key, decision)| {
            let row = self.rows.get_mut(*key)?;
            let Row::Tried { request, output } = row else { return None };
            let (request, output) = (request.clone(), output.clone());
            *row = match decision {
                Decision::Confirm => Row::Confirmed { request, output },
                Decision::Cancel => Row::Cancelled { request: Some(request) },
            };
            Some(Bytes::new())
        });
        Ok(settled.collect())
    }

    async fn insert_cancelled(&mut self, calls: &[&CancelCall]) -> Result<Vec<bool>, Self::Error> {
        let inserted = calls.iter().map(|call| {
            let is_new = !self.rows.contains_key(&call.key);
            if is_new {
                self.rows.insert(call.key.clone(), Row::Cancelled { request: None });
            }
            is_new
        });
        Ok(inserted.collect())
    }

    async fn look(&mut self, keys: &[&BranchKey]) -> Result<Look, Self::Error> {
        Ok(Look { rows: keys.iter().map(|key| self.rows.get(*key).cloned()).collect(), now: self.now })
    }

    async fn keep_reserved(&mut self, _: &[Kept<'_>]) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn keep_refusals(&mut self, refused: &[(&BranchKey, &Refusal)]) -> Result<(), Self::Error> {
        for (key, refusal) in refused {
            if let Some(row) = self.rows.get_mut(*key)
                && let Row::Tried { request, .. } = row
            {
                *row = Row::Refused { request: request.clone(), refusal: (*refusal).clone() };
            }
        }
        Ok(())
    }
}

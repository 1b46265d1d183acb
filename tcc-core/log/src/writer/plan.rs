//! Sorts a batch into runs whose writes may be grouped by kind without changing what any of them finds. Pure.

use std::collections::HashMap;

use tcc_types::{Gid, IdempotencyKey, Initiator};

use super::write::{Alone, Ask, Beginning, Enlist, Write};
use crate::{Decide, Decided, Enlisted, Error, Park};

/// Writes that run together: all begins in one statement, then all enlists, and so on down the fields. A gid occurs at most
/// once in each field, so that a statement's returned gid names one write.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) begins: Vec<Beginning>,
    pub(crate) enlists: Vec<Ask<Enlist, Enlisted>>,
    pub(crate) decides: Vec<Ask<Decide, Decided>>,
    pub(crate) parks: Vec<Ask<Park, ()>>,
    pub(crate) finishes: Vec<Ask<Gid, ()>>,
    /// At most one, and then nothing else is in this run.
    pub(crate) alone: Option<Alone>,
}

impl Run {
    fn push(&mut self, write: Write) {
        match write {
            Write::Begin(beginning) => self.begins.push(beginning),
            Write::Enlist(ask) => self.enlists.push(ask),
            Write::Decide(ask) => self.decides.push(ask),
            Write::Park(ask) => self.parks.push(ask),
            Write::Finish(ask) => self.finishes.push(ask),
            Write::Alone(alone) => self.alone = Some(alone),
        }
    }

    /// Its writes, in the order in which they would run.
    pub(crate) fn into_writes(self) -> impl Iterator<Item = Write> {
        let begins = self.begins.into_iter().map(Write::Begin);
        let enlists = self.enlists.into_iter().map(Write::Enlist);
        let decides = self.decides.into_iter().map(Write::Decide);
        let parks = self.parks.into_iter().map(Write::Park);
        let finishes = self.finishes.into_iter().map(Write::Finish);
        begins.chain(enlists).chain(decides).chain(parks).chain(finishes).chain(self.alone.map(Write::Alone))
    }
}

impl From<Write> for Run {
    fn from(write: Write) -> Self {
        let mut run = Self::default();
        run.push(write);
        run
    }
}

impl Write {
    /// Tells the answer.
    pub(crate) fn deliver(self) {
        match self {
            Self::Begin(Beginning::New(ask)) => ask.deliver(),
            Self::Begin(Beginning::Cancelled(ask)) => ask.deliver(),
            Self::Enlist(ask) => ask.deliver(),
            Self::Decide(ask) => ask.deliver(),
            Self::Park(ask) => ask.deliver(),
            Self::Finish(ask) => ask.deliver(),
            Self::Alone(Alone::TakeOwner(ask)) => ask.deliver(),
            Self::Alone(Alone::Probe(ask)) => ask.deliver(),
            Self::Alone(Alone::Claim(ask)) => ask.deliver(),
            Self::Alone(Alone::Renew(ask)) => ask.deliver(),
            Self::Alone(Alone::DeleteEnded(ask)) => ask.deliver(),
            Self::Alone(Alone::ReleaseLeases(ask)) => ask.deliver(),
            Self::Alone(Alone::Audit(ask)) => ask.deliver(),
            Self::Alone(Alone::MarkSettled(ask)) => ask.deliver(),
        }
    }

    /// Tells an error.
    pub(crate) fn fail(self, error: Error) {
        match self {
            Self::Begin(Beginning::New(ask)) => ask.fail(error),
            Self::Begin(Beginning::Cancelled(ask)) => ask.fail(error),
            Self::Enlist(ask) => ask.fail(error),
            Self::Decide(ask) => ask.fail(error),
            Self::Park(ask) => ask.fail(error),
            Self::Finish(ask) => ask.fail(error),
            Self::Alone(Alone::TakeOwner(ask)) => ask.fail(error),
            Self::Alone(Alone::Probe(ask)) => ask.fail(error),
            Self::Alone(Alone::Claim(ask)) => ask.fail(error),
            Self::Alone(Alone::Renew(ask)) => ask.fail(error),
            Self::Alone(Alone::DeleteEnded(ask)) => ask.fail(error),
            Self::Alone(Alone::ReleaseLeases(ask)) => ask.fail(error),
            Self::Alone(Alone::Audit(ask)) => ask.fail(error),
            Self::Alone(Alone::MarkSettled(ask)) => ask.fail(error),
        }
    }

    /// Whose row it writes, and its field's place in [`Run`]; `None`: rows that it does not name.
    fn place(&self) -> Option<(Gid, u8)> {
        match self {
            Self::Begin(beginning) => Some((beginning.gid(), 0)),
            Self::Enlist(ask) => Some((ask.question.gid, 1)),
            Self::Decide(ask) => Some((ask.question.gid, 2)),
            Self::Park(ask) => Some((ask.question.gid, 3)),
            Self::Finish(ask) => Some((ask.question, 4)),
            Self::Alone(_) => None,
        }
    }
}

/// Sorts writes, given in queue order, into runs.
///
/// Writes of different gids do not see each other, so only three things can force a later run: an earlier write of the same gid
/// in the same or a later field, an earlier begin under the same key in a later run, and a write that runs alone.
pub(crate) fn plan(writes: Vec<Write>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(1);
    let mut places: HashMap<Gid, (usize, u8)> = HashMap::with_capacity(writes.len());
    let mut keys: HashMap<(Initiator, IdempotencyKey), usize> = HashMap::new();
    let mut earliest = 0;
    for write in writes {
        let Some((gid, field)) = write.place() else {
            runs.push(write.into());
            earliest = runs.len();
            continue;
        };
        let mut run = match places.get(&gid) {
            Some((run, last)) if *last < field => *run,
            Some((run, _)) => run + 1,
            None => 0,
        };
        run = run.max(earliest);
        if let Write::Begin(beginning) = &write
            && let Some((initiator, key)) = beginning.key()
        {
            let of_key = keys.entry((initiator.clone(), key.clone())).or_insert(run);
            run = run.max(*of_key);
            *of_key = run;
        }
        places.insert(gid, (run, field));
        if runs.len() <= run {
            runs.resize_with(run + 1, Run::default);
        }
        runs[run].push(write);
    }
    runs
}

#[cfg(test)]
mod tests {
    use tcc_types::Timestamp;

    use super::*;
    use crate::{Choice, conformance::samples};

    fn begin(transaction: crate::NewTransaction) -> Write {
        Write::Begin(Beginning::New(Ask::new(transaction).0))
    }

    fn decide(gid: Gid) -> Write {
        let choice = Choice::Confirm { votes: 1 };
        Write::Decide(Ask::new(Decide { gid, choice, owner: samples::OWNER, next_attempt_at: Timestamp::EPOCH }).0)
    }

    fn finish(gid: Gid) -> Write {
        Write::Finish(Ask::new(gid).0)
    }

    fn shape(runs: &[Run]) -> Vec<[usize; 6]> {
        let alone = |run: &Run| usize::from(run.alone.is_some());
        let count = |run: &Run| {
            [run.begins.len(), run.enlists.len(), run.decides.len(), run.parks.len(), run.finishes.len(), alone(run)]
        };
        runs.iter().map(count).collect()
    }

    #[test]
    fn a_whole_life_in_its_order_is_one_run() {
        let transaction = samples::transaction(Timestamp::EPOCH, 1);
        let gid = transaction.gid;
        assert_eq!(shape(&plan(vec![begin(transaction), decide(gid), finish(gid)])), [[1, 0, 1, 0, 1, 0]]);
    }

    #[test]
    fn writes_of_one_gid_are_never_reordered() {
        let transaction = samples::transaction(Timestamp::EPOCH, 1);
        let gid = transaction.gid;
        let runs = plan(vec![finish(gid), decide(gid), decide(gid), begin(transaction)]);
        assert_eq!(shape(&runs), [[0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]);
    }

    #[test]
    fn a_contended_gid_does_not_split_the_others() {
        let hot = samples::gid(Timestamp::EPOCH);
        let others = (0..10).map(|_| decide(samples::gid(Timestamp::EPOCH)));
        let writes = [decide(hot), decide(hot)].into_iter().chain(others).collect();
        assert_eq!(shape(&plan(writes)), [[0, 0, 11, 0, 0, 0], [0, 0, 1, 0, 0, 0]]);
    }

    #[test]
    fn begins_under_one_key_keep_their_order_across_runs() {
        let mut first = samples::transaction(Timestamp::EPOCH, 1);
        first.key = Some(samples::key("k"));
        let mut second = samples::transaction(Timestamp::EPOCH, 1);
        second.key = first.key.clone();
        let (gid, loser) = (first.gid, second.gid);
        // The finish pushes the first begin to the second run; the second begin must not overtake it.
        let runs = plan(vec![finish(gid), begin(first), begin(second)]);
        assert_eq!(shape(&runs), [[0, 0, 0, 0, 1, 0], [2, 0, 0, 0, 0, 0]]);
        assert_eq!(runs[1].begins.iter().map(Beginning::gid).collect::<Vec<_>>(), [gid, loser]);
    }

    #[test]
    fn a_write_that_runs_alone_is_a_fence() {
        let gid = samples::gid(Timestamp::EPOCH);
        let release = Write::Alone(Alone::ReleaseLeases(Ask::new(()).0));
        let runs = plan(vec![decide(gid), release, finish(gid), decide(samples::gid(Timestamp::EPOCH))]);
        assert_eq!(shape(&runs), [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0, 0, 1, 0, 1, 0]]);
    }
}

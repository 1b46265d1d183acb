//! What a write stores and what it is answered, as far as that does not depend on the database. No SQL here.

use std::collections::{BTreeMap, HashMap, HashSet};

use tcc_machine::{BranchProgress, CancelCause, Decides, Stuck, TryOrder};
use tcc_types::{BranchId, Gid, IdempotencyKey, Initiator, Timestamp, TxStatus};

use super::write::{Ask, BeginCancelled, Beginning, Enlist};
use crate::{
    Begun, Choice, Decide, Decided, Enlisted, Error, NewBranch, Owner, Park, TxRecord, codes::Code, fault::Fault, rows,
};

/// A transaction's row as it is inserted: the columns of [`rows::head`].
pub(crate) struct NewHead<'a> {
    pub(crate) gid: &'a [u8],
    pub(crate) status: i64,
    pub(crate) initiator: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) fingerprint: Option<&'a [u8]>,
    pub(crate) try_order: i64,
    pub(crate) decides: i64,
    pub(crate) branch_count: i64,
    pub(crate) try_until: i64,
    pub(crate) decide_by: i64,
    pub(crate) created_at: i64,
    /// Of a cancelled record, `finished_at` too.
    pub(crate) decided_at: Option<i64>,
    pub(crate) next_attempt_at: i64,
    pub(crate) cause: Option<String>,
    pub(crate) owner: i64,
}

impl Beginning {
    /// The row that it inserts.
    pub(crate) fn head(&self, now: Timestamp) -> Result<NewHead<'_>, Error> {
        Ok(match self {
            Self::New(ask) => {
                let new = &ask.question;
                NewHead {
                    gid: new.gid.as_bytes(),
                    status: TxStatus::Trying.code(),
                    initiator: new.initiator.as_str(),
                    key: new.key.as_ref().map(IdempotencyKey::as_str),
                    fingerprint: Some(new.fingerprint.as_slice()),
                    try_order: new.try_order.code(),
                    decides: new.decides.code(),
                    branch_count: i64::try_from(new.branches.len()).unwrap_or(i64::MAX),
                    try_until: new.try_until.as_micros(),
                    decide_by: new.decide_by.as_micros(),
                    created_at: now.as_micros(),
                    decided_at: None,
                    next_attempt_at: new.next_attempt_at.as_micros(),
                    cause: None,
                    owner: rows::owner_number(new.owner),
                }
            }
            Self::Cancelled(ask) => {
                let record = cancelled_record(&ask.question, now);
                NewHead {
                    gid: ask.question.gid.as_bytes(),
                    status: record.status.code(),
                    initiator: ask.question.by.as_str(),
                    key: None,
                    fingerprint: None,
                    try_order: record.try_order.code(),
                    decides: record.decides.code(),
                    branch_count: 0,
                    try_until: record.try_until.as_micros(),
                    decide_by: record.decide_by.as_micros(),
                    created_at: record.created_at.as_micros(),
                    decided_at: Some(now.as_micros()),
                    next_attempt_at: record.next_attempt_at.as_micros(),
                    cause: record.cause.as_ref().map(rows::cause_text).transpose()?,
                    owner: rows::owner_number(record.owner),
                }
            }
        })
    }
}

/// What stands in place of a gid that was never begun.
pub(crate) fn cancelled_record(question: &BeginCancelled, now: Timestamp) -> TxRecord {
    TxRecord {
        gid: question.gid,
        status: TxStatus::Cancelled,
        initiator: question.by.clone(),
        key: None,
        fingerprint: None,
        try_order: TryOrder::Parallel,
        decides: Decides::AtVotes,
        branch_count: 0,
        try_until: now,
        decide_by: now,
        created_at: now,
        decided_at: Some(now),
        finished_at: Some(now),
        owner: Owner::NOBODY,
        next_attempt_at: now,
        cause: Some(CancelCause::Requested { by: question.by.clone() }),
        branches: Vec::new(),
    }
}

/// The branches of those transactions that were inserted, each with its place in the initiator's order.
pub(crate) fn branches_of<'a>(beginnings: &'a [Beginning], inserted: &HashSet<Gid>) -> Vec<(Gid, i64, &'a NewBranch)> {
    let mut branches = Vec::with_capacity(2 * inserted.len());
    for beginning in beginnings.iter().filter(|beginning| inserted.contains(&beginning.gid())) {
        match beginning {
            Beginning::New(ask) => {
                branches.extend((0..).zip(&ask.question.branches).map(|(seq, branch)| (ask.question.gid, seq, branch)));
            }
            Beginning::Cancelled(_) => {}
        }
    }
    branches
}

/// What the losers of an insert lost to.
#[derive(Default)]
pub(crate) struct Standing {
    pub(crate) by_gid: HashMap<Gid, TxRecord>,
    pub(crate) by_key: HashMap<(String, String), Gid>,
}

impl Standing {
    /// The transaction that has the gid, or else the key.
    fn of(&self, gid: Gid, key: Option<(&Initiator, &IdempotencyKey)>) -> Result<TxRecord, Fault> {
        let by_key = || {
            let (initiator, key) = key?;
            let gid = self.by_key.get(&(initiator.as_str().to_owned(), key.as_str().to_owned()))?;
            self.by_gid.get(gid)
        };
        let found = self.by_gid.get(&gid).or_else(by_key).cloned();
        found.ok_or(Fault::Overtaken("what was in a transaction's way was deleted before it could be read"))
    }

    /// The keys to look up: of those whose gid is in nobody's way.
    pub(crate) fn missing_keys<'a>(
        &self,
        beginnings: &'a [Beginning],
        inserted: &HashSet<Gid>,
    ) -> Vec<(&'a Initiator, &'a IdempotencyKey)> {
        let losers = beginnings.iter().filter(|beginning| !inserted.contains(&beginning.gid()));
        losers.filter(|loser| !self.by_gid.contains_key(&loser.gid())).filter_map(Beginning::key).collect()
    }
}

/// The gids of those that were not inserted.
pub(crate) fn losers(beginnings: &[Beginning], inserted: &HashSet<Gid>) -> Vec<Gid> {
    beginnings.iter().map(Beginning::gid).filter(|gid| !inserted.contains(gid)).collect()
}

/// Answers what begins.
pub(crate) fn answer_begins(
    beginnings: &mut [Beginning],
    inserted: &HashSet<Gid>,
    standing: &Standing,
    now: Timestamp,
) -> Result<(), Fault> {
    for beginning in beginnings {
        let won = inserted.contains(&beginning.gid());
        match beginning {
            Beginning::New(ask) if won => ask.answer(Begun::Inserted { created_at: now }),
            Beginning::New(ask) => {
                let key = ask.question.key.as_ref().map(|key| (&ask.question.initiator, key));
                let record = standing.of(ask.question.gid, key)?;
                ask.answer(Begun::Exists(Box::new(record)));
            }
            Beginning::Cancelled(ask) if won => ask.answer(cancelled_record(&ask.question, now)),
            Beginning::Cancelled(ask) => ask.answer(standing.of(ask.question.gid, None)?),
        }
    }
    Ok(())
}

/// The branches that a raised count is for, each with its place: the last.
pub(crate) fn raised_branches<'a>(
    asks: &'a [Ask<Enlist, Enlisted>],
    raised: &HashMap<Gid, u32>,
) -> Vec<(Gid, i64, &'a NewBranch)> {
    let branch = |ask: &'a Ask<Enlist, Enlisted>| {
        raised.get(&ask.question.gid).map(|count| (ask.question.gid, i64::from(*count) - 1, &ask.question.branch))
    };
    asks.iter().filter_map(branch).collect()
}

/// The gids of the asks that changed nothing.
pub(crate) fn unchanged<'a, V>(gids: impl Iterator<Item = Gid> + 'a, changed: &HashMap<Gid, V>) -> Vec<Gid> {
    gids.filter(|gid| !changed.contains_key(gid)).collect()
}

/// Answers enlists: with the raised count, or with why there is none.
pub(crate) fn answer_enlists(
    asks: &mut [Ask<Enlist, Enlisted>],
    raised: &HashMap<Gid, u32>,
    standing: &mut HashMap<Gid, TxRecord>,
) -> Result<(), Fault> {
    for ask in asks {
        let gid = ask.question.gid;
        let answer = match raised.get(&gid) {
            Some(branch_count) => Enlisted::Inserted { branch_count: *branch_count },
            None => why_not(&ask.question, standing.remove(&gid))?,
        };
        ask.answer(answer);
    }
    Ok(())
}

/// Why nothing was enlisted. A branch that is there is told first: a repeated call must learn that it succeeded, even if the
/// transaction has been decided since.
fn why_not(question: &Enlist, standing: Option<TxRecord>) -> Result<Enlisted, Fault> {
    let Some(mut record) = standing else { return Ok(Enlisted::Missing) };
    if let Some(index) = record.branches.iter().position(|branch| branch.branch == question.branch.branch) {
        return Ok(Enlisted::Exists(Box::new(record.branches.swap_remove(index))));
    }
    let open = match record.decides {
        Decides::OnRequestOpen => record.status == TxStatus::Trying,
        Decides::AtVotes | Decides::OnRequest => false,
    };
    if !open {
        Ok(Enlisted::Closed(record.status))
    } else if record.branch_count >= question.branches_max {
        Ok(Enlisted::Full)
    } else {
        Err(Fault::Overtaken("a transaction came to be while a branch was refused for lack of it"))
    }
}

/// A decision as it is stored.
pub(crate) struct Wanted {
    pub(crate) gid: Gid,
    pub(crate) status: TxStatus,
    pub(crate) next_attempt_at: Timestamp,
    pub(crate) cause: Option<String>,
    /// `None` for Cancel, which needs none.
    pub(crate) votes: Option<i64>,
    pub(crate) owner: i64,
}

impl Wanted {
    fn new(decide: &Decide) -> Result<Self, Error> {
        let (status, cause, votes) = match &decide.choice {
            Choice::Confirm { votes } => (TxStatus::Confirming, None, Some(i64::from(*votes))),
            Choice::Cancel { cause } => (TxStatus::Cancelling, Some(rows::cause_text(cause)?), None),
        };
        let owner = rows::owner_number(decide.owner);
        Ok(Self { gid: decide.gid, status, next_attempt_at: decide.next_attempt_at, cause, votes, owner })
    }

    pub(crate) fn all(asks: &[Ask<Decide, Decided>]) -> Result<Vec<Self>, Error> {
        asks.iter().map(|ask| Self::new(&ask.question)).collect()
    }
}

/// Answers decisions: of those that changed a row with its number of branches, of the others with what stands.
pub(crate) fn answer_decides(
    asks: &mut [Ask<Decide, Decided>],
    changed: &HashMap<Gid, u32>,
    standing: &mut HashMap<Gid, TxRecord>,
    now: Timestamp,
) -> Result<(), Fault> {
    for ask in asks {
        let answer = if let Some(branch_count) = changed.get(&ask.question.gid).copied() {
            let (status, cause) = match &ask.question.choice {
                Choice::Confirm { .. } => (TxStatus::Confirming, None),
                Choice::Cancel { cause } => (TxStatus::Cancelling, Some(cause.clone())),
            };
            Decided::Stands { status, decided_at: now, cause, branch_count }
        } else {
            what_stands(&ask.question.choice, standing.remove(&ask.question.gid))?
        };
        ask.answer(answer);
    }
    Ok(())
}

fn what_stands(choice: &Choice, record: Option<TxRecord>) -> Result<Decided, Fault> {
    let Some(record) = record else { return Ok(Decided::Missing) };
    match (record.status, record.decided_at) {
        (TxStatus::Trying, _) => match choice {
            Choice::Confirm { votes } if *votes != record.branch_count => {
                Ok(Decided::CountMoved { branch_count: record.branch_count })
            }
            Choice::Confirm { .. } | Choice::Cancel { .. } => {
                Err(Fault::Overtaken("a transaction moved while it was not decided for its state before"))
            }
        },
        (
            status @ (TxStatus::Confirming | TxStatus::Confirmed | TxStatus::Cancelling | TxStatus::Cancelled),
            Some(decided_at),
        ) => Ok(Decided::Stands { status, decided_at, cause: record.cause, branch_count: record.branch_count }),
        (TxStatus::Confirming | TxStatus::Confirmed | TxStatus::Cancelling | TxStatus::Cancelled, None) => {
            Err(Error::Unusable("the log has a decision without its time".to_owned()).into())
        }
    }
}

/// Whether a park brings a branch that is stuck.
pub(crate) fn has_stuck(park: &Park) -> bool {
    park.branches.iter().any(|(_, progress)| progress.stuck.is_some())
}

/// A branch's progress as it is stored.
pub(crate) struct StoredProgress<'a> {
    pub(crate) gid: Gid,
    pub(crate) branch: &'a str,
    pub(crate) settled: Option<i64>,
    pub(crate) attempts: i64,
    pub(crate) stuck_kind: Option<i64>,
    pub(crate) stuck_since: Option<i64>,
    pub(crate) stuck_detail: Option<&'a str>,
}

/// The progress of the branches of those transactions that were parked, in key order. One row for each branch: with two, a
/// statement would be free to take either.
pub(crate) fn parked_branches<'a>(asks: &'a [Ask<Park, ()>], parked: &HashSet<Gid>) -> Vec<StoredProgress<'a>> {
    let mut branches: BTreeMap<(Gid, &BranchId), &BranchProgress> = BTreeMap::new();
    for ask in asks.iter().filter(|ask| parked.contains(&ask.question.gid)) {
        branches.extend(ask.question.branches.iter().map(|(branch, progress)| ((ask.question.gid, branch), progress)));
    }
    let stored = |((gid, branch), progress): ((Gid, &'a BranchId), &'a BranchProgress)| {
        let stuck = progress.stuck.as_ref();
        StoredProgress {
            gid,
            branch: branch.as_str(),
            settled: progress.settled.map(Code::code),
            attempts: i64::from(progress.attempts),
            stuck_kind: stuck.map(|stuck| stuck.kind.code()),
            stuck_since: stuck.map(|stuck| stuck.since.as_micros()),
            stuck_detail: stuck.map(detail),
        }
    };
    branches.into_iter().map(stored).collect()
}

/// The detail, cut to what may be stored.
pub(crate) fn detail(stuck: &Stuck) -> &str {
    &stuck.detail[..stuck.detail.floor_char_boundary(Stuck::DETAIL_LENGTH_MAX)]
}

//! Made-up transactions for the cases.

use std::time::Duration;

use bytes::Bytes;
use tcc_machine::{BranchProgress, CancelCause, Choice, Decides, Stuck, StuckKind, TryOrder};
use tcc_types::{
    BranchId, BranchKey, FingerprintBuilder, Gid, IdempotencyKey, Initiator, ParticipantName, Payload, SystemEntropy, Timestamp,
};

use crate::{AuditAction, Decide, NewAudit, NewBranch, NewTransaction, Owner};

/// An hour, in microseconds.
const HOUR: i64 = 3_600_000_000;

/// How long leases are in the cases.
pub const LEASE: Duration = Duration::from_secs(3_600);

/// Who drives the samples. A number that no log gives out during a test.
pub const OWNER: Owner = Owner(1_000_001);

/// Somebody else.
pub const OTHER: Owner = Owner(1_000_002);

/// An instant that has long passed.
#[must_use]
pub fn past(now: Timestamp) -> Timestamp {
    Timestamp::from_micros(now.as_micros() - HOUR)
}

/// An instant that does not come during a test.
#[must_use]
pub fn future(now: Timestamp) -> Timestamp {
    Timestamp::from_micros(now.as_micros() + HOUR)
}

/// A new gid.
#[must_use]
pub fn gid(now: Timestamp) -> Gid {
    Gid::mint(now, &SystemEntropy)
}

/// An initiator.
///
/// # Panics
/// The text is not allowed.
#[must_use]
pub fn initiator(text: &str) -> Initiator {
    Initiator::new(text).expect("a sample's initiator")
}

/// An idempotency key.
///
/// # Panics
/// The text is not allowed.
#[must_use]
pub fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).expect("a sample's key")
}

/// A branch's id.
///
/// # Panics
/// The text is not allowed.
#[must_use]
pub fn branch_id(text: &str) -> BranchId {
    BranchId::new(text).expect("a sample's branch id")
}

/// A participant's name.
///
/// # Panics
/// The text is not allowed.
#[must_use]
pub fn participant(text: &str) -> ParticipantName {
    ParticipantName::new(text).expect("a sample's participant")
}

/// A branch with a payload of its own.
#[must_use]
pub fn branch(text: &str) -> NewBranch {
    let payload =
        Payload { type_url: "type.googleapis.com/sample.v1.Reserve".to_owned(), value: Bytes::from(format!("of {text}")) };
    NewBranch { branch: branch_id(text), participant: participant("inventory"), payload }
}

/// A branch's key.
#[must_use]
pub fn branch_key(gid: Gid, text: &str) -> BranchKey {
    BranchKey { gid, branch: branch_id(text) }
}

/// A transaction with branches `b0`, `b1`, …, that nobody claims during a test.
#[must_use]
pub fn transaction(now: Timestamp, branches: usize) -> NewTransaction {
    let gid = gid(now);
    NewTransaction {
        gid,
        initiator: initiator("shop"),
        key: None,
        fingerprint: FingerprintBuilder::new("sample").text(&gid.to_string()).finish(),
        try_order: TryOrder::Parallel,
        decides: Decides::AtVotes,
        try_until: future(now),
        decide_by: future(now),
        owner: OWNER,
        next_attempt_at: future(now),
        branches: (0..branches).map(|index| branch(&format!("b{index}"))).collect(),
    }
}

/// The same, open to branches.
#[must_use]
pub fn open(now: Timestamp, branches: usize) -> NewTransaction {
    NewTransaction { decides: Decides::OnRequestOpen, ..transaction(now, branches) }
}

/// The same, with a key.
#[must_use]
pub fn keyed(now: Timestamp, text: &str) -> NewTransaction {
    NewTransaction { key: Some(key(text)), ..transaction(now, 1) }
}

/// A Confirm with that many votes, that nobody claims during a test.
#[must_use]
pub fn confirm(now: Timestamp, gid: Gid, votes: u32) -> Decide {
    Decide { gid, choice: Choice::Confirm { votes }, owner: OWNER, next_attempt_at: future(now) }
}

/// A Cancel, that nobody claims during a test.
#[must_use]
pub fn cancel(now: Timestamp, gid: Gid) -> Decide {
    Decide { gid, choice: Choice::Cancel { cause: CancelCause::TimedOut }, owner: OWNER, next_attempt_at: future(now) }
}

/// A branch that is stuck since then.
#[must_use]
pub fn stuck(since: Timestamp) -> BranchProgress {
    let stuck = Stuck { kind: StuckKind::Unreachable, since, detail: "no route".to_owned() };
    BranchProgress { settled: None, attempts: 7, stuck: Some(stuck) }
}

/// An audit line.
#[must_use]
pub fn audit(gid: Gid, branch: &str) -> NewAudit {
    let (actor, reason) = ("alice".to_owned(), "seen on the phone: ärgerlich".to_owned());
    NewAudit { key: branch_key(gid, branch), action: AuditAction::MarkSettled, actor, reason }
}

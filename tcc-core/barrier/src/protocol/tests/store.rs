//! A database in this process: many branches, READ COMMITTED, row locks that are held until the end of their transaction, and
//! deadlocks found as databases find them. Only for the protocol's tests.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use tcc_types::{BranchId, BranchKey, BranchRowStatus, Decision, Gid, Refusal, SystemEntropy, Timestamp};

use super::*;
use crate::{Kept, Look, Row};

pub(super) const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
pub(super) const NOT_AFTER: Timestamp = Timestamp::from_millis(1_790_000_000_003);
pub(super) const BRANCHES: usize = 4;

/// The branches, in the order of their keys.
pub(super) fn key(branch: usize) -> BranchKey {
    static GID: std::sync::OnceLock<Gid> = std::sync::OnceLock::new();
    let gid = *GID.get_or_init(|| Gid::mint(START, &SystemEntropy));
    BranchKey { gid, branch: BranchId::new(format!("b{branch}")).unwrap() }
}

fn branch_of(key: &BranchKey) -> usize {
    key.branch.as_str()[1..].parse().unwrap()
}

/// What databases do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Updates pass by rows that were not there when the statement began; inserts lock nothing that they find (PostgreSQL).
    Snapshots,
    /// Updates wait for inserts that are not committed yet; inserts lock what they find (InnoDB).
    Locks,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) row: Row,
    reserved: Bytes,
}

/// How often each business effect of a branch has been committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) reserved: u32,
    pub(super) spent: u32,
    pub(super) released: u32,
}

#[derive(Debug)]
struct Lock {
    owner: usize,
    /// What is not committed yet.
    written: Option<Stored>,
}

#[derive(Debug)]
pub(super) struct Database {
    kind: Kind,
    pub(super) now: Timestamp,
    committed: BTreeMap<usize, Stored>,
    locks: BTreeMap<usize, Lock>,
    /// Which session waits for the lock of which row.
    waits: BTreeMap<usize, usize>,
    effects: [Effects; BRANCHES],
    /// Rounds in which a row vanishes between a write and the look after it.
    pub(super) ghosts: u32,
    pub(super) deadlocks: u32,
}

impl Database {
    pub(super) fn new(kind: Kind) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            kind,
            now: START,
            committed: BTreeMap::new(),
            locks: BTreeMap::new(),
            waits: BTreeMap::new(),
            effects: [Effects::default(); BRANCHES],
            ghosts: 0,
            deadlocks: 0,
        }))
    }

    pub(super) fn tick(&mut self) {
        self.now = Timestamp::from_millis(self.now.as_millis() + 1);
    }

    pub(super) fn status(&self, branch: usize) -> Option<BranchRowStatus> {
        self.committed.get(&branch).map(|stored| stored.row.status())
    }

    pub(super) fn effects(&self, branch: usize) -> Effects {
        self.effects[branch]
    }

    pub(super) fn is_written(&self, branch: usize) -> bool {
        self.locks.get(&branch).is_some_and(|lock| lock.written.is_some())
    }

    pub(super) fn is_locked(&self) -> bool {
        !self.locks.is_empty()
    }

    /// Gives up what a session wrote, and its locks.
    pub(super) fn roll_back(&mut self, session: usize) {
        self.locks.retain(|_, lock| lock.owner != session);
        self.waits.remove(&session);
    }

    /// True if nobody else has the row's lock; then this session has it.
    fn try_lock(&mut self, session: usize, branch: usize) -> bool {
        let lock = self.locks.entry(branch).or_insert(Lock { owner: session, written: None });
        if lock.owner == session {
            self.waits.remove(&session);
            return true;
        }
        self.waits.insert(session, branch);
        false
    }

    /// True if this session waits for one who waits, and so on, for this session.
    fn is_deadlocked(&self, session: usize) -> bool {
        let mut waits_for = session;
        while let Some(lock) = self.waits.get(&waits_for).and_then(|branch| self.locks.get(branch)) {
            waits_for = lock.owner;
            if waits_for == session {
                return true;
            }
        }
        false
    }

    /// The newest version, which is this session's own or committed.
    fn newest(&self, branch: usize) -> Option<&Stored> {
        self.locks.get(&branch).and_then(|lock| lock.written.as_ref()).or_else(|| self.committed.get(&branch))
    }

    fn write(&mut self, branch: usize, row: Row, reserved: Bytes) {
        self.locks.get_mut(&branch).unwrap().written = Some(Stored { row, reserved });
    }

    fn inserted_by(&mut self, session: usize, branch: usize) -> &mut Stored {
        let lock = self.locks.get_mut(&branch).expect("no row was inserted here");
        assert_eq!(lock.owner, session, "two sessions held one row");
        lock.written.as_mut().expect("no row was inserted here")
    }
}

/// The database rolled the transaction back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadlock;

/// Lets the schedule choose who goes on.
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[derive(Clone)]
pub(super) struct Session {
    pub(super) id: usize,
    pub(super) database: Arc<Mutex<Database>>,
}

impl Session {
    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap()
    }

    /// Waits for a turn, which begins a statement.
    async fn turn(&self) -> MutexGuard<'_, Database> {
        Turn(false).await;
        self.database()
    }

    /// Waits as long as another session has the row's lock.
    async fn lock(&self, branch: usize) -> Result<MutexGuard<'_, Database>, Deadlock> {
        loop {
            {
                let mut database = self.database();
                if database.try_lock(self.id, branch) {
                    return Ok(database);
                }
                if database.is_deadlocked(self.id) {
                    database.deadlocks += 1;
                    database.roll_back(self.id);
                    return Err(Deadlock);
                }
            }
            Turn(false).await;
        }
    }

    /// Inserts a row where there is none.
    async fn insert(&self, branch: usize, row: Row) -> Result<bool, Deadlock> {
        let kind = self.database().kind;
        if kind == Kind::Snapshots && self.database().committed.contains_key(&branch) {
            return Ok(false);
        }
        let mut database = self.lock(branch).await?;
        if database.newest(branch).is_none() {
            database.write(branch, row, Bytes::new());
            return Ok(true);
        }
        // Waiting for the other's insert has left nothing behind, or a lock.
        if kind == Kind::Snapshots && !database.is_written(branch) {
            database.locks.remove(&branch);
        }
        Ok(false)
    }

    /// Commits, with the business effects of each branch.
    pub(super) fn commit(&self, effects: &[(usize, Effects)]) {
        let mut database = self.database();
        for (branch, _) in effects {
            let lock = database.locks.get(branch);
            let has_written = lock.is_some_and(|lock| lock.owner == self.id && lock.written.is_some());
            assert!(has_written, "a business effect without its row");
        }
        let mine: Vec<usize> =
            database.locks.iter().filter(|(_, lock)| lock.owner == self.id).map(|(branch, _)| *branch).collect();
        for branch in mine {
            let Some(stored) = database.locks.remove(&branch).and_then(|lock| lock.written) else { continue };
            assert_legal(database.status(branch), stored.row.status());
            database.committed.insert(branch, stored);
        }
        for (branch, effects) in effects {
            let of_branch = &mut database.effects[*branch];
            of_branch.reserved += effects.reserved;
            of_branch.spent += effects.spent;
            of_branch.released += effects.released;
        }
    }
}

fn assert_legal(before: Option<BranchRowStatus>, after: BranchRowStatus) {
    use BranchRowStatus::{Cancelled, Confirmed, Refused, Tried};
    let legal = match before {
        None => matches!(after, Tried | Refused | Cancelled),
        Some(Tried) => matches!(after, Confirmed | Cancelled),
        Some(Refused | Confirmed | Cancelled) => false,
    };
    assert!(legal, "{before:?} became {after:?}");
}

/// The row that a decision makes of a tried one.
fn settled(row: &Row, decision: Decision) -> Option<Row> {
    match (row, decision) {
        (Row::Tried { request, output }, Decision::Confirm) => {
            Some(Row::Confirmed { request: request.clone(), output: output.clone() })
        }
        (Row::Tried { request, .. }, Decision::Cancel) => Some(Row::Cancelled { request: Some(request.clone()) }),
        (Row::Refused { .. } | Row::Confirmed { .. } | Row::Cancelled { .. }, _) => None,
    }
}

impl BarrierStore for Session {
    type Error = Deadlock;

    async fn insert_tried(&mut self, calls: &[&TryCall]) -> Result<Vec<bool>, Deadlock> {
        drop(self.turn().await);
        let mut inserted = Vec::new();
        for call in calls {
            if self.database().ghosts > 0 {
                self.database().ghosts -= 1;
                inserted.push(false);
                continue;
            }
            // What is late is left out before it is looked for.
            if self.database().now > call.not_after {
                inserted.push(false);
                continue;
            }
            let branch = branch_of(&call.key);
            let row = Row::Tried { request: (*call).into(), output: None };
            inserted.push(self.insert(branch, row).await?);
        }
        Ok(inserted)
    }

    async fn settle_tried(&mut self, settles: &[(&BranchKey, Decision)]) -> Result<Vec<Option<Bytes>>, Deadlock> {
        let (kind, snapshot) = {
            let database = self.turn().await;
            let is_tried = |stored: &Stored| matches!(stored.row, Row::Tried { .. });
            (
                database.kind,
                database.committed.iter().filter(|(_, stored)| is_tried(stored)).map(|(b, _)| *b).collect::<Vec<_>>(),
            )
        };
        let mut changed = Vec::new();
        for (key, decision) in settles {
            let branch = branch_of(key);
            let is_met = match kind {
                Kind::Snapshots => snapshot.contains(&branch),
                Kind::Locks => self.database().newest(branch).is_some(),
            };
            if !is_met {
                changed.push(None);
                continue;
            }
            let mut database = self.lock(branch).await?;
            let settled =
                database.newest(branch).and_then(|stored| Some((settled(&stored.row, *decision)?, stored.reserved.clone())));
            changed.push(settled.map(|(row, reserved)| {
                database.write(branch, row, reserved.clone());
                reserved
            }));
        }
        Ok(changed)
    }

    async fn insert_cancelled(&mut self, calls: &[&CancelCall]) -> Result<Vec<bool>, Deadlock> {
        drop(self.turn().await);
        let mut inserted = Vec::new();
        for call in calls {
            let branch = branch_of(&call.key);
            inserted.push(self.insert(branch, Row::Cancelled { request: None }).await?);
        }
        Ok(inserted)
    }

    async fn look(&mut self, keys: &[&BranchKey]) -> Result<Look, Deadlock> {
        let (kind, now, snapshot) = {
            let database = self.turn().await;
            (database.kind, database.now, database.committed.keys().copied().collect::<Vec<_>>())
        };
        let mut rows = Vec::new();
        for branch in keys.iter().copied().map(branch_of) {
            let is_met = match kind {
                Kind::Snapshots => snapshot.contains(&branch),
                Kind::Locks => self.database().newest(branch).is_some(),
            };
            // It locks what it finds, so that what is told of it is told by a commit that wrote.
            rows.push(if is_met { self.lock(branch).await?.newest(branch).map(|stored| stored.row.clone()) } else { None });
        }
        Ok(Look { rows, now })
    }

    async fn keep_reserved(&mut self, kept: &[Kept<'_>]) -> Result<(), Deadlock> {
        let mut database = self.turn().await;
        for kept in kept {
            let stored = database.inserted_by(self.id, branch_of(kept.key));
            let Row::Tried { output, .. } = &mut stored.row else { panic!("no tried row was inserted here") };
            *output = kept.output.cloned();
            stored.reserved = kept.reserved.clone();
        }
        Ok(())
    }

    async fn keep_refusals(&mut self, refused: &[(&BranchKey, &Refusal)]) -> Result<(), Deadlock> {
        let mut database = self.turn().await;
        for (key, refusal) in refused {
            let stored = database.inserted_by(self.id, branch_of(key));
            let request = stored.row.request().unwrap().clone();
            stored.row = Row::Refused { request, refusal: (*refusal).clone() };
        }
        Ok(())
    }
}

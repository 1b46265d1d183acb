//! A database in memory, for simulations: writing transactions one at a time, commits that are durable only once they are synced, and
//! whatever can go wrong between a client and its database. Keeps its tables as one value; knows no SQL, and nothing of what the tables
//! mean.
//!
//! Whoever begins waits until the transaction before has been committed or dropped. Others see a commit before it is durable, as they do
//! on some servers; a crash takes back what was not synced. All waiting is in tokio's time, so with a paused clock nothing depends on the
//! machine.
//!
//! [`MemoryDatabase`] is the same as a kind of database of sqlx's.

mod driver;
mod nothing;

use std::{
    collections::VecDeque,
    error::Error as StdError,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
};

use sqlx::error::{DatabaseError, ErrorKind};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use self::{
    driver::{MemoryConnection, MemoryDatabase, MemoryOptions, MemoryTransactions, NoArguments, NoType},
    nothing::Nothing,
};

/// All tables of a database as one value. A clone is a snapshot, taken for each transaction: it should be cheap (persistent collections).
pub trait Tables: Clone + fmt::Debug + Send + Sync + Unpin + 'static {}

impl<T: Clone + fmt::Debug + Send + Sync + Unpin + 'static> Tables for T {}

/// What a client is about to do, or has just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Connects.
    Connect,
    /// Begins a transaction.
    Begin,
    /// Sends a statement of a transaction.
    Statement,
    /// Reads, outside of any transaction.
    Read,
    /// Sends its commit. What fails here is not committed.
    Commit,
    /// Its commit can be seen by others, and is not durable yet.
    Sync,
    /// Its commit is durable, and the answer is on its way. What fails here is committed.
    Answer,
}

/// A step's outcome, later.
pub type Passing<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

/// What stands between one client and its database: time that passes, and failures.
pub trait Weather: fmt::Debug + Send + Sync + 'static {
    /// Called at each step. An error is what the client gets.
    fn pass(&self, step: Step) -> Passing<'_>;
}

/// Nothing goes wrong, and nothing takes time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Weather for Calm {
    fn pass(&self, _: Step) -> Passing<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Told of each commit, before anybody else can see it: the tables before and after.
pub type Observer<T> = Box<dyn Fn(&T, &T) + Send + Sync>;

/// A database. A handle: clones are the same one.
pub struct Memory<T>(Arc<Inner<T>>);

struct Inner<T> {
    /// Held by whoever writes.
    writer: Arc<Mutex<()>>,
    kept: StdMutex<Kept<T>>,
}

struct Kept<T> {
    visible: T,
    durable: T,
    /// Commits that are not synced yet, in order, by their numbers.
    unsynced: VecDeque<(u64, T)>,
    /// Of the last commit.
    number: u64,
    /// How often it has crashed. What was begun before the last time has ended.
    crashes: u64,
    observer: Option<Observer<T>>,
}

impl<T> Clone for Memory<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl<T: Tables> Memory<T> {
    /// With these tables, durably.
    pub fn new(tables: T) -> Self {
        let kept =
            Kept { visible: tables.clone(), durable: tables, unsynced: VecDeque::new(), number: 0, crashes: 0, observer: None };
        Self(Arc::new(Inner { writer: Arc::default(), kept: StdMutex::new(kept) }))
    }

    /// Who is told of each commit from now on.
    pub fn observe(&self, observer: Observer<T>) {
        self.kept().observer = Some(observer);
    }

    /// What readers see.
    #[must_use]
    pub fn visible(&self) -> T {
        self.kept().visible.clone()
    }

    /// What a crash would leave.
    #[must_use]
    pub fn durable(&self) -> T {
        self.kept().durable.clone()
    }

    /// Loses what is not synced, and ends every session: whatever they do from now on fails.
    pub fn crash(&self) {
        self.kept().crash();
    }

    /// Becomes something else, such as what it was a while ago: a replica that lags behind takes over. Ends every session; who observes
    /// commits is not told.
    pub fn fail_over(&self, to: T) {
        let mut kept = self.kept();
        kept.durable = to;
        kept.crash();
    }

    /// Makes durable whatever is committed: a server does so by itself, also when nobody waits for it any more.
    pub fn sync(&self) {
        let number = self.kept().number;
        self.kept().sync_to(number);
    }

    /// Connects.
    ///
    /// # Errors
    /// What the weather says.
    pub async fn connect(&self, weather: Arc<dyn Weather>) -> Result<Session<T>, sqlx::Error> {
        let crashes = self.kept().crashes;
        weather.pass(Step::Connect).await?;
        let session = Session { database: self.clone(), weather, crashes, work: None };
        session.check()?;
        Ok(session)
    }

    fn kept(&self) -> MutexGuard<'_, Kept<T>> {
        // Each change of it is whole before anything could panic.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Tables> Kept<T> {
    fn crash(&mut self) {
        self.visible = self.durable.clone();
        self.unsynced.clear();
        self.crashes += 1;
    }

    fn sync_to(&mut self, number: u64) {
        while self.unsynced.front().is_some_and(|(of, _)| *of <= number) {
            if let Some((_, tables)) = self.unsynced.pop_front() {
                self.durable = tables;
            }
        }
    }
}

/// A connection. Dropped, it rolls back.
pub struct Session<T> {
    database: Memory<T>,
    weather: Arc<dyn Weather>,
    /// Of the database when it connected.
    crashes: u64,
    work: Option<Work<T>>,
}

/// A transaction under way.
struct Work<T> {
    tables: T,
    /// What to go back to, the outermost first.
    savepoints: Vec<T>,
    /// An error has ended it: nothing but a rollback is taken.
    is_broken: bool,
    _writer: OwnedMutexGuard<()>,
}

impl<T> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("in_transaction", &self.work.is_some()).finish_non_exhaustive()
    }
}

impl<T: Tables> Session<T> {
    /// Whether the connection still stands.
    ///
    /// # Errors
    /// The database has crashed since it was made.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.weather.pass(Step::Read).await?;
        self.check()
    }

    /// In a transaction.
    #[must_use]
    pub const fn is_in_transaction(&self) -> bool {
        self.work.is_some()
    }

    /// How many savepoints are open.
    #[must_use]
    pub fn savepoints(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.savepoints.len())
    }

    /// Begins a transaction: waits for its turn.
    ///
    /// # Errors
    /// One is open already, or what the weather says.
    pub async fn begin(&mut self) -> Result<(), sqlx::Error> {
        if self.work.is_some() {
            return Err(sqlx::Error::BeginFailed);
        }
        self.pass(Step::Begin).await?;
        let writer = Arc::clone(&self.database.0.writer).lock_owned().await;
        self.check()?;
        let tables = self.database.visible();
        self.work = Some(Work { tables, savepoints: Vec::new(), is_broken: false, _writer: writer });
        Ok(())
    }

    /// Runs a statement in the open transaction. If it fails, the transaction is broken: all that is left is to roll it back.
    ///
    /// # Errors
    /// There is no transaction, or it is broken; what the weather or the statement says.
    pub async fn write<R>(&mut self, statement: impl FnOnce(&mut T) -> Result<R, sqlx::Error>) -> Result<R, sqlx::Error> {
        let passed = self.pass(Step::Statement).await;
        let Some(work) = &mut self.work else { return Err(passed.err().unwrap_or_else(|| MemoryError::Misuse.into())) };
        if work.is_broken {
            return Err(MemoryError::Misuse.into());
        }
        let done = passed.and_then(|()| statement(&mut work.tables));
        work.is_broken = done.is_err();
        done
    }

    /// Reads: what its own transaction sees, or, without one, what is committed.
    ///
    /// # Errors
    /// What the weather says.
    pub async fn read<R>(&mut self, read: impl FnOnce(&T) -> R) -> Result<R, sqlx::Error> {
        if self.work.is_some() {
            return self.write(|tables| Ok(read(tables))).await;
        }
        self.pass(Step::Read).await?;
        Ok(read(&self.database.visible()))
    }

    /// Sets a savepoint.
    ///
    /// # Errors
    /// There is no transaction, or what the weather says.
    pub async fn save(&mut self) -> Result<(), sqlx::Error> {
        self.write(|_| Ok(())).await?;
        if let Some(work) = &mut self.work {
            work.savepoints.push(work.tables.clone());
        }
        Ok(())
    }

    /// Forgets the last savepoint, and keeps what was done since.
    ///
    /// # Errors
    /// There is no transaction, or what the weather says.
    pub async fn release(&mut self) -> Result<(), sqlx::Error> {
        self.write(|_| Ok(())).await?;
        if let Some(work) = &mut self.work {
            work.savepoints.pop();
        }
        Ok(())
    }

    /// Commits. Once it was sent, an error leaves open whether it is durable.
    ///
    /// # Errors
    /// There is no transaction, or it is broken (it is then rolled back); what the weather says.
    pub async fn commit(&mut self) -> Result<(), sqlx::Error> {
        let passed = self.pass(Step::Commit).await;
        let Some(work) = self.work.take() else { return Err(passed.err().unwrap_or_else(|| MemoryError::Misuse.into())) };
        passed?;
        if work.is_broken {
            return Err(MemoryError::Misuse.into());
        }
        let number = {
            let mut kept = self.database.kept();
            if let Some(observer) = &kept.observer {
                observer(&kept.visible, &work.tables);
            }
            kept.number += 1;
            let number = kept.number;
            kept.visible = work.tables.clone();
            kept.unsynced.push_back((number, work.tables.clone()));
            number
        };
        // Others go on: what they write is synced after this.
        drop(work);
        self.pass(Step::Sync).await?;
        self.database.kept().sync_to(number);
        self.pass(Step::Answer).await
    }

    /// Rolls back to the last savepoint, or the whole transaction where there is none. Nothing can go wrong with it.
    pub fn roll_back(&mut self) {
        let Some(work) = &mut self.work else { return };
        match work.savepoints.pop() {
            Some(tables) => {
                work.tables = tables;
                work.is_broken = false;
            }
            None => self.work = None,
        }
    }

    async fn pass(&self, step: Step) -> Result<(), sqlx::Error> {
        self.check()?;
        self.weather.pass(step).await?;
        self.check()
    }

    fn check(&self) -> Result<(), sqlx::Error> {
        if self.database.kept().crashes == self.crashes { Ok(()) } else { Err(gone()) }
    }
}

/// The connection is lost.
#[must_use]
pub fn gone() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionReset, "the connection to the database is lost"))
}

/// What the database itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// It gave the transaction up for the sake of another: the same may succeed when it runs again.
    Conflict,
    /// A row with this key is there already.
    Duplicate,
    /// A row would break what the table promises.
    Check,
    /// There is no room.
    Full,
    /// There is no transaction, or an error has ended it.
    Misuse,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl StdError for MemoryError {}

impl DatabaseError for MemoryError {
    fn message(&self) -> &str {
        match self {
            Self::Conflict => "the transaction was given up for the sake of another",
            Self::Duplicate => "there is such a row already",
            Self::Check => "a check of the table failed",
            Self::Full => "the disk is full",
            Self::Misuse => "there is no transaction that could go on",
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Duplicate => ErrorKind::UniqueViolation,
            Self::Check => ErrorKind::CheckViolation,
            Self::Conflict | Self::Full | Self::Misuse => ErrorKind::Other,
        }
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }
}

#[cfg(test)]
mod tests;

//! The test participant: pieces of one stock, a ledger of every effect, and faults on demand.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prost::{Message, Name};
use tcc_types::{
    BranchId, BranchKey, BranchRowStatus, CancelCall, Clock, ConfirmCall, Gid, LogName, Op, Payload, SettleAnswer, SystemClock,
    SystemEntropy, Timestamp, TryAnswer, TryCall,
};
use tokio::sync::Semaphore;

use crate::{
    Batch, BatchParticipant, BranchContext, ConnectionOf, Database, Engine, Options, Participant, Result, Store, Tried, within,
};

/// What the test participant's Try asks for.
#[derive(Clone, PartialEq, Message)]
pub struct Want {
    /// How many pieces.
    #[prost(int64, tag = "1")]
    pub pieces: i64,
}

impl Name for Want {
    const PACKAGE: &'static str = "tcc.conformance.v1";
    const NAME: &'static str = "Want";
}

/// What it reserved.
#[derive(Clone, PartialEq, Message)]
pub struct Kept {
    /// How many pieces.
    #[prost(int64, tag = "1")]
    pub pieces: i64,
    /// Only to be a little longer.
    #[prost(string, tag = "2")]
    pub note: String,
}

impl Name for Kept {
    const PACKAGE: &'static str = "tcc.conformance.v1";
    const NAME: &'static str = "Kept";
}

/// The stock, with what the branch rows say, as of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// All there ever were.
    pub initial: i64,
    /// Free.
    pub available: i64,
    /// Reserved.
    pub frozen: i64,
    /// Spent.
    pub sold: i64,
    /// What the effects of the branches whose row is tried reserved.
    pub tried: i64,
}

impl Books {
    /// Panics unless `available + frozen + sold = initial`, all are positive, and `frozen` is what the tried rows hold.
    pub fn assert_balance(&self) {
        assert_eq!(self.available + self.frozen + self.sold, self.initial, "the books do not balance: {self:?}");
        assert!(self.available >= 0 && self.frozen >= 0 && self.sold >= 0, "less than nothing: {self:?}");
        assert_eq!(self.frozen, self.tried, "frozen is not the sum of the tried rows: {self:?}");
    }
}

/// How often each effect of one branch is in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// By `on_try`.
    pub reserved: i64,
    /// By `on_confirm`.
    pub spent: i64,
    /// By `on_cancel`.
    pub released: i64,
}

impl Effects {
    /// None.
    pub const NONE: Self = Self { reserved: 0, spent: 0, released: 0 };
    /// Reserved.
    pub const RESERVED: Self = Self { reserved: 1, ..Self::NONE };
    /// Reserved, then spent.
    pub const SPENT: Self = Self { reserved: 1, spent: 1, released: 0 };
    /// Reserved, then released.
    pub const RELEASED: Self = Self { reserved: 1, spent: 0, released: 1 };
}

/// The test participant's tables in a database's dialect.
pub trait BenchDatabase: Database {
    /// Makes the tables, with `initial` pieces available.
    fn create_bench(store: &Store<Self>, initial: i64) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Moves pieces from available to frozen; false if there are not enough.
    fn freeze(conn: &mut Self::Connection, pieces: i64) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Moves pieces from frozen to sold.
    fn spend(conn: &mut Self::Connection, pieces: i64) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Moves pieces from frozen to available.
    fn release(conn: &mut Self::Connection, pieces: i64) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Adds a line to the ledger of effects. No constraint forbids a second one: the barrier alone must.
    fn record(
        conn: &mut Self::Connection,
        key: &BranchKey,
        op: Op,
        pieces: i64,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Reads stock and rows as of one instant.
    fn books(store: &Store<Self>) -> impl Future<Output = Result<Books, sqlx::Error>> + Send;

    /// Ends the transaction, or makes it unable to commit, as the database does by itself on some errors; returns none.
    fn lose_transaction(conn: &mut Self::Connection) -> impl Future<Output = ()> + Send;

    /// Makes a branch's row as old as a case needs it, whatever its status.
    fn set_times(
        store: &Store<Self>,
        key: &BranchKey,
        not_after: Timestamp,
        changed_at: Timestamp,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Counts a branch's lines in the ledger.
    fn effects(store: &Store<Self>, key: &BranchKey) -> impl Future<Output = Result<Effects, sqlx::Error>> + Send;
}

/// What a handler does after it has changed everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Says no.
    Refuse,
    /// Says no with this message.
    RefuseWith(&'static str),
    /// Fails.
    Fail,
    /// Panics.
    Panic,
    /// Never returns.
    Hang,
    /// Ignores an error with which the database ended the transaction, and says yes.
    LoseTransaction,
    /// Waits for [`Bench::open_gate`], then goes on.
    Wait,
    /// Waits for [`Bench::open_gate`], then fails.
    WaitThenFail,
    /// Says yes with an output of that many bytes.
    Output(usize),
}

/// The test participant. A handle.
#[derive(Debug)]
pub struct Bench<D> {
    shared: Arc<Shared>,
    database: std::marker::PhantomData<fn() -> D>,
}

impl<D> Clone for Bench<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), database: std::marker::PhantomData }
    }
}

#[derive(Debug)]
struct Shared {
    faults: Mutex<VecDeque<(Op, Fault)>>,
    handled: AtomicU32,
    foreseen: AtomicU32,
    waiting: Semaphore,
    gate: Semaphore,
}

impl<D> Default for Bench<D> {
    fn default() -> Self {
        let shared = Shared {
            faults: Mutex::default(),
            handled: AtomicU32::new(0),
            foreseen: AtomicU32::new(0),
            waiting: Semaphore::new(0),
            gate: Semaphore::new(0),
        };
        Self { shared: Arc::new(shared), database: std::marker::PhantomData }
    }
}

impl<D> Bench<D> {
    /// Lets the next handler of this operation do that, once.
    pub fn inject(&self, op: Op, fault: Fault) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).push_back((op, fault));
    }

    /// How often any handler began.
    #[must_use]
    pub fn handled(&self) -> u32 {
        self.shared.handled.load(Ordering::SeqCst)
    }

    /// Returns when a handler waits at the gate.
    pub async fn until_one_waits(&self) {
        self.shared.waiting.acquire().await.expect("the semaphore is never closed").forget();
    }

    /// Lets one handler through.
    pub fn open_gate(&self) {
        self.shared.gate.add_permits(1);
    }

    fn begin(&self, op: Op) -> Option<Fault> {
        self.shared.handled.fetch_add(1, Ordering::SeqCst);
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let at = faults.iter().position(|(of, _)| *of == op)?;
        faults.remove(at).map(|(_, fault)| fault)
    }

    async fn wait_at_gate(&self) {
        self.shared.waiting.add_permits(1);
        self.shared.gate.acquire().await.expect("the semaphore is never closed").forget();
    }

    /// What is common to all handlers: everything but a "no" and an output.
    async fn suffer(&self, conn: &mut D::Connection, fault: Option<Fault>) -> Result<()>
    where
        D: BenchDatabase,
    {
        match fault {
            None | Some(Fault::Refuse | Fault::RefuseWith(_) | Fault::Output(_)) => {}
            Some(Fault::Fail) => return Err("injected failure".into()),
            Some(Fault::Panic) => panic!("injected panic"),
            Some(Fault::LoseTransaction) => D::lose_transaction(conn).await,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Wait) => self.wait_at_gate().await,
            Some(Fault::WaitThenFail) => {
                self.wait_at_gate().await;
                return Err("injected failure".into());
            }
        }
        Ok(())
    }
}

impl<D: BenchDatabase> Participant for Bench<D> {
    type Db = D;
    type Payload = Want;
    type Reserved = Kept;

    async fn on_try(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, want: Want) -> Result<Tried<Kept>> {
        let fault = self.begin(Op::Try);
        if !D::freeze(conn, want.pieces).await? {
            return Ok(Tried::refused("OUT_OF_STOCK", "not enough pieces"));
        }
        D::record(conn, &branch.key, Op::Try, want.pieces).await?;
        self.suffer(conn, fault).await?;
        let kept = Kept { pieces: want.pieces, note: "kept".to_owned() };
        match fault {
            Some(Fault::Refuse) => Ok(Tried::refused("INJECTED", "injected refusal")),
            Some(Fault::RefuseWith(message)) => Ok(Tried::refused("INJECTED", message)),
            Some(Fault::Output(size_bytes)) => {
                let output = Kept { note: "x".repeat(size_bytes), ..kept.clone() };
                Ok(Tried::reserved_with(kept, &output))
            }
            None
            | Some(Fault::Fail | Fault::Panic | Fault::Hang | Fault::LoseTransaction | Fault::Wait | Fault::WaitThenFail) => {
                let output = kept.clone();
                Ok(Tried::reserved_with(kept, &output))
            }
        }
    }

    async fn on_confirm(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, kept: Kept) -> Result<()> {
        let fault = self.begin(Op::Confirm);
        D::spend(conn, kept.pieces).await?;
        D::record(conn, &branch.key, Op::Confirm, kept.pieces).await?;
        self.suffer(conn, fault).await
    }

    async fn on_cancel(&self, conn: &mut ConnectionOf<Self>, branch: &BranchContext, kept: Kept) -> Result<()> {
        let fault = self.begin(Op::Cancel);
        D::release(conn, kept.pieces).await?;
        D::record(conn, &branch.key, Op::Cancel, kept.pieces).await?;
        self.suffer(conn, fault).await
    }
}

impl<D: BenchDatabase> BatchParticipant for Bench<D> {
    /// In turn what will be, something else, and nothing: what the handler says must count in each case.
    fn foresee(&self, want: &Want) -> Option<Tried<Kept>> {
        let kept = |note: &str| Kept { pieces: want.pieces, note: note.to_owned() };
        match self.shared.foreseen.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => Some(Tried::reserved_with(kept("kept"), &kept("kept"))),
            1 => Some(Tried::reserved_with(Kept { pieces: 99, note: "wrong".to_owned() }, &kept("wrong"))),
            _ => None,
        }
    }

    /// Each handler takes the one row of the stock before anything else: two batches wait for each other nowhere else.
    async fn on_batch(&self, conn: &mut ConnectionOf<Self>, batch: Batch<Self>) -> Result<Vec<Tried<Kept>>> {
        within::one_by_one(self, conn, batch).await
    }
}

/// Where a branch is before a case's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its Try said yes.
    Tried,
    /// The business said no.
    Refused,
    /// Spent.
    Confirmed,
    /// Released.
    Cancelled,
    /// Cancelled without a Try.
    EmptyRollback,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Tried, Self::Refused, Self::Confirmed, Self::Cancelled, Self::EmptyRollback];
}

/// A test participant on an empty database, with the words that cases are written in. A handle.
pub struct Fixture<D: BenchDatabase> {
    /// The participant.
    pub bench: Bench<D>,
    /// What runs it.
    pub engine: Engine<Bench<D>>,
    /// What makes another like it.
    pub engine_of: fn(Bench<D>, Store<D>) -> Engine<Bench<D>>,
}

impl<D: BenchDatabase> Clone for Fixture<D> {
    fn clone(&self) -> Self {
        Self { bench: self.bench.clone(), engine: self.engine.clone(), engine_of: self.engine_of }
    }
}

impl<D: BenchDatabase> Fixture<D> {
    /// Pieces in stock at the beginning: enough for two thirds of the branches that race.
    pub const INITIAL: i64 = 1_400;
    /// Pieces that every Try asks for.
    pub const PIECES: i64 = 3;

    /// On a new, empty database; on a server each operation has a transaction of its own.
    pub async fn new(store: Store<D>) -> Self {
        Self::with(store, Engine::new).await
    }

    /// On a new, empty database; operations that wait share a transaction.
    pub async fn batched(store: Store<D>) -> Self {
        Self::with(store, Engine::batched).await
    }

    async fn with(store: Store<D>, engine_of: fn(Bench<D>, Store<D>) -> Engine<Bench<D>>) -> Self {
        D::create_bench(&store, Self::INITIAL).await.expect("the bench's tables are made");
        let bench = Bench::default();
        Self { engine: engine_of(bench.clone(), store), bench, engine_of }
    }

    /// The same participant and database with other limits.
    #[must_use]
    pub fn limited(&self, limit: impl FnOnce(&mut Options)) -> Self {
        let mut options = self.store().options().clone();
        limit(&mut options);
        let engine = (self.engine_of)(self.bench.clone(), self.store().with_options(options));
        Self { engine, bench: self.bench.clone(), engine_of: self.engine_of }
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &Store<D> {
        self.engine.store()
    }

    /// A Try of a new branch that is not late for an hour.
    #[must_use]
    pub fn new_call(&self) -> TryCall {
        let now = SystemClock.now();
        let value = Bytes::from(Want { pieces: Self::PIECES }.encode_to_vec());
        TryCall {
            key: BranchKey { gid: Gid::mint(now, &SystemEntropy), branch: BranchId::new("stock").expect("it is well-formed") },
            payload: Payload { type_url: format!("type.googleapis.com/{}", Want::full_name()), value },
            not_after: now.plus(Duration::from_secs(3_600)),
            ask_after: now.plus(Duration::from_secs(7_200)),
            coordinator: LogName::new("conformance").expect("it is well-formed"),
        }
    }

    /// A Try of a new branch that is late already.
    #[must_use]
    pub fn new_late_call(&self) -> TryCall {
        TryCall { not_after: Timestamp::from_millis(1), ..self.new_call() }
    }

    /// A new branch in that state.
    pub async fn branch_in(&self, state: State) -> TryCall {
        let call = self.new_call();
        match state {
            State::Tried => self.assert_yes(self.try_branch(&call).await),
            State::Refused => {
                self.bench.inject(Op::Try, Fault::Refuse);
                assert!(matches!(self.try_branch(&call).await, TryAnswer::Refused(_)));
            }
            State::Confirmed => {
                self.assert_yes(self.try_branch(&call).await);
                assert_eq!(self.confirm(&call).await, SettleAnswer::Done);
            }
            State::Cancelled => {
                self.assert_yes(self.try_branch(&call).await);
                assert_eq!(self.cancel(&call).await, SettleAnswer::Done);
            }
            State::EmptyRollback => assert_eq!(self.cancel(&call).await, SettleAnswer::Done),
        }
        call
    }

    /// Delivers a Try that must be answered.
    pub async fn try_branch(&self, call: &TryCall) -> TryAnswer {
        self.engine.try_branch(call.clone()).await.expect("the Try is answered")
    }

    /// Delivers the branch's Confirm, which must be answered.
    pub async fn confirm(&self, call: &TryCall) -> SettleAnswer {
        self.engine.confirm(Self::confirm_of(call)).await.expect("the Confirm is answered")
    }

    /// Delivers the branch's Cancel, which must be answered.
    pub async fn cancel(&self, call: &TryCall) -> SettleAnswer {
        self.engine.cancel(Self::cancel_of(call)).await.expect("the Cancel is answered")
    }

    /// The branch's Confirm.
    #[must_use]
    pub fn confirm_of(call: &TryCall) -> ConfirmCall {
        ConfirmCall { key: call.key.clone() }
    }

    /// The branch's Cancel.
    #[must_use]
    pub fn cancel_of(call: &TryCall) -> CancelCall {
        CancelCall { key: call.key.clone(), not_after: call.not_after }
    }

    /// Panics unless it is the test participant's yes with its output.
    pub fn assert_yes(&self, answer: TryAnswer) {
        let TryAnswer::Reserved(Some(output)) = answer else {
            panic!("no yes with an output, but {answer:?}");
        };
        assert_eq!(output.type_url, Kept::type_url());
        assert_eq!(Kept::decode(output.value).map(|kept| kept.pieces), Ok(Self::PIECES));
    }

    /// Panics unless the branch has this row and these effects, and the books balance.
    pub async fn assert_branch(&self, call: &TryCall, status: Option<BranchRowStatus>, effects: Effects) {
        let row = self.store().branch_row(&call.key).await.expect("the row is read");
        assert_eq!(row.map(|row| row.status), status, "the row of {}", call.key);
        assert_eq!(D::effects(self.store(), &call.key).await.expect("the ledger is read"), effects, "effects of {}", call.key);
        self.books().await;
    }

    /// The books, which must balance.
    pub async fn books(&self) -> Books {
        let books = D::books(self.store()).await.expect("the books are read");
        books.assert_balance();
        books
    }
}

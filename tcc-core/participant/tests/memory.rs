//! Every conformance case on a database in memory, and what only it can do.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::Pool;
use tcc_participant::{
    Engine, OpenError, Options, Store, Unknown,
    conformance::{Bench, BenchTables, Effects, Fixture, State},
    memory::{BranchTable, Calm, HasBranches, Memory, MemoryDatabase, MemoryError, Passing, Step, Weather, gone},
};
use tcc_types::{BranchRowStatus, Clock, Entropy, Gid, SystemClock, Timestamp};
use tokio::{task::JoinSet, time::Instant};

type Db = MemoryDatabase<BenchTables>;

fn store(database: &Memory<BenchTables>, weather: impl Weather) -> Store<Db> {
    Store::in_memory(database.clone(), Arc::new(weather), Arc::new(SystemClock), &Options::default())
        .expect("the options are right")
}

async fn open() -> (Store<Db>, ()) {
    (store(&Memory::new(BenchTables::default()), Calm), ())
}

tcc_participant::conformance_tests!(open);

/// The same with operations in batches.
mod batched {
    use super::open;

    tcc_participant::conformance_tests!(batched open);
}

/// Fails at one step, as often as it is told to.
#[derive(Clone, Debug)]
struct Failing(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    step: Mutex<Step>,
    times: AtomicU32,
    with: fn() -> sqlx::Error,
}

impl Failing {
    fn with(with: fn() -> sqlx::Error) -> Self {
        Self(Arc::new(Plan { step: Mutex::new(Step::Connect), times: AtomicU32::new(0), with }))
    }

    fn at(&self, step: Step, times: u32) {
        *self.0.step.lock().expect("nobody panics with it") = step;
        self.0.times.store(times, Ordering::SeqCst);
    }
}

impl Weather for Failing {
    fn pass(&self, step: Step) -> Passing<'_> {
        let is_here = *self.0.step.lock().expect("nobody panics with it") == step;
        let one_less = |times: u32| times.checked_sub(1);
        let fails = is_here && self.0.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        Box::pin(async move { if fails { Err((self.0.with)()) } else { Ok(()) } })
    }
}

struct World {
    database: Memory<BenchTables>,
    weather: Failing,
    f: Fixture<Db>,
}

impl World {
    async fn failing(with: fn() -> sqlx::Error) -> Self {
        let (database, weather) = (Memory::new(BenchTables::default()), Failing::with(with));
        let f = Fixture::new(store(&database, weather.clone())).await;
        Self { database, weather, f }
    }

    /// Another instance of the participant, with nothing in its way.
    fn other(&self) -> Engine<Bench<Db>> {
        Engine::new(self.f.bench.clone(), store(&self.database, Calm))
    }
}

#[tokio::test]
async fn a_conflict_runs_the_transaction_anew_and_nobody_is_told() {
    let world = World::failing(|| MemoryError::Conflict.into()).await;
    for step in [Step::Begin, Step::Statement, Step::Commit] {
        world.weather.at(step, 2);
        let call = world.f.new_call();
        world.f.assert_yes(world.f.try_branch(&call).await);
        world.f.assert_branch(&call, Some(BranchRowStatus::Tried), Effects::RESERVED).await;
    }
    assert_eq!(world.f.engine.retries(), 6);
}

#[tokio::test]
async fn a_full_disk_is_unknown_and_leaves_nothing_behind() {
    let world = World::failing(|| MemoryError::Full.into()).await;
    let call = world.f.new_call();
    for step in [Step::Begin, Step::Statement, Step::Commit] {
        world.weather.at(step, 1);
        assert_eq!(world.f.engine.try_branch(call.clone()).await, Err(Unknown::Failed), "{step:?}");
        world.f.assert_branch(&call, None, Effects::NONE).await;
    }
    assert_eq!(world.f.engine.retries(), 0);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_stands_and_one_that_a_crash_took_back_was_never_answered() {
    let world = World::failing(gone).await;
    for (step, stands) in [(Step::Answer, true), (Step::Sync, false)] {
        let call = world.f.new_call();
        world.weather.at(step, 1);
        assert_eq!(world.f.engine.try_branch(call.clone()).await, Err(Unknown::Failed));
        world.database.crash();
        let handled = world.f.bench.handled();
        // Its first connections are those from before the crash.
        let other = world.other();
        world.f.assert_yes(other.try_branch(call.clone()).await.expect("it is answered"));
        assert_eq!(world.f.bench.handled() - handled, u32::from(!stands));
        assert_eq!(
            world.database.durable().branches().get(&call.key).map(|stored| stored.row.status),
            Some(BranchRowStatus::Tried)
        );
    }
}

#[tokio::test]
async fn what_is_told_of_anothers_row_is_durable() {
    let world = World::failing(gone).await;
    let call = world.f.new_call();
    world.weather.at(Step::Sync, 1);
    assert_eq!(world.f.engine.try_branch(call.clone()).await, Err(Unknown::Failed));
    let row = |tables: BenchTables| tables.branches().get(&call.key).cloned();
    assert!(row(world.database.visible()).is_some() && row(world.database.durable()).is_none());
    world.f.assert_yes(world.other().try_branch(call.clone()).await.expect("it is answered"));
    assert!(row(world.database.durable()).is_some());
}

#[tokio::test]
async fn simulations_read_every_row_and_what_it_holds() {
    let f = Fixture::<Db>::new(open().await.0).await;
    let mut calls = Vec::new();
    for state in State::ALL {
        calls.push((f.branch_in(state).await, state));
    }
    let mut conn = f.store().read_pool().acquire().await.expect("it connects");
    let table: BranchTable = conn.read(|tables, _| tables.branches().clone()).await.expect("it is read");
    calls.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
    assert_eq!(table.len(), calls.len());
    assert_eq!(table.tried().count(), 1);
    for (stored, (call, state)) in table.rows().zip(&calls) {
        assert_eq!(stored.row.key, call.key);
        let of_try = *state != State::EmptyRollback;
        assert_eq!(stored.fingerprint, of_try.then(|| call.payload.fingerprint()));
        let has_reserved = of_try && *state != State::Refused;
        assert_eq!((stored.reserved.is_some(), stored.output.is_some()), (has_reserved, has_reserved), "{state:?}");
    }
}

#[tokio::test]
async fn it_has_no_url_and_the_same_limits_as_any_other() {
    let error = Store::<Db>::open("memory://stock", &Options::default()).await.expect_err("there is no URL");
    assert!(error.to_string().contains("Store::in_memory"), "{error}");
    let options = Options { attempts_max: 0, ..Options::default() };
    let database = Memory::new(BenchTables::default());
    let error = Store::in_memory(database, Arc::new(Calm), Arc::new(SystemClock), &options).expect_err("no attempts");
    assert!(matches!(&error, OpenError::Invalid(invalid) if invalid.field == "attempts_max"), "{error}");
    assert!(Pool::<Db>::connect("memory://stock").await.is_err());
}

/// Goes on with tokio's clock.
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000).plus(self.0.elapsed())
    }
}

/// Draws the same from the same seed.
#[derive(Debug)]
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let step = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mixed = (step ^ (step >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)) % sides
    }
}

impl Entropy for Dice {
    fn next_u64(&self) -> u64 {
        self.roll(u64::MAX)
    }
}

/// Everything takes time, and now and then something fails, once it may.
#[derive(Debug)]
struct Rough {
    dice: Arc<Dice>,
    fails: AtomicBool,
}

impl Weather for Rough {
    fn pass(&self, step: Step) -> Passing<'_> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(self.dice.roll(4))).await;
            match self.dice.roll(60) {
                0 if self.fails.load(Ordering::SeqCst) => Err(gone()),
                1 if self.fails.load(Ordering::SeqCst) && step != Step::Answer => Err(MemoryError::Conflict.into()),
                _ => Ok(()),
            }
        })
    }
}

/// What each commit left, and when.
async fn trace_of(seed: u64) -> Vec<String> {
    let (began, dice) = (Instant::now(), Arc::new(Dice(AtomicU64::new(seed))));
    let weather = Arc::new(Rough { dice: Arc::clone(&dice), fails: AtomicBool::new(false) });
    let database = Memory::new(BenchTables::default());
    let opened =
        Store::in_memory(database.clone(), Arc::<Rough>::clone(&weather), Arc::new(Virtual(began)), &Options::default());
    let f = Fixture::batched(opened.expect("the options are right")).await;
    let trace = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&trace);
    database.observe(Box::new(move |_, after: &BenchTables| {
        let rows: Vec<_> =
            after.branches().rows().map(|stored| (&stored.row.key, stored.row.status, stored.row.changed_at)).collect();
        seen.lock().expect("nobody panics with it").push(format!("{:?} {rows:?}", began.elapsed()));
    }));
    weather.fails.store(true, Ordering::SeqCst);
    let mut orders = JoinSet::new();
    for order in 0..60 {
        let mut call = f.new_call();
        call.key.gid = Gid::mint(Virtual(began).now(), &*dice);
        let engine = f.engine.clone();
        orders.spawn(async move {
            tokio::time::sleep(Duration::from_millis(order / 4)).await;
            while engine.try_branch(call.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
            while match order % 2 {
                0 => engine.confirm(Fixture::<Db>::confirm_of(&call)).await.is_err(),
                _ => engine.cancel(Fixture::<Db>::cancel_of(&call)).await.is_err(),
            } {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    orders.join_all().await;
    weather.fails.store(false, Ordering::SeqCst);
    f.engine.close().await;
    let tables = database.durable();
    assert_eq!((tables.branches().len(), tables.branches().tried().count()), (60, 0));
    let mut trace = trace.lock().expect("nobody panics with it");
    trace.push(format!("{:?}, {} reruns", began.elapsed(), f.engine.retries()));
    std::mem::take(&mut *trace)
}

#[test]
fn the_same_seed_gives_the_same_commits_at_the_same_times() {
    let trace_of = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("it starts").block_on(trace_of(seed))
    };
    let traces: Vec<_> = (1..6).map(|seed| [trace_of(seed), trace_of(seed)]).collect();
    for [one, again] in &traces {
        assert_eq!(one, again);
    }
    assert!(traces.windows(2).all(|pair| pair[0][0] != pair[1][0]), "seeds make no difference");
}

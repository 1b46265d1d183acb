//! What all parts of one run share: the time, the databases, what is broken at the moment, and what was seen. Everything runs on one
//! thread; the locks are there because the types that ship ask for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tcc_coupon::memory::CouponTables;
use tcc_database::memory::{Memory, Step};
use tcc_gateway::memory::OrderTables;
use tcc_inventory::memory::StockTables;
use tcc_log::LogTables;
use tcc_types::{BranchKey, Clock, LogName, Timestamp};

use crate::{
    coverage::Coverage,
    dice::Dice,
    history::History,
    net::Links,
    past::Pasts,
    place::{Db, Host},
    trace::Trace,
    weather::Conditions,
};

/// When every simulation begins: 2026-01-01T00:00:00Z.
const BEGINNING: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// So long after its commit an operation is answered at the latest.
const ANSWERED_WITHIN: Duration = Duration::from_millis(200);
/// Violations that are kept: the first ones say most.
const VIOLATIONS_MAX: usize = 20;

/// One run.
pub(crate) struct World {
    pub(crate) seed: u64,
    /// Microseconds since the beginning.
    micros: AtomicU64,
    pub(crate) trace: Trace,
    pub(crate) log: Memory<LogTables>,
    pub(crate) orders: Memory<OrderTables>,
    pub(crate) inventory: Memory<StockTables>,
    pub(crate) coupon: Memory<CouponTables>,
    pub(crate) links: Links,
    pub(crate) conditions: BTreeMap<Db, Conditions>,
    /// How far each database's clock is off, in microseconds.
    skews: BTreeMap<Db, Arc<AtomicI64>>,
    state: Mutex<State>,
    pasts: Mutex<Pasts>,
    pub(crate) coverage: Mutex<Coverage>,
    pub(crate) history: Mutex<History>,
}

#[derive(Default)]
struct State {
    traps: Vec<Trap>,
    /// Machines that have walked into a trap and are to be stopped now.
    trapped: BTreeSet<Host>,
    /// What goes wrong at the moment, by kind.
    faults: BTreeMap<&'static str, u32>,
    violations: Vec<String>,
    /// All faults are healed.
    is_calm: bool,
}

/// A machine that is to stop for good when it takes this step for the `after`th time from now.
#[derive(Clone, Debug)]
pub(crate) struct Trap {
    pub(crate) host: Host,
    pub(crate) point: Point,
    pub(crate) after: u32,
}

/// Where a machine can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    /// At a step towards a database.
    Database(Db, Step),
    /// A message has arrived.
    Arrival,
    /// A message's answer is about to leave.
    Answer,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(db, step) => write!(f, "{db} {step:?}"),
            Self::Arrival => f.write_str("a message's arrival"),
            Self::Answer => f.write_str("a message's answer"),
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, keeps_text: bool, log: LogName) -> Self {
        Self {
            seed,
            micros: AtomicU64::new(0),
            trace: Trace::new(keeps_text),
            log: Memory::new(LogTables::new(log)),
            orders: Memory::new(OrderTables::default()),
            inventory: Memory::new(StockTables::default()),
            coupon: Memory::new(CouponTables::default()),
            links: Links::default(),
            conditions: Db::ALL.into_iter().map(|db| (db, Conditions::default())).collect(),
            skews: Db::ALL.into_iter().map(|db| (db, Arc::default())).collect(),
            state: Mutex::default(),
            pasts: Mutex::default(),
            coverage: Mutex::default(),
            history: Mutex::default(),
        }
    }

    /// Dice for one user.
    pub(crate) fn dice(&self, user: impl fmt::Display) -> Dice {
        Dice::new(self.seed, &user.to_string())
    }

    /// How much time has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        if let Some(elapsed) = turmoil::sim_elapsed() {
            return elapsed;
        }
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// Between the steps of the simulation, where no machine runs.
    pub(crate) fn set_elapsed(&self, elapsed: Duration) {
        self.micros.store(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The clock of a database's server.
    pub(crate) fn clock(self: &Arc<Self>, db: Db) -> Arc<dyn Clock> {
        Arc::new(SkewedClock { world: Arc::clone(self), skew: Arc::clone(&self.skews[&db]) })
    }

    /// Sets a clock ahead or back.
    pub(crate) fn set_skew(&self, db: Db, micros: i64) {
        self.skews[&db].store(micros, Ordering::Relaxed);
    }

    /// What servers do by themselves, also where nobody waits for it any more; and what is durable then is remembered.
    pub(crate) fn sync(&self) {
        self.log.sync();
        self.orders.sync();
        self.inventory.sync();
        self.coupon.sync();
        let mut pasts = self.pasts();
        pasts.inventory.keep(&self.inventory);
        pasts.coupon.keep(&self.coupon);
    }

    /// A participant's database goes back by so many of the moments that are remembered.
    pub(crate) fn fail_over(&self, db: Db, back: usize) {
        let mut pasts = self.pasts();
        let lost = match db {
            Db::Inventory => pasts.inventory.fail_over(&self.inventory, back),
            Db::Coupon => pasts.coupon.fail_over(&self.coupon, back),
            Db::Log | Db::Orders => return,
        };
        self.tell(db, format_args!("has lost what became of {} branches", lost.len()));
        pasts.lost.extend(lost);
        pasts.lost_at = Some(self.elapsed());
    }

    /// Whether what became of a branch has just been lost: what was true when it was answered may not be any more.
    pub(crate) fn is_just_lost(&self, key: &BranchKey) -> bool {
        let pasts = self.pasts();
        pasts.lost.contains(key) && pasts.lost_at.is_some_and(|at| at + ANSWERED_WITHIN >= self.elapsed())
    }

    /// Whether a branch's row was lost, or what became of it was.
    pub(crate) fn is_lost(&self, key: &BranchKey) -> bool {
        self.pasts().lost.contains(key)
    }

    /// Writes down what somebody did.
    pub(crate) fn tell(&self, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        self.trace.write(self.elapsed(), who, what);
    }

    /// A rule is broken.
    pub(crate) fn violation(&self, rule: &str, what: impl fmt::Display) {
        self.tell("VIOLATION", format_args!("{rule}: {what}"));
        let mut state = self.state();
        if state.violations.len() < VIOLATIONS_MAX {
            let at = self.elapsed().as_secs_f64();
            state.violations.push(format!("{rule}, after {at:.3} s: {what}"));
        }
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Sets a trap.
    pub(crate) fn trap(&self, trap: Trap) {
        self.state().traps.push(trap);
    }

    /// Takes back the traps of a machine.
    pub(crate) fn disarm(&self, host: Host) {
        self.state().traps.retain(|trap| trap.host != host);
    }

    /// A machine comes to a point. Never returns if it walks into a trap there: it will be stopped.
    pub(crate) async fn visit(&self, host: Host, point: Point) {
        if self.walks_into_a_trap(host, point) {
            self.tell(host, format_args!("is stopped at {point}"));
            std::future::pending::<()>().await;
        }
    }

    fn walks_into_a_trap(&self, host: Host, point: Point) -> bool {
        let mut state = self.state();
        let Some(index) = state.traps.iter().position(|trap| trap.host == host && trap.point == point) else { return false };
        state.traps[index].after = state.traps[index].after.saturating_sub(1);
        if state.traps[index].after > 0 {
            return false;
        }
        state.traps.swap_remove(index);
        state.trapped.insert(host);
        drop(state);
        self.coverage().stop(point.to_string());
        true
    }

    /// The machines that have walked into a trap since this was asked last.
    pub(crate) fn take_trapped(&self) -> BTreeSet<Host> {
        std::mem::take(&mut self.state().trapped)
    }

    /// All faults are healed: from now on everything has to end by itself.
    pub(crate) fn calm_down(&self) {
        self.state().is_calm = true;
    }

    /// Whether all faults are healed.
    pub(crate) fn is_calm(&self) -> bool {
        self.state().is_calm
    }

    /// A fault begins, or ends.
    pub(crate) fn count_fault(&self, kind: &'static str, begins: bool) {
        let mut state = self.state();
        let count = state.faults.entry(kind).or_default();
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            state.faults.remove(kind);
        }
    }

    /// The kinds of faults that are there at the moment.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        self.state().faults.keys().copied().collect()
    }

    pub(crate) fn coverage(&self) -> MutexGuard<'_, Coverage> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pasts(&self) -> MutexGuard<'_, Pasts> {
        self.pasts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SkewedClock {
    world: Arc<World>,
    skew: Arc<AtomicI64>,
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let skew = self.skew.load(Ordering::Relaxed);
        let now = BEGINNING.plus(self.world.elapsed());
        Timestamp::from_micros(now.as_micros() + skew)
    }
}

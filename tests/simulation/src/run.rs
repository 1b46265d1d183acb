//! One seed, from its beginning to its end: the machines are built, the storm blows, everything heals, and the rules are held against what
//! is left.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tcc_types::LogName;
use turmoil::Sim;

use crate::{
    checks, clients,
    coverage::Coverage,
    deliveries::Mischief,
    faults::{self, Machines, Storm},
    hosts::{LOG, Machine},
    operators,
    past::MOMENT,
    place::Host,
    settings::{QUIET_WITHIN, Settings},
    world::World,
};

/// Steps that one seed may take.
const STEPS_MAX: u32 = 100_000;
/// So often is looked whether everything has ended, and servers sync what nobody waits for.
const LOOK_EVERY: Duration = MOMENT;
/// Rows that are so old are deleted.
const OLD_AFTER: Duration = Duration::from_secs(75);

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep the trace's text.
    pub keeps_text: bool,
    /// Leave these faults of the plan out, by their numbers.
    pub without: Vec<usize>,
}

/// What came of a seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// The rules that were broken, and how; none: it passed.
    pub violations: Vec<String>,
    /// The same whenever this seed is run.
    pub trace_hash: String,
    /// Events in the trace.
    pub events: u64,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Steps that it took; at most 100,000.
    pub steps: u32,
    /// How long it really took, in milliseconds: only who starts the process can tell, whose own clock stands still.
    pub took_ms: u64,
    /// Transactions that were begun, or cancelled before they could be.
    pub transactions: u64,
    /// Requests that clients gave up on.
    pub unanswered: u64,
    /// Faults in its plan.
    pub faults: usize,
    /// The plan, for people.
    pub plan: Vec<String>,
    pub(crate) coverage: Coverage,
    /// The trace, where it was asked for.
    #[serde(skip)]
    pub trace: Vec<String>,
}

/// Runs one seed, in this process. One seed a process: what the runtime draws at random is only the same in a fresh one.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    let Ok(log) = LogName::new(LOG) else { unreachable!("the name of the log is well-formed") };
    let world = Arc::new(World::new(seed, options.keeps_text, log));
    note_panics(&world);
    checks::watch(&world);
    let settings = Arc::new(Settings::of(&world.dice("settings")));
    world.tell("settings", format_args!("{settings:?}"));
    let mut plan = faults::plan(&settings, &world.dice("faults"));
    let told = plan.iter().enumerate().map(|(number, fault)| format!("{number}: {:?} {}", fault.at, fault.kind)).collect();
    let mut number = 0;
    plan.retain(|_| {
        number += 1;
        !options.without.contains(&(number - 1))
    });
    let count = plan.len();
    let (elapsed, steps) = live(&world, &settings, plan);
    let (hash, events) = world.trace.hash();
    let coverage = world.coverage().clone();
    let unanswered = world.history().unknown;
    Report {
        seed,
        violations: world.violations(),
        trace_hash: format!("{hash:016x}"),
        events,
        simulated_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        steps,
        took_ms: 0,
        transactions: coverage.transitions.iter().filter(|(what, _)| what.starts_with("none ->")).map(|(_, it)| it.times).sum(),
        unanswered,
        faults: count,
        plan: told,
        coverage,
        trace: world.trace.lines(),
    }
}

/// Runs the system until everything has ended, or a rule is broken.
fn live(world: &Arc<World>, settings: &Arc<Settings>, plan: Vec<faults::Fault>) -> (Duration, u32) {
    const OPERATOR: Host = Host::Operator(0);
    let machines: Vec<_> = settings.servers().into_iter().chain(settings.all_clients()).chain([OPERATOR]).collect();
    let mischief: BTreeMap<_, _> = machines.iter().map(|host| (*host, Arc::<Mutex<Mischief>>::default())).collect();
    let mut sim = turmoil::Builder::new()
        .rng_seed(world.dice("network").number(0..=u64::MAX))
        .tick_duration(settings.step)
        .simulation_duration(Duration::from_secs(86_400))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(settings.latency_max)
        .tcp_capacity(4_096)
        .enable_random_order()
        .build();
    for host in settings.servers() {
        let machine =
            Machine { world: Arc::clone(world), host, settings: Arc::clone(settings), mischief: Arc::clone(&mischief[&host]) };
        sim.host(host.name(), move || machine.clone().serve());
    }
    for host in settings.all_clients() {
        world.history().at_work += 1;
        sim.client(host.name(), clients::run(Arc::clone(world), host, Arc::clone(settings)));
    }
    sim.client(OPERATOR.name(), operators::run(Arc::clone(world), OPERATOR, Arc::clone(settings)));
    let mut storm = Storm::new(world, plan, mischief);
    let mut calm_since = None;
    let (mut steps, mut look_at) = (0, Duration::ZERO);
    while steps < STEPS_MAX && world.violations().is_empty() {
        storm.blow(sim.elapsed(), &mut InSim(&mut sim));
        if let Err(error) = sim.step() {
            world.violation("machines", error);
        }
        world.set_elapsed(sim.elapsed());
        steps += 1;
        if sim.elapsed() < look_at {
            continue;
        }
        look_at = sim.elapsed() + LOOK_EVERY;
        world.sync();
        if !storm.is_over() {
            continue;
        }
        world.calm_down();
        let since = *calm_since.get_or_insert_with(|| sim.elapsed());
        let is_done = world.history().at_work == 0;
        match checks::open(world) {
            None if is_done => break,
            None => {}
            Some(open) if sim.elapsed() > since + QUIET_WITHIN => world.violation("L1", open),
            Some(_) => {}
        }
    }
    if steps == STEPS_MAX {
        world.violation("budget", format_args!("not over after {STEPS_MAX} steps"));
    }
    if world.violations().is_empty() {
        checks::at_the_end(world);
    }
    if settings.grows_old {
        let until = sim.elapsed() + OLD_AFTER;
        while sim.elapsed() < until && world.violations().is_empty() {
            if let Err(error) = sim.step() {
                world.violation("machines", error);
            }
            world.set_elapsed(sim.elapsed());
            steps += 1;
        }
    }
    (sim.elapsed(), steps)
}

struct InSim<'a, 'b>(&'a mut Sim<'b>);

impl Machines for InSim<'_, '_> {
    fn stop(&mut self, host: Host) {
        if self.0.is_host_running(host.name()) {
            self.0.crash(host.name());
        }
    }

    fn start(&mut self, host: Host) {
        if !self.0.is_host_running(host.name()) {
            self.0.bounce(host.name());
        }
    }
}

/// A task that panics would go unnoticed.
fn note_panics(world: &Arc<World>) {
    static WATCHED: OnceLock<Mutex<Weak<World>>> = OnceLock::new();
    let watched = WATCHED.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let world = WATCHED.get().and_then(|watched| watched.try_lock().ok()?.upgrade());
            match world {
                Some(world) => world.violation("panic", panic),
                None => before(panic),
            }
        }));
        Mutex::default()
    });
    if let Ok(mut watched) = watched.lock() {
        *watched = Arc::downgrade(world);
    }
}

//! What goes wrong in one run, and when: a plan made from the seed alone, and what carries it out between the steps of the simulation.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tcc_database::memory::Step;

use crate::{
    deliveries::Mischief,
    dice::Dice,
    past::{MOMENT, PAST_MAX},
    place::{Db, Host},
    settings::{CLOCKS_APART_MS, Settings},
    world::{Point, Trap, World},
};

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) kind: Kind,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A machine stops, wherever it is.
    Crash(Host),
    /// A machine stops where one of its tasks comes to a point; its others run to the end of the step.
    CrashAt(Trap),
    /// A database's server stops; what was not synced is lost.
    DatabaseCrash(Db),
    /// A machine cannot reach a database, nor hear from it.
    DatabaseCut(Host, Db),
    /// Each sync takes so long beside the usual.
    SlowDisk(Db, Duration),
    /// Nothing more can be written.
    FullDisk(Db),
    /// Transactions are given up for the sake of others.
    Conflicts(Db),
    /// Connections break at commits.
    LostCommits(Db),
    /// Nothing goes from one machine to another, nor back.
    Cut(Host, Host),
    /// Nothing goes from one machine to another; back it does.
    CutOneWay(Host, Host),
    /// The connections between two machines break.
    Reset(Host, Host),
    /// A machine hears nothing of anybody, and nobody of it: as if its process stood still for longer than its leases last.
    Alone(Host),
    /// A participant's messages arrive several times.
    Repeats(Host),
    /// A participant's messages, or its answers, are lost.
    Losses(Host),
    /// Tries arrive once more with another payload under the same id.
    Forgeries(Host),
    /// A database's clock is off by so many microseconds.
    Skew(Db, i64),
    /// A participant's database becomes what it was so many moments before the last: a replica that lagged behind has taken over.
    FailOver(Db, usize),
}

impl Kind {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Crash(_) => "crash",
            Self::CrashAt(_) => "crash at a point",
            Self::DatabaseCrash(_) => "database crash",
            Self::DatabaseCut(..) => "database out of reach",
            Self::SlowDisk(..) => "slow disk",
            Self::FullDisk(_) => "full disk",
            Self::Conflicts(_) => "conflicts",
            Self::LostCommits(_) => "lost commits",
            Self::Cut(..) => "partition",
            Self::CutOneWay(..) => "one-way partition",
            Self::Reset(..) => "connections reset",
            Self::Alone(_) => "machine stands still",
            Self::Repeats(_) => "messages repeated",
            Self::Losses(_) => "messages lost",
            Self::Forgeries(_) => "payloads forged",
            Self::Skew(..) => "clock skew",
            Self::FailOver(..) => "rows lost",
        }
    }
}

fn millis(moments: usize) -> u128 {
    MOMENT.as_millis() * moments as u128
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Self::Crash(host) | Self::Alone(host) | Self::Repeats(host) | Self::Losses(host) | Self::Forgeries(host) => {
                write!(f, "{host}")
            }
            Self::CrashAt(trap) => write!(f, "{} at {}, time {}", trap.host, trap.point, trap.after),
            Self::DatabaseCrash(db) | Self::FullDisk(db) | Self::Conflicts(db) | Self::LostCommits(db) => write!(f, "{db}"),
            Self::DatabaseCut(host, db) => write!(f, "{host} from {db}"),
            Self::SlowDisk(db, takes) => write!(f, "{db}, {} ms", takes.as_millis()),
            Self::Cut(one, other) | Self::Reset(one, other) => write!(f, "{one} and {other}"),
            Self::CutOneWay(from, to) => write!(f, "{from} to {to}"),
            Self::Skew(db, micros) => write!(f, "{db}, {} ms", micros / 1_000),
            Self::FailOver(db, moments) => write!(f, "{db}, {} to {} ms back", millis(*moments), millis(*moments + 1)),
        }
    }
}

/// The plan of one seed, by time.
pub(crate) fn plan(settings: &Settings, dice: &Dice) -> Vec<Fault> {
    let stormy_ms = u64::try_from(settings.stormy_for.as_millis()).unwrap_or(u64::MAX);
    let mut faults: Vec<_> = (0..settings.faults)
        .map(|_| {
            let at = dice.millis(300..=stormy_ms);
            let lasts = dice.millis(100..=dice.one_of(&[300, 1_000, 3_000]));
            Fault { at, lasts, kind: kind(settings, dice) }
        })
        .collect();
    if settings.loses_rows {
        let at = dice.millis(stormy_ms / 3..=stormy_ms);
        let kind = Kind::FailOver(dice.one_of(&[Db::Inventory, Db::Coupon]), dice.index(PAST_MAX));
        faults.push(Fault { at, lasts: Duration::from_secs(2), kind });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn kind(settings: &Settings, dice: &Dice) -> Kind {
    let servers = settings.servers();
    let host = || dice.one_of(&servers);
    let db = || dice.one_of(&Db::ALL);
    let gateway = || Host::Gateway(u8::try_from(dice.index(settings.gateways.into())).unwrap_or(0));
    let participant = || {
        if dice.happens(700) {
            Host::Inventory(u8::try_from(dice.index(settings.inventories.into())).unwrap_or(0))
        } else {
            Host::Coupon(0)
        }
    };
    let pair = || {
        let one = gateway();
        let other = if dice.happens(600) { participant() } else { dice.one_of(&settings.all_clients()) };
        if dice.happens(500) { (one, other) } else { (other, one) }
    };
    match dice.number(0..=19) {
        0..=1 => Kind::Crash(host()),
        2..=4 => Kind::CrashAt(trap(host(), dice)),
        5 => Kind::DatabaseCrash(db()),
        6 => {
            let host = host();
            Kind::DatabaseCut(host, dice.one_of(host.databases()))
        }
        7 => Kind::SlowDisk(db(), dice.millis(20..=900)),
        8 => Kind::FullDisk(db()),
        9 => Kind::Conflicts(db()),
        10 => Kind::LostCommits(db()),
        11 => {
            let (one, other) = pair();
            Kind::Cut(one, other)
        }
        12..=13 => {
            let (one, other) = pair();
            Kind::CutOneWay(one, other)
        }
        14 => {
            let (one, other) = pair();
            Kind::Reset(one, other)
        }
        15 => Kind::Alone(host()),
        16 => Kind::Repeats(participant()),
        17 => Kind::Losses(participant()),
        18 => Kind::Forgeries(participant()),
        _ => {
            let half = i64::try_from(CLOCKS_APART_MS * 1_000 / 2).unwrap_or(0);
            let apart = i64::try_from(dice.number(0..=2 * half.unsigned_abs())).unwrap_or(0) - half;
            Kind::Skew(db(), apart)
        }
    }
}

fn trap(host: Host, dice: &Dice) -> Trap {
    const STEPS: [Step; 7] = [Step::Connect, Step::Begin, Step::Statement, Step::Commit, Step::Sync, Step::Answer, Step::Read];
    let at_a_message = !matches!(host, Host::Gateway(_)) && dice.happens(400);
    let point = match (at_a_message, dice.happens(500)) {
        (true, true) => Point::Arrival,
        (true, false) => Point::Answer,
        (false, _) => Point::Database(dice.one_of(host.databases()), dice.one_of(&STEPS)),
    };
    Trap { host, point, after: u32::try_from(dice.number(1..=12)).unwrap_or(1) }
}

/// What is to be done at some time.
#[derive(Clone, Debug)]
enum Deed {
    Begin(usize),
    End(usize),
    /// A machine is started again.
    Start(Host),
}

/// Carries a plan out.
pub(crate) struct Storm {
    world: Arc<World>,
    plan: Vec<Fault>,
    /// By time, and in the order in which they were put in.
    deeds: BTreeMap<(Duration, u64), Deed>,
    numbered: u64,
    mischief: BTreeMap<Host, Arc<Mutex<Mischief>>>,
    dice: Dice,
}

/// What only the simulation itself can do to a machine.
pub(crate) trait Machines {
    /// Stops it, if it runs.
    fn stop(&mut self, host: Host);
    /// Starts it, unless it runs.
    fn start(&mut self, host: Host);
}

impl Storm {
    pub(crate) fn new(world: &Arc<World>, plan: Vec<Fault>, mischief: BTreeMap<Host, Arc<Mutex<Mischief>>>) -> Self {
        let dice = world.dice("restarts");
        let mut storm = Self { world: Arc::clone(world), plan, deeds: BTreeMap::new(), numbered: 0, mischief, dice };
        for index in 0..storm.plan.len() {
            let (at, ends) = (storm.plan[index].at, storm.plan[index].at + storm.plan[index].lasts);
            storm.put(at, Deed::Begin(index));
            storm.put(ends, Deed::End(index));
        }
        storm
    }

    fn put(&mut self, at: Duration, deed: Deed) {
        self.numbered += 1;
        self.deeds.insert((at, self.numbered), deed);
    }

    /// Whether everything has happened and is healed.
    pub(crate) fn is_over(&self) -> bool {
        self.deeds.is_empty()
    }

    /// Does what is due, and stops the machines that have walked into a trap.
    pub(crate) fn blow(&mut self, now: Duration, machines: &mut impl Machines) {
        for host in self.world.take_trapped() {
            self.stop(host, now, machines);
        }
        while let Some(entry) = self.deeds.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Deed::Begin(index) => self.begin(index, now, machines),
                Deed::End(index) => self.end(index),
                Deed::Start(host) => {
                    self.world.tell(host, format_args!("is started"));
                    machines.start(host);
                }
            }
        }
    }

    fn stop(&mut self, host: Host, now: Duration, machines: &mut impl Machines) {
        machines.stop(host);
        let after = self.dice.millis(50..=1_500);
        self.put(now + after, Deed::Start(host));
    }

    fn begin(&mut self, index: usize, now: Duration, machines: &mut impl Machines) {
        let Fault { kind, lasts, .. } = self.plan[index].clone();
        self.world.tell("fault", format_args!("begins: {kind}, for {} ms", lasts.as_millis()));
        self.world.count_fault(kind.name(), true);
        self.world.coverage().fault(kind.name());
        match kind {
            Kind::Crash(host) => {
                self.world.coverage().stop("anywhere".to_owned());
                self.stop(host, now, machines);
            }
            Kind::CrashAt(trap) => self.world.trap(trap),
            kind => self.change(&kind, true),
        }
    }

    fn end(&self, index: usize) {
        let kind = self.plan[index].kind.clone();
        self.world.tell("fault", format_args!("ends: {kind}"));
        self.world.count_fault(kind.name(), false);
        match kind {
            Kind::Crash(_) => {}
            Kind::CrashAt(trap) => self.world.disarm(trap.host),
            kind => self.change(&kind, false),
        }
    }

    /// Begins or ends what lasts for a while.
    fn change(&self, kind: &Kind, begins: bool) {
        let conditions = |db: &Db| &self.world.conditions[db];
        match kind {
            Kind::Crash(_) | Kind::CrashAt(_) => {}
            Kind::DatabaseCrash(db) => {
                if begins {
                    self.crash(*db);
                }
                conditions(db).change(|now| now.is_down = begins);
            }
            Kind::DatabaseCut(host, db) => self.cut_database(*host, *db, begins),
            Kind::SlowDisk(db, takes) => {
                conditions(db).change(|now| now.sync_takes = if begins { *takes } else { Duration::ZERO });
            }
            Kind::FullDisk(db) => conditions(db).change(|now| now.is_full = begins),
            Kind::Conflicts(db) => conditions(db).change(|now| now.conflicts_per_mille = if begins { 250 } else { 0 }),
            Kind::LostCommits(db) => conditions(db).change(|now| now.lost_commits_per_mille = if begins { 150 } else { 0 }),
            Kind::Cut(one, other) => {
                self.cut(*one, *other, begins);
                self.cut(*other, *one, begins);
            }
            Kind::CutOneWay(from, to) => self.cut(*from, *to, begins),
            Kind::Reset(one, other) => self.world.links.reset(*one, *other),
            Kind::Alone(host) => {
                for other in self.everybody().into_iter().filter(|other| other != host) {
                    self.cut(*host, other, begins);
                    self.cut(other, *host, begins);
                }
                host.databases().iter().for_each(|db| self.cut_database(*host, *db, begins));
            }
            Kind::Repeats(host) => self.mischief(*host, |mischief| mischief.repeats_per_mille = if begins { 400 } else { 0 }),
            Kind::Forgeries(host) => self.mischief(*host, |mischief| mischief.forged_per_mille = if begins { 300 } else { 0 }),
            Kind::Losses(host) => self.mischief(*host, |mischief| mischief.lost_per_mille = if begins { 300 } else { 0 }),
            // It stays as it is until it is set again.
            Kind::Skew(db, micros) if begins => self.world.set_skew(*db, *micros),
            Kind::FailOver(db, moments) if begins => self.world.fail_over(*db, *moments),
            Kind::Skew(..) | Kind::FailOver(..) => {}
        }
    }

    fn crash(&self, db: Db) {
        match db {
            Db::Log => self.world.log.crash(),
            Db::Orders => self.world.orders.crash(),
            Db::Inventory => self.world.inventory.crash(),
            Db::Coupon => self.world.coupon.crash(),
        }
    }

    fn cut_database(&self, host: Host, db: Db, begins: bool) {
        self.world.conditions[&db].change(|now| {
            if begins {
                now.cut.insert(host);
            } else {
                now.cut.remove(&host);
            }
        });
    }

    fn cut(&self, from: Host, to: Host, begins: bool) {
        if begins {
            self.world.links.cut(from, to);
        } else {
            self.world.links.heal(from, to);
        }
    }

    fn mischief(&self, host: Host, change: impl FnOnce(&mut Mischief)) {
        if let Some(mischief) = self.mischief.get(&host) {
            change(&mut mischief.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn everybody(&self) -> Vec<Host> {
        self.mischief.keys().copied().collect()
    }
}

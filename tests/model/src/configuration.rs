//! How much of everything there is in a run of the checker. Which runs there are is in `configurations`.

use tcc_machine::{Decides, TryOrder};

use crate::{mark::Mark, statements::Statements};

/// One transaction of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The resource of each of its branches; one unit is wanted of each.
    pub resources: Vec<usize>,
    /// How it is decided. Where it is open, it is begun without branches, and all of them are enlisted.
    pub decides: Decides,
    /// In which order its branches are tried.
    pub try_order: TryOrder,
    /// How often its initiator asks for Confirm, and for Cancel, each time at any gateway.
    pub confirms: u8,
    /// See `confirms`.
    pub cancels: u8,
    /// How often its Submit or Begin arrives, each time at any gateway, with the same gid.
    pub submits: u8,
    /// How often an Enlist of any of its branches arrives, each time at any gateway.
    pub enlists: u8,
    /// Its first branch has a reservation of another request before it begins.
    pub meets_another: bool,
}

impl Planned {
    /// Decided at its votes, by an initiator who says nothing after one Submit.
    #[must_use]
    pub fn of(resources: impl Into<Vec<usize>>) -> Self {
        Self {
            resources: resources.into(),
            decides: Decides::AtVotes,
            try_order: TryOrder::Parallel,
            confirms: 0,
            cancels: 0,
            submits: 1,
            enlists: 0,
            meets_another: false,
        }
    }

    /// A hold that is confirmed and cancelled by request.
    #[must_use]
    pub fn held(resources: impl Into<Vec<usize>>) -> Self {
        Self { decides: Decides::OnRequest, confirms: 1, cancels: 1, ..Self::of(resources) }
    }

    /// An open transaction, of which each branch is enlisted.
    #[must_use]
    pub fn open(resources: impl Into<Vec<usize>>, enlists: u8) -> Self {
        Self { decides: Decides::OnRequestOpen, confirms: 1, enlists, ..Self::of(resources) }
    }
}

/// How far time passes, if it does. Each instant is a step of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Everything happens at once.
    Stands,
    /// Past `try_until`, past `not_after`, past `decide_by`.
    Deadlines,
    /// Past all deadlines at once.
    Late,
    /// As `Late`, and then past `ask_after`.
    Asks,
    /// Up to `try_until`, past all deadlines, and then past `ask_after`.
    Edges,
    /// As `Asks` in one step, and then past the retention, twice.
    Retention,
}

/// What is explored, and the bounds of it.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The transactions.
    pub transactions: Vec<Planned>,
    /// Units of each resource; each is a participant of its own.
    pub stock: Vec<i8>,
    /// Gateways.
    pub gateways: usize,
    /// How often a gateway crashes, all of them together; it is back at once, and has forgotten everything.
    pub crashes: u8,
    /// How often a gateway takes a transaction up from the log, whoever drives it.
    pub takeovers: u8,
    /// How often a call is given up without an answer, whether or not it arrived or will arrive.
    pub unanswered: u8,
    /// How often the answer of a commit in the log is lost.
    pub lost_commits: u8,
    /// How far time passes.
    pub time: Time,
    /// Participants ask the coordinator about reservations past their `ask_after`. Asked about and answered, a participant may act on the
    /// answer at any time, any number of times.
    pub asks: bool,
    /// Drivers look at the log and hear what others did.
    pub looks: bool,
    /// Participants delete rows, and the log deletes transactions, whenever their rules allow it.
    pub retention: bool,
    /// How often the log loses a transaction that is not decided, as when a stale replica takes over.
    pub lost_begins: u8,
    /// How often a participant loses a reservation.
    pub lost_rows: u8,
    /// How often an operator acts on a stuck branch.
    pub orders: u8,
    /// By how many milliseconds the participants' clocks are apart from the log's: each of these is tried, the first participant ahead of it, the
    /// second one behind, and so on.
    pub skews_ms: Vec<i64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            transactions: vec![Planned::of([0, 1])],
            stock: vec![1, 1],
            gateways: 1,
            crashes: 0,
            takeovers: 0,
            unanswered: 0,
            lost_commits: 0,
            time: Time::Stands,
            asks: false,
            looks: false,
            retention: false,
            lost_begins: 0,
            lost_rows: 0,
            orders: 0,
            skews_ms: vec![0],
        }
    }
}

/// What kind of model it is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Gateways, a network, a log, participants; each write and each operation at a participant is one step.
    Protocol(Bounds),
    /// Operations on one branch, of which each statement is a step.
    Statements(Statements),
}

/// One run of the checker.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// For people and commands.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What must be seen to happen.
    pub shows: &'static [Mark],
    /// What is explored.
    pub kind: Kind,
}

//! How much of everything there is in a run of the checker.

use tcc_machine::Decides;

/// One transaction of a configuration.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The resource of each of its branches; one unit is wanted of each.
    pub resources: Vec<usize>,
    /// How it is decided.
    pub decides: Decides,
    /// How often its initiator asks for Confirm, and for Cancel, each time at any gateway.
    pub confirms: u8,
    /// See `confirms`.
    pub cancels: u8,
    /// How often its Submit arrives, each time at any gateway.
    pub submits: u8,
}

impl Planned {
    /// Decided at its votes, by an initiator who says nothing after one Submit.
    #[must_use]
    pub fn of(resources: impl Into<Vec<usize>>) -> Self {
        Self { resources: resources.into(), decides: Decides::AtVotes, confirms: 0, cancels: 0, submits: 1 }
    }
}

/// What is explored, and the bounds of it.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// For people and commands.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
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
    /// Whether time passes: first up to `try_until`, then past `not_after`, then up to `decide_by`.
    pub time_passes: bool,
}

/// The configurations that each change is checked with. `full`: larger ones too, which have not been explored to their end yet.
#[must_use]
pub fn all(full: bool) -> Vec<Configuration> {
    let base = Configuration {
        name: "",
        about: "",
        transactions: vec![Planned::of([0, 1])],
        stock: vec![1, 1],
        gateways: 1,
        crashes: 0,
        takeovers: 0,
        unanswered: 0,
        lost_commits: 0,
        time_passes: false,
    };
    let held = |resources: &[usize]| Planned { decides: Decides::OnRequest, confirms: 1, cancels: 1, ..Planned::of(resources) };
    let mut all = vec![
        Configuration {
            name: "messages",
            about: "one transaction; messages in any order, repeated, delayed past every deadline; lost answers",
            unanswered: 2,
            time_passes: true,
            ..base.clone()
        },
        Configuration {
            name: "crash",
            about: "a gateway that crashes between any two writes, and recovers; a commit whose outcome is unknown",
            crashes: 1,
            takeovers: 1,
            unanswered: 1,
            lost_commits: 1,
            ..base.clone()
        },
        Configuration {
            name: "takeover",
            about: "two gateways that drive one transaction at the same time; a repeated Submit",
            transactions: vec![Planned { submits: 2, ..Planned::of([0, 1]) }],
            gateways: 2,
            takeovers: 1,
            crashes: 1,
            ..base.clone()
        },
        Configuration {
            name: "last-unit",
            about: "two transactions want the last unit of one resource",
            transactions: vec![Planned::of([0]), Planned::of([0])],
            stock: vec![1],
            unanswered: 1,
            crashes: 1,
            takeovers: 1,
            ..base.clone()
        },
        Configuration {
            name: "hold",
            about: "a held order is confirmed and cancelled at two gateways at once, and runs out of time",
            transactions: vec![held(&[0])],
            stock: vec![1],
            gateways: 2,
            time_passes: true,
            ..base.clone()
        },
        Configuration {
            name: "abort",
            about: "a Cancel that may arrive before its Submit",
            transactions: vec![Planned { cancels: 1, submits: 2, ..Planned::of([0]) }],
            stock: vec![1],
            gateways: 2,
            crashes: 1,
            takeovers: 1,
            time_passes: true,
            ..base.clone()
        },
    ];
    if full {
        all.extend([
            Configuration {
                name: "takeover-in-time",
                about: "as takeover, while time passes and answers are lost",
                gateways: 2,
                takeovers: 2,
                crashes: 1,
                unanswered: 1,
                time_passes: true,
                ..base.clone()
            },
            Configuration {
                name: "hold-crash",
                about: "two branches of a hold, with a crash and a takeover",
                transactions: vec![held(&[0, 1])],
                gateways: 2,
                crashes: 1,
                takeovers: 1,
                ..base
            },
        ]);
    }
    all
}

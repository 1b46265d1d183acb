//! The runs of the checker, by name: those that each change is checked with, and larger ones.

use tcc_machine::TryOrder;

use crate::{
    configuration::{Bounds, Configuration, Kind, Planned, Time},
    mark::Mark::{
        self, BeginLost, BegunMeanwhile, Cancelled, Confirmed, ConfirmedRowDeleted, ConfirmedRowKept, CountMoved,
        EmptyRollback, EnlistClosed, GidTooOld, LateTry, LateTryAfterDeletion, LearntBranch, LostDecision, NoReservation,
        OtherRequest, Parked, RecordDeleted, RowDeleted, RowLost, SettledOutside, SubmitMetCancelled, Suspended, ToldCancelled,
        ToldConfirmed, ToldLater, TriedAnew, Waited, WroteAgain, WroteCancelled,
    },
    statements::{Operation, Sees, Statements},
};

/// The configurations that each change is checked with; `full`: larger ones too, which take minutes each.
#[must_use]
pub fn all(full: bool) -> Vec<Configuration> {
    let mut all = voting();
    all.extend(requesting());
    all.extend(asking());
    all.extend(keeping());
    all.extend(statements());
    if full {
        all.extend(large());
    }
    all
}

fn world(name: &'static str, about: &'static str, shows: &'static [Mark], bounds: Bounds) -> Configuration {
    Configuration { name, about, shows, kind: Kind::Protocol(bounds) }
}

/// Voting, settling, recovering.
fn voting() -> Vec<Configuration> {
    vec![
        world(
            "messages",
            "one transaction; messages in any order, repeated, delayed past every deadline; lost answers",
            &[Confirmed, Cancelled, LateTry, Suspended, EmptyRollback, Parked],
            Bounds { unanswered: 2, time: Time::Deadlines, ..Bounds::default() },
        ),
        world(
            "sequential",
            "branches tried one after the other; a lost answer, a crash, time",
            &[Confirmed, Cancelled, LateTry],
            Bounds {
                transactions: vec![Planned { try_order: TryOrder::Sequential, ..Planned::of([0, 1]) }],
                unanswered: 1,
                crashes: 1,
                takeovers: 1,
                time: Time::Late,
                ..Bounds::default()
            },
        ),
        world(
            "crash",
            "a gateway that crashes between any two writes, twice, and recovers; a commit whose outcome is unknown",
            &[Confirmed, Parked],
            Bounds { crashes: 2, takeovers: 2, unanswered: 2, lost_commits: 1, ..Bounds::default() },
        ),
        world(
            "takeover",
            "two gateways that drive one transaction at the same time, and look at the log; a repeated Submit",
            &[Confirmed],
            Bounds {
                transactions: vec![Planned { submits: 2, ..Planned::of([0, 1]) }],
                gateways: 2,
                takeovers: 1,
                crashes: 1,
                unanswered: 1,
                looks: true,
                ..Bounds::default()
            },
        ),
        world(
            "last-unit",
            "two transactions want the last unit of two resources",
            &[Confirmed, Cancelled, EmptyRollback, Suspended],
            Bounds {
                transactions: vec![Planned::of([0, 1]), Planned::of([0, 1])],
                stock: vec![1, 1],
                unanswered: 1,
                crashes: 1,
                takeovers: 1,
                ..Bounds::default()
            },
        ),
    ]
}

/// What initiators ask for.
fn requesting() -> Vec<Configuration> {
    vec![
        world(
            "hold",
            "a held order is confirmed and cancelled at two gateways at once, and runs out of time",
            &[Confirmed, Cancelled, LostDecision],
            Bounds {
                transactions: vec![Planned::held([0])],
                stock: vec![1],
                gateways: 2,
                time: Time::Deadlines,
                ..Bounds::default()
            },
        ),
        world(
            "abort",
            "a Cancel that may arrive before its Submit",
            &[Confirmed, Cancelled, SubmitMetCancelled, LostDecision],
            Bounds {
                transactions: vec![Planned { cancels: 1, submits: 2, ..Planned::of([0]) }],
                stock: vec![1],
                gateways: 2,
                crashes: 1,
                takeovers: 1,
                time: Time::Late,
                ..Bounds::default()
            },
        ),
        world(
            "enlist",
            "branches are enlisted at two gateways while one of them decides",
            &[Confirmed, CountMoved, LearntBranch, EnlistClosed],
            Bounds { transactions: vec![Planned::open([0, 1], 3)], gateways: 2, crashes: 1, takeovers: 1, ..Bounds::default() },
        ),
        world(
            "enlist-late",
            "an enlisted branch, repeated, with a crash, a Cancel and time",
            &[Confirmed, Cancelled, EnlistClosed],
            Bounds {
                transactions: vec![Planned { cancels: 1, ..Planned::open([0], 2) }],
                stock: vec![1],
                gateways: 2,
                crashes: 1,
                time: Time::Late,
                ..Bounds::default()
            },
        ),
        world(
            "other-request",
            "a branch that has another request's reservation",
            &[Cancelled, OtherRequest],
            Bounds {
                transactions: vec![Planned { meets_another: true, ..Planned::of([0, 1]) }],
                crashes: 1,
                takeovers: 1,
                unanswered: 1,
                ..Bounds::default()
            },
        ),
        world(
            "skew",
            "participants' clocks that are behind or ahead by as much as is allowed",
            &[Confirmed, Cancelled, LateTry, ToldCancelled],
            Bounds { unanswered: 1, time: Time::Edges, asks: true, skews_ms: vec![-500, 0, 500], ..Bounds::default() },
        ),
    ]
}

/// Participants ask, and stored rows are lost.
fn asking() -> Vec<Configuration> {
    vec![
        world(
            "in-doubt",
            "reservations ask while their transaction is decided, crashes and is taken up",
            &[Confirmed, Cancelled, ToldConfirmed, ToldCancelled, ToldLater],
            Bounds {
                transactions: vec![Planned::held([0])],
                stock: vec![1],
                gateways: 2,
                crashes: 1,
                time: Time::Asks,
                asks: true,
                ..Bounds::default()
            },
        ),
        world(
            "in-doubt-late-submit",
            "the log lost the transaction; its reservation asks while the client submits the same gid again, and cancels it",
            &[Confirmed, Cancelled, BeginLost, WroteCancelled, BegunMeanwhile, SubmitMetCancelled, ToldCancelled, LostDecision],
            Bounds {
                transactions: vec![Planned { submits: 2, cancels: 1, ..Planned::of([0]) }],
                stock: vec![1],
                gateways: 2,
                time: Time::Asks,
                asks: true,
                lost_begins: 1,
                ..Bounds::default()
            },
        ),
        world(
            "operator",
            "a participant lost a reservation; an operator probes, tries anew, marks as settled",
            &[Confirmed, NoReservation, RowLost, TriedAnew, SettledOutside, Parked],
            Bounds {
                transactions: vec![Planned::of([0])],
                stock: vec![1],
                gateways: 1,
                takeovers: 2,
                crashes: 1,
                unanswered: 1,
                lost_rows: 1,
                orders: 1,
                time: Time::Asks,
                asks: true,
                ..Bounds::default()
            },
        ),
    ]
}

/// What is deleted.
fn keeping() -> Vec<Configuration> {
    vec![
        world(
            "retention",
            "rows and records are deleted; Tries, Confirms and a Submit come after that",
            &[
                Confirmed,
                Cancelled,
                RecordDeleted,
                RowDeleted,
                ConfirmedRowDeleted,
                ConfirmedRowKept,
                LateTryAfterDeletion,
                GidTooOld,
            ],
            Bounds {
                transactions: vec![Planned { submits: 2, ..Planned::of([0]) }],
                stock: vec![2],
                crashes: 1,
                takeovers: 1,
                unanswered: 1,
                time: Time::Retention,
                asks: true,
                retention: true,
                ..Bounds::default()
            },
        ),
        world(
            "retention-unfinished",
            "one branch has long confirmed, the other one has not: Confirm is repeated at both",
            &[Confirmed, ConfirmedRowDeleted, ConfirmedRowKept, RecordDeleted],
            Bounds {
                transactions: vec![Planned::of([0, 1])],
                stock: vec![1, 1],
                crashes: 1,
                takeovers: 1,
                time: Time::Retention,
                retention: true,
                ..Bounds::default()
            },
        ),
        world(
            "retention-cancelled",
            "a client's Cancel of an unknown gid, its record deleted, and the Submit that it forbids",
            &[Cancelled, RecordDeleted, SubmitMetCancelled, GidTooOld],
            Bounds {
                transactions: vec![Planned { submits: 2, cancels: 1, ..Planned::of([0]) }],
                stock: vec![2],
                time: Time::Retention,
                retention: true,
                ..Bounds::default()
            },
        ),
    ]
}

/// The barrier, statement by statement.
fn statements() -> Vec<Configuration> {
    use Operation::{Cancel, Confirm, Delete, Try, TryAnother};
    let of = |name, about, shows, operations: &[Operation], sees| {
        let operations = operations.to_vec();
        let bounds = Statements { operations, sees, rollbacks: 1, units: 1, time_passes: false };
        Configuration { name, about, shows, kind: Kind::Statements(bounds) }
    };
    let in_time = |mut configuration: Configuration, units| {
        if let Kind::Statements(statements) = &mut configuration.kind {
            (statements.time_passes, statements.units) = (true, units);
        }
        configuration
    };
    vec![
        of(
            "statements",
            "Try twice, Confirm and Cancel of one branch at once, statement by statement (PostgreSQL)",
            &[Waited, WroteAgain, EmptyRollback, Suspended, NoReservation],
            &[Try, Try, Confirm, Cancel],
            Sees::Beginning,
        ),
        of(
            "statements-latest",
            "the same where statements see what was committed while they waited (MySQL, MariaDB)",
            &[Waited, WroteAgain, EmptyRollback, Suspended, NoReservation],
            &[Try, Try, Confirm, Cancel],
            Sees::Latest,
        ),
        in_time(
            of(
                "statements-deletion",
                "Try, Cancel twice and a deletion of one branch at once, past the retention",
                &[Waited, RowDeleted, LateTry, EmptyRollback],
                &[Try, Cancel, Cancel, Delete],
                Sees::Beginning,
            ),
            1,
        ),
        in_time(
            of(
                "statements-refused",
                "two requests under one branch, and nothing to reserve",
                &[Waited, OtherRequest, EmptyRollback],
                &[Try, TryAnother, Cancel, Delete],
                Sees::Latest,
            ),
            0,
        ),
    ]
}

/// Larger ones: the same features, more of them at once.
fn large() -> Vec<Configuration> {
    let mut large = large_deciding();
    large.extend(large_keeping());
    large
}

fn large_deciding() -> Vec<Configuration> {
    vec![
        world(
            "hold-crash",
            "two branches of a hold, with a crash and a takeover",
            &[Confirmed, Cancelled, LostDecision],
            Bounds { transactions: vec![Planned::held([0, 1])], gateways: 2, crashes: 1, takeovers: 1, ..Bounds::default() },
        ),
        world(
            "abort-crash",
            "a Cancel that may arrive before its Submit, every deadline on its own, a commit whose outcome is unknown",
            &[Confirmed, Cancelled, SubmitMetCancelled, LostDecision],
            Bounds {
                transactions: vec![Planned { cancels: 1, submits: 2, ..Planned::of([0]) }],
                stock: vec![1],
                gateways: 2,
                crashes: 1,
                takeovers: 1,
                lost_commits: 1,
                time: Time::Deadlines,
                ..Bounds::default()
            },
        ),
    ]
}

fn large_keeping() -> Vec<Configuration> {
    vec![
        world(
            "in-doubt-takeover",
            "as in-doubt, with a takeover and a commit whose outcome is unknown",
            &[Confirmed, Cancelled, ToldConfirmed, ToldCancelled, ToldLater],
            Bounds {
                transactions: vec![Planned::held([0])],
                stock: vec![1],
                gateways: 2,
                crashes: 1,
                takeovers: 1,
                lost_commits: 1,
                time: Time::Asks,
                asks: true,
                ..Bounds::default()
            },
        ),
        world(
            "operator-twice",
            "as operator, with two orders",
            &[Confirmed, NoReservation, RowLost, TriedAnew, SettledOutside, Parked],
            Bounds {
                transactions: vec![Planned::of([0])],
                stock: vec![1],
                takeovers: 2,
                crashes: 1,
                unanswered: 1,
                lost_rows: 1,
                orders: 2,
                time: Time::Asks,
                asks: true,
                ..Bounds::default()
            },
        ),
    ]
}

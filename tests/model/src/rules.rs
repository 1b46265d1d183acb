//! The contract, as what must hold in every state.

use stateright::Property;
use tcc_barrier::Answer;
use tcc_machine::{BranchProgress, Decides, Settled, StuckKind, TryOrder};
use tcc_types::{BranchRowStatus, Decision, Op, SettleAnswer, TryAnswer};

use crate::{heal, log::Record, state::State, world::World};

/// The rules by their names in the contract.
pub(crate) fn all() -> Vec<Property<World>> {
    vec![
        Property::always("S1: one decision, which never changes", one_decision),
        Property::always("S2: no Confirm before all votes and the decision", confirm_after_decision),
        Property::always("S3: each effect once, and never both", effects_once),
        Property::always("S4: the books balance", books_balance),
        Property::always("acknowledged means confirmed, exactly once", ended_is_done),
        Property::always("what a participant answers is what its row says", answers_are_true),
        Property::always("nothing is forbidden by a row unless rows were lost", nothing_is_violated),
        Property::always("what is held is confirmed on request only", held_until_asked),
        Property::always("Tries in order leave in order", tries_in_order),
        Property::always("L1: without further faults everything ends", heal::ends),
    ]
}

/// What anybody is told is what the log has; the log never contradicts itself.
fn one_decision(_: &World, state: &State) -> bool {
    state.broken.is_none()
}

fn confirm_after_decision(_: &World, state: &State) -> bool {
    let decided = |tx: usize| state.fates[tx].decision == Some(Decision::Confirm) && !state.fates[tx].unfounded;
    state.network.iter().filter(|request| request.op == Op::Confirm).all(|request| decided(request.at.0))
}

fn effects_once(_: &World, state: &State) -> bool {
    state
        .participants
        .iter()
        .flat_map(|participant| participant.effects.values())
        .all(|effects| effects.reserved <= 1 && effects.spent + effects.released <= effects.reserved)
}

fn books_balance(world: &World, state: &State) -> bool {
    state.participants.iter().zip(&world.bounds.stock).all(|(participant, initial)| {
        let tried = participant.rows.values().filter(|stored| stored.row.status() == BranchRowStatus::Tried).count();
        let parts = [participant.available, participant.frozen, participant.sold];
        parts.iter().all(|part| *part >= 0)
            && parts.iter().sum::<i8>() == *initial
            && usize::try_from(participant.frozen).is_ok_and(|frozen| frozen == tried)
    })
}

/// What is recorded as ended has ended at every branch already: nothing is left for anybody to find out.
fn ended_is_done(world: &World, state: &State) -> bool {
    world.transactions().all(|tx| {
        let record = state.log[tx].as_ref().filter(|record| record.status.has_ended() && !record.is_tombstone);
        record.is_none_or(|record| record.branches.iter().all(|branch| is_done(world, state, tx, record, branch)))
    })
}

fn is_done(world: &World, state: &State, tx: usize, record: &Record, (branch, progress): &(usize, BranchProgress)) -> bool {
    let at = (tx, *branch);
    let participant = world.participant(state, at);
    let effects = participant.effects.get(&at).copied().unwrap_or_default();
    let row = participant.rows.get(&at).map(|stored| stored.row.status());
    let gone = world.bounds.retention && row.is_none();
    match (record.status.decision(), progress.settled) {
        // An operator saw to it; what was under way for it may still come.
        (_, Some(Settled::Outside)) => true,
        (Some(Decision::Confirm), _) => {
            (effects.reserved, effects.spent, effects.released) == (1, 1, 0)
                && (gone || row == Some(BranchRowStatus::Confirmed))
        }
        (Some(Decision::Cancel), _) => effects.spent == 0 && effects.released == effects.reserved,
        (None, _) => false,
    }
}

fn held_until_asked(world: &World, state: &State) -> bool {
    world.transactions().all(|tx| {
        let is_held = world.bounds.transactions[tx].decides != Decides::AtVotes;
        !is_held || state.spent.confirms[tx] > 0 || state.fates[tx].decision != Some(Decision::Confirm)
    })
}

/// A branch is tried only after the one before it has reserved.
fn tries_in_order(world: &World, state: &State) -> bool {
    world.transactions().all(|tx| {
        let has_reserved = |branch: usize| {
            let effects = world.participant(state, (tx, branch)).effects.get(&(tx, branch));
            effects.is_some_and(|effects| effects.reserved > 0)
        };
        let is_tried = |branch: usize| state.network.iter().any(|request| request.at == (tx, branch) && request.op == Op::Try);
        world.bounds.transactions[tx].try_order == TryOrder::Parallel
            || (1..world.branches(tx).len()).all(|branch| !is_tried(branch) || has_reserved(branch - 1))
    })
}

fn answers_are_true(_: &World, state: &State) -> bool {
    state.untrue.is_none()
}

/// Whether an answer is borne out by the row that the operation left. Refusals and violations promise nothing.
pub(crate) fn is_true(answer: &Answer, op: Op, row: Option<BranchRowStatus>) -> bool {
    match answer {
        Answer::Tried(TryAnswer::Reserved(_)) => matches!(row, Some(BranchRowStatus::Tried | BranchRowStatus::Confirmed)),
        Answer::Settled(SettleAnswer::Done) if op == Op::Confirm => row == Some(BranchRowStatus::Confirmed),
        Answer::Settled(SettleAnswer::Done) => matches!(row, Some(BranchRowStatus::Cancelled | BranchRowStatus::Refused)),
        Answer::Tried(TryAnswer::Refused(_) | TryAnswer::Violation(_)) | Answer::Settled(SettleAnswer::Violation(_)) => true,
    }
}

/// No driver that may still write was told that its operation contradicts the branch's row.
fn nothing_is_violated(_: &World, state: &State) -> bool {
    let is_violated = |progress: &BranchProgress| {
        let kind = progress.stuck.as_ref().map(|stuck| stuck.kind);
        matches!(kind, Some(StuckKind::NoReservation | StuckKind::OtherOutcome))
    };
    state.spent.lost_rows > 0
        || state.log.iter().flatten().flat_map(|record| &record.branches).all(|(_, progress)| !is_violated(progress))
}

/// A transaction that has ended, and its branches: all confirmed with one effect each, or none with any that stands. Its rows may be gone
/// by now, and the log's too.
pub(crate) fn is_settled(world: &World, state: &State, tx: usize) -> bool {
    let record = state.log[tx].as_ref();
    let outside = |branch: usize| {
        let settled =
            |(there, progress): &(usize, BranchProgress)| *there == branch && progress.settled == Some(Settled::Outside);
        record.is_some_and(|record| record.branches.iter().any(settled))
    };
    let has_branch = |branch: usize| record.is_none_or(|record| record.has_branch(branch));
    record.is_none_or(|record| record.status.has_ended())
        && (0..world.branches(tx).len()).all(|branch| {
            let participant = world.participant(state, (tx, branch));
            let row = participant.rows.get(&(tx, branch)).map(|stored| stored.row.status());
            let effects = participant.effects.get(&(tx, branch)).copied().unwrap_or_default();
            if row == Some(BranchRowStatus::Tried) {
                return false;
            }
            match state.fates[tx].decision {
                Some(Decision::Confirm) if outside(branch) => true,
                Some(Decision::Confirm) if has_branch(branch) => {
                    (effects.reserved, effects.spent, effects.released) == (1, 1, 0)
                        || (record.is_none() && effects.reserved == 0)
                }
                Some(Decision::Confirm | Decision::Cancel) => effects.spent == 0 && effects.released == effects.reserved,
                // Never decided, and not there any more: nothing was done.
                None => record.is_none() && effects.spent == 0 && effects.released == effects.reserved,
            }
        })
}

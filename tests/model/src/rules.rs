//! The contract, as what must hold in every state.

use stateright::Property;
use tcc_barrier::{Answer, Row};
use tcc_types::{BranchRowStatus, Decision, Op, SettleAnswer, TryAnswer};

use crate::{heal, state::State, world::World};

/// The rules by their names in the contract.
pub(crate) fn all() -> Vec<Property<World>> {
    vec![
        Property::always("S1: one decision, which never changes", one_decision),
        Property::always("S2: no Confirm before all votes and the decision", confirm_after_decision),
        Property::always("S3: each effect once, and never both", effects_once),
        Property::always("S4: the books balance", books_balance),
        Property::always("what a participant answers is what its row says", answers_are_true),
        Property::always("L1: without further faults everything ends", ends),
        // A run in which nothing happens proves nothing.
        Property::sometimes("a transaction is confirmed", |world, state| ended(world, state, Decision::Confirm)),
        Property::sometimes("a transaction is cancelled or none can be", |world, state| {
            !cancels_can_happen(world) || ended(world, state, Decision::Cancel)
        }),
    ]
}

/// What anybody was told is what the log has; the log never contradicted itself.
fn one_decision(world: &World, state: &State) -> bool {
    state.broken.is_none()
        && world.transactions().all(|tx| {
            let decision = state.log[tx].as_ref().and_then(|record| record.status.decision());
            state.told[tx].iter().all(|told| decision.is_some_and(|decision| *told == decision.into()))
        })
}

fn confirm_after_decision(world: &World, state: &State) -> bool {
    state.network.iter().filter(|request| request.op == Op::Confirm).all(|request| {
        let decided = state.log[request.tx].as_ref().and_then(|record| record.status.decision()) == Some(Decision::Confirm);
        let reserved = world.branches(request.tx).iter().all(|branch| {
            let effects = state.participants[branch.resource].effects.get(&branch.try_call.key);
            effects.is_some_and(|effects| effects.reserved == 1 && effects.released == 0)
        });
        decided && reserved
    })
}

fn effects_once(_: &World, state: &State) -> bool {
    state
        .participants
        .iter()
        .flat_map(|participant| participant.effects.values())
        .all(|effects| effects.reserved <= 1 && effects.spent + effects.released <= effects.reserved)
}

fn books_balance(world: &World, state: &State) -> bool {
    state.participants.iter().zip(&world.configuration.stock).all(|(participant, initial)| {
        let tried = participant.rows.values().filter(|row| row.status() == BranchRowStatus::Tried).count();
        let parts = [participant.available, participant.frozen, participant.sold];
        parts.iter().all(|part| *part >= 0)
            && parts.iter().sum::<i8>() == *initial
            && usize::try_from(participant.frozen).is_ok_and(|frozen| frozen == tried)
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

fn ends(world: &World, state: &State) -> bool {
    heal::ends(world, state)
}

fn ended(_: &World, state: &State, decision: Decision) -> bool {
    state.log.iter().flatten().any(|record| record.status.has_ended() && record.status.decision() == Some(decision))
}

fn cancels_can_happen(world: &World) -> bool {
    let configuration = &world.configuration;
    let contended = world.transactions().map(|tx| world.branches(tx).len()).sum::<usize>()
        > configuration.stock.iter().map(|units| usize::try_from(*units).unwrap_or_default()).sum::<usize>();
    let asked = configuration.transactions.iter().any(|planned| planned.cancels > 0);
    configuration.time_passes || contended || asked
}

/// A transaction that has ended, and its branches: all confirmed with one effect each, or none with any that stands.
pub(crate) fn is_settled(world: &World, state: &State, tx: usize) -> bool {
    let Some(record) = &state.log[tx] else {
        return world
            .branches(tx)
            .iter()
            .all(|branch| !state.participants[branch.resource].rows.contains_key(&branch.try_call.key));
    };
    record.status.has_ended()
        && world.branches(tx).iter().all(|branch| {
            let participant = &state.participants[branch.resource];
            let row = participant.rows.get(&branch.try_call.key).map(Row::status);
            let effects = participant.effects.get(&branch.try_call.key).copied().unwrap_or_default();
            match record.status.decision() {
                Some(Decision::Confirm) => {
                    row == Some(BranchRowStatus::Confirmed) && (effects.reserved, effects.spent, effects.released) == (1, 1, 0)
                }
                Some(Decision::Cancel) => {
                    row.is_none_or(|row| matches!(row, BranchRowStatus::Cancelled | BranchRowStatus::Refused))
                        && effects.spent == 0
                        && effects.released == effects.reserved
                }
                None => false,
            }
        })
}

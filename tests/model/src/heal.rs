//! What a state comes to once nothing goes wrong any more: messages arrive, answers too, crashed gateways' transactions are taken up, time
//! passes. Not one path of many but one that must exist from everywhere; the checker looks at the others.

use tcc_machine::Event;

use crate::{driver::Driver, rules::is_settled, state::State, world::World};

/// Far more than any configuration needs: whoever needs more goes round in circles.
const STEPS_MAX: usize = 500;

/// Whether everything ends, and as it was decided.
pub(crate) fn ends(world: &World, state: &State) -> bool {
    let mut state = state.clone();
    // Whatever was under way and forgotten arrives first, as late as it is.
    let forgotten: Vec<_> = state.network.iter().filter(|request| request.from.is_none()).copied().collect();
    forgotten.into_iter().for_each(|request| world.arrive(&mut state, request));
    let mut steps = 0;
    while advance(world, &mut state) {
        steps += 1;
        if steps > STEPS_MAX || state.broken.is_some() {
            return false;
        }
    }
    world.transactions().all(|tx| is_settled(world, &state, tx))
}

/// One thing that goes well; false: nothing is left to do.
fn advance(world: &World, state: &mut State) -> bool {
    for tx in world.transactions() {
        for gateway in 0..state.gateways.len() {
            let Some(driver) = state.gateways[gateway].get(&tx) else { continue };
            if !driver.listens() {
                world.write(state, tx, gateway, true);
                return true;
            }
            if !driver.replies.is_empty() {
                world.answer(state, tx, gateway, 0);
                return true;
            }
            let waits = |request: &&_| is_awaited(driver, gateway, tx, request);
            if let Some(request) = state.network.iter().find(waits).copied() {
                world.arrive(state, request);
                return true;
            }
            if driver.machine.wake_at().is_some_and(|at| at <= state.now) {
                world.hear(state, tx, gateway, Event::Woken);
                return true;
            }
        }
        let driven = state.gateways.iter().any(|gateway| gateway.contains_key(&tx));
        let unfinished = state.log[tx].as_ref().is_some_and(|record| !record.status.has_ended());
        if unfinished && !driven {
            world.load(state, tx, 0, true);
            return true;
        }
    }
    let passes = state.now < World::END;
    state.now = World::END;
    passes
}

fn is_awaited(driver: &Driver, gateway: usize, tx: usize, request: &crate::state::Request) -> bool {
    request.tx == tx
        && request.from.is_some_and(|from| from.gateway == gateway && driver.waiting[request.branch] == Some(from.serial))
}

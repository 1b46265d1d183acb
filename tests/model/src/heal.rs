//! What a state comes to once nothing goes wrong any more: messages arrive, answers too, crashed gateways' transactions are taken up, time
//! passes; at last participants ask, and an operator sees to what lost rows have left. Not one path of many but one that must exist from
//! everywhere; the checker looks at the others.

use tcc_machine::Event;
use tcc_types::{BranchRowStatus, TxStatus};

use crate::{
    action::Order,
    driver::Driver,
    fingerprint::fingerprint,
    rules::is_settled,
    state::{Request, Sender, Spent, State},
    world::World,
};

/// Far more than any configuration needs: whoever needs more goes round in circles.
const STEPS_MAX: usize = 500;

/// Whether everything ends, and as it was decided.
pub(crate) fn ends(world: &World, state: &State) -> bool {
    let mut state = state.clone();
    // What is used up makes no difference any more.
    let rows_were_lost = state.spent.lost_rows > 0;
    state.spent = Spent { lost_rows: u8::from(rows_were_lost), ..Spent::default() };
    // Whatever was under way and forgotten arrives first, as late as it is.
    let forgotten: Vec<_> = state.network.iter().filter(|request| request.from.is_none()).copied().collect();
    for request in forgotten {
        world.arrive(&mut state, request);
        state.network.remove(&request);
    }
    let mut walked = Vec::new();
    loop {
        if state.broken.is_some() || walked.len() > STEPS_MAX {
            return false;
        }
        let fingerprint = fingerprint(&state);
        if world.is_healed(fingerprint) {
            break;
        }
        walked.push(fingerprint);
        if !advance(world, &mut state) {
            if world.transactions().all(|tx| is_settled(world, &state, tx)) {
                break;
            }
            return false;
        }
    }
    world.heals(walked);
    true
}

/// One thing that goes well; false: nothing is left to do.
fn advance(world: &World, state: &mut State) -> bool {
    // What arrives again does nothing new.
    state.network.retain(|request| request.from.is_some());
    for tx in world.transactions() {
        for gateway in 0..state.gateways.len() {
            if let Some(driver) = state.gateways[gateway].get(&tx).cloned()
                && drive(world, state, (tx, gateway), &driver)
            {
                return true;
            }
        }
        let driven = state.gateways.iter().any(|gateway| gateway.contains_key(&tx));
        let unfinished = state.log[tx].as_ref().is_some_and(|record| !record.status.has_ended());
        if unfinished && !driven {
            world.load(state, tx, 0, true);
            order(world, state, tx);
            return true;
        }
    }
    if state.now < World::END {
        state.now = World::END;
        return true;
    }
    // The last resort of a reservation that no driver settles.
    let left = world.places().find(|at| {
        let unfinished = state.log[at.0].as_ref().is_some_and(|record| !record.status.has_ended());
        !unfinished && world.in_doubt(state, *at).is_some()
    });
    if let Some(at) = left {
        world.sweep(state, at);
        if state.in_doubt.contains(&at) {
            world.write_cancelled(state, at);
        }
        let told: Vec<_> = state.network.iter().filter(|request| request.from.is_none()).copied().collect();
        told.iter().for_each(|request| world.arrive(state, *request));
        return !told.is_empty();
    }
    let passes = state.now < World::END_OF_ALL;
    state.now = World::END_OF_ALL;
    passes
}

/// Whether its driver had something to do.
fn drive(world: &World, state: &mut State, (tx, gateway): (usize, usize), driver: &Driver) -> bool {
    if !driver.listens() {
        world.write(state, tx, gateway, true);
        return true;
    }
    if !driver.replies.is_empty() {
        world.answer(state, tx, gateway, 0);
        return true;
    }
    let waits = |request: &&Request| is_awaited(driver, gateway, tx, request);
    if let Some(request) = state.network.iter().find(waits).copied() {
        world.arrive(state, request);
        return true;
    }
    if driver.machine.wake_at().is_some_and(|at| at <= state.now) {
        world.hear(state, tx, gateway, Event::Woken);
        return true;
    }
    // One that others have gone past hears of it.
    let ended = state.log[tx].as_ref().is_none_or(|record| record.status.decision() != driver.machine.status().decision());
    if ended {
        world.look(state, tx, gateway);
        return true;
    }
    false
}

fn is_awaited(driver: &Driver, gateway: usize, tx: usize, request: &Request) -> bool {
    let Some(Sender { gateway: from, serial }) = request.from else { return false };
    request.at.0 == tx && from == gateway && driver.waiting[request.at.1] == Some(serial)
}

/// Of what a participant lost, an operator says that it be tried anew, and where that is refused, that it was settled outside.
fn order(world: &World, state: &mut State, tx: usize) {
    if state.spent.lost_rows == 0 || state.log[tx].as_ref().is_none_or(|record| record.status == TxStatus::Trying) {
        return;
    }
    for branch in 0..world.branches(tx).len() {
        let at = (tx, branch);
        let participant = world.participant(state, at);
        let is_gone = !participant.rows.contains_key(&at);
        let can_reserve = is_gone && participant.available > 0;
        let order = if can_reserve { Order::TryAnew } else { Order::MarkSettled };
        let is_tried = participant.rows.get(&at).is_some_and(|stored| stored.row.status() == BranchRowStatus::Tried);
        if !is_tried && World::may_order(state, at, 0, order) {
            world.order(state, at, 0, order);
            return;
        }
    }
}

//! States that differ only by which gateway, or which of several transactions that are alike, is which: of each such set the checker needs
//! one. Nothing in the model depends on a gateway's number.

use std::collections::BTreeMap;

use stateright::Representative;

use crate::{
    fingerprint::fingerprint,
    log::NOBODY,
    state::{Condemned, Place, Request, Sender, State},
};

impl Representative for State {
    fn representative(&self) -> Self {
        let gateways = permutations(self.gateways.len());
        let transactions = if self.alike { permutations(self.log.len()) } else { vec![(0..self.log.len()).collect()] };
        let images =
            gateways.iter().flat_map(|gateways| transactions.iter().map(|transactions| self.image(gateways, transactions)));
        // Any choice will do that is the same for all of them.
        images.min_by_key(fingerprint).unwrap_or_else(|| self.clone())
    }
}

/// All orders of so many things: where each of them goes.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for next in 0..count {
        let longer = |order: &Vec<usize>| {
            (0..=next)
                .map(|at| {
                    let mut order = order.clone();
                    order.insert(at, next);
                    order
                })
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

impl State {
    /// The same with everything at another place: gateway `g` at `gateways[g]`, transaction `t` at `transactions[t]`.
    fn image(&self, gateways: &[usize], transactions: &[usize]) -> Self {
        let place = |(tx, branch): Place| (transactions[tx], branch);
        let gateway = |gateway: usize| if gateway == NOBODY { NOBODY } else { gateways[gateway] };
        let mut image = self.clone();
        for (tx, to) in transactions.iter().copied().enumerate() {
            image.log[to].clone_from(&self.log[tx]);
            image.fates[to] = self.fates[tx];
            image.spent.submits[to] = self.spent.submits[tx];
            image.spent.confirms[to] = self.spent.confirms[tx];
            image.spent.cancels[to] = self.spent.cancels[tx];
            image.spent.enlists[to] = self.spent.enlists[tx];
            if let Some(record) = &mut image.log[to] {
                record.owner = gateway(record.owner);
            }
        }
        for (from, drivers) in self.gateways.iter().enumerate() {
            let drivers = drivers.iter().map(|(tx, driver)| (transactions[*tx], driver.clone()));
            image.gateways[gateways[from]] = drivers.collect();
        }
        let moved = |request: &Request| {
            let from = request.from.map(|from| Sender { gateway: gateway(from.gateway), ..from });
            Request { at: place(request.at), from, ..*request }
        };
        image.network = self.network.iter().map(moved).collect();
        if self.alike {
            image.in_doubt = self.in_doubt.iter().map(|at| place(*at)).collect();
            image.condemned = self.condemned.iter().map(|one| Condemned { at: place(one.at), ..*one }).collect();
            for participant in image.participants.iter_mut().map(std::sync::Arc::make_mut) {
                let rows = std::mem::take(&mut participant.rows);
                participant.rows = rows.into_iter().map(|(at, row)| (place(at), row)).collect::<BTreeMap<_, _>>();
                let effects = std::mem::take(&mut participant.effects);
                participant.effects = effects.into_iter().map(|(at, effects)| (place(at), effects)).collect();
            }
        }
        image
    }
}

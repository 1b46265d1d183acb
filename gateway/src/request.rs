//! Requests of the order API against their limits: every bad field is named, all at once. Pure: time and limits come in.

use std::time::Duration;

use tcc_coordinator::service::INITIATOR_KEY;
use tcc_proto::order::v1::{CreateOrderRequest, ListOrdersRequest};
use tcc_types::{Fingerprint, FingerprintBuilder, Gid, Initiator, Invalid, Timestamp, check_name};
use tcc_wire::{page, timestamp_from_proto};
use tonic::metadata::MetadataMap;

use crate::{Placed, wire};

/// Orders on a page that does not say.
const PAGE_SIZE: u32 = 50;
/// Most orders on a page.
const PAGE_SIZE_MAX: u32 = 500;

/// When a request is judged, and how far ahead it may look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Horizon {
    pub(crate) now: Timestamp,
    pub(crate) hold_for_ms_max: u64,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct ListPage {
    pub(crate) user_id: Option<String>,
    pub(crate) before: Option<Gid>,
    pub(crate) size: u32,
    pub(crate) filter: Fingerprint,
}

/// Who asks, unchecked; `anonymous` when the call does not say.
pub(crate) fn initiator_name(metadata: &MetadataMap) -> String {
    let name = metadata.get(INITIATOR_KEY).map(|value| value.to_str().unwrap_or_default());
    name.unwrap_or("anonymous").to_owned()
}

/// Who asks.
pub(crate) fn initiator(metadata: &MetadataMap) -> Result<Initiator, Invalid> {
    Initiator::new(initiator_name(metadata)).map_err(|bad| Invalid::new(INITIATOR_KEY, bad.problem))
}

/// A new order, and until when it may wait.
///
/// A `pay_by` that is the only thing wrong is left to the coordinator: the request may repeat one that was in time.
pub(crate) fn new_order(
    request: CreateOrderRequest,
    initiator: String,
    horizon: Horizon,
) -> Result<(Placed, Option<Timestamp>), Vec<Invalid>> {
    let (pay_by, mut bad) = match (request.pay_by.as_ref(), request.hold) {
        (None, _) => (None, Vec::new()),
        (Some(_), false) => (None, vec![Invalid::new("pay_by", "is for held orders only: set hold")]),
        (Some(at), true) => match timestamp_from_proto("pay_by", Some(at)) {
            Ok(at) => (Some(at), Vec::new()),
            Err(bad) => (None, vec![bad]),
        },
    };
    let placed =
        Placed::new(wire::draft(request, initiator)).map_err(|fields| bad.extend(fields.into_iter().map(metadata_field)));
    match placed {
        Ok(placed) if bad.is_empty() => Ok((placed, pay_by)),
        _ => {
            bad.extend(pay_by.and_then(|at| out_of_reach(at, horizon)));
            Err(bad)
        }
    }
}

/// The initiator comes in the metadata, under another name than in a branch's payload.
fn metadata_field(bad: Invalid) -> Invalid {
    if bad.field == "initiator" { Invalid::new(INITIATOR_KEY, bad.problem) } else { bad }
}

fn out_of_reach(pay_by: Timestamp, Horizon { now, hold_for_ms_max }: Horizon) -> Option<Invalid> {
    if pay_by <= now {
        return Some(Invalid::new("pay_by", format_args!("must be in the future; this clock says {now}")));
    }
    let too_far = pay_by > now.plus(Duration::from_millis(hold_for_ms_max));
    too_far.then(|| Invalid::new("pay_by", format_args!("is too far away; hold_for_ms_max is {hold_for_ms_max}")))
}

/// The id of an order.
pub(crate) fn order_id(order_id: &str) -> Result<Gid, Invalid> {
    order_id.parse::<Gid>().map_err(|bad| Invalid::new("order_id", bad.problem))
}

/// A page of the list of orders.
pub(crate) fn list_page(request: ListOrdersRequest) -> Result<ListPage, Vec<Invalid>> {
    let ListOrdersRequest { user_id, page_size, page_token } = request;
    let filter = FingerprintBuilder::new("order.v1.ListOrders").text(&user_id).finish();
    let user_id = Some(user_id).filter(|user_id| !user_id.is_empty());
    let named = user_id.as_ref().map_or(Ok(()), |user_id| check_name("user_id", user_id));
    let size = page::size(page_size, PAGE_SIZE, PAGE_SIZE_MAX);
    let foreign = |_| Invalid::new("page_token", "is not a next_page_token of this list with the same filter");
    let before =
        page::decode(&filter, &page_token).and_then(|last| last.map(|last| last.parse::<Gid>().map_err(foreign)).transpose());
    match (named, size, before) {
        (Ok(()), Ok(size), Ok(before)) => Ok(ListPage { user_id, before, size, filter }),
        (named, size, before) => Err(named.err().into_iter().chain(size.err()).chain(before.err()).collect()),
    }
}

#[cfg(test)]
mod tests;

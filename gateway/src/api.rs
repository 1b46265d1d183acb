//! `order.v1.OrderService`: convert, call, convert. See the contract in `proto/order/v1/order.proto`.

use tcc_proto::order::v1::{
    CancelOrderRequest, CancelOrderResponse, ConfirmOrderRequest, ConfirmOrderResponse, CreateOrderRequest,
    CreateOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest, ListOrdersResponse,
    order_service_server::OrderService,
};
use tcc_types::Invalid;
use tcc_wire::{page, status};
use tonic::{Request, Response, Status};

use crate::{
    Error, Order, OrderBooks, Orders,
    error::DOMAIN,
    request::{self, Horizon},
    wire::order_to_proto,
};

/// The API over the order flow.
#[derive(Debug)]
pub struct OrderApi<B> {
    orders: Orders<B>,
}

impl<B: OrderBooks> OrderApi<B> {
    /// Over this flow.
    #[must_use]
    pub fn new(orders: Orders<B>) -> Self {
        Self { orders }
    }
}

#[tonic::async_trait]
impl<B: OrderBooks> OrderService for OrderApi<B> {
    async fn create_order(&self, request: Request<CreateOrderRequest>) -> Result<Response<CreateOrderResponse>, Status> {
        let initiator = request::initiator_name(request.metadata());
        let coordinator = self.orders.coordinator();
        let horizon = Horizon { now: coordinator.now(), hold_for_ms_max: coordinator.config().hold_for_ms_max };
        let (placed, pay_by) = request::new_order(request.into_inner(), initiator, horizon).map_err(invalid)?;
        let order = self.orders.create(placed, pay_by).await.map_err(refuse)?;
        Ok(Response::new(CreateOrderResponse { order: Some(order_to_proto(order)) }))
    }

    async fn confirm_order(&self, request: Request<ConfirmOrderRequest>) -> Result<Response<ConfirmOrderResponse>, Status> {
        let id = request::order_id(&request.get_ref().order_id).map_err(|bad| invalid(vec![bad]))?;
        let order = self.orders.confirm(id).await.map_err(refuse)?;
        Ok(Response::new(ConfirmOrderResponse { order: Some(order_to_proto(order)) }))
    }

    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        let id = request::order_id(&request.get_ref().order_id).map_err(|bad| invalid(vec![bad]))?;
        let order = self.orders.get(id).await.map_err(refuse)?;
        Ok(Response::new(GetOrderResponse { order: Some(order_to_proto(order)) }))
    }

    async fn list_orders(&self, request: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        let page = request::list_page(request.into_inner()).map_err(invalid)?;
        // One more than the page has: it tells whether there is another page.
        let read = self.orders.list(page.user_id.as_deref(), page.before, page.size + 1).await;
        let mut orders = read.map_err(refuse)?;
        let next_page_token = page::finish(&mut orders, page.size, &page.filter, |last: &Order| last.id.to_string());
        Ok(Response::new(ListOrdersResponse { orders: orders.into_iter().map(order_to_proto).collect(), next_page_token }))
    }

    async fn cancel_order(&self, request: Request<CancelOrderRequest>) -> Result<Response<CancelOrderResponse>, Status> {
        let (initiator, id) = (request::initiator(request.metadata()), request::order_id(&request.get_ref().order_id));
        let (initiator, id) = match (initiator, id) {
            (Ok(initiator), Ok(id)) => (initiator, id),
            (initiator, id) => return Err(invalid(initiator.err().into_iter().chain(id.err()).collect())),
        };
        let order = self.orders.cancel(id, initiator).await.map_err(refuse)?;
        Ok(Response::new(CancelOrderResponse { order: Some(order_to_proto(order)) }))
    }
}

fn invalid(bad: Vec<Invalid>) -> Status {
    status::invalid(DOMAIN, &bad)
}

fn refuse(error: Error) -> Status {
    error.status()
}

//! `inventory.v1.InventoryService`: checks what came over the wire, asks the books, answers.

use std::time::Duration;

use tcc_participant::status_of_sql;
use tcc_proto::inventory::v1::{
    self as proto, AddStockRequest, AddStockResponse, GetStockRequest, GetStockResponse, ListStockRequest, ListStockResponse,
    SetStockBucketsRequest, SetStockBucketsResponse, inventory_service_server::InventoryService,
};
use tcc_types::{FingerprintBuilder, Invalid, check_name};
use tcc_wire::{page, status, timestamp_to_proto};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};

use crate::{Line, Receipt, Received, STOCK_MAX, Spread, Stock, StockBooks};

const DOMAIN: &str = "inventory.v1";
/// SKUs on a page that does not say, and most on a page.
const PAGE_SIZES: (u32, u32) = (100, 1_000);
/// When to repeat a call that was refused because of a limit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The API over one database's books.
#[derive(Debug)]
pub struct InventoryApi<B> {
    books: B,
    admin_calls_in_flight_max: u32,
    admin_calls: Semaphore,
}

impl<B: StockBooks> InventoryApi<B> {
    /// Over these books. At most `admin_calls_in_flight_max` calls that write wait for the database at once, so that they never
    /// crowd out the branches that share its one writer.
    #[must_use]
    pub fn new(books: B, admin_calls_in_flight_max: u32) -> Self {
        let permits = usize::try_from(admin_calls_in_flight_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { books, admin_calls_in_flight_max, admin_calls: Semaphore::new(permits) }
    }

    fn admit(&self) -> Result<SemaphorePermit<'_>, Status> {
        let limit = u64::from(self.admin_calls_in_flight_max);
        let refused = |_| status::exhausted(DOMAIN, "admin_calls_in_flight_max", limit, RETRY_AFTER);
        self.admin_calls.try_acquire().map_err(refused)
    }
}

#[tonic::async_trait]
impl<B: StockBooks> InventoryService for InventoryApi<B> {
    async fn add_stock(&self, request: Request<AddStockRequest>) -> Result<Response<AddStockResponse>, Status> {
        let receipt = receipt_from_proto(request.into_inner()).map_err(|bad| status::invalid(DOMAIN, &bad))?;
        let _admitted = self.admit()?;
        match self.books.receive(&receipt).await.map_err(|error| failed(&error))? {
            Received::Counted(stock) => Ok(Response::new(AddStockResponse { stock: Some(stock_to_proto(stock)) })),
            Received::OtherContent => {
                let message = "the receipt_id belongs to a delivery of another sku or quantity";
                Err(status::already_exists(DOMAIN, "RECEIPT_ID_REUSED", "receipt", &receipt.id, message))
            }
            Received::TooMuch => {
                let message = format!("sku {} would have had more than {STOCK_MAX} pieces", receipt.line.sku());
                Err(status::failed_precondition(DOMAIN, "STOCK_MAX", receipt.line.sku(), &message))
            }
        }
    }

    async fn set_stock_buckets(
        &self,
        request: Request<SetStockBucketsRequest>,
    ) -> Result<Response<SetStockBucketsResponse>, Status> {
        let SetStockBucketsRequest { sku, buckets } = request.into_inner();
        let spread = Spread::new(sku, buckets).map_err(|bad| status::invalid(DOMAIN, &bad))?;
        let _admitted = self.admit()?;
        let stock = self.books.spread(&spread).await.map_err(|error| failed(&error))?;
        let stock = stock.ok_or_else(|| status::not_found(DOMAIN, "sku", spread.sku()))?;
        Ok(Response::new(SetStockBucketsResponse { stock: Some(stock_to_proto(stock)) }))
    }

    async fn get_stock(&self, request: Request<GetStockRequest>) -> Result<Response<GetStockResponse>, Status> {
        let GetStockRequest { sku } = request.into_inner();
        check_name("sku", &sku).map_err(|bad| status::invalid(DOMAIN, &[bad]))?;
        let stock = self.books.get(&sku).await.map_err(|error| failed(&error))?;
        let stock = stock.ok_or_else(|| status::not_found(DOMAIN, "sku", &sku))?;
        Ok(Response::new(GetStockResponse { stock: Some(stock_to_proto(stock)) }))
    }

    async fn list_stock(&self, request: Request<ListStockRequest>) -> Result<Response<ListStockResponse>, Status> {
        let filter = FingerprintBuilder::new("inventory.v1.ListStock").finish();
        let ListStockRequest { page_size, page_token } = request.get_ref();
        let (size, after) =
            page::from_proto(*page_size, page_token, PAGE_SIZES, &filter).map_err(|bad| status::invalid(DOMAIN, &bad))?;
        let read = self.books.list(after.as_deref(), size + 1).await;
        let mut stock = read.map_err(|error| failed(&error))?;
        let next_page_token = page::finish(&mut stock, size, &filter, |last| last.sku.clone());
        Ok(Response::new(ListStockResponse { stock: stock.into_iter().map(stock_to_proto).collect(), next_page_token }))
    }
}

fn receipt_from_proto(request: AddStockRequest) -> Result<Receipt, Vec<Invalid>> {
    let AddStockRequest { receipt_id, sku, quantity } = request;
    match (check_name("receipt_id", &receipt_id), Line::new(sku, quantity)) {
        (Ok(()), Ok(line)) => Ok(Receipt { id: receipt_id, line }),
        (id, line) => Err(id.err().into_iter().chain(line.err().into_iter().flatten()).collect()),
    }
}

fn stock_to_proto(stock: Stock) -> proto::Stock {
    let Stock { sku, initial, available, frozen, sold, updated_at, buckets } = stock;
    let updated_at = Some(timestamp_to_proto(updated_at));
    proto::Stock { sku, initial, available, frozen, sold, updated_at, buckets: buckets.into() }
}

/// What happened is for the log.
fn failed(error: &sqlx::Error) -> Status {
    status_of_sql(DOMAIN, error)
}

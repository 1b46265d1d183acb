//! The gRPC services over the handle: convert, call, convert. Errors become statuses here and nowhere else.

mod admin;
mod coordinator;
mod fields;
mod transaction;

use tcc_proto::tcc::v1::{admin_server::AdminServer, coordinator_server::CoordinatorServer};
use tcc_types::{Initiator, Invalid};
use tcc_wire::status;
use tonic::{Status, metadata::MetadataMap};

use crate::{Coordinator, Error, request::RETRY_AFTER};

/// The package of these services, as errors name it.
pub const DOMAIN: &str = "tcc.v1";

/// The metadata that names who asks.
pub const INITIATOR_KEY: &str = "tcc-initiator";

/// What a branch takes in a message beside its payload is less than this.
const BRANCH_BYTES_MAX: usize = 1_024;
/// No message is limited to less: questions about outcomes too come to this service.
const MESSAGE_BYTES_MIN: usize = 4 * 1_048_576;

/// `tcc.v1.Coordinator`, to be added to a server.
#[must_use]
pub fn coordinator_server(coordinator: Coordinator) -> CoordinatorServer<coordinator::CoordinatorService> {
    let config = coordinator.config();
    // More than the limits allow: what is somewhat too large is refused with the name of its limit, only the rest by the transport.
    let payloads = config.request_bytes_max.saturating_add(config.request_bytes_max.min(MESSAGE_BYTES_MIN));
    let branches = usize::try_from(config.branches_max).unwrap_or(usize::MAX).saturating_mul(BRANCH_BYTES_MAX);
    let message_bytes_max = payloads.saturating_add(branches).max(MESSAGE_BYTES_MIN);
    CoordinatorServer::new(coordinator::CoordinatorService::new(coordinator)).max_decoding_message_size(message_bytes_max)
}

/// `tcc.v1.Admin`, to be added to a server.
#[must_use]
pub fn admin_server(coordinator: Coordinator) -> AdminServer<admin::AdminService> {
    AdminServer::new(admin::AdminService::new(coordinator))
}

/// Who asks, by the call's metadata; `anonymous` when it does not say.
///
/// # Errors
/// INVALID_ARGUMENT: the name is malformed.
pub fn initiator_of(metadata: &MetadataMap) -> Result<Initiator, Status> {
    let name = match metadata.get(INITIATOR_KEY) {
        None => "anonymous",
        Some(value) => value.to_str().unwrap_or_default(),
    };
    Initiator::new(name).map_err(|bad| status::invalid(DOMAIN, &[Invalid::new(INITIATOR_KEY, bad.problem)]))
}

/// What a caller is told of an error, in the given domain.
#[must_use]
pub fn status_of(error: &Error, domain: &str) -> Status {
    const TRANSACTION: &str = "tcc.v1.Transaction";
    match error {
        Error::Invalid(bad) => status::invalid(domain, bad),
        Error::NotFound(gid) => status::not_found(domain, TRANSACTION, &gid.to_string()),
        Error::NoSuchBranch { gid, branch } => status::not_found(domain, "tcc.v1.Branch", &format!("{gid}/{branch}")),
        Error::KeyReused { gid } => {
            status::already_exists(domain, "IDEMPOTENCY_KEY_REUSED", TRANSACTION, &gid.to_string(), &error.to_string())
        }
        Error::GidReused { gid } => {
            status::already_exists(domain, "GID_REUSED", TRANSACTION, &gid.to_string(), &error.to_string())
        }
        Error::BranchReused { gid, branch } => {
            let name = format!("{gid}/{branch}");
            status::already_exists(domain, "BRANCH_REUSED", "tcc.v1.Branch", &name, &error.to_string())
        }
        Error::Precondition { reason, gid, message, .. } => {
            status::failed_precondition(domain, reason, &gid.to_string(), message)
        }
        Error::Exhausted { limit_name, limit } => status::exhausted(domain, limit_name, *limit, RETRY_AFTER),
        Error::Unavailable(message) => status::unavailable(domain, message, RETRY_AFTER),
        Error::Draining => status::unavailable(domain, "the gateway is shutting down", RETRY_AFTER),
        Error::Internal => status::internal(domain),
    }
}

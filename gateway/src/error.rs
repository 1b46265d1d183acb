//! Why an order call has no order to show, and the one place where that becomes a gRPC status.

use std::time::Duration;

use sqlx::error::{DatabaseError, ErrorKind};
use tcc_coordinator::service::status_of;
use tcc_types::{Gid, Invalid};
use tcc_wire::status;
use tonic::Status;

/// The package of the order API, as errors name it.
pub(crate) const DOMAIN: &str = "order.v1";
/// When to repeat a call that the database did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An order call that was not carried out, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fields of the request are wrong. Nothing was started.
    #[error("invalid request: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Invalid>),
    /// There is no such order, SKU or coupon. Nothing stays reserved.
    #[error("no {resource} named {name}")]
    NotFound {
        /// What kind of thing.
        resource: &'static str,
        /// Which.
        name: String,
    },
    /// The order key was used for another order. Nothing was started.
    #[error("the order key was used for another order, {id}")]
    KeyReused {
        /// Which.
        id: Gid,
    },
    /// The coordinator did not carry it out.
    #[error(transparent)]
    Coordinator(tcc_coordinator::Error),
    /// The orders database did not answer. Repeating the same request is safe.
    #[error("the orders database failed: {0}")]
    Books(#[from] sqlx::Error),
}

impl Error {
    /// Names an order that is not there.
    #[must_use]
    pub fn no_order(id: Gid) -> Self {
        Self::NotFound { resource: "order", name: id.to_string() }
    }

    /// What the caller is told.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Invalid(bad) => status::invalid(DOMAIN, bad),
            Self::NotFound { resource, name } => status::not_found(DOMAIN, resource, name),
            Self::KeyReused { id } => {
                status::already_exists(DOMAIN, "ORDER_KEY_REUSED", "order", &id.to_string(), &self.to_string())
            }
            Self::Coordinator(error) => status_of(error, DOMAIN),
            Self::Books(error) => {
                tracing::error!(%error, "the orders database failed");
                match error.as_database_error().map(DatabaseError::kind) {
                    Some(kind) if kind != ErrorKind::Other => status::internal(DOMAIN),
                    _ if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => status::internal(DOMAIN),
                    _ => status::unavailable(DOMAIN, "the orders database did not answer: repeat the call", RETRY_AFTER),
                }
            }
        }
    }
}

impl From<tcc_coordinator::Error> for Error {
    fn from(error: tcc_coordinator::Error) -> Self {
        match error {
            tcc_coordinator::Error::Invalid(bad) => Self::Invalid(bad.into_iter().map(as_the_caller_knows_it).collect()),
            tcc_coordinator::Error::NotFound(gid) => Self::no_order(gid),
            tcc_coordinator::Error::KeyReused { gid } => Self::KeyReused { id: gid },
            other => Self::Coordinator(other),
        }
    }
}

/// A transaction's field under the name of the order's field that it was made from.
fn as_the_caller_knows_it(bad: Invalid) -> Invalid {
    let field = match bad.field.as_str() {
        "decide_by" => "pay_by",
        "gid" => "order_id",
        // The third branch is the coupon's; the others are made from the lines.
        field if field.starts_with("branches[2]") => "coupon_id",
        field if field.starts_with("branches") => "lines",
        field => field,
    };
    Invalid::new(field, bad.problem)
}

#[cfg(test)]
mod tests {
    use tcc_types::{SystemEntropy, Timestamp};
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn the_coordinators_fields_come_out_under_the_orders_names() {
        let bad = ["decide_by", "gid", "branches", "branches[0].payload", "branches[1].participant", "branches[2].participant"];
        let error = tcc_coordinator::Error::Invalid(bad.map(|field| Invalid::new(field, "is bad")).to_vec());
        let status = Error::from(error).status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|bad| bad.field.as_str()).collect();
        assert_eq!(fields, ["pay_by", "order_id", "lines", "lines", "lines", "coupon_id"]);
        assert_eq!(details.error_info().unwrap().domain, "order.v1");
    }

    #[test]
    fn a_reused_key_names_the_order_that_has_it() {
        let gid = Gid::mint(Timestamp::from_millis(1_790_000_000_000), &SystemEntropy);
        let status = Error::from(tcc_coordinator::Error::KeyReused { gid }).status();
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (status.code(), info.reason.as_str(), info.domain.as_str()),
            (Code::AlreadyExists, "ORDER_KEY_REUSED", DOMAIN)
        );
        let resource = details.resource_info().unwrap();
        assert_eq!((resource.resource_type.as_str(), resource.resource_name.clone()), ("order", gid.to_string()));
    }

    #[test]
    fn a_full_gateway_says_when_to_come_back() {
        let error = tcc_coordinator::Error::Exhausted { limit_name: "transactions_in_flight_max", limit: 7 };
        let status = Error::from(error).status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_error_details().retry_info().is_some());
    }

    #[test]
    fn the_databases_words_stay_inside() {
        let status = Error::from(sqlx::Error::Protocol("secret".to_owned())).status();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!status.message().contains("secret"));
        let status = Error::from(sqlx::Error::Decode("secret".into())).status();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }
}

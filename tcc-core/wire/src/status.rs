//! Public errors: the right code, `ErrorInfo`, and the detail that fits. Internals stay in the log.
//!
//! `domain` is the package of the API that answers (`order.v1`).

use std::{collections::HashMap, time::Duration};

use tcc_types::Invalid;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

fn details(domain: &str, reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, domain, HashMap::new())
}

/// INVALID_ARGUMENT: each bad field with what is wrong. Reason `INVALID_FIELDS`.
#[must_use]
pub fn invalid(domain: &str, fields: &[Invalid]) -> Status {
    let mut details = details(domain, "INVALID_FIELDS");
    details.set_bad_request(fields.iter().map(|bad| FieldViolation::new(&bad.field, &bad.problem)).collect::<Vec<_>>());
    let message = fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// NOT_FOUND: which resource. Reason `NOT_FOUND`.
#[must_use]
pub fn not_found(domain: &str, resource_type: &str, name: &str) -> Status {
    let mut details = details(domain, "NOT_FOUND");
    details.set_resource_info(resource_type, name, "", "there is none with this name");
    Status::with_error_details(Code::NotFound, format!("no {resource_type} named {name}"), details)
}

/// ALREADY_EXISTS: which resource, and what is different about it.
#[must_use]
pub fn already_exists(domain: &str, reason: &str, resource_type: &str, name: &str, message: &str) -> Status {
    let mut details = details(domain, reason);
    details.set_resource_info(resource_type, name, "", message);
    Status::with_error_details(Code::AlreadyExists, message, details)
}

/// FAILED_PRECONDITION: what state the subject would have to be in.
#[must_use]
pub fn failed_precondition(domain: &str, reason: &str, subject: &str, message: &str) -> Status {
    let mut details = details(domain, reason);
    details.add_precondition_failure_violation(reason, subject, message);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// RESOURCE_EXHAUSTED: nothing was started; which limit was met, and when to try again.
#[must_use]
pub fn exhausted(domain: &str, limit_name: &str, limit: u64, retry_after: Duration) -> Status {
    let mut details = details(domain, "LIMIT_REACHED");
    let message = format!("{limit_name} ({limit}) is reached: try again later");
    details.set_retry_info(Some(retry_after)).add_quota_failure_violation(limit_name, &message);
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// UNAVAILABLE: the outcome is unknown, or nothing was done; repeating the same request is safe.
#[must_use]
pub fn unavailable(domain: &str, message: &str, retry_after: Duration) -> Status {
    let mut details = details(domain, "UNAVAILABLE");
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// INTERNAL: a defect. The cause is in the server's log.
#[must_use]
pub fn internal(domain: &str) -> Status {
    Status::with_error_details(Code::Internal, "internal error: see the server's log", details(domain, "INTERNAL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_is_named_in_the_details() {
        let status = invalid("order.v1", &[Invalid::new("lines[0].sku", "is required"), Invalid::new("user_id", "is empty")]);
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|bad| bad.field.clone()).collect();
        assert_eq!(fields, ["lines[0].sku", "user_id"]);
        assert_eq!(details.error_info().unwrap().domain, "order.v1");
    }

    #[test]
    fn a_reached_limit_is_named_with_a_time_to_retry() {
        let status = exhausted("tcc.v1", "transactions_in_flight_max", 7, Duration::from_millis(250));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(250)));
        assert!(status.message().contains("transactions_in_flight_max (7)"));
    }
}

//! Public errors: the right code, `ErrorInfo`, and the detail that fits. Internals stay in the log.
//!
//! `domain` is the package of the API that answers (`order.v1`).

use std::{collections::HashMap, time::Duration};

use tcc_types::Invalid;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

// A status travels in the trailers, and clients end the call when those have more than 16 KiB.
/// Bad fields that are named.
const VIOLATIONS_MAX: usize = 16;
/// Of a field's path.
const FIELD_BYTES_MAX: usize = 96;
/// Of what is wrong with a field.
const PROBLEM_BYTES_MAX: usize = 128;
/// Of the text for people. It travels twice.
const MESSAGE_BYTES_MAX: usize = 1_024;

fn details(domain: &str, reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, domain, HashMap::new())
}

/// INVALID_ARGUMENT: each bad field with what is wrong, up to the first 16. Reason `INVALID_FIELDS`.
#[must_use]
pub fn invalid(domain: &str, fields: &[Invalid]) -> Status {
    let mut details = details(domain, "INVALID_FIELDS");
    let named = &fields[..fields.len().min(VIOLATIONS_MAX)];
    let violation = |bad: &Invalid| FieldViolation::new(cut(&bad.field, FIELD_BYTES_MAX), cut(&bad.problem, PROBLEM_BYTES_MAX));
    details.set_bad_request(named.iter().map(violation).collect::<Vec<_>>());
    let texts: Vec<_> = named.iter().map(ToString::to_string).collect();
    let mut message = cut(&texts.join("; "), MESSAGE_BYTES_MAX).to_owned();
    let unnamed = fields.len() - named.len();
    if unnamed > 0 {
        message.push_str(&format!("; and {unnamed} more"));
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The longest beginning that fits and is whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
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
    fn many_bad_fields_make_a_small_status_that_names_the_first_ones() {
        for (filler, encoded_bytes_max) in [("x", 8 * 1_024), ("\u{1f34e}", 12 * 1_024)] {
            let bad = |index| Invalid::new(format!("lines[{index}].{}", filler.repeat(500)), "is bad ".repeat(500));
            let bad: Vec<_> = (0..200).map(bad).collect();
            let status = invalid("order.v1", &bad);
            assert!(status.message().starts_with("lines[0]."), "{status:?}");
            assert!(status.message().ends_with("; and 184 more"), "{status:?}");
            let details = status.get_error_details();
            let named = &details.bad_request().unwrap().field_violations;
            assert_eq!(named.len(), VIOLATIONS_MAX);
            assert!(named.iter().zip(&bad).all(|(named, bad)| bad.field.starts_with(&named.field)), "{named:?}");
            let response = status.into_http::<()>();
            let encoded_bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            assert!(encoded_bytes < encoded_bytes_max, "{encoded_bytes}");
        }
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

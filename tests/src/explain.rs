//! Errors and orders as text for people.

use std::fmt::Write;

use tcc_proto::order::v1::{Order, OrderStatus};
use tonic::Status;
use tonic_types::StatusExt;

/// A gRPC error with everything its details say: the reason, each bad field, each limit, when to repeat.
#[must_use]
pub fn error(status: &Status) -> String {
    let mut text = format!("error: {:?}: {}", status.code(), status.message());
    let mut line = |name: &str, value: &str| {
        let _ = write!(text, "\n  {name:<10} {value}");
    };
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        line("reason", &format!("{} ({})", info.reason, info.domain));
        for (name, value) in &info.metadata {
            line(name, value);
        }
    }
    for bad in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        line("field", &format!("{}: {}", bad.field, bad.description));
    }
    for bad in details.precondition_failure().iter().flat_map(|bad| &bad.violations) {
        line("state", &format!("{} ({}): {}", bad.subject, bad.r#type, bad.description));
    }
    for bad in details.quota_failure().iter().flat_map(|bad| &bad.violations) {
        line("limit", &format!("{}: {}", bad.subject, bad.description));
    }
    if let Some(resource) = details.resource_info() {
        line("resource", &format!("{} {}: {}", resource.resource_type, resource.resource_name, resource.description));
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        line("repeat", &format!("after {delay:?}"));
    }
    text
}

/// One word for a status.
#[must_use]
pub const fn status_word(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Unspecified => "unknown",
        OrderStatus::Pending => "pending",
        OrderStatus::Held => "held",
        OrderStatus::Confirmed => "confirmed",
        OrderStatus::Cancelled => "cancelled",
    }
}

/// What was ordered, in one line.
#[must_use]
pub fn lines(order: &Order) -> String {
    order.lines.iter().map(|line| format!("{} x {}", line.quantity, line.sku)).collect::<Vec<_>>().join(", ")
}

/// One order, a field on each line.
#[must_use]
pub fn order(order: &Order) -> String {
    let mut text = format!("order {}", order.order_id);
    let mut line = |name: &str, value: &str| {
        let _ = write!(text, "\n  {name:<10} {value}");
    };
    line("status", status_word(order.status()));
    if let Some(refusal) = &order.refusal {
        line("because", &format!("{}: {} ({})", refusal.participant, refusal.message, refusal.code));
    }
    line("key", &order.order_key);
    line("user", &order.user_id);
    line("lines", &lines(order));
    if !order.coupon_id.is_empty() {
        line("coupon", &order.coupon_id);
    }
    if order.discount_minor != 0 {
        line("discount", &order.discount_minor.to_string());
    }
    if let Some(created_at) = order.created_at {
        line("created", &instant(&created_at));
    }
    if let Some(pay_by) = order.pay_by {
        line("pay by", &instant(&pay_by));
    }
    text
}

fn instant(at: &prost_types::Timestamp) -> String {
    tcc_wire::timestamp_from_proto("at", Some(at)).map_or_else(|_| "out of range".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detail_of_an_error_is_shown() {
        let status = tcc_wire::status::invalid("order.v1", &[tcc_types::Invalid::new("lines[0].sku", "is required")]);
        let text = error(&status);
        assert!(text.contains("InvalidArgument") && text.contains("INVALID_FIELDS (order.v1)"), "{text}");
        assert!(text.contains("field      lines[0].sku: is required"), "{text}");
        let text = error(&tcc_wire::status::exhausted("tcc.v1", "page_size_max", 7, std::time::Duration::from_millis(250)));
        assert!(text.contains("limit      page_size_max") && text.contains("after 250ms"), "{text}");
    }
}

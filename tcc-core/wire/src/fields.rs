//! Fields that many messages share.

use bytes::Bytes;
use prost_types::Any;
use tcc_proto::tcc::v1 as proto;
use tcc_types::{BranchRowStatus, Invalid, Payload, Timestamp};

/// Most bytes of a payload's type URL. It is stored before anybody looks at the payload, so it has a limit of its own.
pub const TYPE_URL_BYTES_MAX: usize = 512;

/// To `google.protobuf.Timestamp`.
#[must_use]
pub fn timestamp_to_proto(instant: Timestamp) -> prost_types::Timestamp {
    let micros = instant.as_micros();
    // The remainder is below 1,000,000, so the nanoseconds fit.
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    prost_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

/// From `google.protobuf.Timestamp`, rounded down to microseconds.
///
/// # Errors
/// It is absent, before 1970, after 9999, or its nanoseconds are out of range.
pub fn timestamp_from_proto(field: &str, instant: Option<&prost_types::Timestamp>) -> Result<Timestamp, Invalid> {
    let instant = instant.ok_or_else(|| Invalid::new(field, "is required"))?;
    let in_range = (0..=Timestamp::MAX.as_micros() / 1_000_000).contains(&instant.seconds);
    if !in_range || !(0..1_000_000_000).contains(&instant.nanos) {
        return Err(Invalid::new(field, "must lie between 1970-01-01 and 9999-12-31"));
    }
    Ok(Timestamp::from_micros(instant.seconds * 1_000_000 + i64::from(instant.nanos) / 1_000))
}

/// To `google.protobuf.Any`.
#[must_use]
pub fn payload_to_proto(payload: &Payload) -> Any {
    Any { type_url: payload.type_url.clone(), value: payload.value.to_vec() }
}

/// From `google.protobuf.Any`.
///
/// # Errors
/// It is absent, or its type URL is empty, longer than [`TYPE_URL_BYTES_MAX`], or has control characters.
pub fn payload_from_proto(field: &str, payload: Option<Any>) -> Result<Payload, Invalid> {
    let payload = payload.ok_or_else(|| Invalid::new(field, "is required"))?;
    if payload.type_url.is_empty() {
        return Err(Invalid::new(format!("{field}.type_url"), "must not be empty: the payload has to say what it is"));
    }
    if payload.type_url.len() > TYPE_URL_BYTES_MAX {
        return Err(Invalid::new(format!("{field}.type_url"), format_args!("must be at most {TYPE_URL_BYTES_MAX} bytes")));
    }
    // One database cannot store them, the others could: the same request must be as good everywhere.
    if payload.type_url.chars().any(char::is_control) {
        return Err(Invalid::new(format!("{field}.type_url"), "must not have control characters"));
    }
    Ok(Payload { type_url: payload.type_url, value: Bytes::from(payload.value) })
}

/// To the wire; `None` is "no row".
#[must_use]
pub fn row_status_to_proto(status: Option<BranchRowStatus>) -> proto::BranchRowStatus {
    match status {
        None => proto::BranchRowStatus::Unspecified,
        Some(BranchRowStatus::Tried) => proto::BranchRowStatus::Tried,
        Some(BranchRowStatus::Refused) => proto::BranchRowStatus::Refused,
        Some(BranchRowStatus::Confirmed) => proto::BranchRowStatus::Confirmed,
        Some(BranchRowStatus::Cancelled) => proto::BranchRowStatus::Cancelled,
    }
}

/// From the wire; "unspecified" is "no row".
#[must_use]
pub fn row_status_from_proto(status: proto::BranchRowStatus) -> Option<BranchRowStatus> {
    match status {
        proto::BranchRowStatus::Unspecified => None,
        proto::BranchRowStatus::Tried => Some(BranchRowStatus::Tried),
        proto::BranchRowStatus::Refused => Some(BranchRowStatus::Refused),
        proto::BranchRowStatus::Confirmed => Some(BranchRowStatus::Confirmed),
        proto::BranchRowStatus::Cancelled => Some(BranchRowStatus::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_keep_their_microseconds() {
        let instant = Timestamp::from_micros(1_790_000_000_123_456);
        assert_eq!(timestamp_from_proto("at", Some(&timestamp_to_proto(instant))), Ok(instant));
    }

    #[test]
    fn timestamps_out_of_range_are_named() {
        for (seconds, nanos) in [(-1, 0), (i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
            let bad = prost_types::Timestamp { seconds, nanos };
            assert_eq!(timestamp_from_proto("try_until", Some(&bad)).map_err(|error| error.field), Err("try_until".to_owned()));
        }
    }

    #[test]
    fn an_untyped_payload_is_named() {
        let error = payload_from_proto("branches[0].payload", Some(Any::default())).map_err(|error| error.field);
        assert_eq!(error, Err("branches[0].payload.type_url".to_owned()));
    }

    #[test]
    fn a_type_url_over_its_limit_is_named_with_the_limit() {
        let any = |bytes| Any { type_url: "t".repeat(bytes), value: Vec::new() };
        let control = Any { type_url: "type.googleapis.com/a\0.B".to_owned(), ..Any::default() };
        assert_eq!(payload_from_proto("payload", Some(control)).unwrap_err().field, "payload.type_url");
        assert!(payload_from_proto("payload", Some(any(TYPE_URL_BYTES_MAX))).is_ok());
        let error = payload_from_proto("payload", Some(any(TYPE_URL_BYTES_MAX + 1))).unwrap_err();
        assert_eq!(error, Invalid::new("payload.type_url", "must be at most 512 bytes"));
    }
}

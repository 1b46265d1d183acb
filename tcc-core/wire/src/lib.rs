//! Between the wire and the words: protobuf conversions, and gRPC errors with their `google.rpc` details.
//!
//! The adapters on both sides (coordinator, participant, client, services) use the same conversions, so that they cannot drift
//! apart. No decisions are made here.

mod batch;
mod calls;
mod fields;
mod outcome;
pub mod page;
pub mod status;

pub use batch::{
    Answer, BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, BatchResult, Operation, operation_from_proto, operation_name,
    operation_to_proto, result_from_proto, result_to_proto,
};
pub use calls::{
    Malformed, cancel_from_proto, cancel_response, cancel_to_proto, cancelled_from_proto, confirm_from_proto, confirm_response,
    confirm_to_proto, confirmed_from_proto, refusal_from_proto, refusal_to_proto, tried_from_proto, try_from_proto,
    try_response, try_to_proto, violation_from_proto, violation_to_proto,
};
pub use fields::{
    TYPE_URL_BYTES_MAX, payload_from_proto, payload_to_proto, row_status_from_proto, row_status_to_proto, timestamp_from_proto,
    timestamp_to_proto,
};
pub use outcome::{outcome_answer, outcome_query_from_proto, outcome_query_to_proto, outcome_request, outcomes_from_proto};

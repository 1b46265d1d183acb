//! Named points in a transaction's life where tests can stop the process. Compiled to nothing without the feature `failpoints`.

/// Every point, in the order of a transaction's life: before and after each durable write and each call that its driver makes.
pub const ALL: [&str; 16] = [
    BEGIN_BEFORE,
    BEGIN_AFTER,
    ENLIST_BEFORE,
    ENLIST_AFTER,
    TRY_BEFORE,
    TRY_AFTER,
    DECIDE_BEFORE,
    DECIDE_AFTER,
    CONFIRM_BEFORE,
    CONFIRM_AFTER,
    CANCEL_BEFORE,
    CANCEL_AFTER,
    PARK_BEFORE,
    PARK_AFTER,
    FINISH_BEFORE,
    FINISH_AFTER,
];

/// The transaction is not durable yet.
pub const BEGIN_BEFORE: &str = "begin.before";
/// The transaction is durable; nobody knows yet.
pub const BEGIN_AFTER: &str = "begin.after";
/// The enlisted branch is not durable yet.
pub const ENLIST_BEFORE: &str = "enlist.before";
/// The enlisted branch is durable; its Try has not left.
pub const ENLIST_AFTER: &str = "enlist.after";
/// A Try is about to leave.
pub const TRY_BEFORE: &str = "try.before";
/// A Try was answered; the machine does not know yet.
pub const TRY_AFTER: &str = "try.after";
/// The decision is not durable yet.
pub const DECIDE_BEFORE: &str = "decide.before";
/// The decision is durable; nobody knows yet.
pub const DECIDE_AFTER: &str = "decide.after";
/// A Confirm is about to leave.
pub const CONFIRM_BEFORE: &str = "confirm.before";
/// A Confirm was answered; the machine does not know yet.
pub const CONFIRM_AFTER: &str = "confirm.after";
/// A Cancel is about to leave.
pub const CANCEL_BEFORE: &str = "cancel.before";
/// A Cancel was answered; the machine does not know yet.
pub const CANCEL_AFTER: &str = "cancel.after";
/// The progress of a transaction that leaves memory is not durable yet.
pub const PARK_BEFORE: &str = "park.before";
/// It is durable; the driver still runs.
pub const PARK_AFTER: &str = "park.after";
/// The end is not durable yet.
pub const FINISH_BEFORE: &str = "finish.before";
/// The end is durable; nobody knows yet.
pub const FINISH_AFTER: &str = "finish.after";

/// Tells tests that the point is reached; they may never let it return.
#[inline]
pub(crate) fn hit(point: &'static str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(point);
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

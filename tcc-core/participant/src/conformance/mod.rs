//! What every database must do, as cases: the contract's table cell by cell with its business effects, failures of handlers,
//! races, and the upkeep of rows that nobody settles or needs. A backend runs them all with [`conformance_tests!`](crate::conformance_tests).

mod answers;
pub mod batches;
mod bench;
pub mod cases;
pub mod deletions;
pub mod failures;
#[cfg(feature = "memory")]
mod memory;
mod mysql;
mod postgres;
pub mod races;
pub mod rows;
mod sqlite;
pub mod sweeps;

pub use answers::{Answers, Fixed, Script};
pub use bench::{Bench, BenchDatabase, Books, Effects, Fault, Fixture, Kept, State, Want};
#[cfg(feature = "memory")]
pub use memory::BenchTables;

/// Makes a tokio test of every case. Its argument is the path of an `async fn() -> (Store<Db>, Guard)` that opens a new, empty
/// database; the guard keeps it alive. After `batched`, operations that wait share a transaction, on servers too.
#[macro_export]
macro_rules! conformance_tests {
    ($open:path) => {
        $crate::conformance_tests! { @all new $open }
    };
    (batched $open:path) => {
        $crate::conformance_tests! { @all batched $open }
    };
    (@all $fixture:ident $open:path) => {
        $crate::conformance_tests! { @each $fixture $open;
            cases:
            try_without_a_row_reserves,
            try_without_a_row_that_the_business_refuses_reserves_nothing,
            try_of_a_tried_row_says_the_same_yes_and_reserves_nothing_more,
            try_of_a_refused_row_says_the_same_no,
            a_refusal_in_any_characters_is_repeated_as_it_was_given,
            try_of_a_confirmed_row_says_the_same_yes_and_reserves_nothing_more,
            try_of_a_cancelled_row_is_suspended,
            try_after_an_empty_rollback_is_suspended,
            confirm_without_a_row_is_a_violation_and_leaves_none,
            confirm_of_a_tried_row_spends,
            confirm_of_a_refused_row_is_a_violation,
            confirm_of_a_confirmed_row_is_done_and_spends_nothing_more,
            confirm_of_a_cancelled_row_is_a_violation,
            confirm_after_an_empty_rollback_is_a_violation,
            cancel_without_a_row_is_an_empty_rollback,
            cancel_of_a_tried_row_releases,
            cancel_of_a_refused_row_is_done_and_keeps_it_refused,
            cancel_of_a_confirmed_row_is_a_violation,
            cancel_of_a_cancelled_row_is_done_and_releases_nothing_more,
            cancel_after_an_empty_rollback_is_done,
            late_try_is_refused_without_a_row_and_may_still_be_cancelled,
            late_try_of_a_tried_row_is_yes_again,
            a_cancel_then_a_late_try_then_a_confirm_touch_no_others_reservation,
            another_request_under_a_known_branch_is_a_violation_in_every_state,
            branches_of_one_transaction_and_transactions_of_one_branch_id_are_apart,
            wrong_type_undecodable_and_oversized_payloads_are_refused_for_good,
            the_row_tells_operators_what_happened,
            an_operation_in_the_callers_transaction_commits_and_rolls_back_with_it,
            an_operation_outside_of_a_transaction_is_an_error;
        }
        $crate::conformance_tests! { @each $fixture $open;
            batches:
            a_batch_of_tries_inserts_what_is_new_and_in_time,
            a_batch_of_settles_changes_what_is_tried_and_hands_back_what_each_reserved,
            a_batch_of_empty_rollbacks_inserts_where_there_is_no_row,
            a_look_at_many_answers_for_each_in_the_order_of_the_question,
            a_batch_keeps_what_each_of_its_branches_was_answered,
            what_a_batch_keeps_of_a_row_that_is_not_there_is_an_error,
            batches_that_meet_crosswise_end,
            a_branch_that_always_fails_fails_no_other,
            a_panic_in_a_batch_costs_nobody_an_effect,
            a_lost_transaction_in_a_batch_costs_nobody_an_effect;
        }
        $crate::conformance_tests! { @each $fixture $open;
            failures:
            what_a_handler_changed_before_it_refuses_is_rolled_back,
            a_handler_that_fails_is_unknown_and_leaves_nothing_behind,
            a_handler_that_panics_is_unknown_and_harms_no_other_branch,
            a_handler_that_hangs_is_rolled_back_at_the_limit,
            a_handler_that_ignores_the_end_of_its_transaction_is_unknown,
            a_failed_confirm_keeps_the_reservation_until_it_succeeds,
            a_failed_cancel_keeps_the_reservation_until_it_succeeds,
            a_dropped_call_runs_to_its_end,
            a_dropped_call_whose_handler_fails_leaves_nothing_behind,
            more_operations_than_the_limit_are_refused_at_once,
            as_many_tries_as_may_be_leave_room_to_settle,
            a_closed_engine_ends_what_is_under_way_and_takes_no_more,
            an_oversized_output_is_unknown_and_reserves_nothing;
        }
        $crate::conformance_tests! { @each $fixture $open;
            races:
            racing_tries_and_confirms_spend_once,
            racing_tries_and_cancels_release_once,
            racing_all_three_never_confirms_and_cancels,
            concurrent_repeated_cancels_of_a_tried_branch_release_once,
            concurrent_cancels_of_an_unknown_branch_record_one_empty_rollback,
            deliveries_that_wait_for_a_try_that_fails_are_all_answered;
        }
        $crate::conformance_tests! { @each $fixture $open;
            rows:
            the_clock_is_utc,
            overdue_reservations_come_in_the_order_in_which_they_ask,
            only_a_tried_row_is_postponed_and_it_remembers_when_it_was_forgotten,
            forgotten_reservations_are_listed_in_pages,
            a_walk_meets_every_older_row_once_in_the_order_of_keys,
            a_deletion_spares_what_is_tried_and_what_is_not_as_it_was_read;
        }
        $crate::conformance_tests! { @each $fixture $open;
            sweeps:
            a_decision_is_carried_out_on_a_reservation_in_doubt,
            what_is_settled_or_may_still_be_decided_is_not_asked_about,
            a_coordinator_that_still_decides_says_when_to_ask_again,
            a_forgotten_reservation_is_listed_until_it_is_settled,
            strange_answers_keep_the_reservation_and_are_asked_again,
            many_rows_in_doubt_are_asked_about_in_batches,
            without_an_answer_rows_stay_as_they_are,
            a_silent_coordinator_keeps_no_others_rows_waiting,
            a_row_that_cannot_be_settled_does_not_come_back_at_once,
            a_full_engine_leaves_rows_for_the_next_sweep,
            sweeps_race_with_the_coordinators_own_calls_and_each_effect_happens_once;
        }
        $crate::conformance_tests! { @each $fixture $open;
            deletions:
            no_deletion_lets_a_late_try_in_or_makes_a_repeated_confirm_a_violation,
            a_cancel_after_a_deletion_is_done_and_releases_nothing_more,
            a_confirmed_row_is_kept_until_its_coordinator_says_that_it_is_over,
            a_walk_looks_at_everything_old_in_bounded_steps;
        }
    };
    (@each $fixture:ident $open:path; $module:ident: $($case:ident),+ $(,)?;) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let (store, _guard) = $open().await;
                $crate::conformance::$module::$case($crate::conformance::Fixture::$fixture(store).await).await;
            }
        )+
    };
}

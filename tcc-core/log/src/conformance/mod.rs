//! What every backend of the log must do, as cases that any backend's tests run.
//!
//! A case gets a fresh, empty log. It uses only the trait and the log's own clock, so that it also runs against databases whose
//! time nobody can set. Cases panic where a promise is broken.
//!
//! ```text
//! tcc_log::conformance_tests!(async || tcc_log::conformance::Made { log, keep });
//! ```

use std::{any::Any, sync::Arc};

use crate::{Begun, NewTransaction, TxLog, TxRecord};

pub mod audit;
pub mod begin;
pub mod claim;
pub mod decide;
pub mod enlist;
pub mod listing;
pub mod owner;
pub mod pair;
pub mod progress;
pub mod races;
pub mod retention;
pub mod samples;

/// A fresh, empty log.
pub struct Made {
    /// The log.
    pub log: Arc<dyn TxLog>,
    /// What must live as long as the log is used: its folder, its server.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Begins it and expects it to be new.
pub(crate) async fn begin_new(log: &dyn TxLog, transaction: &NewTransaction) {
    let begun = log.begin(transaction.clone()).await.expect("begin");
    assert!(matches!(begun, Begun::Inserted { .. }), "{begun:?}");
}

/// Reads what must be there.
pub(crate) async fn loaded(log: &dyn TxLog, gid: tcc_types::Gid) -> TxRecord {
    log.load(gid).await.expect("load").expect("the transaction is there")
}

/// Expands to one test for each case; `$make` is an async function or closure that returns a [`Made`].
///
/// The using crate needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr) => {
        $crate::conformance_races!($make);
        $crate::conformance_tests! { @modules $make;
            begin {
                a_begun_transaction_reads_back_whole
                a_repeated_begin_tells_what_stands_and_writes_nothing
                a_begin_under_a_used_key_tells_the_transaction_that_has_it
                keys_are_scoped_by_initiator
                transactions_without_a_key_never_collide
                the_gid_is_looked_at_before_the_key
                a_cancelled_record_stops_a_later_begin
                a_cancelled_record_loses_to_a_transaction
                a_repeated_cancelled_record_keeps_its_first_author
                the_order_of_branches_is_kept
                payload_bytes_are_kept_exactly
                a_large_payload_is_kept
                names_of_full_length_are_kept
                two_branches_with_one_id_are_refused_and_nothing_is_written
                the_way_to_try_and_decide_is_kept
            }
            decide {
                confirm_stands_with_as_many_votes_as_branches
                cancel_stands_and_keeps_its_cause
                every_cause_reads_back
                a_confirm_after_cancel_gets_the_cancel
                a_cancel_after_confirm_gets_the_confirm
                a_repeated_decision_keeps_its_time
                a_confirm_with_another_number_of_votes_decides_nothing
                a_cancel_is_possible_after_a_confirm_that_decided_nothing
                an_unknown_gid_cannot_be_decided
                a_finished_transaction_tells_its_decision
                a_cancelled_record_cannot_be_confirmed
            }
            enlist {
                an_enlisted_branch_comes_last_and_is_counted
                an_enlisted_branch_must_be_voted_for
                a_repeated_enlist_tells_the_branch_and_counts_once
                a_branch_that_was_begun_with_cannot_be_enlisted_again
                a_decided_transaction_takes_no_branches
                a_branch_is_still_told_after_the_decision
                only_an_open_transaction_takes_branches
                branches_are_bounded
                an_unknown_gid_takes_no_branches
            }
            progress {
                finish_ends_what_was_decided
                a_repeated_finish_changes_nothing
                finish_leaves_the_undecided_and_the_unknown_alone
                parked_progress_reads_back
                what_is_settled_stays_settled
                parking_leaves_the_ended_alone
                parking_an_unknown_transaction_or_branch_changes_nothing
            }
            claim {
                what_is_due_is_claimed_with_its_branches_earliest_first
                a_claim_is_bounded
                a_claimed_transaction_is_leased
                a_lease_that_has_passed_is_claimed_again
                nothing_is_claimed_before_its_time
                the_finished_is_never_claimed
                a_decision_sets_the_next_attempt
                released_leases_are_due_at_once_but_holds_wait_for_decide_by
                a_released_lease_leaves_the_stuck_to_its_next_attempt
                what_is_stuck_and_what_is_fresh_are_claimed_each_for_itself
                a_stuck_transaction_stays_of_its_kind_to_its_end
            }
            owner {
                each_owner_that_is_taken_is_greater_than_all_before
                owners_taken_at_once_are_distinct
                a_log_that_can_be_written_to_says_so
                whoever_begins_is_the_owner
                whoever_decides_is_the_owner
                whoever_claims_is_the_owner
                a_park_by_another_owner_changes_nothing
                a_lease_is_renewed_only_of_what_is_unfinished_and_the_owners
                a_renewed_transaction_is_not_claimed
                what_was_claimed_cannot_be_renewed_by_its_last_owner
                leases_are_renewed_up_to_a_limit
            }
            retention {
                what_has_ended_is_deleted_with_its_branches
                what_is_unfinished_is_never_deleted
                what_ended_lately_is_kept
                what_was_minted_later_is_not_looked_at
                a_deletion_is_bounded_and_goes_on_where_it_stopped
                a_deleted_transactions_key_is_free
                the_audit_record_outlives_its_transaction
                many_are_deleted_at_once
            }
            listing {
                a_transaction_is_found_by_initiator_and_key
                transactions_are_listed_newest_first_in_pages
                a_listing_is_filtered_by_status_and_initiator
                every_status_is_counted
                stuck_branches_are_listed_longest_stuck_first_in_pages
                stuck_branches_are_filtered_by_participant
                what_is_not_stuck_any_more_is_not_listed
                statuses_come_in_the_order_of_the_keys
                many_statuses_are_read_at_once
                what_is_missing_is_not_found
            }
            audit {
                the_audit_record_is_listed_newest_first_in_pages
                the_audit_record_is_listed_by_transaction
                marking_settled_is_recorded_and_makes_the_transaction_due
                only_a_stuck_branch_can_be_marked_settled
                an_unknown_branch_cannot_be_marked_settled
            }
        }
    };
    (@modules $make:expr; $($module:ident { $($case:ident)+ })+) => {
        $(mod $module {
            #[allow(unused_imports, reason = "the maker may be a path or a closure that needs none of them")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let $crate::conformance::Made { log, keep } = ($make)().await;
                    $crate::conformance::$module::$case(::std::sync::Arc::clone(&log)).await;
                    log.close().await;
                    drop(keep);
                }
            )+
        })+
    };
}

/// The same with only those cases in which many callers meet; for two logs on one database as a [`pair::Pair`], too.
#[macro_export]
macro_rules! conformance_races {
    ($make:expr) => {
        $crate::conformance_tests! { @modules $make;
            races {
                of_many_begins_under_one_key_one_wins
                of_many_begins_of_one_gid_one_wins
                begin_and_the_cancelled_record_agree
                of_many_decisions_one_stands_for_all
                a_confirm_never_overlooks_an_enlisted_branch
                many_enlists_are_each_counted_once
                concurrent_claims_never_share
                concurrent_claims_of_both_kinds_never_share
                whole_lives_run_side_by_side
            }
        }
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_case_is_left_out_of_the_macro() {
        let list = include_str!("mod.rs");
        let files = [
            include_str!("audit.rs"),
            include_str!("begin.rs"),
            include_str!("claim.rs"),
            include_str!("decide.rs"),
            include_str!("enlist.rs"),
            include_str!("listing.rs"),
            include_str!("owner.rs"),
            include_str!("progress.rs"),
            include_str!("races.rs"),
            include_str!("retention.rs"),
        ];
        let mut cases = 0;
        for line in files.iter().flat_map(|file| file.lines()) {
            let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
            let case = rest.split('(').next().unwrap_or_default();
            assert!(list.lines().any(|line| line.trim() == case), "{case} is not in the macro");
            cases += 1;
        }
        assert!(cases >= 60, "{cases} cases");
    }
}

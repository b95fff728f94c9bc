//! The contract of [`Store`], as a suite for every implementation.
//!
//! A fixture stands for one database that can be opened again and again. `contract_suite!` makes one test of every function
//! here; what only one implementation can show (its files, its locks) is tested beside it.

pub(crate) mod build;
pub(crate) mod commits;
pub(crate) mod crash;
pub(crate) mod lists;
pub(crate) mod notices;
pub(crate) mod objects;
pub(crate) mod reading;
pub(crate) mod retention;
pub(crate) mod roundtrip;
pub(crate) mod terms;
pub(crate) mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use store::{Store, StoreError};

/// One database, empty at first.
#[async_trait]
pub(crate) trait Fixture: Send + Sync {
    /// Opens it, which begins a term. What was opened before has to be closed, or gone with its process.
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// The same for reading alone, whoever writes it.
    fn reading(&self) -> Arc<dyn Store>;
}

/// One test a function of the contract; `$fixture` makes a database of its own for each.
macro_rules! contract_suite {
    ($fixture:expr) => {
        contract_suite! { $fixture;
            commits: a_batch_is_all_or_nothing, compare_and_set_tells_updated_stale_and_missing_apart,
                a_job_changes_more_than_once_in_a_batch, an_ended_term_writes_nothing, a_term_that_has_not_begun_writes_nothing,
                revisions_have_no_gap_over_failures_and_reopening, a_sequence_is_never_given_out_twice, an_id_is_unique,
                keys_are_scoped_and_unique, rows_that_no_state_machine_makes_are_refused, an_empty_batch_changes_nothing,
                commits_from_many_tasks_are_served_one_by_one, a_closed_store_says_so;
            roundtrip: every_lifecycle_comes_back, a_record_is_what_was_submitted, the_latest_run_is_remembered,
                odd_text_and_large_specs_come_back, ten_thousand_jobs_in_one_batch, the_table_is_the_same_after_reopening;
            lists: filters_restrict, labels_select, pages_join_without_gap_or_repeat, unfinished_jobs_come_in_pages_by_sequence,
                counts_follow_every_change, events_resume_from_a_revision, events_of_one_job, tokens_are_kept;
            notices: notices_have_their_places_in_the_sequence, notices_go_with_the_events_around_them;
            objects: objects_are_kept_by_kind_and_name, an_object_is_replaced_and_removed, objects_share_the_fate_of_their_batch,
                an_ended_term_sets_no_object, objects_that_cannot_be_are_refused;
            reading: a_table_that_another_writes_is_read_and_not_changed, a_reader_sees_no_part_of_a_batch,
                a_reader_outlives_the_writer;
            retention: prune_removes_the_jobs_that_finished_first, a_pruned_sequence_is_not_given_out_again,
                compact_removes_events_in_bounds_and_remembers_the_floor, compact_removes_old_keys,
                the_last_revision_survives_the_last_event;
            terms: a_term_is_raised_and_never_lowered, the_next_term_begins_above_a_raised_one, who_writes_no_more_is_told;
            usage: runs_are_counted_once_by_whom_and_where, a_run_over_midnight_is_cut, every_try_of_a_job_counts,
                samples_are_added_to_the_run_and_its_day, sums_outlive_their_jobs_until_they_are_forgotten;
        }
    };
    ($fixture:expr; $($module:ident: $($name:ident),+;)+) => {$($(
        #[tokio::test]
        async fn $name() {
            let fixture = $fixture;
            contract::$module::$name(&fixture).await;
        }
    )+)+};
}
pub(crate) use contract_suite;

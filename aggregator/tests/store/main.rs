//! The conformance suite of stores, and the stores it is held against.
//!
//! Owns the list of both. A further store is a further [`Provider`] and one more line here; what a
//! store must do stands in `suite.rs` and `model.rs`, which know of none in particular.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod golden;
mod model;
mod stage;
mod suite;
mod two_handles;

use std::path::Path;

use stage::Provider;
use uptime_aggregator::store::SqliteStore;

/// The embedded store.
struct Embedded;

impl Provider for Embedded {
    type Store = SqliteStore;

    async fn open(place: &Path) -> SqliteStore {
        SqliteStore::open(place).await.unwrap()
    }
}

macro_rules! conforms {
    ($($module:ident::$name:ident),+ $(,)?) => {
        mod embedded {
            use super::*;

            $(
                #[tokio::test]
                async fn $name() {
                    let place = tempfile::tempdir().unwrap();
                    $module::$name::<Embedded>(place.path()).await;
                }
            )+
        }
    };
}

conforms! {
    suite::a_new_store_is_empty_and_keeps_its_name,
    suite::facts_come_back_by_round_and_key,
    suite::repetitions_and_conflicts_are_told_apart,
    suite::compaction_changes_no_answer,
    suite::a_day_that_something_came_to_is_not_swapped_in,
    suite::a_round_takes_no_more_parts_than_it_may,
    suite::what_travels_beside_facts_is_kept,
    suite::a_checkpoint_takes_the_place_of_the_one_before,
    two_handles::each_process_is_a_writer_and_its_commits_have_no_gaps,
    two_handles::whoever_is_behind_learns_what_was_committed,
    two_handles::whoever_is_behind_a_compacted_day_folds_it_again,
    two_handles::a_part_that_outranks_one_that_is_known_is_named,
    two_handles::numbers_are_given_once,
    two_handles::a_stale_token_changes_nothing,
    two_handles::a_writer_that_was_ended_begins_anew,
    suite::retractions_hold_until_they_are_undone,
    suite::epochs_that_have_not_begun_are_replaced_and_no_others,
    suite::pruning_takes_what_is_before_and_nothing_else,
    suite::an_opening_balance_takes_the_place_of_the_one_before,
    suite::who_holds_still_sees_one_moment,
    suite::a_copy_is_whole_and_both_are_sound,
    suite::identities_and_what_was_done_about_them_are_kept,
    suite::ids_that_are_forgotten_keep_their_numbers,
    model::any_course_of_events_reads_as_a_plain_map,
}

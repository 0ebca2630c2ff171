//! What every store must do, as tests that any store can be put to.
//!
//! Not for speed, and not for what one implementation promises beyond the port. Must hold: each case gets a store of
//! its own, empty; time passes only through the fixture's clock, so that nothing here waits; where a race is the
//! point, it is counted, so that a suite that met none fails.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use runtime::Clock;
use saga_defs::Timestamp;
use uuid::Uuid;

use crate::Store;
use world::World;

/// Sagas to commit, and short ways to commit them.
mod world;

mod commits;

mod keys;

mod outbox;

mod timers;

mod queries;

mod facts;

mod dead_letters;

mod retention;

mod unreadable;

mod races;

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Lets `ms` milliseconds pass.
    pub fn pass(&self, ms: u64) {
        self.0.store(self.now().plus_ms(ms).0, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::at(Timestamp(1_795_253_400_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A part of a saga that can be spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its state.
    State,
    /// Its input document.
    Input,
}

/// The rows behind a store, which a disk or a hand may spoil.
#[async_trait]
pub trait Spoil: Send + Sync {
    /// Makes a part of a saga something that nobody can read.
    async fn spoil(&self, saga_id: Uuid, part: Part);
}

/// An empty store and the clock that it follows.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its database's clock.
    pub clock: Arc<ManualClock>,
    /// Its rows.
    pub rows: Arc<dyn Spoil>,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fixture({:?})", self.store)
    }
}

/// How often parties met on the same rows. None of these is zero.
#[derive(Clone, Copy, Debug)]
pub struct Races {
    /// Compare-and-swaps that lost.
    pub commits_lost: usize,
    /// Starts that found their key taken.
    pub starts_lost: usize,
    /// Claims that got less than they asked for, because others had the rows.
    pub claims_short: usize,
}

/// Puts stores made by `make` to every case.
///
/// # Panics
/// When a store does not do what the port says.
pub async fn run_all<F: AsyncFn() -> Fixture>(make: F) -> Races {
    let world = async || World::new(make().await);
    commits::a_winner_is_whole(&world().await).await;
    commits::a_loser_leaves_no_trace(&world().await).await;
    commits::outcomes_are_in_the_order_of_the_transitions(&world().await).await;
    commits::texts_come_back_byte_for_byte(&world().await).await;
    commits::a_refused_batch_leaves_no_trace(&world().await).await;
    commits::a_big_batch_is_committed_whole(&world().await).await;
    commits::winners_share_messages(&world().await).await;
    commits::history_leads_to_the_state(&world().await).await;

    keys::a_start_key_is_taken_once(&world().await).await;
    keys::a_business_key_is_taken_while_its_saga_is_open(&world().await).await;
    keys::a_start_that_met_a_business_key_can_come_again(&world().await).await;
    keys::an_end_frees_its_business_key_within_one_commit(&world().await).await;
    keys::of_two_starts_in_one_commit_the_older_gets_the_business_key(&world().await).await;
    keys::a_start_that_ends_at_once_meets_a_business_key_all_the_same(&world().await).await;

    outbox::a_message_has_a_head_start(&world().await).await;
    outbox::a_claim_pushes_further_each_time(&world().await).await;
    outbox::the_oldest_due_are_claimed_first(&world().await).await;
    outbox::released_rows_are_due_at_once(&world().await).await;
    outbox::extended_rows_wait_and_confirmed_rows_are_gone(&world().await).await;

    timers::a_due_saga_is_claimed_without_a_new_version(&world().await).await;
    timers::a_timer_is_rearmed_only_at_its_version(&world().await).await;
    timers::a_commit_pulls_the_timer_nearer_or_takes_it_away(&world().await).await;
    timers::the_longest_due_are_claimed_first(&world().await).await;

    queries::pages_have_no_gaps_and_no_doubles(&world().await).await;
    queries::a_list_respects_every_filter(&world().await).await;
    queries::a_summary_tells_what_the_state_says(&world().await).await;
    queries::open_sagas_are_counted_by_status(&world().await).await;
    queries::history_is_paged(&world().await).await;
    queries::answers_are_of_those_that_have_one(&world().await).await;

    facts::a_late_reply_is_kept_once(&world().await).await;
    facts::contradictions_are_told_by_saga(&world().await).await;
    facts::publishing_again_changes_nothing(&world().await).await;
    facts::changed_content_is_refused_whole(&world().await).await;
    facts::the_store_can_be_written(&world().await).await;

    dead_letters::a_letter_is_kept_once_and_whole(&world().await).await;
    dead_letters::lists_are_filtered_and_paged(&world().await).await;
    dead_letters::a_letter_is_settled_once(&world().await).await;
    dead_letters::a_replay_is_in_the_outbox_at_once(&world().await).await;
    dead_letters::a_settled_letter_that_dies_again_waits_again(&world().await).await;

    retention::ended_sagas_are_found_by_definition_and_age(&world().await).await;
    retention::what_is_open_stuck_or_contradicted_stays(&world().await).await;
    retention::an_announcement_tells_who_was_touched_and_once(&world().await).await;
    retention::a_saga_is_deleted_when_its_announcement_is_confirmed(&world().await).await;
    retention::a_saga_that_is_contradicted_on_its_way_out_stays(&world().await).await;
    retention::a_deleted_saga_leaves_its_start_key_and_nothing_else(&world().await).await;
    retention::start_keys_go_by_their_age_and_never_before_their_sagas(&world().await).await;
    retention::of_two_who_announce_one_does(&world().await).await;
    retention::late_replies_are_paged(&world().await).await;

    unreadable::what_can_not_be_read_spares_its_neighbours(&world().await).await;
    unreadable::what_can_not_be_read_is_listed_found_and_put_off(&world().await).await;
    unreadable::what_is_committed_over_it_can_be_read(&world().await).await;
    unreadable::what_is_passed_over_hides_no_other(&world().await).await;

    races::run(world).await
}

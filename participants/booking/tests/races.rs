//! Two instances over one clinic on PostgreSQL, brought to the same slot at the same moment.
//!
//! Each race is forced: a session of the test's own holds a slot until both instances were seen waiting, in a known
//! order, or until the second has gone through while the first waits.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::future::Future;

use booking::Booking;
use clinic::appointments::APPOINTMENT_CONFIRMED;
use clinic::seed::slot_id;
use clinic::slots;
use confirmation::Confirmation;
use fixture::Stack;
use participant_kit::TransactionalHandler;
use saga_defs::contract::booking::SLOT_TAKEN;
use saga_defs::contract::confirmation::RESERVATION_EXPIRED;
use saga_defs::message::{ALREADY_EXECUTED, FENCED, NOTHING_TO_UNDO};
use saga_defs::{Command, Outcome};
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType, Query, SelectStatement};
use serde_json::json;
use support::{Clinic, SLOTS, confirm, fence, refused, release, reserve, reserved};
use uuid::Uuid;

/// The clinic as two instances see it.
struct World {
    first: Clinic,
    booking: TransactionalHandler<Booking>,
    confirmation: TransactionalHandler<Confirmation>,
}

impl World {
    async fn new() -> Self {
        let first = Clinic::new(Stack::Postgres).await;
        let second = first.owned.instance("second").await;
        Self {
            first,
            booking: TransactionalHandler::new(second.clone(), Booking),
            confirmation: TransactionalHandler::new(second, Confirmation),
        }
    }

    /// Lets `first` wait for `slot`, which somebody else has, and `second` for `first`; calls `look` then, and gives the
    /// slot back.
    async fn in_line<A, B>(
        &self,
        slot: u32,
        first: impl Future<Output = A>,
        second: impl Future<Output = B>,
        look: impl AsyncFnOnce(),
    ) -> (A, B) {
        let owned = &self.first.owned;
        let held = owned.hold(&row(slot)).await;
        let then = async {
            owned.blocked("first", "watch").await;
            let seen = async {
                owned.blocked("second", "first").await;
                look().await;
                held.commit().await.unwrap();
            };
            tokio::join!(second, seen).0
        };
        tokio::join!(first, then)
    }

    /// Lets `first` wait for `slot`, which somebody else has, until `second` has gone through.
    async fn overtaken<A, B>(
        &self,
        slot: u32,
        first: impl Future<Output = A>,
        second: impl Future<Output = B>,
    ) -> (A, B) {
        let held = self.first.owned.hold(&row(slot)).await;
        let then = async {
            self.first.owned.blocked("first", "watch").await;
            let second = second.await;
            held.commit().await.unwrap();
            second
        };
        tokio::join!(first, then)
    }

    async fn book(&self, commands: &[Command]) -> Vec<Outcome> {
        self.booking.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap()
    }

    async fn confirm(&self, commands: &[Command]) -> Vec<Outcome> {
        self.confirmation.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap()
    }

    async fn book_first(&self, commands: &[Command]) -> Vec<Outcome> {
        self.first.booking.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap()
    }

    async fn confirm_first(&self, commands: &[Command]) -> Vec<Outcome> {
        self.first.confirmation.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap()
    }

    /// Holds the slot of that number for the saga of that number.
    async fn held(&self, saga: u128, slot: u32) -> Uuid {
        reserved(&self.first.book(&reserve(saga, slot_id(slot))).await).appointment_id
    }

    /// Fails when somebody has locked the slot.
    async fn free(&self, slot: u32) {
        self.first.owned.free(&row(slot)).await;
    }

    async fn status(&self, slot: u32) -> slots::Status {
        assert_eq!(self.first.contradictions().await, (vec![], vec![]));
        self.first.slot(slot).await.status
    }
}

/// A slot, for locking.
fn row(slot: u32) -> SelectStatement {
    let mut row = Query::select();
    row.column("id").from("slots").and_where(Expr::col("id").eq(slot_id(slot))).lock(LockType::Update);
    row
}

/// Three slots with growing ids that the table has in the opposite order.
fn growing() -> [u32; 3] {
    let triples = (0..SLOTS).flat_map(|a| (0..a).flat_map(move |b| (0..b).map(move |c| [a, b, c])));
    let mut growing = triples.filter(|[a, b, c]| slot_id(*a) < slot_id(*b) && slot_id(*b) < slot_id(*c));
    growing.next().expect("ids are scattered")
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn of_two_sagas_at_two_instances_one_gets_the_slot() {
    let world = World::new().await;
    let (one, other) = ([reserve(1, slot_id(0))], [reserve(2, slot_id(0))]);
    let (first, second) = world.in_line(0, world.book_first(&one), world.book(&other), async || ()).await;
    assert_eq!(reserved(&first[0]).slot_id, slot_id(0));
    refused(&second[0], SLOT_TAKEN);
    assert_eq!(world.status(0).await, slots::Status::Held);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_slot_whose_release_is_under_way_goes_to_the_saga_that_waits() {
    let (world, [low, high, _]) = (World::new().await, growing());
    world.held(1, low).await;
    // The other reservation keeps the release's transaction open.
    let one = [release(1), reserve(3, slot_id(high))];
    let other = [reserve(2, slot_id(low))];
    let (first, second) = world.in_line(high, world.book_first(&one), world.book(&other), async || ()).await;
    assert!(matches!(first[0], Outcome::Succeeded { .. }), "{first:?}");
    assert_eq!(reserved(&second[0]).slot_id, slot_id(low));
    assert_eq!(world.status(low).await, slots::Status::Held);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_release_that_overtakes_its_reservation_leaves_the_slot_free() {
    let world = World::new().await;
    let (one, other) = ([reserve(1, slot_id(0))], [release(1)]);
    let (first, second) = world.overtaken(0, world.book_first(&one), world.book(&other)).await;
    refused(&first[0], FENCED);
    assert_eq!(second, [Outcome::succeeded(json!({ NOTHING_TO_UNDO: true }))]);
    assert_eq!(world.status(0).await, slots::Status::Free, "what the first had made is rolled back");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_fence_that_overtakes_its_confirmation_keeps_it_from_happening() {
    let world = World::new().await;
    let appointment = world.held(1, 0).await;
    let (one, other) = ([confirm(1, appointment)], [fence(1)]);
    let (first, second) = world.overtaken(0, world.confirm_first(&one), world.confirm(&other)).await;
    refused(&first[0], FENCED);
    assert_eq!(second, [Outcome::succeeded(json!({ NOTHING_TO_UNDO: true }))]);
    assert_eq!(world.status(0).await, slots::Status::Held, "what the first had made is rolled back");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn a_confirmation_that_overtakes_its_fence_stands_and_the_fence_learns_it() {
    let world = World::new().await;
    let (appointment, other) = (world.held(1, 0).await, world.held(2, 1).await);
    // The other confirmation keeps the fence's transaction open, and is made once, whatever becomes of that one.
    let (one, late) = ([fence(1), confirm(2, other)], [confirm(1, appointment)]);
    let (first, second) = world.overtaken(1, world.confirm_first(&one), world.confirm(&late)).await;
    refused(&first[0], ALREADY_EXECUTED);
    assert!(matches!(first[1], Outcome::Succeeded { .. }), "{first:?}");
    assert!(matches!(second[0], Outcome::Succeeded { .. }), "{second:?}");
    assert_eq!((world.status(0).await, world.status(1).await), (slots::Status::Booked, slots::Status::Booked));
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn one_reservation_at_two_instances_holds_one_slot_and_both_say_the_same() {
    let world = World::new().await;
    let command = [reserve(1, slot_id(0))];
    let (first, second) = world.in_line(0, world.book_first(&command), world.book(&command), async || ()).await;
    assert_eq!(reserved(&first[0]).appointment_id, reserved(&second[0]).appointment_id);
    assert_eq!(world.status(0).await, slots::Status::Held);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn of_a_confirmation_and_a_release_the_first_decides() {
    let world = World::new().await;
    let (kept, freed) = (world.held(1, 0).await, world.held(2, 1).await);
    let (one, other) = ([confirm(1, kept)], [release(1)]);
    let (first, second) = world.in_line(0, world.confirm_first(&one), world.book(&other), async || ()).await;
    assert!(matches!(first[0], Outcome::Succeeded { .. }), "{first:?}");
    refused(&second[0], APPOINTMENT_CONFIRMED);
    let (one, other) = ([release(2)], [confirm(2, freed)]);
    let (first, second) = world.in_line(1, world.book_first(&one), world.confirm(&other), async || ()).await;
    assert!(matches!(first[0], Outcome::Succeeded { .. }), "{first:?}");
    refused(&second[0], RESERVATION_EXPIRED);
    assert_eq!((world.status(0).await, world.status(1).await), (slots::Status::Booked, slots::Status::Free));
}

/// Whoever waits for a slot has none with a greater id: otherwise two batches could wait for each other.
#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn both_verbs_of_a_batch_lock_their_slots_in_one_order() {
    let (world, [low, middle, high]) = (World::new().await, growing());
    world.held(9, low).await;
    let up = [reserve(1, slot_id(low)), reserve(2, slot_id(middle)), reserve(3, slot_id(high))];
    // Effects are made before others are undone, yet the slot of the undo comes first.
    let down = [reserve(4, slot_id(high)), release(9)];
    let look = async || world.free(high).await;
    let (first, second) = world.in_line(middle, world.book_first(&up), world.book(&down), look).await;
    refused(&first[0], SLOT_TAKEN);
    assert_eq!((reserved(&first[1]).slot_id, reserved(&first[2]).slot_id), (slot_id(middle), slot_id(high)));
    refused(&second[0], SLOT_TAKEN);
    assert!(matches!(second[1], Outcome::Succeeded { .. }), "{second:?}");
    assert_eq!(world.status(low).await, slots::Status::Free);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn confirmations_lock_their_slots_as_reservations_do() {
    let (world, [low, middle, high]) = (World::new().await, growing());
    let held = [world.held(1, low).await, world.held(2, middle).await, world.held(3, high).await];
    let (up, down) = ([release(1), release(2), release(3)], [confirm(3, held[2]), confirm(1, held[0])]);
    let look = async || world.free(high).await;
    let (first, second) = world.in_line(middle, world.book_first(&up), world.confirm(&down), look).await;
    assert!(first.iter().all(|outcome| matches!(outcome, Outcome::Succeeded { .. })), "{first:?}");
    second.iter().for_each(|outcome| refused(outcome, RESERVATION_EXPIRED));
}

#[tokio::test]
#[ignore = "needs PostgreSQL: scripts/test"]
async fn releases_lock_their_slots_as_confirmations_do() {
    let (world, [low, middle, high]) = (World::new().await, growing());
    let held = [world.held(1, low).await, world.held(2, middle).await, world.held(3, high).await];
    let up = [confirm(1, held[0]), confirm(2, held[1]), confirm(3, held[2])];
    let down = [release(3), release(1)];
    let look = async || world.free(high).await;
    let (first, second) = world.in_line(middle, world.confirm_first(&up), world.book(&down), look).await;
    assert!(first.iter().all(|outcome| matches!(outcome, Outcome::Succeeded { .. })), "{first:?}");
    second.iter().for_each(|outcome| refused(outcome, APPOINTMENT_CONFIRMED));
}

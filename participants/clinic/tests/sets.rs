//! Many at once: each gets its own outcome, as if they had come one after another, in as many statements as one.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use std::sync::{Arc, Mutex};

use clinic::appointments::{APPOINTMENT_CONFIRMED, Status, appointment_id};
use clinic::seed::slot_id;
use clinic::{Asked, Held, Hold, appointments, audit, confirm, release, reserve, seed, slots};
use db::{Db, Transaction, Work};
use fixture::{Owned, Stack};
use saga_defs::contract::Patient;
use saga_defs::contract::booking::{Reserve, SLOT_IN_PAST, SLOT_TAKEN, SLOT_UNKNOWN};
use saga_defs::contract::confirmation::RESERVATION_EXPIRED;
use saga_defs::message::NOTHING_TO_UNDO;
use saga_defs::{Outcome, Timestamp};
use sea_orm::EntityTrait as _;
use serde_json::json;
use uuid::Uuid;

/// 2026-11-21T09:30:00Z.
const NOW: Timestamp = Timestamp(1_795_253_400_000_000);

fn key(saga: u128) -> Uuid {
    Uuid::from_u128(1_000_000 + saga)
}

fn held(saga: u128) -> Held {
    held_by(saga, saga)
}

/// The appointment of one saga, asked for by another.
fn held_by(saga: u128, asking: u128) -> Held {
    Held { appointment_id: appointment_id(key(saga)), saga_id: Uuid::from_u128(asking) }
}

struct Clinic {
    owned: Owned,
    db: Db,
    statements: Arc<Mutex<Vec<String>>>,
}

impl Clinic {
    async fn new(stack: Stack, slots: u32) -> Self {
        let owned = Owned::open::<migrations::Clinic>(stack).await;
        seed(&owned.db, slots, NOW).await.unwrap();
        let statements: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&statements);
        let db = owned.db.clone().telling(move |text| told.lock().unwrap().push(text.to_owned()));
        Self { owned, db, statements }
    }

    async fn run<F>(&self, work: F) -> Vec<String>
    where
        F: for<'c> Fn(&'c Transaction) -> Work<'c, Vec<Outcome>> + Send + Sync + 'static,
    {
        self.db.transaction(work).await.unwrap().iter().map(short).collect()
    }

    /// Sagas and the slots that they ask for.
    async fn reserve(&self, asked: &[(u128, Uuid)], now: Timestamp) -> Vec<String> {
        let asked = asked.to_vec();
        self.run(move |tx| {
            let asked = asked.clone();
            Box::pin(async move {
                let wish = |(saga, slot_id): &(u128, Uuid)| {
                    let patient = Patient {
                        name: format!("Ada {saga}"),
                        phone: "+15005550006".to_owned(),
                        email: "ada@example.org".to_owned(),
                    };
                    (Hold { key: key(*saga), saga_id: Uuid::from_u128(*saga) }, Reserve { slot_id: *slot_id, patient })
                };
                let wishes: Vec<(Hold, Reserve)> = asked.iter().map(wish).collect();
                let asked: Vec<Asked<'_>> =
                    wishes.iter().map(|(hold, reserve)| Asked { hold: *hold, reserve }).collect();
                reserve(tx, now, &asked).await
            })
        })
        .await
    }

    async fn release(&self, sagas: &[u128]) -> Vec<String> {
        let keys: Vec<Uuid> = sagas.iter().map(|saga| key(*saga)).collect();
        self.run(move |tx| {
            let keys = keys.clone();
            Box::pin(async move { release(tx, NOW, &keys).await })
        })
        .await
    }

    async fn confirm(&self, asked: &[Held]) -> Vec<String> {
        let asked = asked.to_vec();
        self.run(move |tx| {
            let asked = asked.clone();
            Box::pin(async move { confirm(tx, NOW, &asked).await })
        })
        .await
    }

    async fn slot(&self, n: u32) -> (slots::Status, i32) {
        let slot = slots::Entity::find_by_id(slot_id(n)).one(self.owned.db.reader()).await.unwrap().unwrap();
        (slot.status, slot.version)
    }

    async fn appointment(&self, saga: u128) -> Option<(Status, Option<String>)> {
        let row = appointments::Entity::find_by_id(appointment_id(key(saga)));
        row.one(self.owned.db.reader()).await.unwrap().map(|row| (row.status, row.patient_name))
    }

    async fn assert_sound(&self) {
        assert_eq!(audit::double_booked_slots(&self.owned.db, None, 10).await.unwrap(), Vec::<Uuid>::new());
        assert_eq!(audit::contradicting_slots(&self.owned.db, None, 10).await.unwrap(), Vec::<Uuid>::new());
    }

    /// The statements since this was asked last.
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.statements.lock().unwrap())
    }
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded { output } if *output == json!({ NOTHING_TO_UNDO: true }) => "nothing".to_owned(),
        Outcome::Succeeded { .. } => "done".to_owned(),
        Outcome::Refused { code, .. } => code.clone(),
        Outcome::Retry { .. } => panic!("nothing is to be repeated"),
    }
}

fixture::on_every_stack! {
    reservations_of_one_batch_get_what_each_would_get_alone,
    a_key_that_was_used_leaves_the_slot_to_the_next_in_line,
    releases_of_one_batch_give_back_what_is_held_and_nothing_else,
    confirmations_of_one_batch_confirm_what_each_saga_holds,
    many_take_as_many_statements_as_one,
    a_slot_that_contradicts_its_appointment_stops_the_batch,
}

async fn reservations_of_one_batch_get_what_each_would_get_alone(stack: Stack) {
    let clinic = Clinic::new(stack, 8).await;
    clinic.reserve(&[(1, slot_id(0))], NOW).await;
    let asked = [
        (10, slot_id(0)),
        (19, slot_id(1)),
        (11, Uuid::from_u128(7)),
        (12, slot_id(1)),
        (13, slot_id(2)),
        (11, slot_id(1)),
    ];
    let outcomes = clinic.reserve(&asked, NOW).await;
    assert_eq!(
        outcomes,
        [SLOT_TAKEN, "done", SLOT_UNKNOWN, SLOT_TAKEN, "done", SLOT_TAKEN],
        "the first of two gets it"
    );
    assert_eq!(clinic.appointment(19).await, Some((Status::Pending, Some("Ada 19".to_owned()))));
    assert_eq!((clinic.appointment(12).await, clinic.appointment(10).await), (None, None), "a refusal leaves nothing");
    let versions = [clinic.slot(0).await, clinic.slot(1).await, clinic.slot(3).await];
    assert_eq!(versions, [(slots::Status::Held, 2), (slots::Status::Held, 2), (slots::Status::Free, 1)]);
    let late = NOW.plus_ms(30 * 24 * 3_600_000);
    assert_eq!(clinic.reserve(&[(20, slot_id(1)), (21, slot_id(4))], late).await, [SLOT_IN_PAST, SLOT_IN_PAST]);
    clinic.assert_sound().await;
}

async fn a_key_that_was_used_leaves_the_slot_to_the_next_in_line(stack: Stack) {
    let clinic = Clinic::new(stack, 2).await;
    clinic.reserve(&[(1, slot_id(0))], NOW).await;
    clinic.release(&[1]).await;
    // Its inbox would not ask: the appointment's id is taken.
    assert_eq!(clinic.reserve(&[(1, slot_id(0)), (2, slot_id(0))], NOW).await, [SLOT_TAKEN, "done"]);
    assert_eq!(clinic.slot(0).await, (slots::Status::Held, 4));
    clinic.assert_sound().await;
}

async fn releases_of_one_batch_give_back_what_is_held_and_nothing_else(stack: Stack) {
    let clinic = Clinic::new(stack, 8).await;
    clinic.reserve(&[(1, slot_id(1)), (2, slot_id(2)), (3, slot_id(3)), (4, slot_id(4))], NOW).await;
    clinic.confirm(&[held(2)]).await;
    clinic.release(&[3]).await;
    let outcomes = clinic.release(&[4, 9, 2, 3, 1]).await;
    assert_eq!(outcomes, ["done", "nothing", APPOINTMENT_CONFIRMED, "done", "done"]);
    for saga in [1, 3, 4] {
        assert_eq!(clinic.appointment(saga).await, Some((Status::Released, None)), "nobody's name is left");
    }
    assert_eq!(clinic.appointment(2).await, Some((Status::Confirmed, Some("Ada 2".to_owned()))));
    let found = [clinic.slot(1).await, clinic.slot(2).await, clinic.slot(3).await];
    assert_eq!(found, [(slots::Status::Free, 3), (slots::Status::Booked, 3), (slots::Status::Free, 3)]);
    clinic.assert_sound().await;
}

async fn confirmations_of_one_batch_confirm_what_each_saga_holds(stack: Stack) {
    let clinic = Clinic::new(stack, 8).await;
    clinic.reserve(&[(1, slot_id(1)), (2, slot_id(2)), (3, slot_id(3)), (4, slot_id(4))], NOW).await;
    clinic.release(&[4]).await;
    // The pairs are compared as pairs: each of the two sagas holds something, but not this.
    let asked = [held_by(2, 1), held(1), held(4), held(9), held(3), held(1)];
    let outcomes = clinic.confirm(&asked).await;
    let expired = RESERVATION_EXPIRED;
    assert_eq!(outcomes, [expired, "done", expired, expired, "done", expired], "of two alike the first counts");
    let found = [clinic.slot(1).await, clinic.slot(2).await, clinic.slot(3).await, clinic.slot(4).await];
    let (booked, held) = ((slots::Status::Booked, 3), (slots::Status::Held, 2));
    assert_eq!(found, [booked, held, booked, (slots::Status::Free, 3)]);
    clinic.assert_sound().await;
}

async fn many_take_as_many_statements_as_one(stack: Stack) {
    let clinic = Clinic::new(stack, 300).await;
    let sagas = |range: std::ops::Range<u128>| range.collect::<Vec<u128>>();
    let mut texts = Vec::new();
    for range in [0..1, 1..257] {
        let sagas = sagas(range);
        let asked: Vec<(u128, Uuid)> =
            sagas.iter().map(|saga| (*saga, slot_id(u32::try_from(*saga).unwrap()))).collect();
        assert!(clinic.reserve(&asked, NOW).await.iter().all(|outcome| outcome == "done"));
        let (confirmed, released) = sagas.split_at(sagas.len().div_ceil(2));
        let asked: Vec<Held> = confirmed.iter().map(|saga| held(*saga)).collect();
        assert!(clinic.confirm(&asked).await.iter().all(|outcome| outcome == "done"));
        assert!(
            clinic.release(&sagas).await.iter().all(|outcome| outcome == "done" || outcome == APPOINTMENT_CONFIRMED)
        );
        assert!(released.len() < sagas.len());
        texts.push(clinic.told());
    }
    // A release that finds only what was confirmed writes nothing.
    let (one, many) = (&texts[0], &texts[1]);
    assert_eq!((one.len(), many.len()), (6, 8), "{one:?} {many:?}");
    assert_eq!(one[..], many[..6], "the texts are the same");
    clinic.assert_sound().await;
}

async fn a_slot_that_contradicts_its_appointment_stops_the_batch(stack: Stack) {
    let clinic = Clinic::new(stack, 4).await;
    clinic.reserve(&[(1, slot_id(1)), (2, slot_id(2))], NOW).await;
    let booked = slots::ActiveModel {
        id: sea_orm::Set(slot_id(2)),
        status: sea_orm::Set(slots::Status::Booked),
        ..Default::default()
    };
    slots::Entity::update(booked).exec(clinic.owned.db.writer()).await.unwrap();
    let keys = [key(1), key(2)];
    let released = clinic.db.transaction(move |tx| Box::pin(async move { release(tx, NOW, &keys).await })).await;
    assert!(released.is_err_and(|error| !error.is_transient()));
    let confirmed =
        clinic.db.transaction(|tx| Box::pin(async move { confirm(tx, NOW, &[held(1), held(2)]).await })).await;
    assert!(confirmed.is_err_and(|error| !error.is_transient()));
    assert_eq!(clinic.appointment(1).await, Some((Status::Pending, Some("Ada 1".to_owned()))), "nothing happened");
}

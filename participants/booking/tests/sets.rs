//! Batches of commands to booking and confirmation: each is answered as if it had come alone, and a large batch takes
//! as many statements as a small one.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use std::sync::{Arc, Mutex};

use booking::Booking;
use clinic::appointments::appointment_id;
use clinic::seed::slot_id;
use confirmation::Confirmation;
use fixture::Stack;
use participant_kit::TransactionalHandler;
use saga_defs::contract::booking::{SLOT_TAKEN, SLOT_UNKNOWN};
use saga_defs::contract::confirmation::RESERVATION_EXPIRED;
use saga_defs::message::{CONTRACT_VIOLATION, NOTHING_TO_UNDO};
use saga_defs::{Command, Outcome, Verb};
use serde_json::json;
use support::{Clinic, confirm, named, refused, release, reserve, reserved};
use uuid::Uuid;

/// As many as one message holds.
const MANY: u32 = 256;

/// Both participants, with their statements told.
struct Watched {
    clinic: Clinic,
    booking: TransactionalHandler<Booking>,
    confirmation: TransactionalHandler<Confirmation>,
    statements: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    async fn new(stack: Stack) -> Self {
        let clinic = Clinic::empty(stack).await;
        clinic::seed(&clinic.db, 2 * MANY, clinic.db.now()).await.unwrap();
        let statements: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&statements);
        let db = clinic.db.clone().telling(move |text| told.lock().unwrap().push(text.to_owned()));
        let booking = TransactionalHandler::new(db.clone(), Booking);
        Self { clinic, booking, confirmation: TransactionalHandler::new(db, Confirmation), statements }
    }

    /// Makes all of it succeed; the statements that took.
    async fn succeed(&self, commands: &[Command]) -> Vec<String> {
        let borrowed: Vec<&Command> = commands.iter().collect();
        let outcomes = match commands[0].participant.as_str() {
            "booking" => self.booking.apply(&borrowed).await.unwrap(),
            _ => self.confirmation.apply(&borrowed).await.unwrap(),
        };
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Succeeded { .. })), "{outcomes:?}");
        std::mem::take(&mut self.statements.lock().unwrap())
    }
}

/// The appointment that booking makes for a saga.
fn appointment(saga: u128) -> Uuid {
    appointment_id(release(saga).key)
}

fixture::on_every_stack! {
    a_large_batch_takes_as_many_statements_as_a_small_one,
    commands_of_one_batch_are_answered_as_if_each_came_alone,
    confirmations_of_one_batch_are_answered_as_if_each_came_alone,
}

async fn a_large_batch_takes_as_many_statements_as_a_small_one(stack: Stack) {
    let watched = Watched::new(stack).await;
    let sagas = |from: u32, count: u32| (from..from + count).map(|n| (u128::from(n), slot_id(n))).collect::<Vec<_>>();
    let mut taken = Vec::new();
    for group in [sagas(0, 4), sagas(4, MANY)] {
        let reserves: Vec<Command> = group.iter().map(|(saga, slot)| reserve(*saga, *slot)).collect();
        let (confirmed, released) = group.split_at(group.len() / 2);
        let confirms: Vec<Command> = confirmed.iter().map(|(saga, _)| confirm(*saga, appointment(*saga))).collect();
        let releases: Vec<Command> = released.iter().map(|(saga, _)| release(*saga)).collect();
        taken.push([
            watched.succeed(&reserves).await,
            watched.succeed(&confirms).await,
            watched.succeed(&releases).await,
        ]);
    }
    assert_eq!(taken[0], taken[1]);
    assert!(taken[1].iter().all(|statements| statements.len() <= 8), "{taken:?}");
    assert_eq!(watched.clinic.contradictions().await, (vec![], vec![]));
}

async fn commands_of_one_batch_are_answered_as_if_each_came_alone(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    reserved(&clinic.book(&reserve(1, slot_id(1))).await);
    let commands = [
        reserve(2, slot_id(2)),
        named("booking", 3, Verb::Execute, json!({"slot": 1})),
        reserve(4, slot_id(2)),
        release(1),
        reserve(5, Uuid::from_u128(9)),
        release(6),
        reserve(7, slot_id(1)),
        reserve(2, slot_id(2)),
        release(2),
    ];
    let outcomes = clinic.booking.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(reserved(&outcomes[0]).appointment_id, appointment(2));
    refused(&outcomes[1], CONTRACT_VIOLATION);
    refused(&outcomes[2], SLOT_TAKEN);
    assert_eq!(outcomes[3], Outcome::succeeded(json!({ "appointment_id": appointment(1) })));
    refused(&outcomes[4], SLOT_UNKNOWN);
    assert_eq!(outcomes[5], Outcome::succeeded(json!({ NOTHING_TO_UNDO: true })));
    // Of one round, effects are made before others are undone.
    refused(&outcomes[6], SLOT_TAKEN);
    assert_eq!(outcomes[7], outcomes[0], "the stored answer");
    assert_eq!(outcomes[8], Outcome::succeeded(json!({ "appointment_id": appointment(2) })));
    reserved(&clinic.book(&reserve(8, slot_id(2))).await);
    assert_eq!(clinic.contradictions().await, (vec![], vec![]));
}

async fn confirmations_of_one_batch_are_answered_as_if_each_came_alone(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    for (saga, slot) in [(1, 1), (2, 2), (3, 3)] {
        reserved(&clinic.book(&reserve(saga, slot_id(slot))).await);
    }
    clinic.book(&release(2)).await;
    let commands = [
        confirm(4, appointment(1)),
        confirm(3, appointment(3)),
        named("confirmation", 5, Verb::Execute, json!({"appointment": 1})),
        confirm(2, appointment(2)),
        confirm(1, appointment(1)),
        confirm(3, appointment(3)),
    ];
    let outcomes = clinic.confirmation.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap();
    refused(&outcomes[0], RESERVATION_EXPIRED);
    assert_eq!(outcomes[1], Outcome::succeeded(json!({ "appointment_id": appointment(3) })));
    refused(&outcomes[2], CONTRACT_VIOLATION);
    refused(&outcomes[3], RESERVATION_EXPIRED);
    assert_eq!(outcomes[4], Outcome::succeeded(json!({ "appointment_id": appointment(1) })));
    assert_eq!(outcomes[5], outcomes[1], "the stored answer");
    assert_eq!(clinic.contradictions().await, (vec![], vec![]));
}

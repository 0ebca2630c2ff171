//! Booking and confirmation over one clinic: slots are taken once, given back, and confirmed only by who holds them.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

mod support;

use clinic::query::{AppointmentFilter, SlotFilter};
use clinic::seed::slot_id;
use clinic::{appointments, query, slots};
use fixture::Stack;
use saga_defs::contract::booking::{SLOT_IN_PAST, SLOT_TAKEN, SLOT_UNKNOWN};
use saga_defs::contract::confirmation::RESERVATION_EXPIRED;
use saga_defs::message::{ALREADY_EXECUTED, CONTRACT_VIOLATION, FENCED};
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use serde_json::json;
use support::{Clinic, SLOTS, confirm, fence, named, refused, release, reserve, reserved};
use uuid::Uuid;

fixture::on_every_stack! {
    of_many_sagas_in_one_batch_one_gets_the_slot,
    a_released_slot_is_free_again_and_the_patient_forgotten,
    refusals_name_what_is_wrong_with_the_slot,
    only_the_saga_that_holds_an_appointment_confirms_it_and_then_it_stands,
    a_released_appointment_is_not_confirmed,
    a_key_of_one_participant_is_not_answered_by_another,
    a_command_of_another_name_is_refused_and_its_undo_is_not,
    an_active_appointment_keeps_a_slot_that_calls_itself_free,
}

async fn of_many_sagas_in_one_batch_one_gets_the_slot(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    let commands: Vec<Command> = (1..=20).map(|saga| reserve(saga, slot_id(0))).collect();
    let outcomes = clinic.booking.apply(&commands.iter().collect::<Vec<_>>()).await.unwrap();
    let output = reserved(&outcomes[0]);
    assert_eq!((output.slot_id, output.price.amount_minor), (slot_id(0), 4_500));
    outcomes[1..].iter().for_each(|outcome| refused(outcome, SLOT_TAKEN));
    assert_eq!((clinic.slot(0).await.status, clinic.slot(0).await.version), (slots::Status::Held, 2));
    assert_eq!(clinic.contradictions().await, (vec![], vec![]));
}

async fn a_released_slot_is_free_again_and_the_patient_forgotten(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    let held = reserved(&clinic.book(&reserve(1, slot_id(0))).await);
    let row = appointments::Entity::find_by_id(held.appointment_id);
    assert!(row.one(clinic.db.reader()).await.unwrap().unwrap().patient_name.is_some());
    assert!(matches!(clinic.book(&release(1)).await, Outcome::Succeeded { .. }));
    let row = appointments::Entity::find_by_id(held.appointment_id).one(clinic.db.reader()).await.unwrap().unwrap();
    assert_eq!(row.status, appointments::Status::Released);
    assert_eq!((row.patient_name, row.patient_phone, row.patient_email), (None, None, None));
    assert_eq!(clinic.slot(0).await.status, slots::Status::Free);
    refused(&clinic.book(&reserve(1, slot_id(0))).await, FENCED);
    reserved(&clinic.book(&reserve(2, slot_id(0))).await);
    let on_slot = AppointmentFilter { slot_id: Some(slot_id(0)), saga_id: None };
    assert_eq!(query::appointments(&clinic.db, &on_slot, None, 10).await.unwrap().len(), 2);
    assert_eq!(clinic.contradictions().await, (vec![], vec![]));
}

async fn refusals_name_what_is_wrong_with_the_slot(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    refused(&clinic.book(&reserve(1, Uuid::from_u128(9))).await, SLOT_UNKNOWN);
    refused(&clinic.book(&named("booking", 2, Verb::Execute, json!({"slot": 1}))).await, CONTRACT_VIOLATION);
    let long_ago = Timestamp(0);
    let other = Clinic::empty(stack).await;
    clinic::seed(&other.db, 1, long_ago).await.unwrap();
    refused(&other.book(&reserve(3, slot_id(0))).await, SLOT_IN_PAST);
    assert_eq!(other.slot(0).await.version, 1, "a refusal leaves nothing behind");
}

async fn only_the_saga_that_holds_an_appointment_confirms_it_and_then_it_stands(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    let held = reserved(&clinic.book(&reserve(1, slot_id(0))).await);
    refused(&clinic.confirm(2, held.appointment_id).await, RESERVATION_EXPIRED);
    assert!(matches!(clinic.confirm(1, held.appointment_id).await, Outcome::Succeeded { .. }));
    assert_eq!(clinic.slot(0).await.status, slots::Status::Booked);
    refused(&clinic.confirmation.apply(&[&fence(1)]).await.unwrap()[0], ALREADY_EXECUTED);
    refused(&clinic.book(&release(1)).await, appointments::APPOINTMENT_CONFIRMED);
    assert_eq!(clinic.slot(0).await.status, slots::Status::Booked);
    assert_eq!(clinic.contradictions().await, (vec![], vec![]));
}

async fn a_released_appointment_is_not_confirmed(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    let held = reserved(&clinic.book(&reserve(1, slot_id(0))).await);
    clinic.book(&release(1)).await;
    refused(&clinic.confirm(1, held.appointment_id).await, RESERVATION_EXPIRED);
    let free = SlotFilter { status: Some(slots::Status::Free), ..SlotFilter::default() };
    assert_eq!(query::slots(&clinic.db, &free, None, 100).await.unwrap().len(), SLOTS as usize);
}

async fn a_key_of_one_participant_is_not_answered_by_another(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    let held = reserve(1, slot_id(0));
    clinic.book(&held).await;
    let crossed = Command { participant: "confirmation".to_owned(), ..held };
    refused(&clinic.confirmation.apply(&[&crossed]).await.unwrap()[0], CONTRACT_VIOLATION);
}

async fn a_command_of_another_name_is_refused_and_its_undo_is_not(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    let called = |name: &str, command: Command| Command { command: name.to_owned(), ..command };
    refused(&clinic.book(&called("booking.reverse", reserve(1, slot_id(0)))).await, CONTRACT_VIOLATION);
    assert_eq!(clinic.slot(0).await.status, slots::Status::Free);
    let held = reserved(&clinic.book(&reserve(2, slot_id(0))).await);
    let misnamed = called("confirmation.comfirm", confirm(2, held.appointment_id));
    refused(&clinic.confirmation.apply(&[&misnamed]).await.unwrap()[0], CONTRACT_VIOLATION);
    assert_eq!(clinic.slot(0).await.status, slots::Status::Held);
    let undone = clinic.book(&called("booking.undo", release(2))).await;
    assert_eq!(undone, Outcome::succeeded(json!({ "appointment_id": held.appointment_id })));
}

async fn an_active_appointment_keeps_a_slot_that_calls_itself_free(stack: Stack) {
    let clinic = Clinic::new(stack).await;
    clinic.book(&reserve(1, slot_id(0))).await;
    let wrong = slots::Entity::update_many()
        .col_expr(slots::Column::Status, Expr::value(slots::Status::Free))
        .filter(slots::Column::Id.eq(slot_id(0)));
    wrong.exec(clinic.db.writer()).await.unwrap();
    refused(&clinic.book(&reserve(2, slot_id(0))).await, SLOT_TAKEN);
    assert_eq!(clinic.contradictions().await, (vec![], vec![slot_id(0)]), "the audit shows it");
}

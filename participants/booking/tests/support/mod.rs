//! A clinic with both its participants, and commands to them.
#![allow(dead_code, reason = "each test file uses a part")]

use booking::Booking;
use clinic::seed::slot_id;
use clinic::{audit, slots};
use confirmation::Confirmation;
use db::Db;
use fixture::{Owned, Stack};
use participant_kit::conformance::command;
use participant_kit::{Transactional as _, TransactionalHandler};
use saga_defs::contract::booking::{RESERVE, Reserved};
use saga_defs::contract::confirmation::CONFIRM;
use saga_defs::{Command, Outcome, Verb};
use sea_orm::EntityTrait as _;
use serde_json::{Value, json};
use uuid::Uuid;

/// Slots of a clinic.
pub(crate) const SLOTS: u32 = 16;

pub(crate) struct Clinic {
    pub(crate) db: Db,
    pub(crate) booking: TransactionalHandler<Booking>,
    pub(crate) confirmation: TransactionalHandler<Confirmation>,
    pub(crate) owned: Owned,
}

impl Clinic {
    pub(crate) async fn new(stack: Stack) -> Self {
        let clinic = Self::empty(stack).await;
        clinic::seed(&clinic.db, SLOTS, clinic.db.now()).await.unwrap();
        clinic
    }

    pub(crate) async fn empty(stack: Stack) -> Self {
        let owned = Owned::open::<migrations::Clinic>(stack).await;
        let db = owned.db.clone();
        let booking = TransactionalHandler::new(db.clone(), Booking);
        let confirmation = TransactionalHandler::new(db.clone(), Confirmation);
        Self { db, booking, confirmation, owned }
    }

    pub(crate) async fn book(&self, command: &Command) -> Outcome {
        self.booking.apply(&[command]).await.unwrap().remove(0)
    }

    pub(crate) async fn confirm(&self, saga: u128, appointment_id: Uuid) -> Outcome {
        self.confirmation.apply(&[&confirm(saga, appointment_id)]).await.unwrap().remove(0)
    }

    pub(crate) async fn slot(&self, n: u32) -> slots::Model {
        slots::Entity::find_by_id(slot_id(n)).one(self.db.reader()).await.unwrap().unwrap()
    }

    pub(crate) async fn contradictions(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        let double = audit::double_booked_slots(&self.db, None, 100).await.unwrap();
        (double, audit::contradicting_slots(&self.db, None, 100).await.unwrap())
    }
}

/// A command of saga number `saga`; its key differs by participant.
pub(crate) fn named(participant: &str, saga: u128, verb: Verb, payload: Value) -> Command {
    let saga_id = Uuid::from_u128(saga);
    let key = saga_defs::ids::effect_key(saga_id, participant, 0);
    let name = if participant == confirmation::Confirmation.name() { CONFIRM } else { RESERVE };
    Command { saga_id, command: name.to_owned(), ..command(participant, key, verb, 1, payload) }
}

pub(crate) fn reserve(saga: u128, slot: Uuid) -> Command {
    let patient = json!({"name": "Ada", "phone": "+15005550006", "email": "ada@example.org"});
    named("booking", saga, Verb::Execute, json!({"slot_id": slot, "patient": patient}))
}

pub(crate) fn release(saga: u128) -> Command {
    named("booking", saga, Verb::Compensate, Value::Null)
}

pub(crate) fn confirm(saga: u128, appointment_id: Uuid) -> Command {
    named("confirmation", saga, Verb::Execute, json!({ "appointment_id": appointment_id }))
}

pub(crate) fn fence(saga: u128) -> Command {
    named("confirmation", saga, Verb::Compensate, Value::Null)
}

pub(crate) fn refused(outcome: &Outcome, expected: &str) {
    assert!(matches!(outcome, Outcome::Refused { code, .. } if code == expected), "{outcome:?} is not {expected}");
}

pub(crate) fn reserved(outcome: &Outcome) -> Reserved {
    match outcome {
        Outcome::Succeeded { output } => serde_json::from_value(output.clone()).unwrap(),
        Outcome::Refused { .. } | Outcome::Retry { .. } => panic!("{outcome:?} is not a reservation"),
    }
}

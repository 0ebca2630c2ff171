//! Appointments: a slot held for a saga, confirmed or released.
//!
//! Not for idempotency: the inbox of the participants that call this answers repeated commands. Must hold: a refusal
//! comes from conditional SQL and leaves nothing behind; a released appointment knows nobody's name any more; however
//! many are asked for at once, the number of statements is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use db::Transaction;
use saga_defs::contract::Money;
use saga_defs::contract::booking::{Reserve, Reserved, SLOT_IN_PAST, SLOT_TAKEN, SLOT_UNKNOWN};
use saga_defs::contract::confirmation::{Confirmed, RESERVATION_EXPIRED};
use saga_defs::message::NOTHING_TO_UNDO;
use saga_defs::{Outcome, Timestamp};
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{set_sql, slots};

/// Refusal of a release whose appointment was confirmed: the clinic counts on it.
pub const APPOINTMENT_CONFIRMED: &str = "appointment_confirmed";

/// How definite an appointment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Held for a saga.
    #[sea_orm(string_value = "pending")]
    Pending,
    /// Definite.
    #[sea_orm(string_value = "confirmed")]
    Confirmed,
    /// Given back.
    #[sea_orm(string_value = "released")]
    Released,
}

/// Appointments that keep others away from the slot.
pub(crate) const ACTIVE: [Status; 2] = [Status::Pending, Status::Confirmed];

/// A row of `appointments`. `Debug` shows nobody.
#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "appointments")]
pub struct Model {
    /// Its id, derived from the effect's key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The slot.
    pub slot_id: Uuid,
    /// The saga that made it.
    pub saga_id: Uuid,
    /// Idempotency key of the effect.
    pub key: Uuid,
    /// Who is treated; none once released.
    pub patient_name: Option<String>,
    /// Phone number; none once released.
    pub patient_phone: Option<String>,
    /// Mail address; none once released.
    pub patient_email: Option<String>,
    /// How definite it is.
    pub status: Status,
    /// When it was made, in microseconds.
    pub created_at: i64,
    /// When it last changed, in microseconds.
    pub updated_at: i64,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "appointment {} of saga {} ({:?})", self.id, self.saga_id, self.status)
    }
}

/// Appointments are read without their slots.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Which effect of which saga holds a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The effect's idempotency key.
    pub key: Uuid,
    /// The saga.
    pub saga_id: Uuid,
}

/// The id of the appointment that the effect `key` makes.
#[must_use]
pub fn appointment_id(key: Uuid) -> Uuid {
    Uuid::new_v5(&key, b"appointment")
}

/// A slot that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// By whom.
    pub hold: Hold,
    /// Which slot, and for which patient.
    pub reserve: &'a Reserve,
}

impl Asked<'_> {
    /// The id of the appointment that comes of it.
    pub(crate) fn id(&self) -> Uuid {
        appointment_id(self.hold.key)
    }
}

/// An appointment, and the saga that says it holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The appointment.
    pub appointment_id: Uuid,
    /// The saga.
    pub saga_id: Uuid,
}

/// Holds slots for sagas; one outcome each, in order, and of several for one slot the first gets it. Callers whose
/// transaction changes more than this [`crate::lock`] all their slots first.
///
/// # Errors
/// When the database failed.
pub async fn reserve(tx: &Transaction, now: Timestamp, asked: &[Asked<'_>]) -> Result<Vec<Outcome>, DbErr> {
    let wanted: BTreeSet<Uuid> = asked.iter().map(|asked| asked.reserve.slot_id).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let slots = slots::locked(tx, &Vec::from_iter(wanted)).await?;
    let slot_of = |asked: &Asked<'_>| slots.get(&asked.reserve.slot_id);
    let is_open = |slot: &slots::Model| slot.status == slots::Status::Free && slot.starts_at > now.0;
    let open: Vec<Asked<'_>> = asked.iter().copied().filter(|asked| slot_of(asked).is_some_and(is_open)).collect();
    let mut made = insert(tx, now, &open).await?;
    let taken: Vec<Uuid> = made.iter().map(|(_, slot_id)| *slot_id).collect();
    slots::change(tx, &taken, slots::Status::Free, slots::Status::Held).await?;
    asked
        .iter()
        .map(|asked| match slot_of(asked) {
            None => Ok(Outcome::refused(SLOT_UNKNOWN, "there is no such slot")),
            Some(slot) if slot.starts_at <= now.0 => Ok(Outcome::refused(SLOT_IN_PAST, "the slot has begun already")),
            Some(slot) if made.remove(&(asked.id(), slot.id)) => output(&Reserved {
                appointment_id: asked.id(),
                slot_id: slot.id,
                starts_at: Timestamp(slot.starts_at),
                price: Money { amount_minor: slot.price_minor, currency: slot.currency.clone() },
            }),
            Some(_) => Ok(Outcome::refused(SLOT_TAKEN, "another appointment is active on the slot")),
        })
        .collect()
}

/// Adds appointments; id and slot of those that no active one kept away.
async fn insert(tx: &Transaction, now: Timestamp, asked: &[Asked<'_>]) -> Result<BTreeSet<(Uuid, Uuid)>, DbErr> {
    if asked.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = tx.query_all_raw(set_sql::insert(tx.get_database_backend(), asked, now)).await?;
    rows.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))).collect()
}

/// What a release must know of an appointment.
#[derive(Debug, FromQueryResult)]
struct Found {
    id: Uuid,
    key: Uuid,
    slot_id: Uuid,
    status: Status,
}

/// Gives held slots back and forgets who they were held for; one outcome per effect, in order.
///
/// # Errors
/// When the database failed, or a slot contradicts its appointment.
pub async fn release(tx: &Transaction, now: Timestamp, keys: &[Uuid]) -> Result<Vec<Outcome>, DbErr> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let backend = tx.get_database_backend();
    let found = Found::find_by_statement(set_sql::of_keys(backend, keys)).all(tx).await?;
    let (ids, slots): (Vec<Uuid>, Vec<Uuid>) =
        found.iter().filter(|found| found.status == Status::Pending).map(|found| (found.id, found.slot_id)).unzip();
    if !ids.is_empty() {
        tx.execute_raw(set_sql::release(backend, &ids, now)).await?;
        slots::change(tx, &slots, slots::Status::Held, slots::Status::Free).await?;
    }
    let found: BTreeMap<Uuid, &Found> = found.iter().map(|found| (found.key, found)).collect();
    let outcome = |key: &Uuid| match found.get(key).map(|found| (found.status, found.id)) {
        None => Ok(Outcome::succeeded(json!({ NOTHING_TO_UNDO: true }))),
        Some((Status::Pending | Status::Released, appointment_id)) => output(&Released { appointment_id }),
        Some((Status::Confirmed, _)) => {
            Ok(Outcome::refused(APPOINTMENT_CONFIRMED, "the appointment was confirmed; cancel it instead"))
        }
    };
    keys.iter().map(outcome).collect()
}

/// What a confirmation changed.
#[derive(Debug, FromQueryResult)]
struct Changed {
    id: Uuid,
    saga_id: Uuid,
    slot_id: Uuid,
}

/// Makes held appointments definite; one outcome each, in order.
///
/// # Errors
/// When the database failed, or a slot contradicts its appointment.
pub async fn confirm(tx: &Transaction, now: Timestamp, asked: &[Held]) -> Result<Vec<Outcome>, DbErr> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let changed = set_sql::confirm(tx.get_database_backend(), asked, now);
    let changed = Changed::find_by_statement(changed).all(tx).await?;
    let slots: Vec<Uuid> = changed.iter().map(|changed| changed.slot_id).collect();
    slots::change(tx, &slots, slots::Status::Held, slots::Status::Booked).await?;
    let held = |changed: &Changed| Held { appointment_id: changed.id, saga_id: changed.saga_id };
    let mut confirmed: BTreeSet<Held> = changed.iter().map(held).collect();
    let outcome = |asked: &Held| {
        // Whoever asks for the same once more finds it confirmed.
        if confirmed.remove(asked) {
            return output(&Confirmed { appointment_id: asked.appointment_id });
        }
        Ok(Outcome::refused(RESERVATION_EXPIRED, "the appointment is no longer held by this saga"))
    };
    asked.iter().map(outcome).collect()
}

/// Output of a release.
#[derive(Serialize)]
struct Released {
    appointment_id: Uuid,
}

fn output<T: Serialize>(value: &T) -> Result<Outcome, DbErr> {
    serde_json::to_value(value).map(Outcome::succeeded).map_err(|error| DbErr::Json(error.to_string()))
}

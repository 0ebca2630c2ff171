//! Appointments: a slot held for a saga, confirmed or released.
//!
//! Not for idempotency: the inbox of the participants that call this answers repeated commands. Must hold: a refusal
//! comes from conditional SQL and leaves nothing behind; a released appointment knows nobody's name any more.

use std::fmt;

use saga_defs::contract::Money;
use saga_defs::contract::booking::{Reserve, Reserved, SLOT_IN_PAST, SLOT_TAKEN, SLOT_UNKNOWN};
use saga_defs::contract::confirmation::{Confirmed, RESERVATION_EXPIRED};
use saga_defs::message::NOTHING_TO_UNDO;
use saga_defs::{Outcome, Timestamp};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{DatabaseTransaction, DbErr, IntoActiveModel, QuerySelect};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::slots;

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

/// Holds a slot for a saga. Callers that change several slots in one transaction [`crate::lock`] them first.
///
/// # Errors
/// When the database failed.
pub async fn reserve(tx: &DatabaseTransaction, now: Timestamp, hold: Hold, asked: &Reserve) -> Result<Outcome, DbErr> {
    let Some(slot) = slots::locked(tx, asked.slot_id).await? else {
        return Ok(Outcome::refused(SLOT_UNKNOWN, "there is no such slot"));
    };
    if slot.starts_at <= now.0 {
        return Ok(Outcome::refused(SLOT_IN_PAST, "the slot has begun already"));
    }
    let taken = Outcome::refused(SLOT_TAKEN, "another appointment is active on the slot");
    if slot.status != slots::Status::Free || !slots::change(tx, &slot, slots::Status::Held).await? {
        return Ok(taken);
    }
    if !insert(tx, now, hold, asked).await? {
        // The slot said free and was not: put it back as it was found, the audit shows the contradiction.
        let held = slots::Model { version: slot.version + 1, ..slot };
        slots::change(tx, &held, slots::Status::Free).await?;
        return Ok(taken);
    }
    output(&Reserved {
        appointment_id: appointment_id(hold.key),
        slot_id: slot.id,
        starts_at: Timestamp(slot.starts_at),
        price: Money { amount_minor: slot.price_minor, currency: slot.currency },
    })
}

/// False when another appointment is active on the slot.
async fn insert(tx: &DatabaseTransaction, now: Timestamp, hold: Hold, asked: &Reserve) -> Result<bool, DbErr> {
    let appointment = Model {
        id: appointment_id(hold.key),
        slot_id: asked.slot_id,
        saga_id: hold.saga_id,
        key: hold.key,
        patient_name: Some(asked.patient.name.clone()),
        patient_phone: Some(asked.patient.phone.clone()),
        patient_email: Some(asked.patient.email.clone()),
        status: Status::Pending,
        created_at: now.0,
        updated_at: now.0,
    };
    let inserted = Entity::insert(appointment.into_active_model())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(tx)
        .await?;
    Ok(inserted == 1)
}

/// Gives a held slot back and forgets who it was held for.
///
/// # Errors
/// When the database failed, or the slot contradicts its appointment.
pub async fn release(tx: &DatabaseTransaction, now: Timestamp, key: Uuid) -> Result<Outcome, DbErr> {
    let appointment = Entity::find().filter(Column::Key.eq(key)).lock_exclusive().one(tx).await?;
    let Some(appointment) = appointment else {
        return Ok(Outcome::succeeded(json!({ NOTHING_TO_UNDO: true })));
    };
    match appointment.status {
        Status::Pending => {}
        Status::Released => return output(&Released { appointment_id: appointment.id }),
        Status::Confirmed => {
            return Ok(Outcome::refused(APPOINTMENT_CONFIRMED, "the appointment was confirmed; cancel it instead"));
        }
    }
    let nobody = || Expr::value(None::<String>);
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Released))
        .col_expr(Column::PatientName, nobody())
        .col_expr(Column::PatientPhone, nobody())
        .col_expr(Column::PatientEmail, nobody())
        .col_expr(Column::UpdatedAt, Expr::value(now.0))
        .filter(Column::Id.eq(appointment.id))
        .filter(Column::Status.eq(Status::Pending))
        .exec(tx)
        .await?;
    move_slot(tx, appointment.slot_id, slots::Status::Free).await?;
    output(&Released { appointment_id: appointment.id })
}

/// Makes the appointment that `saga_id` holds definite.
///
/// # Errors
/// When the database failed, or the slot contradicts its appointment.
pub async fn confirm(
    tx: &DatabaseTransaction,
    now: Timestamp,
    saga_id: Uuid,
    appointment_id: Uuid,
) -> Result<Outcome, DbErr> {
    let confirmed = Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Confirmed))
        .col_expr(Column::UpdatedAt, Expr::value(now.0))
        .filter(Column::Id.eq(appointment_id))
        .filter(Column::SagaId.eq(saga_id))
        .filter(Column::Status.eq(Status::Pending))
        .exec(tx)
        .await?;
    if confirmed.rows_affected == 0 {
        return Ok(Outcome::refused(RESERVATION_EXPIRED, "the appointment is no longer held by this saga"));
    }
    let Some(appointment) = Entity::find_by_id(appointment_id).one(tx).await? else {
        return Err(DbErr::RecordNotFound("the appointment that was just confirmed".to_owned()));
    };
    move_slot(tx, appointment.slot_id, slots::Status::Booked).await?;
    output(&Confirmed { appointment_id })
}

/// Output of a release.
#[derive(Serialize)]
struct Released {
    appointment_id: Uuid,
}

/// Moves a held slot on. Anything but a held slot contradicts the appointment and rolls everything back.
async fn move_slot(tx: &DatabaseTransaction, id: Uuid, status: slots::Status) -> Result<(), DbErr> {
    let slot = slots::locked(tx, id).await?.filter(|slot| slot.status == slots::Status::Held);
    let moved = match slot {
        Some(slot) => slots::change(tx, &slot, status).await?,
        None => false,
    };
    if moved { Ok(()) } else { Err(DbErr::RecordNotUpdated) }
}

fn output<T: Serialize>(value: &T) -> Result<Outcome, DbErr> {
    serde_json::to_value(value).map(Outcome::succeeded).map_err(|error| DbErr::Json(error.to_string()))
}

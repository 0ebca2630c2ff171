//! Reading slots and appointments, page by page.
//!
//! Must hold: pages are cut by key, not by count, so that rows coming and going meanwhile repeat or hide nothing; no
//! personal data is read.

use db::Db;
use saga_defs::Timestamp;
use sea_orm::{ColumnTrait, Condition, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, appointments, slots};

/// Which slots are wanted; all of them by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotFilter {
    /// Of this doctor.
    pub doctor_id: Option<Uuid>,
    /// Beginning at this instant or later.
    pub from: Option<Timestamp>,
    /// Beginning before this instant.
    pub to: Option<Timestamp>,
    /// With this status.
    pub status: Option<slots::Status>,
}

/// Where a page of slots ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPlace {
    /// Begin of the last slot.
    pub starts_at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

/// Up to `max` slots behind `after`, by begin and id.
///
/// # Errors
/// When the database failed.
pub async fn slots(
    db: &Db,
    filter: &SlotFilter,
    after: Option<SlotPlace>,
    max: u64,
) -> Result<Vec<slots::Model>, Error> {
    use slots::Column;
    let behind = after.map(|place| {
        Condition::any()
            .add(Column::StartsAt.gt(place.starts_at.0))
            .add(Condition::all().add(Column::StartsAt.eq(place.starts_at.0)).add(Column::Id.gt(place.id)))
    });
    let wanted = Condition::all()
        .add_option(filter.doctor_id.map(|id| Column::DoctorId.eq(id)))
        .add_option(filter.from.map(|from| Column::StartsAt.gte(from.0)))
        .add_option(filter.to.map(|to| Column::StartsAt.lt(to.0)))
        .add_option(filter.status.map(|status| Column::Status.eq(status)))
        .add_option(behind);
    let found = slots::Entity::find()
        .filter(wanted)
        .order_by_asc(Column::StartsAt)
        .order_by_asc(Column::Id)
        .limit(max)
        .all(db.reader());
    Ok(found.await?)
}

/// An appointment without the patient.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Appointment {
    /// Its id.
    pub id: Uuid,
    /// The slot.
    pub slot_id: Uuid,
    /// The saga that made it.
    pub saga_id: Uuid,
    /// How definite it is.
    pub status: appointments::Status,
    /// When it was made, in microseconds.
    pub created_at: i64,
    /// When it last changed, in microseconds.
    pub updated_at: i64,
}

/// Which appointments are wanted; all of them by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppointmentFilter {
    /// On this slot.
    pub slot_id: Option<Uuid>,
    /// Of this saga.
    pub saga_id: Option<Uuid>,
}

/// Up to `max` appointments behind the id `after`, by id.
///
/// # Errors
/// When the database failed.
pub async fn appointments(
    db: &Db,
    filter: &AppointmentFilter,
    after: Option<Uuid>,
    max: u64,
) -> Result<Vec<Appointment>, Error> {
    use appointments::Column;
    let wanted = Condition::all()
        .add_option(filter.slot_id.map(|id| Column::SlotId.eq(id)))
        .add_option(filter.saga_id.map(|id| Column::SagaId.eq(id)))
        .add_option(after.map(|id| Column::Id.gt(id)));
    let found = appointments::Entity::find()
        .select_only()
        .columns([Column::Id, Column::SlotId, Column::SagaId, Column::Status, Column::CreatedAt, Column::UpdatedAt])
        .filter(wanted)
        .order_by_asc(Column::Id)
        .limit(max)
        .into_model::<Appointment>()
        .all(db.reader());
    Ok(found.await?)
}

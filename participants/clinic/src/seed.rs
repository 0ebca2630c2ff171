//! Slots for demos and tests: the same number always names the same slots.
//!
//! Must hold: seeding again adds what is missing and touches nothing that is there.

use db::Db;
use saga_defs::Timestamp;
use sea_orm::sea_query::OnConflict;
use sea_orm::{EntityTrait, IntoActiveModel};
use uuid::Uuid;

use crate::Error;
use crate::slots::{ActiveModel, Entity, Model, Status};

/// Namespace of the seeded ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b0f_9a52_31c4_5a6e_9d0e_b00c_e4d0_c114);
/// Doctors that the slots are spread over.
const DOCTORS: u32 = 8;
/// Half hours of a doctor's day, from 08:00 UTC.
const SLOTS_PER_DAY: u32 = 16;
const DAY_BEGINS_MICROS: i64 = 8 * HOUR_MICROS;
const SLOT_MICROS: i64 = HOUR_MICROS / 2;
const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;
/// Price of every seeded slot.
const PRICE_MINOR: i64 = 4_500;
const CURRENCY: &str = "EUR";
/// Rows of one statement.
const CHUNK: usize = 500;

/// The id of the seeded slot number `n`, counted from zero.
#[must_use]
pub fn slot_id(n: u32) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("slot/{n}").as_bytes())
}

/// The id of the seeded doctor number `n`.
#[must_use]
pub fn doctor_id(n: u32) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("doctor/{n}").as_bytes())
}

/// Makes sure that the slots `0..count` exist; those added begin tomorrow or later. Returns how many were added.
///
/// # Errors
/// When the database failed; what was added before stays, and seeding again goes on.
pub async fn seed(db: &Db, count: u32, now: Timestamp) -> Result<u64, Error> {
    let slots: Vec<Model> = (0..count).map(|n| slot(n, now)).collect();
    let mut added = 0;
    for chunk in slots.chunks(CHUNK) {
        let chunk = chunk.to_vec();
        added += db
            .transaction(move |tx| {
                let rows: Vec<ActiveModel> = chunk.iter().cloned().map(Model::into_active_model).collect();
                Box::pin(async move {
                    Entity::insert_many(rows)
                        .on_conflict(OnConflict::new().do_nothing().to_owned())
                        .exec_without_returning(tx)
                        .await
                })
            })
            .await?;
    }
    Ok(added)
}

fn slot(n: u32, now: Timestamp) -> Model {
    let half_hour = n / DOCTORS;
    let tomorrow = (now.0.div_euclid(DAY_MICROS) + 1) * DAY_MICROS;
    let day = tomorrow + i64::from(half_hour / SLOTS_PER_DAY) * DAY_MICROS;
    let starts_at = day + DAY_BEGINS_MICROS + i64::from(half_hour % SLOTS_PER_DAY) * SLOT_MICROS;
    Model {
        id: slot_id(n),
        doctor_id: doctor_id(n % DOCTORS),
        starts_at,
        ends_at: starts_at + SLOT_MICROS,
        price_minor: PRICE_MINOR,
        currency: CURRENCY.to_owned(),
        status: Status::Free,
        version: 1,
    }
}

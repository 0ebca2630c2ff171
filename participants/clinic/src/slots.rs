//! Slots: a doctor's time that can be booked once.
//!
//! Not for who booked it: that is [`crate::appointments`]. Must hold: every change of a slot is guarded by the
//! status that it was decided on, and makes a new version.

use std::collections::BTreeMap;

use db::Transaction;
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};

use crate::set_sql;

/// What a slot is to somebody who looks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nobody has it.
    #[sea_orm(string_value = "free")]
    Free,
    /// A saga holds it; not definite.
    #[sea_orm(string_value = "held")]
    Held,
    /// Definitely taken.
    #[sea_orm(string_value = "booked")]
    Booked,
}

/// A row of `slots`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "slots")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose time it is.
    pub doctor_id: Uuid,
    /// Begin, in microseconds.
    pub starts_at: i64,
    /// End, in microseconds.
    pub ends_at: i64,
    /// What it costs, in minor units of `currency`.
    pub price_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// What it is to others.
    pub status: Status,
    /// Grows by one with each change.
    pub version: i32,
}

/// Slots lead nowhere by foreign key.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// Those of the slots that exist, as this transaction sees them, locked where the database can lock rows.
pub(crate) async fn locked(tx: &Transaction, ids: &[Uuid]) -> Result<BTreeMap<Uuid, Model>, DbErr> {
    let slots = Entity::find().from_raw_sql(set_sql::slots(tx.get_database_backend(), ids)).all(tx).await?;
    Ok(slots.into_iter().map(|slot| (slot.id, slot)).collect())
}

/// Gives slots, each named once, the status `to`.
///
/// # Errors
/// When the database failed, or one of them is not `from`: that contradicts its appointment, and rolls everything back.
pub(crate) async fn change(tx: &Transaction, ids: &[Uuid], from: Status, to: Status) -> Result<(), DbErr> {
    if ids.is_empty() {
        return Ok(());
    }
    let changed = tx.execute_raw(set_sql::move_slots(tx.get_database_backend(), ids, from, to)).await?;
    if usize::try_from(changed.rows_affected()) == Ok(ids.len()) { Ok(()) } else { Err(DbErr::RecordNotUpdated) }
}

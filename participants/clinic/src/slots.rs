//! Slots: a doctor's time that can be booked once.
//!
//! Not for who booked it: that is [`crate::appointments`]. Must hold: every change of a slot is guarded by the
//! version that it was decided on, and makes a new one.

use sea_orm::entity::prelude::*;
use sea_orm::{DatabaseTransaction, DbErr, QuerySelect};
use serde::{Deserialize, Serialize};

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

/// The slot as this transaction sees it, locked where the database can lock a row.
pub(crate) async fn locked(tx: &DatabaseTransaction, id: Uuid) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).lock_exclusive().one(tx).await
}

/// Gives `slot` a new status, if it still is what was read. False when it is not.
pub(crate) async fn change(tx: &DatabaseTransaction, slot: &Model, status: Status) -> Result<bool, DbErr> {
    let changed = Entity::update_many()
        .col_expr(Column::Status, Expr::value(status))
        .col_expr(Column::Version, Expr::value(slot.version + 1))
        .filter(Column::Id.eq(slot.id))
        .filter(Column::Version.eq(slot.version))
        .exec(tx)
        .await?;
    Ok(changed.rows_affected == 1)
}

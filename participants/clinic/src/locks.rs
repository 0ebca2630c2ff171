//! Which slots a transaction is about to change, locked in one order.
//!
//! Not for deciding anything. Must hold: whoever changes slots or appointments has locked the slots first, all of them
//! at once and in the order of their ids, so that two transactions never wait for each other in a ring. A slot's lock
//! guards its appointments too.

use std::collections::BTreeSet;

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use crate::{appointments, slots};

/// Locks `slots`, and the slots of `appointments`, until the transaction ends. What does not exist is passed over.
///
/// # Errors
/// When the database failed.
pub async fn lock(
    tx: &DatabaseTransaction,
    slots: impl IntoIterator<Item = Uuid>,
    appointments: impl IntoIterator<Item = Uuid>,
) -> Result<(), DbErr> {
    // SQLite locks no rows: one transaction writes at a time.
    if tx.get_database_backend() == DbBackend::Sqlite {
        return Ok(());
    }
    let mut ids: BTreeSet<Uuid> = slots.into_iter().collect();
    // An appointment never moves to another slot.
    ids.extend(slots_of(tx, appointments.into_iter().collect()).await?);
    if ids.is_empty() {
        return Ok(());
    }
    slots::Entity::find()
        .select_only()
        .column(slots::Column::Id)
        .filter(slots::Column::Id.is_in(ids))
        .order_by_asc(slots::Column::Id)
        .lock_exclusive()
        .into_tuple::<Uuid>()
        .all(tx)
        .await
        .map(|_| ())
}

async fn slots_of(tx: &DatabaseTransaction, appointments: Vec<Uuid>) -> Result<Vec<Uuid>, DbErr> {
    use appointments::{Column, Entity};
    if appointments.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Entity::find().select_only().column(Column::SlotId).filter(Column::Id.is_in(appointments));
    rows.into_tuple().all(tx).await
}

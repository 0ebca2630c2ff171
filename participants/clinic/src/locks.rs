//! Which slots a transaction is about to change, locked in one order.
//!
//! Not for deciding anything. Must hold: whoever changes slots or appointments has locked the slots first, all of them
//! at once and in the order of their ids, so that two transactions never wait for each other in a ring. A slot's lock
//! guards its appointments too.

use std::collections::BTreeSet;

use db::Transaction;
use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use uuid::Uuid;

use crate::set_sql;

/// Locks `slots`, and the slots of `appointments`, until the transaction ends. What does not exist is passed over.
///
/// # Errors
/// When the database failed.
pub async fn lock(
    tx: &Transaction,
    slots: impl IntoIterator<Item = Uuid>,
    appointments: impl IntoIterator<Item = Uuid>,
) -> Result<(), DbErr> {
    // SQLite locks no rows: one transaction writes at a time.
    if tx.get_database_backend() == DbBackend::Sqlite {
        return Ok(());
    }
    // An appointment never moves to another slot, so its slot is known before it is locked.
    let slots: BTreeSet<Uuid> = slots.into_iter().collect();
    let appointments: BTreeSet<Uuid> = appointments.into_iter().collect();
    if slots.is_empty() && appointments.is_empty() {
        return Ok(());
    }
    let lock = set_sql::lock(slots.into_iter().collect(), appointments.into_iter().collect());
    tx.query_all_raw(lock).await.map(|_| ())
}

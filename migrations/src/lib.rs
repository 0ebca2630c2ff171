//! The tables of every owner, one ladder each: engine, clinic, payment, notify.
//!
//! Must hold: a step on a ladder never changes once released; every step runs in a transaction; builders only, so
//! that each ladder fits SQLite and PostgreSQL alike. Instants are integer microseconds, money integer minor units.

/// Participants' inbox table, shared by the ladders of the three owners.
mod inbox;

mod engine;

mod clinic;

mod payment;

mod notify;

use sea_orm_migration::{MigratorTrait, sea_orm::DatabaseConnection, sea_orm::DbErr};

pub use clinic::Clinic;
pub use engine::Engine;
pub use notify::Notify;
pub use payment::Payment;

/// Climbs a ladder to its top.
///
/// # Errors
/// When a step fails; the steps before it stay.
pub async fn up<L: MigratorTrait>(connection: &DatabaseConnection) -> Result<(), DbErr> {
    L::up(connection, None).await
}

//! The tables of every owner, one ladder each: engine, clinic, payment, notify.
//!
//! Must hold: a step on a ladder never changes once released; every step runs in a transaction; tables and indexes
//! by builders only, so that each ladder fits SQLite and PostgreSQL alike; what one of them alone knows is text. Instants are
//! integer microseconds, money integer minor units.

/// Participants' inbox table, shared by the ladders of the three owners.
mod inbox;

mod engine;

mod clinic;

mod payment;

mod notify;

use sea_orm_migration::MigratorTrait;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait};

pub use clinic::Clinic;
pub use engine::Engine;
pub use notify::Notify;
pub use payment::Payment;

/// The advisory lock of everybody who migrates: "bookend" as a number.
const LOCK: i64 = 0x62_6f6f_6b65_6e64;

/// Climbs a ladder to its top. On PostgreSQL the schema of the session's search path is created first where it is
/// missing, and one process at a time climbs, whichever ladder.
///
/// # Errors
/// When a step fails; the steps before it stay.
pub async fn up<L: MigratorTrait>(connection: &DatabaseConnection) -> Result<(), DbErr> {
    match connection.get_database_backend() {
        DbBackend::Postgres => {
            // Held by a transaction of its own: it ends with this process, whatever happens.
            let guard = connection.begin().await?;
            let lock = format!("select pg_advisory_xact_lock({LOCK}), current_setting('search_path')");
            let row = guard.query_one_raw(Statement::from_string(DbBackend::Postgres, lock)).await?;
            let row = row.ok_or_else(|| DbErr::Custom("the server has no search path".to_owned()))?;
            let schema: String = row.try_get_by_index(1)?;
            connection.execute_unprepared(&format!("create schema if not exists {schema}")).await?;
            L::up(connection, None).await?;
            guard.commit().await
        }
        _ => L::up(connection, None).await,
    }
}

/// How many steps of a ladder were not climbed yet. Changes nothing.
///
/// # Errors
/// When the database can't be read, or is ahead of this build.
pub async fn pending<L: MigratorTrait>(connection: &DatabaseConnection) -> Result<usize, DbErr> {
    Ok(L::get_pending_migrations_read_only(connection).await?.len())
}

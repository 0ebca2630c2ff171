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

use std::collections::BTreeSet;

use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, Statement, TransactionTrait,
};
use sea_orm_migration::{MigratorTrait, SchemaManager, seaql_migrations};

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

/// Where tables stand on their ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// At its top.
    UpToDate,
    /// So many steps below its top.
    Behind(usize),
    /// On steps that this build does not have: a newer one wrote them.
    Ahead,
}

/// Where a database stands on a ladder. Changes nothing.
///
/// # Errors
/// When the database can't be read.
pub async fn standing<L: MigratorTrait>(connection: &DatabaseConnection) -> Result<Standing, DbErr> {
    let ladder: BTreeSet<String> = L::migrations().iter().map(|step| step.name().to_owned()).collect();
    let table = L::migration_table_name().to_string();
    let mut climbed = BTreeSet::new();
    if SchemaManager::new(connection).has_table(table).await? {
        let rows = seaql_migrations::Entity::find().all(connection).await?;
        climbed.extend(rows.into_iter().map(|row| row.version));
    }
    if !climbed.is_subset(&ladder) {
        return Ok(Standing::Ahead);
    }
    match ladder.len() - climbed.len() {
        0 => Ok(Standing::UpToDate),
        steps => Ok(Standing::Behind(steps)),
    }
}

//! What the engine needs to delete ended sagas: indexes that find them, and tables of those that are on their way out.
//!
//! Must hold: no table that exists is written to, so that builds which know nothing of this go on beside it.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, pk_uuid, uuid};

/// Adds tables and indexes for retention.
pub(super) struct Retention;

impl MigrationName for Retention {
    fn name(&self) -> &str {
        "engine_0005_retention"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Retention {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [departures(), announcements(), retention_marks()] {
            manager.create_table(table).await?;
        }
        for index in [ended(), keys_by_age(), due_departures(), departures_by_batch(), announcements_by_batch()] {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// Sagas whose participants are told that they have ended; deleted once that is confirmed.
fn departures() -> TableCreateStatement {
    Table::create()
        .table("departures")
        .col(pk_uuid("saga_id"))
        // Sagas that were announced in one commit.
        .col(uuid("batch"))
        // Pushed ahead by whoever deletes.
        .col(big_integer("due_at"))
        .to_owned()
}

/// The outbox rows that tell of a batch.
fn announcements() -> TableCreateStatement {
    Table::create().table("announcements").col(pk_uuid("message_id")).col(uuid("batch")).to_owned()
}

/// Instants that must outlive what was deleted.
fn retention_marks() -> TableCreateStatement {
    let name = ColumnDef::new("name").string().not_null().primary_key().to_owned();
    Table::create().table("retention_marks").col(name).col(big_integer("at")).to_owned()
}

/// By definition, because each has a replay window of its own.
fn ended() -> IndexCreateStatement {
    Index::create()
        .name("sagas_ended_at")
        .table("sagas")
        .col("definition")
        .col("definition_version")
        .col("ended_at")
        .and_where(Expr::col("ended_at").is_not_null())
        .to_owned()
}

fn keys_by_age() -> IndexCreateStatement {
    Index::create().name("start_keys_created_at").table("start_keys").col("created_at").to_owned()
}

fn due_departures() -> IndexCreateStatement {
    Index::create().name("departures_due_at").table("departures").col("due_at").to_owned()
}

fn departures_by_batch() -> IndexCreateStatement {
    Index::create().name("departures_batch").table("departures").col("batch").to_owned()
}

fn announcements_by_batch() -> IndexCreateStatement {
    Index::create().name("announcements_batch").table("announcements").col("batch").to_owned()
}

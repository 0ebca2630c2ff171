//! The ladder of the owner `notify`: its inbox and the notices that went out.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, pk_uuid, string, uuid};

/// The ladder of the owner `notify`.
#[derive(Debug)]
pub struct Notify;

#[async_trait::async_trait]
impl MigratorTrait for Notify {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(Notices),
            Box::new(crate::inbox::Announcing("notify_0002_announcing")),
            Box::new(crate::inbox::Forgetting("notify_0003_forgetting")),
        ]
    }
}

/// Creates the inbox and the table of notices.
struct Notices;

impl MigrationName for Notices {
    fn name(&self) -> &str {
        "notify_0001_notices"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Notices {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::inbox::up(manager).await?;
        manager.create_table(notices()).await?;
        manager.create_index(of_saga()).await?;
        manager.create_index(in_order()).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// No column holds personal data: who was told is known by the appointment.
fn notices() -> TableCreateStatement {
    Table::create()
        .table("notices")
        .col(pk_uuid("key"))
        .col(uuid("saga_id"))
        .col(uuid("appointment_id"))
        .col(string("channel"))
        .col(string("provider_ref"))
        .col(big_integer("created_at"))
        .to_owned()
}

fn of_saga() -> IndexCreateStatement {
    Index::create().name("notices_saga_id").table("notices").col("saga_id").to_owned()
}

/// Lists are paged by time; the key breaks ties.
fn in_order() -> IndexCreateStatement {
    Index::create().name("notices_created_at").table("notices").col("created_at").col("key").to_owned()
}

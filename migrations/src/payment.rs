//! The ladder of the owner `payment`: its inbox and its ledger.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, pk_uuid, string, uuid};

/// The ladder of the owner `payment`.
#[derive(Debug)]
pub struct Payment;

#[async_trait::async_trait]
impl MigratorTrait for Payment {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(Ledger),
            Box::new(crate::inbox::Announcing("payment_0002_announcing")),
            Box::new(crate::inbox::Forgetting("payment_0003_forgetting")),
        ]
    }
}

/// Creates the inbox, and one table for each direction that money moves in.
struct Ledger;

impl MigrationName for Ledger {
    fn name(&self) -> &str {
        "payment_0001_ledger"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Ledger {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::inbox::up(manager).await?;
        for (table, provider_id) in [("charges", "charge_id"), ("refunds", "refund_id")] {
            manager.create_table(entries(table, provider_id)).await?;
            manager.create_index(of_saga(table)).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// The primary key is the effect's idempotency key: money can be booked once per effect and direction.
fn entries(table: &'static str, provider_id: &'static str) -> TableCreateStatement {
    Table::create()
        .table(table)
        .col(pk_uuid("key"))
        .col(uuid("saga_id"))
        .col(string(provider_id))
        .col(big_integer("amount_minor"))
        .col(string("currency"))
        .col(big_integer("created_at"))
        .to_owned()
}

fn of_saga(table: &'static str) -> IndexCreateStatement {
    Index::create().name(format!("{table}_saga_id")).table(table).col("saga_id").to_owned()
}

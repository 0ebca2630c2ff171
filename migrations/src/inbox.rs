//! The inbox table: one row per effect, primary key = the key alone.
//!
//! Shared by the ladders of the owners that host participants; each calls [`up`] in its first step, and climbs
//! [`Announcing`] and [`Forgetting`] later. Not for what the columns mean while an effect lives: the participant kit alone reads and writes
//! them. Must hold: nothing here can name an owner's table, and a row is found by its key whatever participant wrote it.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, boolean, integer, pk_uuid, string, text_null, uuid};

/// Creates the inbox table and its index.
pub(crate) async fn up(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager.create_table(table()).await?;
    manager.create_index(open_index()).await
}

fn table() -> TableCreateStatement {
    Table::create()
        .table("inbox")
        .col(pk_uuid("key"))
        .col(string("participant"))
        .col(uuid("saga_id"))
        .col(string("tenant"))
        .col(string("state"))
        // Null where `compensate` came first: then no payload was ever seen.
        .col(text_null("digest"))
        .col(boolean("undo_requested"))
        // Whole while an external call is open; without its payload, or null, as soon as the verdict is definite.
        .col(text_null("command"))
        // The latest `compensate` that waits for an answer; it carries no payload.
        .col(text_null("undo_command"))
        .col(text_null("execute_outcome"))
        .col(text_null("compensate_outcome"))
        .col(text_null("provider_ref"))
        // Calls to the provider without a definite verdict, for the back-off.
        .col(integer("calls"))
        .col(ColumnDef::new("owner").uuid().null())
        .col(big_integer_null("lease_until"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .to_owned()
}

/// Open external calls, few among many rows that are done.
fn open_index() -> IndexCreateStatement {
    Index::create()
        .name("inbox_open")
        .table("inbox")
        .col("participant")
        .col("lease_until")
        .and_where(Expr::col("state").is_in(["intent", "undoing"]))
        .to_owned()
}

/// Adds what is announced to attempts that nobody has in hand any more. Holds the step's name on its ladder.
pub(crate) struct Announcing(pub(crate) &'static str);

impl MigrationName for Announcing {
    fn name(&self) -> &str {
        self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Announcing {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(announcing()).await?;
        manager.alter_table(asked_again()).await?;
        manager.drop_index(Index::drop().name("inbox_open").table("inbox").to_owned()).await?;
        manager.create_index(due_index()).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// Replies that leave without a delivery, until the broker has them.
fn announcing() -> TableAlterStatement {
    Table::alter().table("inbox").add_column(text_null("announcing")).to_owned()
}

/// Whether an attempt came while a call was open and was told to come again.
fn asked_again() -> TableAlterStatement {
    Table::alter().table("inbox").add_column(boolean("asked_again").default(false)).to_owned()
}

/// Open external calls and announcements, few among many rows that are done.
fn due_index() -> IndexCreateStatement {
    Index::create()
        .name("inbox_due")
        .table("inbox")
        .col("participant")
        .col("lease_until")
        .and_where(Expr::col("lease_until").is_not_null())
        .to_owned()
}

/// Adds what finds the rows of sagas that have ended. Holds the step's name on its ladder.
pub(crate) struct Forgetting(pub(crate) &'static str);

impl MigrationName for Forgetting {
    fn name(&self) -> &str {
        self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Forgetting {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_index(Index::create().name("inbox_saga_id").table("inbox").col("saga_id").to_owned()).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

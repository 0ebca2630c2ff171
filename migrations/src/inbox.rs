//! The inbox table: one row per effect, primary key = the key alone.
//!
//! Shared by the ladders of the owners that host participants; each calls [`up`] as its first step. Not for what
//! the columns mean while an effect lives: the participant kit alone reads and writes them. Must hold: nothing
//! here can name an owner's table, and a row is found by its key whatever participant wrote it.

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

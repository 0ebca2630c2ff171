//! The ladder of the owner `engine`: sagas, what they were started with, their history, outbox and definitions.
//!
//! Must hold: the schema itself makes two open sagas with one business key, two sagas with one start key and two
//! history rows with one number impossible, whatever the code does.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, integer, pk_uuid, string, string_null, text, text_null, uuid, uuid_null,
};
use sea_orm_migration::sea_orm::DbBackend;

mod open;

mod retention;

/// The ladder of the owner `engine`.
#[derive(Debug)]
pub struct Engine;

#[async_trait::async_trait]
impl MigratorTrait for Engine {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(First),
            Box::new(DeadLetters),
            Box::new(CommitFates),
            Box::new(Lean),
            Box::new(retention::Retention),
            Box::new(open::Open),
            Box::new(Roomy),
        ]
    }
}

/// Creates every table of the engine.
struct First;

impl MigrationName for First {
    fn name(&self) -> &str {
        "engine_0001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for First {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [sagas(), start_keys(), saga_inputs(), history(), outbox(), late_replies(), definitions()];
        for table in tables {
            manager.create_table(table).await?;
        }
        let indexes = saga_indexes().into_iter().chain([commits(), due_messages(), contradictions()]);
        for index in indexes {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// Creates the table of dead letters.
struct DeadLetters;

impl MigrationName for DeadLetters {
    fn name(&self) -> &str {
        "engine_0002_dead_letters"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for DeadLetters {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(dead_letters()).await?;
        manager.create_index(letters_by_state()).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// Creates the table of the commits' fates.
struct CommitFates;

impl MigrationName for CommitFates {
    fn name(&self) -> &str {
        "engine_0003_commit_fates"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CommitFates {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(commit_fates()).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// Makes what every commit writes cheaper.
struct Lean;

impl MigrationName for Lean {
    fn name(&self) -> &str {
        "engine_0004_lean"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Lean {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Whoever asks for a commit knows its sagas, and finds their history by its key.
        manager.drop_index(Index::drop().name("history_commit_id").table("history").to_owned()).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            manager.get_connection().execute_unprepared(POSTGRES_LEAN).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// A saga's new version goes into the page of the old one, and no index is touched: a heap-only update; see [`Roomy`] for how
/// much room that takes. Messages are pressed by the faster of the server's two ways, where it was built with it.
const POSTGRES_LEAN: &str = "
alter table sagas set (fillfactor = 50);
do $$ begin
    alter table outbox alter column body set compression lz4;
exception when feature_not_supported then null;
end $$";

/// Leaves room for a saga that grows.
struct Roomy;

impl MigrationName for Roomy {
    fn name(&self) -> &str {
        "engine_0007_roomy"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Roomy {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            manager.get_connection().execute_unprepared(POSTGRES_ROOMY).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// A saga's row is twice as long at its end as at its beginning: half a page is not enough for two versions of each.
const POSTGRES_ROOMY: &str = "alter table sagas set (fillfactor = 30)";

/// The columns beside `state` repeat what the state says, for queries.
fn sagas() -> TableCreateStatement {
    Table::create()
        .table("sagas")
        .col(pk_uuid("id"))
        .col(string("tenant"))
        .col(string("principal"))
        .col(string_null("business_key"))
        .col(string("definition"))
        .col(integer("definition_version"))
        .col(string("digest"))
        .col(integer("format"))
        .col(string("status"))
        .col(string_null("decision"))
        .col(string_null("failure_code"))
        .col(string_null("stuck_cause"))
        // The step whose answer is outstanding, or that a person must look at.
        .col(string_null("waiting_on"))
        // Every change is guarded by the version it was decided on.
        .col(big_integer("version"))
        .col(big_integer_null("wake_at"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .col(big_integer_null("decided_at"))
        .col(big_integer_null("ended_at"))
        .col(text("state"))
        .to_owned()
}

fn saga_indexes() -> [IndexCreateStatement; 4] {
    let due = Index::create()
        .name("sagas_wake_at")
        .table("sagas")
        .col("wake_at")
        .and_where(Expr::col("wake_at").is_not_null())
        .to_owned();
    let by_status =
        Index::create().name("sagas_tenant_status_id").table("sagas").col("tenant").col("status").col("id").to_owned();
    let by_principal = Index::create()
        .name("sagas_tenant_principal_id")
        .table("sagas")
        .col("tenant")
        .col("principal")
        .col("id")
        .to_owned();
    let one_open = Index::create()
        .name("sagas_one_open_per_business_key")
        .unique()
        .table("sagas")
        .col("tenant")
        .col("business_key")
        .and_where(Expr::col("business_key").is_not_null())
        .and_where(Expr::col("ended_at").is_null())
        .to_owned();
    [due, by_status, by_principal, one_open]
}

/// Apart from sagas, because a start must be recognized longer than its saga is kept.
fn start_keys() -> TableCreateStatement {
    Table::create()
        .table("start_keys")
        .col(string("tenant"))
        .col(string("principal"))
        .col(string("key"))
        .col(uuid("saga_id"))
        .col(string("fingerprint"))
        .col(big_integer("created_at"))
        .primary_key(Index::create().col("tenant").col("principal").col("key"))
        .to_owned()
}

/// Apart from sagas and history, because personal data in them must be erasable without touching either.
fn saga_inputs() -> TableCreateStatement {
    Table::create().table("saga_inputs").col(pk_uuid("saga_id")).col(text("body")).to_owned()
}

fn history() -> TableCreateStatement {
    Table::create()
        .table("history")
        .col(uuid("saga_id"))
        .col(big_integer("seq"))
        .col(big_integer("at"))
        .col(string("actor"))
        .col(text_null("reason"))
        .col(uuid_null("operation_id"))
        .col(uuid("commit_id"))
        .col(integer("format"))
        .col(text("events"))
        .primary_key(Index::create().col("saga_id").col("seq"))
        .to_owned()
}

fn commits() -> IndexCreateStatement {
    Index::create().name("history_commit_id").table("history").col("commit_id").to_owned()
}

fn outbox() -> TableCreateStatement {
    Table::create()
        .table("outbox")
        .col(pk_uuid("id"))
        .col(string("participant"))
        .col(text("body"))
        .col(big_integer("due_at"))
        .col(integer("attempts"))
        .col(big_integer("created_at"))
        .to_owned()
}

fn due_messages() -> IndexCreateStatement {
    Index::create().name("outbox_due_at").table("outbox").col("due_at").to_owned()
}

fn late_replies() -> TableCreateStatement {
    Table::create()
        .table("late_replies")
        .col(uuid("saga_id"))
        .col(uuid("command_id"))
        .col(string("reason"))
        .col(text("reply"))
        .col(big_integer("received_at"))
        .primary_key(Index::create().col("saga_id").col("command_id").col("reason"))
        .to_owned()
}

/// Contradictions are counted again and again, and should be none.
fn contradictions() -> IndexCreateStatement {
    Index::create()
        .name("late_replies_contradictions")
        .table("late_replies")
        .col("saga_id")
        .and_where(Expr::col("reason").eq("contradiction"))
        .to_owned()
}

fn definitions() -> TableCreateStatement {
    Table::create()
        .table("definitions")
        .col(string("name"))
        .col(integer("version"))
        .col(string("digest"))
        .col(text("body"))
        .col(big_integer("published_at"))
        .primary_key(Index::create().col("name").col("version"))
        .to_owned()
}

fn dead_letters() -> TableCreateStatement {
    Table::create()
        .table("dead_letters")
        .col(pk_uuid("id"))
        .col(string("queue"))
        .col(string("reason"))
        .col(text("detail"))
        .col(big_integer("at"))
        .col(integer("attempts"))
        // How long the item was, where `body` holds only its beginning.
        .col(big_integer_null("bytes"))
        .col(string("state"))
        // Who settled it last; stays when its item dies again.
        .col(string_null("settled_by"))
        .col(text_null("settled_reason"))
        .col(big_integer_null("settled_at"))
        .col(string("encoding"))
        .col(text("body"))
        .to_owned()
}

/// For lists, newest first, and for counting those that wait.
fn letters_by_state() -> IndexCreateStatement {
    Index::create().name("dead_letters_state_at_id").table("dead_letters").col("state").col("at").col("id").to_owned()
}

/// The commit, or whoever asked for it first, has its row; SQLite has no use for it.
fn commit_fates() -> TableCreateStatement {
    Table::create().table("commit_fates").col(pk_uuid("commit_id")).col(big_integer("decided_at")).to_owned()
}

//! One index of the sagas that have not ended: the due ones are found in it, and all of them are counted from it alone.
//!
//! Must hold: a saga leaves it when it ends, so that its size follows what is open and not what was ever done; a start
//! writes no more indexes than before.

use sea_orm_migration::prelude::*;

/// Replaces the index of sagas that wake.
pub(super) struct Open;

impl MigrationName for Open {
    fn name(&self) -> &str {
        "engine_0006_open"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Open {
    #[allow(elided_lifetimes_in_paths, reason = "the trait leaves the lifetime out, and async_trait must agree")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_index(open()).await?;
        manager.drop_index(Index::drop().name("sagas_wake_at").table("sagas").to_owned()).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// `status` only so that it can be read without the row.
fn open() -> IndexCreateStatement {
    Index::create()
        .name("sagas_open")
        .table("sagas")
        .col("wake_at")
        .col("status")
        .and_where(Expr::col("ended_at").is_null())
        .to_owned()
}

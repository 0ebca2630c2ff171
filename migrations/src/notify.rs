//! The ladder of the owner `notify`.

use sea_orm_migration::prelude::*;

/// The ladder of the owner `notify`.
#[derive(Debug)]
pub struct Notify;

#[async_trait::async_trait]
impl MigratorTrait for Notify {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

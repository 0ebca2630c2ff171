//! The ladder of the owner `engine`.

use sea_orm_migration::prelude::*;

/// The ladder of the owner `engine`.
#[derive(Debug)]
pub struct Engine;

#[async_trait::async_trait]
impl MigratorTrait for Engine {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

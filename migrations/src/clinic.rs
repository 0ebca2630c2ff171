//! The ladder of the owner `clinic`.

use sea_orm_migration::prelude::*;

/// The ladder of the owner `clinic`.
#[derive(Debug)]
pub struct Clinic;

#[async_trait::async_trait]
impl MigratorTrait for Clinic {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

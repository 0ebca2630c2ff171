//! The ladder of the owner `payment`.

use sea_orm_migration::prelude::*;

/// The ladder of the owner `payment`.
#[derive(Debug)]
pub struct Payment;

#[async_trait::async_trait]
impl MigratorTrait for Payment {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Vec::new()
    }
}

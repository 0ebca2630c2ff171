//! Rows that are spoiled on purpose, for tests.

use async_trait::async_trait;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use uuid::Uuid;

use super::SqlStore;
use crate::conformance::{Part, Spoil};

#[async_trait]
impl Spoil for SqlStore {
    async fn spoil(&self, saga_id: Uuid, part: Part) {
        let (table, id, column) = match part {
            Part::State => ("sagas", "id", "state"),
            Part::Input => ("saga_inputs", "saga_id", "body"),
        };
        let torn =
            Query::update().table(table).value(column, "{\"torn").and_where(Expr::col(id).eq(saga_id)).to_owned();
        self.db.writer().execute(&torn).await.expect("a test's database takes what a test writes");
    }
}

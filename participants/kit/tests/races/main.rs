//! Two instances on one PostgreSQL, brought to the same effect at the same moment: what the contract says holds.
//!
//! Each race is forced: one instance is held inside its transaction until the other was seen waiting for it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

#[path = "../support/mod.rs"]
mod support;

mod transactional;

mod external;

use sea_orm::sea_query::{Expr, ExprTrait as _, LockType, Query, SelectStatement};
use uuid::Uuid;

/// A row of the inbox, for holding.
fn row(key: Uuid) -> SelectStatement {
    let mut row = Query::select();
    row.column("key").from("inbox").and_where(Expr::col("key").eq(key)).lock(LockType::Update);
    row
}

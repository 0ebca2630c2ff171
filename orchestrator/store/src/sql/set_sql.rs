//! Sets of any size as one bound parameter, so that a statement's text does not depend on their size.
//!
//! SQLite: a JSON array, opened by `json_each`. Must hold: ids are compared as the 16 bytes they are stored as.

use sea_orm::sea_query::Expr;
use sea_orm::{DbBackend, Statement};
use serde::Serialize;
use uuid::Uuid;

/// True for rows whose `column` is one of `ids`.
pub(super) fn is_one_of(column: &'static str, ids: &[Uuid]) -> Expr {
    let ids: Vec<_> = ids.iter().map(|id| id.simple()).collect();
    Expr::cust_with_values(format!("{column} in (select unhex(value) from json_each(?))"), [json(&ids)])
}

/// A statement whose only parameter is a set of rows.
pub(super) fn over<T: Serialize>(text: &'static str, rows: &[T]) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, text, [json(rows).into()])
}

fn json<T: Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).expect("rows have string keys and no failing serializers")
}

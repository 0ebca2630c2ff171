//! Sets of any size as one bound parameter, so that a statement's text does not depend on their size.
//!
//! SQLite: a JSON array, opened by `json_each`; PostgreSQL: an array. Must hold: ids are compared as they are stored, never as text.

use sea_orm::sea_query::{CommonTableExpression, Expr, LockType, Order, Query, SelectStatement, WithClause};
use sea_orm::{DbBackend, Statement, Value};
use serde::{Serialize, Serializer as _};
use uuid::Uuid;

/// Room for the text of a small set; that of a large one doubles.
const TEXT: usize = 4_096;

/// True for rows whose `column` is one of `ids`.
pub(super) fn is_one_of(backend: DbBackend, column: &'static str, ids: &[Uuid]) -> Expr {
    match backend {
        DbBackend::Postgres => Expr::cust_with_values(format!("{column} = any($1)"), [Value::from(ids.to_vec())]),
        _ => {
            let ids: Vec<_> = ids.iter().map(|id| id.simple()).collect();
            let text = format!("{column} in (select unhex(value) from json_each(?))");
            Expr::cust_with_values(text, [Value::from(json(ids))])
        }
    }
}

/// The ids of those rows of `table`, locked in their order, so that two who need the same rows never wait in a circle.
/// SQLite has one writer and no such locks.
pub(super) fn locked(backend: DbBackend, table: &'static str, ids: &[Uuid]) -> SelectStatement {
    Query::select()
        .column("id")
        .from(table)
        .and_where(is_one_of(backend, "id", ids))
        .order_by("id", Order::Asc)
        .lock(LockType::Update)
        .to_owned()
}

/// A set of ids under a name that is worked out once: a claim that a plan works out twice would lock twice.
pub(super) fn named(name: &'static str, ids: SelectStatement) -> WithClause {
    let set = CommonTableExpression::new().query(ids).column("id").table_name(name).materialized(true).to_owned();
    WithClause::new().cte(set).to_owned()
}

/// The ids of a [`named`] set.
pub(super) fn all_of(name: &'static str) -> SelectStatement {
    Query::select().column("id").from(name).to_owned()
}

/// A statement of SQLite whose only parameter is a set of rows.
pub(super) fn over<T: Serialize>(text: &'static str, rows: &[T]) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, text, [Value::from(json(rows))])
}

/// A set as its parameter.
pub(super) fn json<T: Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    let mut text = Vec::with_capacity(TEXT);
    let written = serde_json::Serializer::new(&mut text).collect_seq(rows);
    written.expect("rows have string keys and no failing serializers");
    String::from_utf8(text).expect("JSON is UTF-8")
}

//! Sets of any size as bound parameters, so that a statement's text does not depend on their size and is prepared once.
//!
//! On PostgreSQL a set is one array per column, opened by `unnest` or asked as `= any`; on SQLite one JSON array, opened
//! by `json_each`. Not for the statements themselves: each owner writes its own. Must hold: ids are compared as they are
//! stored, never as text.

use sea_orm::prelude::Uuid;
use sea_orm::sea_query::{ArrayType, Value};
use sea_orm::{DbBackend, Statement};
use serde::Serialize;

/// One statement in both dialects. On SQLite parameters are numbered, and the set is the first.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// For PostgreSQL.
    pub postgres: &'static str,
    /// For SQLite.
    pub sqlite: &'static str,
}

impl Text {
    /// The statement over a set: its columns on PostgreSQL, its rows on SQLite; `more` is bound behind the set.
    #[must_use]
    pub fn over<R: Serialize>(
        self,
        backend: DbBackend,
        columns: impl FnOnce() -> Vec<Value>,
        rows: impl FnOnce() -> Vec<R>,
        more: impl IntoIterator<Item = Value>,
    ) -> Statement {
        let (text, mut values) = match backend {
            DbBackend::Postgres => (self.postgres, columns()),
            _ => (self.sqlite, vec![json(&rows())]),
        };
        values.extend(more);
        Statement::from_sql_and_values(backend, text, values)
    }

    /// The statement over a set of ids.
    #[must_use]
    pub fn over_ids(self, backend: DbBackend, ids: &[Uuid], more: impl IntoIterator<Item = Value>) -> Statement {
        let rows = || ids.iter().map(|id| id.simple()).collect::<Vec<_>>();
        self.over(backend, || vec![uuids(ids.iter().copied())], rows, more)
    }
}

/// A column of ids.
pub fn uuids(ids: impl IntoIterator<Item = Uuid>) -> Value {
    Value::Array(ArrayType::Uuid, Some(Box::new(ids.into_iter().map(Value::from).collect())))
}

/// A column of texts.
pub fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(ArrayType::String, Some(Box::new(texts.into_iter().map(Value::from).collect())))
}

/// A column of integers.
pub fn bigints(integers: impl IntoIterator<Item = i64>) -> Value {
    Value::Array(ArrayType::BigInt, Some(Box::new(integers.into_iter().map(Value::from).collect())))
}

/// A column of truths.
pub fn booleans(truths: impl IntoIterator<Item = bool>) -> Value {
    Value::Array(ArrayType::Bool, Some(Box::new(truths.into_iter().map(Value::from).collect())))
}

fn json<R: Serialize>(rows: &[R]) -> Value {
    serde_json::to_string(rows).expect("rows have string keys and no failing serializers").into()
}

//! The inbox's statements over sets of rows, in both dialects.
//!
//! Not for deciding, nor for what a row means. Must hold: a statement's text does not depend on the size of its set, so
//! that it is prepared once; keys are compared as they are stored, never as text.
//!
//! On SQLite a set is a JSON array, on PostgreSQL an array where no member can be null, and else a JSON array.

use sea_orm::prelude::Uuid;
use sea_orm::sea_query::{ArrayType, Value};
use sea_orm::{DbBackend, Statement};
use serde::Serialize;
use uuid::fmt::Simple;

use crate::rows::Model;

/// A statement over a set.
#[derive(Clone, Copy, Debug)]
struct Text {
    postgres: &'static str,
    sqlite: &'static str,
}

/// What a row that is written back may change.
macro_rules! over {
    () => {
        "
on conflict (key) do update set
    state = excluded.state, undo_requested = excluded.undo_requested, command = excluded.command,
    undo_command = excluded.undo_command, execute_outcome = excluded.execute_outcome,
    compensate_outcome = excluded.compensate_outcome, provider_ref = excluded.provider_ref,
    digest = excluded.digest, calls = excluded.calls, owner = excluded.owner, lease_until = excluded.lease_until,
    updated_at = excluded.updated_at, announcing = excluded.announcing, asked_again = excluded.asked_again"
    };
}

const LOCK: Text = Text {
    postgres: "select * from inbox where key = any($1) order by key for update",
    sqlite: "select * from inbox where key in (select unhex(value) from json_each(?)) order by key",
};

/// Answers with the keys that were not there on PostgreSQL. SQLite has one writer, which knows that none is there.
const CLAIM: Text = Text {
    postgres: "
insert into inbox (
    key, participant, saga_id, tenant, state, digest, undo_requested, calls, created_at, updated_at, asked_again
)
select n.key, $5, n.saga_id, n.tenant, $6, nullif(n.digest, ''), false, 0, $7, $7, false
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) as n (key, saga_id, tenant, digest)
on conflict do nothing
returning key",
    sqlite: "
insert into inbox (
    key, participant, saga_id, tenant, state, digest, undo_requested, calls, created_at, updated_at, asked_again
)
select
    unhex(value ->> 'key'), value ->> 'participant', unhex(value ->> 'saga_id'), value ->> 'tenant',
    value ->> 'state', value ->> 'digest', 0, 0, value ->> 'created_at', value ->> 'created_at', 0
from jsonb_each(?)",
};

/// Writes back what is there. Not an update: that would have to find its rows by a join, which a plan made for a small
/// table gets wrong for ever; whoever inserts finds the row that is in the way by its key.
const SAVE: Text = Text {
    postgres: concat!(
        "
insert into inbox (
    key, participant, saga_id, tenant, state, undo_requested, command, undo_command, execute_outcome,
    compensate_outcome, provider_ref, digest, calls, owner, lease_until, created_at, updated_at, announcing,
    asked_again
)
select
    key, participant, saga_id, tenant, state, undo_requested, command, undo_command, execute_outcome,
    compensate_outcome, provider_ref, digest, calls, owner, lease_until, created_at, updated_at, announcing,
    asked_again
from json_to_recordset($1::json) as n (
    key uuid, participant text, saga_id uuid, tenant text, state text, undo_requested boolean, command text,
    undo_command text, execute_outcome text, compensate_outcome text, provider_ref text, digest text, calls integer,
    owner uuid, lease_until bigint, created_at bigint, updated_at bigint, announcing text, asked_again boolean
)",
        over!()
    ),
    sqlite: concat!(
        "
insert into inbox (
    key, participant, saga_id, tenant, state, undo_requested, command, undo_command, execute_outcome,
    compensate_outcome, provider_ref, digest, calls, owner, lease_until, created_at, updated_at, announcing,
    asked_again
)
select
    unhex(value ->> 'key'), value ->> 'participant', unhex(value ->> 'saga_id'), value ->> 'tenant',
    value ->> 'state', value ->> 'undo_requested', value ->> 'command', value ->> 'undo_command',
    value ->> 'execute_outcome', value ->> 'compensate_outcome', value ->> 'provider_ref', value ->> 'digest',
    value ->> 'calls', unhex(value ->> 'owner'), value ->> 'lease_until', value ->> 'created_at',
    value ->> 'updated_at', value ->> 'announcing', value ->> 'asked_again'
from jsonb_each(?) where true",
        over!()
    ),
};

const FORGET: Text = Text {
    postgres: "delete from inbox where key = any($1)",
    sqlite: "delete from inbox where key in (select unhex(value) from json_each(?))",
};

/// Reads rows and locks them, in key order. SQLite has one writer and no such locks.
pub(crate) fn lock(backend: DbBackend, keys: &[Uuid]) -> Statement {
    over_keys(backend, LOCK, keys)
}

/// Deletes rows.
pub(crate) fn forget(backend: DbBackend, keys: &[Uuid]) -> Statement {
    over_keys(backend, FORGET, keys)
}

/// Inserts rows of one participant that were made at one instant.
pub(crate) fn claim(backend: DbBackend, rows: &[Model]) -> Statement {
    match backend {
        DbBackend::Postgres => {
            let first = rows.first();
            let values = [
                uuids(rows.iter().map(|row| row.key)),
                uuids(rows.iter().map(|row| row.saga_id)),
                texts(rows.iter().map(|row| row.tenant.as_str())),
                texts(rows.iter().map(|row| row.digest.as_deref().unwrap_or(""))),
                first.map(|row| row.participant.clone()).into(),
                first.map(|row| row.state.clone()).into(),
                first.map(|row| row.created_at).into(),
            ];
            Statement::from_sql_and_values(backend, CLAIM.postgres, values)
        }
        _ => {
            let rows: Vec<Claim<'_>> = rows.iter().map(Claim::of).collect();
            Statement::from_sql_and_values(backend, CLAIM.sqlite, [json(&rows)])
        }
    }
}

/// Writes rows back that are there.
pub(crate) fn save(backend: DbBackend, rows: &[Model]) -> Statement {
    let rows: Vec<Saved<'_>> = rows.iter().map(Saved::of).collect();
    Statement::from_sql_and_values(backend, text(backend, SAVE), [json(&rows)])
}

fn over_keys(backend: DbBackend, statement: Text, keys: &[Uuid]) -> Statement {
    let set = match backend {
        DbBackend::Postgres => uuids(keys.iter().copied()),
        _ => json(&keys.iter().map(|key| key.simple()).collect::<Vec<_>>()),
    };
    Statement::from_sql_and_values(backend, text(backend, statement), [set])
}

fn text(backend: DbBackend, statement: Text) -> &'static str {
    match backend {
        DbBackend::Postgres => statement.postgres,
        _ => statement.sqlite,
    }
}

fn uuids(uuids: impl Iterator<Item = Uuid>) -> Value {
    Value::Array(ArrayType::Uuid, Some(Box::new(uuids.map(Value::from).collect())))
}

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    Value::Array(ArrayType::String, Some(Box::new(texts.map(Value::from).collect())))
}

fn json<T: Serialize>(rows: &[T]) -> Value {
    serde_json::to_string(rows).expect("rows have string keys and no failing serializers").into()
}

/// A row as SQLite's claim reads it.
#[derive(Serialize)]
struct Claim<'a> {
    key: Simple,
    participant: &'a str,
    saga_id: Simple,
    tenant: &'a str,
    state: &'a str,
    digest: Option<&'a str>,
    created_at: i64,
}

impl<'a> Claim<'a> {
    fn of(row: &'a Model) -> Self {
        Self {
            key: row.key.simple(),
            participant: &row.participant,
            saga_id: row.saga_id.simple(),
            tenant: &row.tenant,
            state: &row.state,
            digest: row.digest.as_deref(),
            created_at: row.created_at,
        }
    }
}

/// A row as both dialects write it back. What is not there is null.
#[derive(Serialize)]
struct Saved<'a> {
    key: Simple,
    participant: &'a str,
    saga_id: Simple,
    tenant: &'a str,
    created_at: i64,
    state: &'a str,
    undo_requested: bool,
    calls: i32,
    updated_at: i64,
    asked_again: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undo_command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execute_outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compensate_outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_ref: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Simple>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    announcing: Option<&'a str>,
}

impl<'a> Saved<'a> {
    fn of(row: &'a Model) -> Self {
        Self {
            key: row.key.simple(),
            participant: &row.participant,
            saga_id: row.saga_id.simple(),
            tenant: &row.tenant,
            created_at: row.created_at,
            state: &row.state,
            undo_requested: row.undo_requested,
            calls: row.calls,
            updated_at: row.updated_at,
            asked_again: row.asked_again,
            digest: row.digest.as_deref(),
            command: row.command.as_deref(),
            undo_command: row.undo_command.as_deref(),
            execute_outcome: row.execute_outcome.as_deref(),
            compensate_outcome: row.compensate_outcome.as_deref(),
            provider_ref: row.provider_ref.as_deref(),
            owner: row.owner.map(Uuid::simple),
            lease_until: row.lease_until,
            announcing: row.announcing.as_deref(),
        }
    }
}

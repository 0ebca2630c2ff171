//! The inbox's statements over sets of rows, in both dialects.
//!
//! Not for deciding, nor for what a row means. Must hold: a statement's text does not depend on the size of its set, so
//! that it is prepared once; keys are compared as they are stored, never as text. On PostgreSQL sets are opened in the list of what
//! is selected: behind `from` the server would first write each column to a store of its own.

use db::sets::{Text, bigints, booleans, texts, uuids};
use saga_defs::Timestamp;
use sea_orm::prelude::Uuid;
use sea_orm::sea_query::Value;
use sea_orm::{DbBackend, Statement};
use serde::Serialize;
use uuid::fmt::Simple;

use crate::rows::Model;

/// A row's columns. Named, because a session that has prepared `*` can't use it any more once an upgrade adds one.
macro_rules! columns {
    () => {
        "key, participant, saga_id, tenant, state, undo_requested, command, undo_command, execute_outcome,
    compensate_outcome, provider_ref, digest, calls, owner, lease_until, created_at, updated_at, announcing,
    asked_again"
    };
}

/// Whole rows, as a set has them.
macro_rules! rows {
    (postgres) => {
        concat!(
            "
insert into inbox (
    ",
            columns!(),
            "
)
select
    unnest($1::uuid[]), unnest($2::text[]), unnest($3::uuid[]), unnest($4::text[]), unnest($5::text[]),
    unnest($6::boolean[]), nullif(unnest($7::text[]), ''), nullif(unnest($8::text[]), ''),
    nullif(unnest($9::text[]), ''), nullif(unnest($10::text[]), ''), nullif(unnest($11::text[]), ''),
    nullif(unnest($12::text[]), ''), unnest($13::bigint[]),
    nullif(unnest($14::uuid[]), '00000000-0000-0000-0000-000000000000'), nullif(unnest($15::bigint[]), -1),
    unnest($16::bigint[]), unnest($17::bigint[]), nullif(unnest($18::text[]), ''), unnest($19::boolean[])"
        )
    };
    (sqlite) => {
        concat!(
            "
insert into inbox (
    ",
            columns!(),
            "
)
select
    unhex(value ->> 'key'), value ->> 'participant', unhex(value ->> 'saga_id'), value ->> 'tenant',
    value ->> 'state', value ->> 'undo_requested', value ->> 'command', value ->> 'undo_command',
    value ->> 'execute_outcome', value ->> 'compensate_outcome', value ->> 'provider_ref', value ->> 'digest',
    value ->> 'calls', unhex(value ->> 'owner'), value ->> 'lease_until', value ->> 'created_at',
    value ->> 'updated_at', value ->> 'announcing', value ->> 'asked_again'
from jsonb_each(?1) where true"
        )
    };
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
    postgres: concat!("select ", columns!(), " from inbox where key = any($1) order by key for update"),
    sqlite: concat!(
        "select ",
        columns!(),
        " from inbox where key in (select unhex(value) from json_each(?1)) order by key"
    ),
};

const INSERT: Text = Text { postgres: rows!(postgres), sqlite: rows!(sqlite) };

/// Rows of effects that were made and settled at once, which hold nothing else.
const INSERT_SETTLED: Text = Text {
    postgres: "
insert into inbox (
    key, saga_id, tenant, state, digest, execute_outcome, compensate_outcome, participant, created_at, updated_at,
    undo_requested, calls, asked_again
)
select
    unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::text[]), unnest($4::text[]), nullif(unnest($5::text[]), ''),
    nullif(unnest($6::text[]), ''), nullif(unnest($7::text[]), ''), $8, $9, $9, false, 0, false",
    sqlite: "
insert into inbox (
    key, saga_id, tenant, state, digest, execute_outcome, compensate_outcome, participant, created_at, updated_at,
    undo_requested, calls, asked_again
)
select
    unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
    ?2, ?3, ?3, false, 0, false
from jsonb_each(?1)",
};

/// Writes back what is there. Not an update: that would have to find its rows by a join, which a plan made for a small
/// table gets wrong for ever; whoever inserts finds the row that is in the way by its key.
const SAVE: Text = Text { postgres: concat!(rows!(postgres), over!()), sqlite: concat!(rows!(sqlite), over!()) };

/// Reads rows and locks them, in key order. SQLite has one writer and no such locks.
pub(crate) fn lock(backend: DbBackend, keys: &[Uuid]) -> Statement {
    LOCK.over_ids(backend, keys, [])
}

/// Writes rows that are not there; the database refuses one that is.
pub(crate) fn insert(backend: DbBackend, rows: &[Model]) -> Statement {
    over_rows(backend, INSERT, rows)
}

/// Writes rows of a participant that hold only what came of their effects, made now; the database refuses one that is
/// there.
pub(crate) fn insert_settled(backend: DbBackend, participant: &str, now: Timestamp, rows: &[Model]) -> Statement {
    let text = |of: fn(&Model) -> Option<&str>| texts(rows.iter().map(|row| of(row).unwrap_or_default()));
    let columns = || {
        vec![
            uuids(rows.iter().map(|row| row.key)),
            uuids(rows.iter().map(|row| row.saga_id)),
            text(|row| Some(&row.tenant)),
            text(|row| Some(&row.state)),
            text(|row| row.digest.as_deref()),
            text(|row| row.execute_outcome.as_deref()),
            text(|row| row.compensate_outcome.as_deref()),
        ]
    };
    let settled = || rows.iter().map(settled).collect();
    INSERT_SETTLED.over(backend, columns, settled, [participant.into(), now.0.into()])
}

/// A row of an effect that was made and settled at once, as SQLite reads it: without names, which would be most of what is
/// written and read.
fn settled(row: &Model) -> impl Serialize {
    let (digest, execute, compensate) = (&row.digest, &row.execute_outcome, &row.compensate_outcome);
    (row.key.simple(), row.saga_id.simple(), &row.tenant, &row.state, digest, execute, compensate)
}

/// Writes rows back that are there.
pub(crate) fn save(backend: DbBackend, rows: &[Model]) -> Statement {
    over_rows(backend, SAVE, rows)
}

fn over_rows(backend: DbBackend, text: Text, rows: &[Model]) -> Statement {
    text.over(backend, || columns(rows), || rows.iter().map(Saved::of).collect(), [])
}

/// A set's columns for PostgreSQL, in the order of the statement. An array has no nulls here: what is not there is a
/// value that is never meant.
fn columns(rows: &[Model]) -> Vec<Value> {
    let text = |of: fn(&Model) -> Option<&str>| texts(rows.iter().map(|row| of(row).unwrap_or_default()));
    vec![
        uuids(rows.iter().map(|row| row.key)),
        text(|row| Some(&row.participant)),
        uuids(rows.iter().map(|row| row.saga_id)),
        text(|row| Some(&row.tenant)),
        text(|row| Some(&row.state)),
        booleans(rows.iter().map(|row| row.undo_requested)),
        text(|row| row.command.as_deref()),
        text(|row| row.undo_command.as_deref()),
        text(|row| row.execute_outcome.as_deref()),
        text(|row| row.compensate_outcome.as_deref()),
        text(|row| row.provider_ref.as_deref()),
        text(|row| row.digest.as_deref()),
        bigints(rows.iter().map(|row| row.calls.into())),
        uuids(rows.iter().map(|row| row.owner.unwrap_or_default())),
        bigints(rows.iter().map(|row| row.lease_until.unwrap_or(-1))),
        bigints(rows.iter().map(|row| row.created_at)),
        bigints(rows.iter().map(|row| row.updated_at)),
        text(|row| row.announcing.as_deref()),
        booleans(rows.iter().map(|row| row.asked_again)),
    ]
}

/// A row as SQLite reads it. What is not there is null.
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

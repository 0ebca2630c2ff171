//! Reads sagas whole, by id.
//!
//! Must hold: a row that can't be read is told as such and keeps no other from being read; what is said of it repeats
//! nothing of what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use saga_defs::Timestamp;
use saga_defs::dead_letter::explain;
use sea_orm::sea_query::Query;
use sea_orm::{DbErr, FromQueryResult, QueryResult};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{SqlStore, set_sql, unsigned};
use crate::{Error, Header, State, Stored, Unreadable};

/// The columns of [`HeaderRow`].
pub(super) const HEADER: [&str; 8] =
    ["id", "tenant", "principal", "business_key", "definition", "definition_version", "digest", "created_at"];

#[derive(FromQueryResult)]
pub(super) struct HeaderRow {
    id: Uuid,
    tenant: String,
    principal: String,
    business_key: Option<String>,
    definition: String,
    definition_version: i32,
    digest: String,
    created_at: i64,
}

impl From<HeaderRow> for Header {
    fn from(row: HeaderRow) -> Self {
        Self {
            id: row.id,
            tenant: row.tenant,
            principal: row.principal,
            key: row.business_key,
            definition: row.definition,
            definition_version: u32::try_from(row.definition_version).unwrap_or(0),
            digest: row.digest,
            created_at: Timestamp(row.created_at),
        }
    }
}

struct SagaRow {
    header: HeaderRow,
    version: i64,
    format: i32,
    /// What the driver could make of it: one torn text must not keep its neighbours from being read.
    state: Result<String, DbErr>,
}

impl FromQueryResult for SagaRow {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        Ok(Self {
            header: HeaderRow::from_query_result(row, prefix)?,
            version: row.try_get(prefix, "version")?,
            format: row.try_get(prefix, "format")?,
            state: row.try_get(prefix, "state"),
        })
    }
}

struct InputRow {
    saga_id: Uuid,
    /// As [`SagaRow::state`].
    body: Result<String, DbErr>,
}

impl FromQueryResult for InputRow {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        Ok(Self { saga_id: row.try_get(prefix, "saga_id")?, body: row.try_get(prefix, "body") })
    }
}

/// What is wrong with a text.
type Why = String;

/// Those of `ids` that exist.
pub(super) async fn sagas(store: &SqlStore, ids: &[Uuid]) -> Result<BTreeMap<Uuid, Stored>, Error> {
    let backend = store.db.backend();
    let sagas = Query::select()
        .columns(HEADER)
        .columns(["version", "format", "state"])
        .from("sagas")
        .and_where(set_sql::is_one_of(backend, "id", ids))
        .to_owned();
    let sagas: Vec<SagaRow> = store.read(&sagas).await?;
    let inputs = Query::select()
        .columns(["saga_id", "body"])
        .from("saga_inputs")
        .and_where(set_sql::is_one_of(backend, "saga_id", ids))
        .to_owned();
    let inputs: Vec<InputRow> = store.read(&inputs).await?;
    let mut inputs: BTreeMap<Uuid, _> = inputs.into_iter().map(|row| (row.saga_id, parse("input", row.body))).collect();
    let stored = |row: SagaRow| {
        let header = Arc::new(Header::from(row.header));
        // An input can be erased once its saga has no more use for it.
        let (input, torn) = match inputs.remove(&header.id) {
            None => (Arc::default(), None),
            Some(Ok(input)) => (Arc::new(input), None),
            Some(Err(why)) => (Arc::default(), Some(why)),
        };
        let state = if row.format <= i32::from(store.writing.format) {
            read_state(row.version, row.state, torn)
        } else {
            // A newer format is for newer builds.
            State::Foreign(u16::try_from(row.format).unwrap_or(u16::MAX))
        };
        (header.id, Stored { header, state, input })
    };
    Ok(sagas.into_iter().map(stored).collect())
}

/// An older format is read, and the next commit writes it in this build's own.
fn read_state(version: i64, state: Result<String, DbErr>, input: Option<Why>) -> State {
    match (parse("state", state), input) {
        (Ok(saga), None) => State::Known(Arc::new(saga)),
        (Err(why), _) | (Ok(_), Some(why)) => State::Unreadable(Unreadable { version: unsigned(version), why }),
    }
}

/// Reads a text, or says what is wrong with it without repeating a word of it.
fn parse<T: DeserializeOwned>(name: &str, text: Result<String, DbErr>) -> Result<T, Why> {
    let why = |what: &str| format!("its {name} is not what was written ({what})");
    let text = text.map_err(|_| why("no text"))?;
    serde_json::from_str(&text).map_err(|error| why(&explain(&saga_defs::Error::Json(error)).1))
}

//! Reads sagas whole, by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use saga_defs::Timestamp;
use sea_orm::FromQueryResult;
use sea_orm::sea_query::Query;
use serde_json::Value;
use uuid::Uuid;

use super::{SqlStore, set_sql};
use crate::{Error, Header, State, Stored};

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

#[derive(FromQueryResult)]
struct SagaRow {
    #[sea_orm(nested)]
    header: HeaderRow,
    format: i32,
    state: String,
}

#[derive(FromQueryResult)]
struct InputRow {
    saga_id: Uuid,
    body: String,
}

/// Those of `ids` that exist.
pub(super) async fn sagas(store: &SqlStore, ids: &[Uuid]) -> Result<BTreeMap<Uuid, Stored>, Error> {
    let backend = store.db.backend();
    let sagas = Query::select()
        .columns(HEADER)
        .columns(["format", "state"])
        .from("sagas")
        .and_where(set_sql::is_one_of(backend, "id", ids))
        .to_owned();
    let sagas: Vec<SagaRow> = store.read(&sagas).await?;
    let inputs = Query::select()
        .columns(["saga_id", "body"])
        .from("saga_inputs")
        .and_where(set_sql::is_one_of(backend, "saga_id", ids))
        .to_owned();
    let mut inputs = read_inputs(store.read(&inputs).await?)?;
    let stored = |row: SagaRow| {
        let state = read_state(store.writing.format, row.format, &row.state)?;
        let header = Arc::new(Header::from(row.header));
        // An input can be erased once its saga has no more use for it.
        let input = inputs.remove(&header.id).unwrap_or_default();
        Ok((header.id, Stored { header, state, input }))
    };
    sagas.into_iter().map(stored).collect()
}

fn read_inputs(rows: Vec<InputRow>) -> Result<BTreeMap<Uuid, Arc<Value>>, Error> {
    let parse = |row: InputRow| Ok((row.saga_id, Arc::new(serde_json::from_str(&row.body).map_err(Error::Corrupt)?)));
    rows.into_iter().map(parse).collect()
}

/// A newer format is for newer builds. An older one is read, and the next commit writes it in this build's own.
fn read_state(known: u16, format: i32, text: &str) -> Result<State, Error> {
    if format <= i32::from(known) {
        serde_json::from_str(text).map(|saga| State::Known(Arc::new(saga))).map_err(Error::Corrupt)
    } else {
        Ok(State::Foreign(u16::try_from(format).unwrap_or(u16::MAX)))
    }
}

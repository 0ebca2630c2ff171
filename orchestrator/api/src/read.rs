//! `GET /v1/sagas/{id}` and its history.
//!
//! Must hold: history leaves as the exact bytes that were written.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use orchestrator::Engine;
use runtime::clock::rfc3339;
use runtime::http::{Cursor, NoQuery, Page, Principal, Problem, Query, limit};
use saga_store::{HistoryRow, LateReply};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::{SagaId, visible};
use crate::answer::{Answer, waited};
use crate::headers::{IfNoneMatch, Wait};
use crate::openapi::{Invalid, ReadParams, SagaMissing};
use crate::pages::{self, LIMIT_DEFAULT, LIMIT_MAX};
use crate::problems;
use crate::view::{SagaView, location};
use crate::words::LateReason;

/// Show a saga
///
/// With `Prefer: wait=N` the answer comes once the saga is decided or stuck, or when the time is up.
#[utoipa::path(
    get, path = "/v1/sagas/{id}", operation_id = "read_saga", tag = "sagas", params(ReadParams),
    responses(
        (status = 200, description = "The saga as it is.", body = SagaView, headers(
            ("ETag" = String, description = "Its version, quoted."),
            ("Preference-Applied" = String, description = "How long was waited at most."),
            ("Retry-After" = u64, description = "Not decided yet: ask again in so many seconds."),
        )),
        (status = 304, description = "It is at the version of `If-None-Match`."),
        SagaMissing, Invalid,
    ),
)]
pub(crate) async fn read(
    State(engine): State<Engine>,
    principal: Principal,
    SagaId(id): SagaId,
    _query: NoQuery,
    known: IfNoneMatch,
    wait: Wait,
) -> Result<Response<Body>, Problem> {
    let snapshot = waited(&engine, visible(&engine, &principal, id).await?, wait).await;
    let answer = Answer::saga(StatusCode::OK, &snapshot, &principal).waited(wait, &snapshot);
    Ok(if known.has(snapshot.saga.version) { answer.not_modified() } else { answer.into_response() })
}

/// Which part of a history is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Items of the page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of a saga's history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryPage)]
pub(crate) struct HistoryView {
    data: Vec<RowView>,
    /// Whether there are more behind them.
    has_more: bool,
    /// The parameter `cursor` of the next page; null on the last one.
    next_cursor: Option<String>,
    /// Replies that came after the end or answer nothing; on the first page only.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_replies: Option<Vec<LateView>>,
}

/// What one input made happen.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryRow)]
struct RowView {
    /// The saga's version after it.
    seq: u64,
    #[schema(format = DateTime)]
    at: String,
    /// `engine`, `participant:NAME`, `client:NAME` or `admin:NAME`.
    actor: String,
    /// In the asker's words.
    reason: Option<String>,
    operation_id: Option<Uuid>,
    /// The events, each with its `type`.
    #[schema(value_type = Vec<Object>)]
    events: Box<RawValue>,
}

/// A reply that could not change the saga any more.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LateReply)]
struct LateView {
    command_id: Uuid,
    reason: LateReason,
    #[schema(format = DateTime)]
    received_at: String,
    /// The reply without its output.
    #[schema(value_type = Object)]
    reply: Box<RawValue>,
}

/// Show what happened to a saga, oldest first
#[utoipa::path(
    get, path = "/v1/sagas/{id}/history", operation_id = "read_history", tag = "sagas",
    params(("id" = Uuid, Path, description = "The saga."), Asked),
    responses(
        (status = 200, description = "A page.", body = HistoryView, headers(
            ("Link" = String, description = "`rel=\"next\"`, absent on the last page."),
        )),
        SagaMissing, Invalid,
    ),
)]
pub(crate) async fn history(
    State(engine): State<Engine>,
    principal: Principal,
    SagaId(id): SagaId,
    Query(asked): Query<Asked>,
) -> Result<Response<Body>, Problem> {
    let items = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = asked.cursor.as_deref().map(Cursor::decode::<u64>).transpose()?;
    visible(&engine, &principal, id).await?;
    let store = engine.store();
    // One more than asked for tells whether there is more.
    let rows = store.history(id, after.unwrap_or(0), items + 1).await.map_err(|error| problems::of_store(&error))?;
    let late_replies = match after {
        None => Some(store.late(id).await.map_err(|error| problems::of_store(&error))?),
        Some(_) => None,
    };
    let page = Page::of(rows, items, |row: &HistoryRow| row.seq);
    let view = HistoryView {
        data: page.data.into_iter().map(row).collect::<Result<_, _>>()?,
        has_more: page.has_more,
        next_cursor: page.next_cursor,
        late_replies: late_replies.map(|late| late.into_iter().map(late_reply).collect()).transpose()?,
    };
    let parameters = [("limit", asked.limit.map(|limit| limit.to_string()))];
    let path = format!("{}/history", location(id));
    Ok(pages::answer(&view, view.next_cursor.as_deref(), &path, &parameters))
}

fn row(row: HistoryRow) -> Result<RowView, Problem> {
    Ok(RowView {
        seq: row.seq,
        at: rfc3339(row.at),
        actor: row.actor,
        reason: row.reason,
        operation_id: row.operation_id,
        events: exact(row.events)?,
    })
}

fn late_reply(late: LateReply) -> Result<LateView, Problem> {
    Ok(LateView {
        command_id: late.command_id,
        reason: late.reason.into(),
        received_at: rfc3339(late.received_at),
        reply: exact(late.reply)?,
    })
}

fn exact(text: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(text).map_err(|error| problems::of_store(&saga_store::Error::Corrupt(error)))
}

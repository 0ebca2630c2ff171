//! Reading sagas: one, its history, and lists.

use axum::extract::{Path, State};
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use orchestrator::{Engine, Snapshot};
use runtime::clock::rfc3339;
use runtime::http::{Cursor, Json, Page, Principal, Problem, Query, limit};
use saga_core::Status;
use saga_store::{Filter, HistoryRow, LateReason, LateReply};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::errors::{problem, store};
use crate::headers;
use crate::view::{SagaView, SummaryView};

/// Items of a page when nothing is said, and at most.
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// Whether a saga is this principal's to see.
pub(crate) fn may_see(principal: &Principal, snapshot: &Snapshot) -> bool {
    let header = &snapshot.header;
    header.tenant == principal.tenant && (principal.is_admin() || header.principal == principal.name)
}

/// The saga called `id`, if it is this principal's to see. Anything else looks the same from outside.
pub(crate) async fn find(engine: &Engine, principal: &Principal, id: &str) -> Result<Snapshot, Problem> {
    let missing =
        || Problem::not_found("There is no such saga, or it is not yours. GET /v1/sagas lists those that are.");
    let id: Uuid = id.parse().map_err(|_| missing())?;
    let found = engine.get(id).await.map_err(problem)?;
    found.filter(|snapshot| may_see(principal, snapshot)).ok_or_else(missing)
}

/// Shows a saga.
#[utoipa::path(
    get, path = "/v1/sagas/{id}", tag = "sagas",
    params(
        ("id" = Uuid, Path, description = "The saga"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when decided or stuck, at most after N ≤ 60 seconds"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag that you have already")
    ),
    responses(
        (status = 200, description = "The saga; `ETag` is its version", body = SagaView),
        (status = 304, description = "You have this version already"),
        (status = 404, description = "No such saga, or not yours")
    ), security(("bearer" = []))
)]
pub(crate) async fn get(
    State(engine): State<Engine>,
    principal: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = headers::wait(&headers)?;
    let mut snapshot = find(&engine, &principal, &id).await?;
    if let Some(wait) = wait
        && let Some(later) = engine.wait(snapshot.header.id, wait.limit()).await.map_err(problem)?
    {
        snapshot = later;
    }
    let version = snapshot.saga.version;
    let mut response = if headers::is_known(&headers, version) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(SagaView::new(&snapshot, &principal)).into_response()
    };
    headers::set_version(response.headers_mut(), version);
    if let Some(wait) = wait {
        wait.answer(response.headers_mut(), !snapshot.saga.is_answered());
    }
    Ok(response)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One transition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryView {
    seq: u64,
    at: String,
    /// `engine`, `participant:NAME`, `client:NAME` or `admin:NAME`.
    actor: String,
    reason: Option<String>,
    operation_id: Option<Uuid>,
    /// What happened, as it was written.
    #[schema(value_type = Vec<Object>)]
    events: Box<RawValue>,
}

/// A reply that came after the saga had ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LateView {
    command_id: Uuid,
    /// `ended`, `contradiction` or `orphan`.
    reason: &'static str,
    #[schema(value_type = Object)]
    reply: Value,
    received_at: String,
}

/// A page of history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryPage {
    data: Vec<HistoryView>,
    has_more: bool,
    next_cursor: Option<String>,
    /// On the first page only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    late_replies: Vec<LateView>,
}

/// Shows what happened to a saga, oldest first.
#[utoipa::path(
    get, path = "/v1/sagas/{id}/history", tag = "sagas",
    params(("id" = Uuid, Path, description = "The saga"), Paging),
    responses((status = 200, description = "A page", body = HistoryPage), (status = 404, description = "No such saga, or not yours")),
    security(("bearer" = []))
)]
pub(crate) async fn history(
    State(engine): State<Engine>,
    principal: Principal,
    Path(id): Path<String>,
    Query(asked): Query<Paging>,
) -> Result<Json<HistoryPage>, Problem> {
    let count = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after: u64 = asked.cursor.as_deref().map(Cursor::decode).transpose()?.unwrap_or(0);
    let id = find(&engine, &principal, &id).await?.header.id;
    let rows = engine.store().history(id, after, count + 1).await.map_err(store)?;
    let late = if after == 0 { engine.store().late(id).await.map_err(store)? } else { Vec::new() };
    let Page { data, has_more, next_cursor } = Page::of(rows, count, |row| row.seq);
    Ok(Json(HistoryPage {
        data: data.into_iter().map(row).collect::<Result<_, _>>()?,
        has_more,
        next_cursor,
        late_replies: late.iter().map(late_view).collect(),
    }))
}

fn row(row: HistoryRow) -> Result<HistoryView, Problem> {
    let events = RawValue::from_string(row.events).map_err(|error| store(saga_store::Error::Corrupt(error)))?;
    Ok(HistoryView {
        seq: row.seq,
        at: rfc3339(row.at),
        actor: row.actor,
        reason: row.reason,
        operation_id: row.operation_id,
        events,
    })
}

fn late_view(late: &LateReply) -> LateView {
    let reason = match late.reason {
        LateReason::Ended => "ended",
        LateReason::Contradiction => "contradiction",
        LateReason::Orphan => "orphan",
    };
    let reply = serde_json::from_str(&late.reply).unwrap_or(Value::Null);
    LateView { command_id: late.command_id, reason, reply, received_at: rfc3339(late.received_at) }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListAsked {
    /// `running`, `compensating`, `stuck`, `completed`, `compensated` or `closed`.
    #[param(value_type = Option<String>)]
    status: Option<Status>,
    /// Name of a definition, any version.
    definition: Option<String>,
    /// Business key.
    key: Option<String>,
    /// 1 to 200.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of sagas.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SagaPage {
    data: Vec<SummaryView>,
    has_more: bool,
    next_cursor: Option<String>,
}

/// Lists sagas, newest first: a client its own, an admin all.
#[utoipa::path(
    get, path = "/v1/sagas", tag = "sagas", params(ListAsked),
    responses((status = 200, description = "A page", body = SagaPage), (status = 400, description = "A parameter does not fit")),
    security(("bearer" = []))
)]
pub(crate) async fn list(
    State(engine): State<Engine>,
    principal: Principal,
    Query(asked): Query<ListAsked>,
) -> Result<Response, Problem> {
    let count = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let filter = Filter {
        principal: (!principal.is_admin()).then(|| principal.name.clone()),
        tenant: principal.tenant,
        status: asked.status,
        definition: asked.definition,
        key: asked.key,
        before: asked.cursor.as_deref().map(Cursor::decode).transpose()?,
    };
    let rows = engine.store().list(&filter, count + 1).await.map_err(store)?;
    let Page { data, has_more, next_cursor } = Page::of(rows, count, |summary| summary.header.id);
    let link = next_cursor.as_deref().map(|cursor| next_link(&filter, count, cursor));
    let data = data.into_iter().map(SummaryView::from).collect();
    let mut response = Json(SagaPage { data, has_more, next_cursor }).into_response();
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    Ok(response)
}

/// The same question for the next page: RFC 8288.
fn next_link(filter: &Filter, count: u64, cursor: &str) -> String {
    let status = filter.status.and_then(|status| serde_json::to_value(status).ok());
    let status = status.as_ref().and_then(Value::as_str);
    let asked = [("status", status), ("definition", filter.definition.as_deref()), ("key", filter.key.as_deref())];
    let mut query = format!("limit={count}&cursor={cursor}");
    for (name, value) in asked {
        if let Some(value) = value {
            let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            query.push_str(&format!("&{name}={encoded}"));
        }
    }
    format!("</v1/sagas?{query}>; rel=\"next\"")
}

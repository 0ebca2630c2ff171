//! `POST /v1/sagas`: three answers, 201 new, 200 the same again, 422 the key was used for something else.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use orchestrator::{Engine, StartAnswer, StartRequest, Started};
use runtime::http::{Json, Principal, Problem};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::errors::problem;
use crate::headers;
use crate::view::SagaView;

/// Longest name of a definition with its version.
const DEFINITION_BYTES_MAX: usize = 80;
/// Longest business key.
const KEY_BYTES_MAX: usize = 255;

/// A new saga.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartBody {
    /// `booking` for the newest version, `booking@1` for that one.
    definition: String,
    /// Business key, unique among open sagas.
    key: Option<String>,
    /// What the definition's input schema asks for.
    #[schema(value_type = Object)]
    input: Value,
}

/// Starts a saga.
#[utoipa::path(
    post, path = "/v1/sagas", tag = "sagas", request_body = StartBody,
    params(
        ("Idempotency-Key" = String, Header, description = "New for each new request, the same when one is repeated"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when decided or stuck, at most after N ≤ 60 seconds")
    ),
    responses(
        (status = 201, description = "The saga is accepted", body = SagaView),
        (status = 200, description = "An equal request had started it; `Idempotent-Replayed: true`", body = SagaView),
        (status = 400, description = "No Idempotency-Key, or not JSON"),
        (status = 409, description = "The business key belongs to an open saga"),
        (status = 422, description = "The key was used for another request, or the input does not fit"),
        (status = 503, description = "Ask again with the same key")
    ), security(("bearer" = []))
)]
pub(crate) async fn start(
    State(engine): State<Engine>,
    principal: Principal,
    headers: HeaderMap,
    Json(body): Json<StartBody>,
) -> Result<Response, Problem> {
    let idempotency_key = headers::idempotency_key(&headers)?;
    let wait = headers::wait(&headers)?;
    limited("definition", Some(&body.definition), DEFINITION_BYTES_MAX)?;
    limited("key", body.key.as_deref(), KEY_BYTES_MAX)?;
    let request = StartRequest {
        tenant: principal.tenant.clone(),
        principal: principal.name.clone(),
        idempotency_key,
        definition: body.definition,
        key: body.key,
        input: body.input,
    };
    let Started { mut snapshot, replayed } = match engine.begin(request).await.map_err(problem)? {
        StartAnswer::Started(started) => *started,
        refused @ (StartAnswer::UnknownDefinition
        | StartAnswer::BadInput(_)
        | StartAnswer::KeyReused
        | StartAnswer::BusinessKeyTaken { .. }) => return Err(refusal(&engine, &principal, refused).await),
    };
    if let Some(wait) = wait {
        // The saga is accepted: failing to wait for it must not hide that.
        if let Ok(Some(later)) = engine.wait(snapshot.header.id, wait.limit()).await {
            snapshot = later;
        }
    }
    let status = if replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Json(SagaView::new(&snapshot, &principal))).into_response();
    let answer = response.headers_mut();
    headers::set_version(answer, snapshot.saga.version);
    let location = HeaderValue::from_str(&format!("/v1/sagas/{}", snapshot.header.id)).expect("a path of ASCII");
    answer.insert(LOCATION, location);
    if let Some(wait) = wait {
        wait.answer(answer, !snapshot.saga.is_answered());
    }
    if replayed {
        headers::set_replayed(answer);
    }
    Ok(response)
}

fn limited(name: &str, text: Option<&str>, bytes_max: usize) -> Result<(), Problem> {
    match text {
        Some(text) if text.is_empty() || text.len() > bytes_max => {
            let detail = format!("`{name}` must have 1 to {bytes_max} bytes.");
            Err(Problem::unprocessable("invalid_body", detail).with("field", name))
        }
        Some(_) | None => Ok(()),
    }
}

async fn refusal(engine: &Engine, principal: &Principal, answer: StartAnswer) -> Problem {
    match answer {
        StartAnswer::UnknownDefinition => {
            Problem::unprocessable("unknown_definition", "There is no such definition; GET /v1/definitions lists them.")
        }
        StartAnswer::BadInput(problems) => {
            let detail = "`input` does not fit the definition's schema; `errors` says where. Nothing was started.";
            let errors: Vec<_> = problems
                .into_iter()
                .map(|problem| serde_json::json!({"pointer": format!("/input{}", problem.pointer), "detail": problem.detail}))
                .collect();
            Problem::unprocessable("invalid_input", detail).with("errors", errors)
        }
        StartAnswer::KeyReused => {
            let detail = "This Idempotency-Key was used for another request. Nothing was started: take a new key for a new \
                          request, or repeat the old one exactly.";
            Problem::unprocessable("idempotency_key_reused", detail)
        }
        StartAnswer::BusinessKeyTaken { saga_id } => {
            let detail = "An open saga has this business key; wait until it has ended, or look at it.";
            let problem = Problem::conflict("business_key_in_use", detail);
            if is_visible(engine, principal, saga_id).await { problem.with("saga_id", saga_id) } else { problem }
        }
        StartAnswer::Started(_) => Problem::internal(),
    }
}

async fn is_visible(engine: &Engine, principal: &Principal, saga_id: Uuid) -> bool {
    let found = engine.get(saga_id).await.ok().flatten();
    found.is_some_and(|snapshot| crate::read::may_see(principal, &snapshot))
}

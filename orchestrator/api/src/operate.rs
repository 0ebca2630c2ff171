//! `POST /v1/sagas/{id}/{action}`: what people ask of a saga.

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use orchestrator::{Engine, OperateRequest, Operated, Snapshot};
use runtime::http::{Json, Principal, Problem};
use saga_core::{Action, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::errors::problem;
use crate::headers;
use crate::read::find;
use crate::view::{SagaView, actions};

/// Longest reason.
const REASON_BYTES_MAX: usize = 500;

/// Why, in the asker's words.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationBody {
    /// Kept in the saga's history; 1 to 500 bytes, no personal data.
    reason: String,
    /// For `skip`: the output that counts. No personal data: it is written to history.
    #[schema(value_type = Option<Object>)]
    output: Option<Map<String, Value>>,
}

/// The saga as it now is, and the name of the operation in its history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationView {
    operation_id: Uuid,
    #[serde(flatten)]
    saga: SagaView,
}

/// Asks something of a saga: `retry`, `skip`, `compensate`, `cancel` or `close`.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/{action}", tag = "sagas", request_body = OperationBody,
    params(
        ("id" = Uuid, Path, description = "The saga"),
        ("action" = String, Path, description = "`retry`, `skip`, `compensate`, `close` for admins; `cancel` also for the saga's client"),
        ("If-Match" = String, Header, description = "The ETag that you saw; `*` for cancel only"),
        ("Idempotency-Key" = String, Header, description = "New for each new request, the same when one is repeated")
    ),
    responses(
        (status = 202, description = "Applied; the saga as it now is", body = OperationView),
        (status = 403, description = "Only for admins"),
        (status = 404, description = "No such saga, or not yours"),
        (status = 409, description = "Not possible now; `actions` says what is"),
        (status = 412, description = "The saga has moved on"),
        (status = 422, description = "The key was used for another request"),
        (status = 428, description = "If-Match is missing")
    ), security(("bearer" = []))
)]
pub(crate) async fn operate(
    State(engine): State<Engine>,
    principal: Principal,
    Path((id, action)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    if !Action::NAMES.contains(&action.as_str()) {
        return Err(Problem::not_found("A saga knows retry, skip, compensate, cancel and close."));
    }
    let is_cancel = action == "cancel";
    let snapshot = find(&engine, &principal, &id).await?;
    if !is_cancel {
        principal.require_admin()?;
    }
    let expected_version = headers::expected_version(&headers, is_cancel)?;
    let idempotency_key = headers::idempotency_key(&headers)?;
    let Json(body) = Json::<OperationBody>::from_request(request, &()).await?;
    let (action, reason) = read(&action, body)?;
    let role = if principal.is_admin() { "admin" } else { "client" };
    let request = OperateRequest {
        saga_id: snapshot.header.id,
        principal: principal.name.clone(),
        actor: format!("{role}:{}", principal.name),
        idempotency_key,
        expected_version,
        reason,
        action,
    };
    match engine.operate(request).await.map_err(problem)? {
        Operated::Applied { snapshot, operation_id, replayed } => {
            let saga = SagaView::new(&snapshot, &principal);
            let mut response = (StatusCode::ACCEPTED, Json(OperationView { operation_id, saga })).into_response();
            headers::set_version(response.headers_mut(), snapshot.saga.version);
            if replayed {
                headers::set_replayed(response.headers_mut());
            }
            Ok(response)
        }
        Operated::Refused { snapshot, refusal } => Err(refused(&snapshot, &principal, &refusal)),
        Operated::NotFound => Err(Problem::not_found("The saga is gone, or another build looks after it.")),
    }
}

fn read(action: &str, body: OperationBody) -> Result<(Action, String), Problem> {
    let OperationBody { reason, output } = body;
    if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
        let detail = "`reason` must have 1 to 500 bytes: say why, it is kept in the saga's history.";
        return Err(Problem::unprocessable("invalid_body", detail).with("field", "reason"));
    }
    if output.is_some() && action != "skip" {
        let detail = "`output` is for skip only: it is the result that counts as the step's.";
        return Err(Problem::unprocessable("invalid_body", detail).with("field", "output"));
    }
    let action = match action {
        "retry" => Action::Retry,
        "skip" => Action::Skip(Value::Object(output.unwrap_or_default())),
        "compensate" => Action::Compensate,
        "cancel" => Action::Cancel,
        _ => Action::Close,
    };
    Ok((action, reason))
}

fn refused(snapshot: &Snapshot, principal: &Principal, refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::NotAllowed { action, why } => {
            let detail = format!("`{action}` is not possible: {why}. `actions` says what is.");
            Problem::conflict("action_not_possible", detail)
                .with("actions", actions(snapshot, principal))
                .with("version", snapshot.saga.version)
        }
        Refusal::Stale { current } => {
            let detail = "The saga has moved on since you looked. Read it again, and decide again.";
            Problem::precondition_failed(detail).with("version", current)
        }
        Refusal::Reused => {
            let detail = "This Idempotency-Key was used for another operation on this saga. Take a new key.";
            Problem::unprocessable("idempotency_key_reused", detail)
        }
    }
}

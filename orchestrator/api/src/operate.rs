//! `POST /v1/sagas/{id}/retry`, `…/skip`, `…/compensate`, `…/cancel`, `…/close`.
//!
//! Not for saying what is possible: the core does. Must hold: who repairs by hand names the version that was looked
//! at; only a client's cancel may do without, because it means the saga whatever it is doing.

use axum::extract::State;
use axum::http::StatusCode;
use orchestrator::{Engine, OperateRequest, Operated};
use runtime::http::{Json, Principal, Problem};
use saga_core::{Action, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Admin, SagaId, actor, visible};
use crate::answer::Answer;
use crate::headers::{IdempotencyKey, IfMatch};
use crate::openapi::{CancelAnswers, OperationParams, RepairAnswers};
use crate::problems;
use crate::view::SagaView;

/// Longest reason.
const REASON_CHARS_MAX: usize = 500;

/// Why the operation is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Kept for ever with what it is the reason for: no personal data.
    #[schema(min_length = 1, max_length = 500, example = "the provider is back")]
    reason: String,
}

impl Reason {
    /// The reason, if it says something.
    pub(crate) fn checked(self) -> Result<String, Problem> {
        checked(&self.reason)?;
        Ok(self.reason)
    }
}

fn checked(reason: &str) -> Result<(), Problem> {
    if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(problems::bad_member("reason", "must say why, in 1 to 500 characters"));
    }
    Ok(())
}

/// Why a command counts as succeeded, and with which output.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Skip {
    /// Kept in the saga's history for ever: no personal data.
    #[schema(min_length = 1, max_length = 500, example = "the clinic confirmed by phone")]
    reason: String,
    /// What later steps may refer to; kept in history, too.
    #[serde(default)]
    #[schema(value_type = Object)]
    output: Map<String, Value>,
}

/// The saga after an operation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operated)]
pub(crate) struct OperatedView {
    /// Names the operation in the saga's history.
    operation_id: Uuid,
    #[serde(flatten)]
    saga: SagaView,
}

type Answered = Result<Answer<OperatedView>, Problem>;

/// Send the stuck command again, with a new budget
#[utoipa::path(
    post, path = "/v1/sagas/{id}/retry", operation_id = "retry_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(RepairAnswers),
)]
pub(crate) async fn retry(
    State(engine): State<Engine>,
    Admin(principal): Admin,
    SagaId(id): SagaId,
    key: IdempotencyKey,
    seen: IfMatch,
    Json(body): Json<Reason>,
) -> Answered {
    repair(&engine, &principal, id, key, seen, body.reason, Action::Retry).await
}

/// Count the stuck command as succeeded
///
/// A pivot that is skipped commits the saga.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/skip", operation_id = "skip_step", tag = "operations",
    params(OperationParams), request_body = Skip, responses(RepairAnswers),
)]
pub(crate) async fn skip(
    State(engine): State<Engine>,
    Admin(principal): Admin,
    SagaId(id): SagaId,
    key: IdempotencyKey,
    seen: IfMatch,
    Json(body): Json<Skip>,
) -> Answered {
    let action = Action::Skip(Value::Object(body.output));
    repair(&engine, &principal, id, key, seen, body.reason, action).await
}

/// Undo a saga that is not decided, although it could go on
#[utoipa::path(
    post, path = "/v1/sagas/{id}/compensate", operation_id = "compensate_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(RepairAnswers),
)]
pub(crate) async fn compensate(
    State(engine): State<Engine>,
    Admin(principal): Admin,
    SagaId(id): SagaId,
    key: IdempotencyKey,
    seen: IfMatch,
    Json(body): Json<Reason>,
) -> Answered {
    repair(&engine, &principal, id, key, seen, body.reason, Action::Compensate).await
}

/// Close a stuck saga; what it holds stays as it is
#[utoipa::path(
    post, path = "/v1/sagas/{id}/close", operation_id = "close_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(RepairAnswers),
)]
pub(crate) async fn close(
    State(engine): State<Engine>,
    Admin(principal): Admin,
    SagaId(id): SagaId,
    key: IdempotencyKey,
    seen: IfMatch,
    Json(body): Json<Reason>,
) -> Answered {
    repair(&engine, &principal, id, key, seen, body.reason, Action::Close).await
}

/// Undo a saga that is not decided
///
/// For whoever started it, and for admins. Accepts `If-Match: *`. While the pivot's fate is unknown the wish is kept
/// and the pivot is fenced: `cancel.outcome` tells what became of it.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/cancel", operation_id = "cancel_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(CancelAnswers),
)]
pub(crate) async fn cancel(
    State(engine): State<Engine>,
    principal: Principal,
    SagaId(id): SagaId,
    key: IdempotencyKey,
    seen: IfMatch,
    Json(body): Json<Reason>,
) -> Answered {
    operate(&engine, &principal, id, key, seen, body.reason, Action::Cancel).await
}

/// An operation that must name the version its asker saw.
async fn repair(
    engine: &Engine,
    principal: &Principal,
    id: Uuid,
    key: IdempotencyKey,
    seen: IfMatch,
    reason: String,
    action: Action,
) -> Answered {
    let seen = IfMatch::Version(seen.version()?);
    operate(engine, principal, id, key, seen, reason, action).await
}

async fn operate(
    engine: &Engine,
    principal: &Principal,
    saga_id: Uuid,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    seen: IfMatch,
    reason: String,
    action: Action,
) -> Answered {
    checked(&reason)?;
    visible(engine, principal, saga_id).await?;
    let request = OperateRequest {
        saga_id,
        principal: principal.name.clone(),
        actor: actor(principal),
        idempotency_key,
        expected_version: match seen {
            IfMatch::Any => None,
            IfMatch::Version(version) => Some(version),
        },
        reason,
        action,
    };
    match engine.operate(request).await.map_err(problems::of_engine)? {
        Operated::Applied { snapshot, operation_id, replayed } => {
            let answer = Answer::saga(StatusCode::ACCEPTED, &snapshot, principal).replayed(replayed);
            Ok(answer.map(|saga| OperatedView { operation_id, saga }))
        }
        Operated::Refused { snapshot, refusal } => Err(match refusal {
            Refusal::NotAllowed { why, .. } => {
                problems::not_possible(why, &SagaView::new(&snapshot, principal).possible_actions())
            }
            Refusal::Stale { current } => problems::stale(current),
            Refusal::Reused => problems::operation_key_reused(),
        }),
        Operated::NotFound => Err(problems::no_saga()),
    }
}

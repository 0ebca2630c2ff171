//! `POST /v1/sagas/{id}/retry`, `…/skip`, `…/compensate`, `…/cancel`, `…/close`.
//!
//! Not for saying what is possible: the core does. Must hold: who repairs by hand names the version that was looked
//! at; only a client's cancel may do without, because it means the saga whatever it is doing.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use orchestrator::{Engine, OperateRequest, Operated};
use runtime::http::{Json, NoQuery, Principal, Problem};
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

/// Who asks something of which saga, and having seen what.
pub(crate) struct Asked {
    engine: Engine,
    principal: Principal,
    saga_id: Uuid,
    idempotency_key: String,
    seen: IfMatch,
}

impl FromRequestParts<Engine> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, engine).await?;
        let SagaId(saga_id) = SagaId::from_request_parts(parts, engine).await?;
        NoQuery::from_request_parts(parts, engine).await?;
        let IdempotencyKey(idempotency_key) = IdempotencyKey::from_request_parts(parts, engine).await?;
        let seen = IfMatch::from_request_parts(parts, engine).await?;
        Ok(Self { engine: engine.clone(), principal, saga_id, idempotency_key, seen })
    }
}

impl Asked {
    async fn operate(self, reason: String, action: Action) -> Answered {
        let Self { engine, principal, saga_id, idempotency_key, seen } = self;
        checked(&reason)?;
        visible(&engine, &principal, saga_id).await?;
        let request = OperateRequest {
            saga_id,
            principal: principal.name.clone(),
            actor: actor(&principal),
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
                let answer = Answer::saga(StatusCode::ACCEPTED, &snapshot, &principal).replayed(replayed);
                Ok(answer.map(|saga| OperatedView { operation_id, saga }))
            }
            Operated::Refused { snapshot, refusal } => Err(match refusal {
                Refusal::NotAllowed { why, .. } => {
                    problems::not_possible(why, &SagaView::new(&snapshot, &principal).possible_actions())
                }
                Refusal::Stale { current } => problems::stale(current),
                Refusal::Reused => problems::operation_key_reused(),
            }),
            Operated::NotFound => Err(problems::no_saga()),
        }
    }
}

/// The same of an admin, who must name the version that was seen.
pub(crate) struct Repair(Asked);

impl FromRequestParts<Engine> for Repair {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Engine) -> Result<Self, Problem> {
        Admin::from_request_parts(parts, engine).await?;
        Asked::from_request_parts(parts, engine).await.map(Self)
    }
}

impl Repair {
    async fn operate(self, reason: String, action: Action) -> Answered {
        self.0.seen.version()?;
        self.0.operate(reason, action).await
    }
}

/// Send the stuck command again, with a new budget
#[utoipa::path(
    post, path = "/v1/sagas/{id}/retry", operation_id = "retry_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(RepairAnswers),
)]
pub(crate) async fn retry(repair: Repair, Json(body): Json<Reason>) -> Answered {
    repair.operate(body.reason, Action::Retry).await
}

/// Count the stuck command as succeeded
///
/// A pivot that is skipped commits the saga.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/skip", operation_id = "skip_step", tag = "operations",
    params(OperationParams), request_body = Skip, responses(RepairAnswers),
)]
pub(crate) async fn skip(repair: Repair, Json(body): Json<Skip>) -> Answered {
    let action = Action::Skip(Value::Object(body.output));
    repair.operate(body.reason, action).await
}

/// Undo a saga that is not decided, although it could go on
#[utoipa::path(
    post, path = "/v1/sagas/{id}/compensate", operation_id = "compensate_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(RepairAnswers),
)]
pub(crate) async fn compensate(repair: Repair, Json(body): Json<Reason>) -> Answered {
    repair.operate(body.reason, Action::Compensate).await
}

/// Close a stuck saga; what it holds stays as it is
#[utoipa::path(
    post, path = "/v1/sagas/{id}/close", operation_id = "close_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(RepairAnswers),
)]
pub(crate) async fn close(repair: Repair, Json(body): Json<Reason>) -> Answered {
    repair.operate(body.reason, Action::Close).await
}

/// Undo a saga that is not decided
///
/// For whoever started it, and for admins. Accepts `If-Match: *`. While the pivot's fate is unknown the wish is kept
/// and the pivot is fenced: `cancel.outcome` tells what became of it.
#[utoipa::path(
    post, path = "/v1/sagas/{id}/cancel", operation_id = "cancel_saga", tag = "operations",
    params(OperationParams), request_body = Reason, responses(CancelAnswers),
)]
pub(crate) async fn cancel(asked: Asked, Json(body): Json<Reason>) -> Answered {
    asked.operate(body.reason, Action::Cancel).await
}

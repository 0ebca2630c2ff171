//! `POST /v1/sagas`.
//!
//! Must hold: a repeated request finds the saga it started, as it is now; once a saga was accepted the answer says so,
//! whatever becomes of the saga.

use axum::extract::State;
use axum::http::StatusCode;
use orchestrator::{Engine, StartAnswer, StartRequest};
use runtime::http::{Json, NoQuery, Principal, Problem};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access;
use crate::answer::{Answer, followed};
use crate::headers::{IdempotencyKey, Wait};
use crate::openapi::{BodyRefused, Invalid, ProblemDocument, StartParams};
use crate::problems;
use crate::view::SagaView;

/// Longest business key.
pub(crate) const KEY_BYTES_MAX: usize = 255;
/// Longer ones than a name of 64 bytes, `@` and a version are no definition's.
const DEFINITION_BYTES_MAX: usize = 80;

/// A wish for a new saga. Deliberately without `Debug`: the input may hold personal data.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// `booking` for the newest version, `booking@1` for that one.
    #[schema(example = "booking", max_length = 80)]
    definition: String,
    /// Business key, unique while the saga is open; 1 to 255 bytes.
    #[schema(example = "order-7", min_length = 1, max_length = 255)]
    key: Option<String>,
    /// What the definition's schema asks for.
    #[schema(value_type = Object, example = json!({
        "slot_id": "0190f5fe-7c00-7a00-8000-000000000001",
        "patient": {"name": "Ada Lovelace", "phone": "+15005550006", "email": "ada@example.org"},
        "payment_method": "tok_visa",
    }))]
    input: Value,
}

/// Start a saga
///
/// Repeating the request with the same `Idempotency-Key` finds the saga that it started. The status code never speaks
/// of the saga's outcome: that is in `status` and `decision`.
#[utoipa::path(
    post, path = "/v1/sagas", operation_id = "start_saga", tag = "sagas", params(StartParams), request_body = Start,
    responses(
        (status = 201, description = "The saga was accepted.", body = SagaView, headers(
            ("Location" = String, description = "The saga's path."),
            ("ETag" = String, description = "Its version, quoted."),
            ("Preference-Applied" = String, description = "How long was waited at most."),
            ("Retry-After" = u64, description = "Not decided yet: ask again in so many seconds."),
        )),
        (status = 200, description = "An equal request started this saga before; as it is now.", body = SagaView, headers(
            ("Idempotent-Replayed" = String, description = "`true`"),
        )),
        (status = 409, description = "`business_key_in_use`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`gone`: this very request started a saga, which has ended and was deleted since",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_input`, `unknown_definition`, `idempotency_key_reused`, `invalid_body`",
            body = ProblemDocument, content_type = "application/problem+json"),
        Invalid, BodyRefused,
    ),
)]
pub(crate) async fn start(
    State(engine): State<Engine>,
    principal: Principal,
    _query: NoQuery,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    wait: Wait,
    Json(body): Json<Start>,
) -> Result<Answer<SagaView>, Problem> {
    check(&body)?;
    let request = StartRequest {
        tenant: principal.tenant.clone(),
        principal: principal.name.clone(),
        actor: access::actor(&principal),
        idempotency_key,
        definition: body.definition,
        key: body.key,
        input: body.input,
    };
    match engine.begin(request).await.map_err(problems::of_engine)? {
        StartAnswer::Started(started) => {
            let status = if started.replayed { StatusCode::OK } else { StatusCode::CREATED };
            let replayed = started.replayed;
            let snapshot = followed(&engine, *started, wait).await;
            let answer = Answer::saga(status, &snapshot, &principal).located(&snapshot);
            Ok(answer.replayed(replayed).waited(wait, &snapshot))
        }
        StartAnswer::UnknownDefinition => Err(problems::unknown_definition()),
        StartAnswer::BadInput(broken) => Err(problems::bad_input(broken)),
        StartAnswer::KeyReused => Err(problems::start_key_reused()),
        StartAnswer::Gone { saga_id } => Err(problems::gone(saga_id)),
        StartAnswer::BusinessKeyTaken { saga_id } => Err(key_taken(&engine, &principal, saga_id).await),
    }
}

fn check(body: &Start) -> Result<(), Problem> {
    if body.definition.len() > DEFINITION_BYTES_MAX {
        return Err(problems::unknown_definition());
    }
    match &body.key {
        Some(key) if !(1..=KEY_BYTES_MAX).contains(&key.len()) => {
            Err(problems::bad_member("key", "must have 1 to 255 bytes, or be left out"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Names the saga that has the business key, to those who may see it.
async fn key_taken(engine: &Engine, principal: &Principal, saga_id: Uuid) -> Problem {
    let detail = "Another saga with this `key` is under way. Wait until it has ended, or use another key.";
    let problem = Problem::conflict("business_key_in_use", detail);
    match access::visible(engine, principal, saga_id).await {
        Ok(snapshot) => problem.with("saga_id", snapshot.header.id),
        // Not theirs, or not to be had now; the conflict is certain all the same.
        Err(_) => problem,
    }
}

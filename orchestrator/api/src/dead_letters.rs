//! `GET /v1/dead-letters`, `GET /v1/dead-letters/{id}`, `POST /v1/dead-letters/{id}/replay`, `…/discard`.
//!
//! For admins only. Must hold: an item leaves with its own letter alone and never in a list, because it may hold
//! personal data; repeating what was done answers as before.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::response::IntoResponse;
use orchestrator::{Engine, LetterAction, LetterAnswer, LetterRefusal, LetterRequest};
use runtime::clock::rfc3339;
use runtime::http::{Cursor, Json, NoQuery, Page, Problem, Query, limit};
use saga_defs::Timestamp;
use saga_store::{KeptLetter, LetterFilter, LetterSummary};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::{Admin, actor};
use crate::answer::REPLAYED;
use crate::openapi::{AdminsOnly, Invalid, LetterAnswers, LetterMissing};
use crate::operate::Reason;
use crate::pages::{LIMIT_DEFAULT, LIMIT_MAX, PageView};
use crate::problems;
use crate::words::{Encoding, LetterReason, LetterState};

/// Longest name of a queue.
const QUEUE_BYTES_MAX: usize = 255;

/// The letter that a path names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LetterId(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for LetterId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<Uuid>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(problems::no_letter()),
        }
    }
}

/// Which states are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AskedState {
    #[default]
    Waiting,
    Replayed,
    Discarded,
    All,
}

impl AskedState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
            Self::All => "all",
        }
    }

    fn state(self) -> Option<saga_store::LetterState> {
        match self {
            Self::Waiting => Some(saga_store::LetterState::Waiting),
            Self::Replayed => Some(saga_store::LetterState::Replayed),
            Self::Discarded => Some(saga_store::LetterState::Discarded),
            Self::All => None,
        }
    }
}

/// Which dead letters are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Only those that stand there.
    #[param(inline, default = "waiting")]
    state: Option<AskedState>,
    /// Only those that died of this.
    #[param(inline)]
    reason: Option<LetterReason>,
    /// Only those of the queue with this name.
    #[param(example = "bookend.payment")]
    queue: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A message, or an item of one, that could not be handled.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterSummary)]
pub(crate) struct SummaryView {
    /// The same whenever the same item dies in the same queue.
    id: Uuid,
    /// The queue that it was in.
    #[schema(example = "bookend.payment")]
    queue: String,
    reason: LetterReason,
    /// Why, for a person.
    detail: String,
    /// When it died.
    #[schema(format = DateTime)]
    at: String,
    /// How often it was tried.
    attempts: u32,
    /// How long it was, where only its beginning was kept.
    bytes: Option<u64>,
    state: LetterState,
    /// Who settled it last. A letter that is waiting and has this died again afterwards.
    settled: Option<SettledView>,
}

/// Who settled a dead letter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterSettled)]
struct SettledView {
    /// `admin:NAME`.
    by: String,
    /// In their words.
    reason: String,
    #[schema(format = DateTime)]
    at: String,
}

/// A dead letter with its item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct LetterView {
    #[serde(flatten)]
    letter: SummaryView,
    encoding: Encoding,
    /// The item, byte for byte. It may hold personal data.
    body: String,
}

impl From<LetterSummary> for SummaryView {
    fn from(letter: LetterSummary) -> Self {
        Self {
            id: letter.id,
            queue: letter.queue,
            reason: letter.reason.into(),
            detail: letter.detail,
            at: rfc3339(letter.at),
            attempts: letter.attempts,
            bytes: letter.bytes,
            state: letter.state.into(),
            settled: letter.settled.map(|settled| SettledView {
                by: settled.by,
                reason: settled.reason,
                at: rfc3339(settled.at),
            }),
        }
    }
}

impl From<KeptLetter> for LetterView {
    fn from(kept: KeptLetter) -> Self {
        Self { letter: kept.summary.into(), encoding: kept.encoding.into(), body: kept.body }
    }
}

/// List dead letters, newest first
///
/// Without their items. Those that wait, if nothing else is asked for.
#[utoipa::path(
    get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "dead letters", params(Asked),
    responses(
        (status = 200, description = "A page.", body = PageView<SummaryView>, headers(
            ("Link" = String, description = "`rel=\"next\"`, absent on the last page."),
        )),
        AdminsOnly, Invalid,
    ),
)]
pub(crate) async fn list(
    State(engine): State<Engine>,
    Admin(_): Admin,
    Query(asked): Query<Asked>,
) -> Result<Response<Body>, Problem> {
    if asked.queue.as_ref().is_some_and(|queue| queue.len() > QUEUE_BYTES_MAX) {
        return Err(problems::bad_parameter("queue", "must have at most 255 bytes"));
    }
    let items = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let before = asked.cursor.as_deref().map(Cursor::decode::<(Timestamp, Uuid)>).transpose()?;
    let filter = LetterFilter {
        state: asked.state.unwrap_or_default().state(),
        reason: asked.reason.map(Into::into),
        queue: asked.queue.clone(),
        before,
    };
    // One more than asked for tells whether there is more.
    let found = engine.store().dead_letters(&filter, items + 1).await.map_err(|error| problems::of_store(&error))?;
    let page = Page::of(found, items, |letter: &LetterSummary| (letter.at, letter.id));
    Ok(PageView::<SummaryView>::of(page).answer("/v1/dead-letters", &parameters(&asked)))
}

/// What the next page must be asked with besides the cursor.
fn parameters(asked: &Asked) -> [(&'static str, Option<String>); 4] {
    let reason = asked.reason.map(|reason| saga_defs::dead_letter::Reason::from(reason).as_str().to_owned());
    [
        ("state", asked.state.map(|state| state.as_str().to_owned())),
        ("reason", reason),
        ("queue", asked.queue.clone()),
        ("limit", asked.limit.map(|limit| limit.to_string())),
    ]
}

/// Show a dead letter with its item
///
/// The item may hold personal data: show it to nobody who need not see it.
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", operation_id = "read_dead_letter", tag = "dead letters",
    params(("id" = Uuid, Path, description = "The dead letter.")),
    responses((status = 200, description = "The letter as it is.", body = LetterView), LetterMissing, Invalid),
)]
pub(crate) async fn read(
    State(engine): State<Engine>,
    Admin(_): Admin,
    LetterId(id): LetterId,
    _query: NoQuery,
) -> Result<Json<LetterView>, Problem> {
    let found = engine.store().dead_letter(id).await.map_err(|error| problems::of_store(&error))?;
    found.map(|letter| Json(letter.into())).ok_or_else(problems::no_letter)
}

/// Send a dead letter's item again
///
/// As the exact bytes that it was: a command to the participant that it names, a reply to its saga. An item that dies
/// again waits again. Repeating it answers as before.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/replay", operation_id = "replay_dead_letter", tag = "dead letters",
    params(("id" = Uuid, Path, description = "The dead letter.")), request_body = Reason, responses(LetterAnswers),
)]
pub(crate) async fn replay(
    State(engine): State<Engine>,
    Admin(principal): Admin,
    LetterId(id): LetterId,
    _query: NoQuery,
    Json(body): Json<Reason>,
) -> Result<Response<Body>, Problem> {
    settle(&engine, actor(&principal), id, body, LetterAction::Replay).await
}

/// Throw a dead letter away
///
/// It stays in lists with the state `discarded`. Repeating it answers as before.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/discard", operation_id = "discard_dead_letter", tag = "dead letters",
    params(("id" = Uuid, Path, description = "The dead letter.")), request_body = Reason, responses(LetterAnswers),
)]
pub(crate) async fn discard(
    State(engine): State<Engine>,
    Admin(principal): Admin,
    LetterId(id): LetterId,
    _query: NoQuery,
    Json(body): Json<Reason>,
) -> Result<Response<Body>, Problem> {
    settle(&engine, actor(&principal), id, body, LetterAction::Discard).await
}

async fn settle(
    engine: &Engine,
    actor: String,
    id: Uuid,
    body: Reason,
    action: LetterAction,
) -> Result<Response<Body>, Problem> {
    let request = LetterRequest { id, actor, reason: body.checked()?, action };
    match engine.settle_letter(request).await.map_err(problems::of_engine)? {
        LetterAnswer::Settled { letter, repeated } => {
            let mut headers = HeaderMap::new();
            if repeated {
                headers.insert(REPLAYED, HeaderValue::from_static("true"));
            }
            Ok((headers, Json(SummaryView::from(letter.summary))).into_response())
        }
        LetterAnswer::Refused(refusal) => Err(match refusal {
            LetterRefusal::AlreadySettled(state) => problems::letter_settled(state.into()),
            LetterRefusal::DedupeWindowOver { until } => problems::dedupe_window_over(until),
            LetterRefusal::StillUnreadable(why) => problems::still_unreadable(&why),
            LetterRefusal::StillFailing => problems::still_failing(),
        }),
        LetterAnswer::NotFound => Err(problems::no_letter()),
    }
}

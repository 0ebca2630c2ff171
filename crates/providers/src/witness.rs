//! Asking the simulators what they accepted, and switching the SMS provider off and on.
//!
//! Not part of any provider's interface: participants never call these.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::Providers;
use crate::accepted::{Filter, Kind, Record, Summary};
use crate::refusal::Refusal;

/// Records of a page when nothing is said.
const LIMIT_DEFAULT: usize = 50;
/// Most records of a page.
const LIMIT_MAX: usize = 1_000;

pub(crate) fn routes() -> Router<Providers> {
    Router::new()
        .route("/accepted", get(accepted))
        .route("/accepted/summary", get(summary))
        .route("/control/sms", put(switch_sms))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    kind: Option<Kind>,
    key: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Page {
    data: Vec<Record>,
    has_more: bool,
    next_cursor: Option<String>,
}

async fn accepted(State(providers): State<Providers>, Query(asked): Query<Asked>) -> Result<Json<Page>, Refusal> {
    let after = match &asked.cursor {
        Some(cursor) => cursor.parse::<u64>().map_err(|_| Refusal::CursorInvalid)?,
        None => 0,
    };
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let filter = Filter { kind: asked.kind, key: asked.key };
    // One more than asked for tells whether there is more.
    let mut data = providers.accepted(&filter, after, limit + 1);
    let has_more = data.len() > limit;
    data.truncate(limit);
    let next_cursor = if has_more { data.last().map(|record| record.sequence.to_string()) } else { None };
    Ok(Json(Page { data, has_more, next_cursor }))
}

async fn summary(State(providers): State<Providers>) -> Json<Summary> {
    Json(providers.summary())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    down: bool,
}

async fn switch_sms(State(providers): State<Providers>, Json(switch): Json<Switch>) -> StatusCode {
    providers.set_sms_down(switch.down);
    StatusCode::NO_CONTENT
}

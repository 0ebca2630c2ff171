//! `GET /v1/notices`: which notices went out, and how.
//!
//! Must hold: admins only; paged; no personal data.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use db::Db;
use runtime::clock::rfc3339;
use runtime::http::{Cursor, Page, Principal, Problem, Query, limit};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Error;
use crate::query::{self, Notice, Position};

/// Notices of a page when nothing is said.
const LIMIT_DEFAULT: u32 = 50;
/// Most notices of a page.
const LIMIT_MAX: u32 = 200;

/// The routes of the notices.
pub fn router(db: Db) -> Router {
    Router::new().route("/v1/notices", get(list)).with_state(db)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    saga_id: Option<Uuid>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct NoticeView {
    key: Uuid,
    saga_id: Uuid,
    appointment_id: Uuid,
    channel: String,
    provider_ref: String,
    created_at: String,
}

impl From<Notice> for NoticeView {
    fn from(notice: Notice) -> Self {
        Self {
            key: notice.key,
            saga_id: notice.saga_id,
            appointment_id: notice.appointment_id,
            channel: notice.channel,
            provider_ref: notice.provider_ref,
            created_at: rfc3339(notice.created_at),
        }
    }
}

async fn list(
    State(db): State<Db>,
    principal: Principal,
    Query(asked): Query<Asked>,
) -> Result<Json<Page<NoticeView>>, Problem> {
    principal.require_admin()?;
    let limit = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = asked.cursor.as_deref().map(Cursor::decode::<Position>).transpose()?;
    // One more than asked for tells whether there is more.
    let notices = query::page(&db, asked.saga_id, after, limit + 1).await.map_err(problem)?;
    let Page { data, has_more, next_cursor } = Page::of(notices, limit, Notice::position);
    Ok(Json(Page { data: data.into_iter().map(NoticeView::from).collect(), has_more, next_cursor }))
}

fn problem(error: Error) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "the notices could not be read");
    match error {
        Error::Database(cause) if cause.is_transient() => {
            Problem::unavailable("The list of notices is busy. Ask again in a moment.")
        }
        Error::Database(_)
        | Error::Client(_)
        | Error::Unreachable(_)
        | Error::Down(_)
        | Error::Rejected(_)
        | Error::BreakerOpen
        | Error::Unanswered(_)
        | Error::TimedOut
        | Error::Status(_) => Problem::internal(),
    }
}

//! What an answer with a saga has in common: body, `ETag`, and what the request's own headers call for.

use axum::body::Body;
use axum::http::header::{ETAG, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use orchestrator::{Engine, Snapshot, Started};
use runtime::http::{Json, Principal};
use serde::Serialize;

use crate::headers::{Wait, ascii, etag};
use crate::view::{SagaView, location};

/// Says that an equal request came before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// An answer under construction.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    status: StatusCode,
    headers: HeaderMap,
    body: T,
}

impl Answer<SagaView> {
    /// The saga as `principal` sees it.
    pub(crate) fn saga(status: StatusCode, snapshot: &Snapshot, principal: &Principal) -> Self {
        let headers = HeaderMap::from_iter([(ETAG, etag(snapshot.saga.version))]);
        Self { status, headers, body: SagaView::new(snapshot, principal) }
    }
}

impl<T> Answer<T> {
    /// Says where the saga is.
    pub(crate) fn located(mut self, snapshot: &Snapshot) -> Self {
        self.headers.insert(LOCATION, ascii(&location(snapshot.header.id)));
        self
    }

    /// Says that an equal request had this answer before, if so.
    pub(crate) fn replayed(mut self, replayed: bool) -> Self {
        if replayed {
            self.headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        self
    }

    /// Says how long was waited at most, and when to ask again if that was not long enough.
    pub(crate) fn waited(mut self, wait: Wait, snapshot: &Snapshot) -> Self {
        if let Some(applied) = wait.applied() {
            self.headers.insert(PREFERENCE_APPLIED, applied);
            if !snapshot.saga.is_answered() {
                self.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
        }
        self
    }

    /// Answers with another body made of this one.
    pub(crate) fn map<U>(self, body: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { status: self.status, headers: self.headers, body: body(self.body) }
    }

    /// Answers with the headers alone: the client has the body.
    pub(crate) fn not_modified(self) -> Response<Body> {
        (StatusCode::NOT_MODIFIED, self.headers).into_response()
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response<Body> {
        (self.status, self.headers, Json(self.body)).into_response()
    }
}

/// The saga once it is decided or stuck, or when the client would wait no longer. Where waiting fails it is the saga
/// as it was: that the request itself succeeded must not be lost.
pub(crate) async fn waited(engine: &Engine, snapshot: Snapshot, wait: Wait) -> Snapshot {
    let Some(limit) = wait.limit().filter(|_| !snapshot.saga.is_answered()) else { return snapshot };
    let later = engine.wait(snapshot.header.id, limit).await;
    later_or(snapshot, later)
}

/// As [`waited`], for a saga that was started just now.
pub(crate) async fn followed(engine: &Engine, started: Started, wait: Wait) -> Snapshot {
    let snapshot = started.snapshot.clone();
    let Some(limit) = wait.limit().filter(|_| !snapshot.saga.is_answered()) else { return snapshot };
    let later = engine.follow(started, limit).await;
    later_or(snapshot, later)
}

fn later_or(snapshot: Snapshot, later: Result<Option<Snapshot>, orchestrator::Error>) -> Snapshot {
    match later {
        Ok(Some(later)) => later,
        Ok(None) => snapshot,
        Err(error) => {
            tracing::warn!(%error, saga_id = %snapshot.header.id, "a saga could not be waited for");
            snapshot
        }
    }
}

//! The REST API: sagas are started, read, listed and operated on, definitions are shown, dead letters are settled.
//!
//! Not for telling who asks (`runtime::http` does) and not for deciding: the engine answers, this crate words it.
//! Must hold: an HTTP status speaks of the request, the body's `status` of the saga; a client sees its own sagas and
//! can't tell another's from none; no answer repeats a value that was sent; the edge has types of its own.

mod access;

mod answer;

mod definitions;

mod dead_letters;

mod headers;

mod list;

mod openapi;

mod operate;

mod pages;

mod problems;

mod read;

mod start;

mod view;

mod words;

use axum::Router;
use axum::routing::{get, post};
use orchestrator::Engine;

pub use openapi::openapi;

/// The routes of sagas, definitions and dead letters, `/openapi.json`, and the same for people at `/docs`.
///
/// All but the last two need `runtime::http::identify` around them: without it every request is a 401.
pub fn router(engine: Engine) -> Router {
    Router::new()
        .route("/v1/sagas", post(start::start).get(list::list))
        .route("/v1/sagas/{id}", get(read::read))
        .route("/v1/sagas/{id}/history", get(read::history))
        .route("/v1/sagas/{id}/retry", post(operate::retry))
        .route("/v1/sagas/{id}/skip", post(operate::skip))
        .route("/v1/sagas/{id}/compensate", post(operate::compensate))
        .route("/v1/sagas/{id}/cancel", post(operate::cancel))
        .route("/v1/sagas/{id}/close", post(operate::close))
        .route("/v1/definitions", get(definitions::list))
        .route("/v1/definitions/{reference}", get(definitions::read))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/{id}", get(dead_letters::read))
        .route("/v1/dead-letters/{id}/replay", post(dead_letters::replay))
        .route("/v1/dead-letters/{id}/discard", post(dead_letters::discard))
        .with_state(engine)
        .merge(openapi::pages())
}

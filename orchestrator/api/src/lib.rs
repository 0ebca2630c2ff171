//! The engine's REST API, `/v1`: start, read, wait, list and repair sagas.
//!
//! Not for deciding: every answer is what the engine or the core said. The edge has its own types and converts.
//! Must hold: an HTTP status speaks of the request, the body's `status` speaks of the saga; a client sees only its
//! own sagas, and others' look exactly like missing ones; whatever is refused here changed nothing.

mod errors;

mod headers;

mod view;

mod start;

mod read;

mod operate;

mod definitions;

mod openapi;

use axum::Router;
use axum::routing::{get, post};
use orchestrator::Engine;

pub use openapi::openapi;

/// All routes of the engine, with `/openapi.json` and `/docs`. Who asks is found out by the composition root.
pub fn router(engine: Engine) -> Router {
    let business = Router::new()
        .route("/v1/sagas", post(start::start).get(read::list))
        .route("/v1/sagas/{id}", get(read::get))
        .route("/v1/sagas/{id}/history", get(read::history))
        .route("/v1/sagas/{id}/{action}", post(operate::operate))
        .route("/v1/definitions", get(definitions::list))
        .route("/v1/definitions/{reference}", get(definitions::get))
        .with_state(engine);
    business.merge(openapi::docs())
}

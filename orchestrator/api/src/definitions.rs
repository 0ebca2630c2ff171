//! The definitions in use.

use axum::extract::{Path, State};
use orchestrator::Engine;
use runtime::http::{Json, Principal, Problem};
use saga_defs::Definition;
use serde::Serialize;
use utoipa::ToSchema;

/// A published definition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DefinitionView {
    /// Digest of the content; a published definition never changes.
    digest: String,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    definition: Definition,
}

/// All definitions; they are few, so this list has one page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DefinitionPage {
    data: Vec<DefinitionView>,
    has_more: bool,
    next_cursor: Option<String>,
}

/// Lists the definitions, every version.
#[utoipa::path(
    get, path = "/v1/definitions", tag = "definitions",
    responses((status = 200, description = "All of them", body = DefinitionPage)), security(("bearer" = []))
)]
pub(crate) async fn list(State(engine): State<Engine>, _principal: Principal) -> Json<DefinitionPage> {
    let data = engine.catalog().iter().map(|loaded| view(loaded)).collect();
    Json(DefinitionPage { data, has_more: false, next_cursor: None })
}

/// Shows a definition: `booking` for the newest version, `booking@1` for that one.
#[utoipa::path(
    get, path = "/v1/definitions/{reference}", tag = "definitions",
    params(("reference" = String, Path, description = "`booking` or `booking@1`")),
    responses((status = 200, description = "The definition", body = DefinitionView), (status = 404, description = "No such definition")),
    security(("bearer" = []))
)]
pub(crate) async fn get(
    State(engine): State<Engine>,
    _principal: Principal,
    Path(reference): Path<String>,
) -> Result<Json<DefinitionView>, Problem> {
    let found = engine.catalog().find(&reference);
    let missing = || Problem::not_found("There is no such definition; GET /v1/definitions lists them.");
    found.map(|loaded| Json(view(&loaded))).ok_or_else(missing)
}

fn view(loaded: &saga_defs::catalog::Loaded) -> DefinitionView {
    DefinitionView { digest: loaded.digest.clone(), definition: loaded.definition.clone() }
}

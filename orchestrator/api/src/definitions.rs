//! `GET /v1/definitions` and `GET /v1/definitions/{reference}`.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Response;
use orchestrator::Engine;
use runtime::http::{Cursor, Json, NoQuery, Page, Principal, Problem, Query, limit};
use saga_defs::Definition;
use saga_defs::catalog::Loaded;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::openapi::{Invalid, ProblemDocument};
use crate::pages::{LIMIT_DEFAULT, LIMIT_MAX, PageView};
use crate::words::Kind;

/// Which part of the list is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Items of the page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A definition in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionSummary)]
pub(crate) struct SummaryView {
    /// `name@version`.
    #[schema(example = "booking@1")]
    id: String,
    name: String,
    version: u32,
    /// Changes exactly when the content does.
    digest: String,
    description: String,
    steps: Vec<StepView>,
}

/// A step of a definition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionStep)]
struct StepView {
    name: String,
    participant: String,
    kind: Kind,
    /// Codes with which the participant may refuse.
    refusals: Vec<String>,
}

/// A definition, whole.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Definition)]
pub(crate) struct DefinitionView {
    #[serde(flatten)]
    summary: SummaryView,
    /// The definition as it was published, with the JSON Schema of its input.
    #[schema(value_type = Object)]
    definition: Definition,
}

impl From<&Loaded> for SummaryView {
    fn from(loaded: &Loaded) -> Self {
        let definition = &loaded.definition;
        let step = |(index, step): (usize, &saga_defs::Step)| StepView {
            name: step.name.clone(),
            participant: step.participant.clone(),
            kind: definition.kind(index).into(),
            refusals: step.refusals.clone(),
        };
        Self {
            id: definition.reference(),
            name: definition.name.clone(),
            version: definition.version,
            digest: loaded.digest.clone(),
            description: definition.description.clone(),
            steps: definition.steps.iter().enumerate().map(step).collect(),
        }
    }
}

/// List definitions, by name and version
#[utoipa::path(
    get, path = "/v1/definitions", operation_id = "list_definitions", tag = "definitions", params(Asked),
    responses(
        (status = 200, description = "A page.", body = PageView<SummaryView>, headers(
            ("Link" = String, description = "`rel=\"next\"`, absent on the last page."),
        )),
        Invalid,
    ),
)]
pub(crate) async fn list(
    State(engine): State<Engine>,
    _principal: Principal,
    Query(asked): Query<Asked>,
) -> Result<Response<Body>, Problem> {
    let items = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = asked.cursor.as_deref().map(Cursor::decode::<(String, u32)>).transpose()?;
    let place = |loaded: &Loaded| (loaded.definition.name.clone(), loaded.definition.version);
    let catalog = engine.catalog();
    let behind = catalog.iter().filter(|loaded| after.as_ref().is_none_or(|after| place(loaded) > *after));
    // One more than asked for tells whether there is more.
    let found: Vec<&Loaded> = behind.take(items as usize + 1).map(AsRef::as_ref).collect();
    let page = Page::of(found, items, |last| place(last));
    let parameters = [("limit", asked.limit.map(|limit| limit.to_string()))];
    Ok(PageView::<SummaryView>::of(page).answer("/v1/definitions", &parameters))
}

/// Show a definition
#[utoipa::path(
    get, path = "/v1/definitions/{reference}", operation_id = "read_definition", tag = "definitions",
    params(("reference" = String, Path, description = "`booking` for the newest version, `booking@1` for that one.")),
    responses(
        (status = 200, description = "The definition.", body = DefinitionView),
        (status = 404, description = "`not_found`", body = ProblemDocument, content_type = "application/problem+json"),
        Invalid,
    ),
)]
pub(crate) async fn read(
    State(engine): State<Engine>,
    _principal: Principal,
    _query: NoQuery,
    reference: Result<Path<String>, PathRejection>,
) -> Result<Json<DefinitionView>, Problem> {
    let found = reference.ok().and_then(|Path(reference)| engine.catalog().find(&reference));
    let loaded = found.ok_or_else(|| {
        Problem::not_found("There is no definition of this name and version. `GET /v1/definitions` lists all.")
    })?;
    Ok(Json(DefinitionView { summary: (&*loaded).into(), definition: loaded.definition.clone() }))
}

//! `GET /v1/sagas`.
//!
//! Must hold: newest first, by the saga's id alone, so that a page neither repeats nor skips a saga that was there
//! when the first page was read.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use orchestrator::Engine;
use runtime::http::{Cursor, Page, Principal, Problem, Query, limit};
use saga_defs::check::NAME_BYTES_MAX;
use saga_store::{Filter, Summary};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::openapi::Invalid;
use crate::pages::{LIMIT_DEFAULT, LIMIT_MAX, PageView};
use crate::problems;
use crate::start::KEY_BYTES_MAX;
use crate::view::SummaryView;
use crate::words::Status;

/// Which sagas are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Only in this status.
    #[param(inline)]
    status: Option<Status>,
    /// Only of this definition: a name without a version.
    definition: Option<String>,
    /// Only with this business key.
    key: Option<String>,
    /// Items of the page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List sagas, newest first
///
/// A client sees its own, an admin all.
#[utoipa::path(
    get, path = "/v1/sagas", operation_id = "list_sagas", tag = "sagas", params(Asked),
    responses(
        (status = 200, description = "A page.", body = PageView<SummaryView>, headers(
            ("Link" = String, description = "`rel=\"next\"`, absent on the last page."),
        )),
        Invalid,
    ),
)]
pub(crate) async fn list(
    State(engine): State<Engine>,
    principal: Principal,
    Query(asked): Query<Asked>,
) -> Result<Response<Body>, Problem> {
    check(&asked)?;
    let items = limit(asked.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let filter = Filter {
        tenant: principal.tenant.clone(),
        principal: (!principal.is_admin()).then(|| principal.name.clone()),
        status: asked.status.map(Into::into),
        definition: asked.definition.clone(),
        key: asked.key.clone(),
        before: asked.cursor.as_deref().map(Cursor::decode::<Uuid>).transpose()?,
    };
    // One more than asked for tells whether there is more.
    let found = engine.store().list(&filter, items + 1).await.map_err(|error| problems::of_store(&error))?;
    let page = Page::of(found, items, |summary: &Summary| summary.header.id);
    Ok(PageView::<SummaryView>::of(page).answer("/v1/sagas", &parameters(&asked)))
}

fn check(asked: &Asked) -> Result<(), Problem> {
    let name = asked.definition.as_deref().unwrap_or_default();
    if name.contains('@') || name.len() > NAME_BYTES_MAX {
        return Err(problems::bad_parameter("definition", "must be a definition's name, without a version"));
    }
    if asked.key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(problems::bad_parameter("key", "must have at most 255 bytes"));
    }
    Ok(())
}

/// What the next page must be asked with besides the cursor.
fn parameters(asked: &Asked) -> [(&'static str, Option<String>); 4] {
    [
        ("status", asked.status.map(|status| saga_core::Status::from(status).as_str().to_owned())),
        ("definition", asked.definition.clone()),
        ("key", asked.key.clone()),
        ("limit", asked.limit.map(|limit| limit.to_string())),
    ]
}

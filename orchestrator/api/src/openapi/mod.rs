//! The API's description: OpenAPI 3.1, generated from the handlers, served as JSON and as pages for people.
//!
//! Must hold: nothing is fetched from elsewhere, neither at build nor by the browser; the document of this build is
//! committed as `openapi.json`, so that every change of the API shows in a diff.

mod owners;

mod shared;

use axum::Router;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{dead_letters, definitions, list, operate, read, start};

pub(crate) use shared::{
    AdminsOnly, BodyRefused, CancelAnswers, Invalid, LetterAnswers, LetterMissing, OperationParams, ProblemDocument,
    ReadParams, RepairAnswers, SagaMissing, StartParams,
};

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";
/// Name of the only way to say who is asking.
const BEARER: &str = "token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bookend",
        description = "Sagas over REST. An HTTP status speaks of the request; `status` and `decision` in the body \
            speak of the saga. Every error is an `application/problem+json` with a stable `code`.",
    ),
    tags(
        (name = "sagas", description = "Start and watch sagas."),
        (name = "operations", description = "Cancel a saga; repair one that is stuck."),
        (name = "definitions", description = "What can be started."),
        (name = "dead letters", description = "Messages that could not be handled; for admins."),
        (name = "owners", description = "What the owners of data hold; served where their participants run."),
    ),
    paths(
        start::start,
        list::list,
        read::read,
        read::history,
        operate::retry,
        operate::skip,
        operate::compensate,
        operate::cancel,
        operate::close,
        definitions::list,
        definitions::read,
        dead_letters::list,
        dead_letters::read,
        dead_letters::replay,
        dead_letters::discard,
    ),
    components(schemas(ProblemDocument, operate::OperatedView, dead_letters::SummaryView)),
    modifiers(&Everywhere),
)]
struct Document;

/// What is the same for every operation: tokens, and the errors that can always happen.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        openapi.paths.merge(owners::paths());
        for operation in openapi.paths.paths.values_mut().flat_map(|item| [&mut item.get, &mut item.post]).flatten() {
            operation.responses.responses.append(&mut shared::always());
        }
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of the configuration, `[[auth.tokens]]`."))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(scheme));
        openapi.security = Some(vec![SecurityRequirement::new(BEARER, [""; 0])]);
    }
}

/// The description of the API, with the read-only routes of the owners' data.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// `/openapi.json` and `/docs`; they need no token.
pub(crate) fn pages() -> Router {
    // Else the page would show the document to a validator on the internet.
    let config = Config::new([DOCUMENT]).validator_url("none");
    SwaggerUi::new("/docs").config(config).url(DOCUMENT, openapi()).into()
}

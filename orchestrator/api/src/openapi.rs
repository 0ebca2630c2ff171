//! `/openapi.json` and `/docs`, both without a network.

use axum::Router;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_swagger_ui::SwaggerUi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bookend",
        description = "Saga-orchestrated bookings. An HTTP status speaks of the request, the body's `status` speaks of the saga. \
                       Errors are problem+json (RFC 9457) whose `detail` says what to do.",
        license(name = "MIT")
    ),
    paths(
        crate::start::start,
        crate::read::list,
        crate::read::get,
        crate::read::history,
        crate::operate::operate,
        crate::definitions::list,
        crate::definitions::get,
        owners::slots,
        owners::appointments,
        owners::payments,
        owners::notices
    ),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The reading routes of the owners beside the engine. They are served elsewhere and described here, so that a
/// client meets one document.
#[allow(dead_code, reason = "described, not called")]
mod owners {
    #[utoipa::path(
        get, path = "/v1/clinic/slots", tag = "clinic",
        params(
            ("doctor_id" = Option<uuid::Uuid>, Query), ("from" = Option<String>, Query), ("to" = Option<String>, Query),
            ("status" = Option<String>, Query, description = "`free`, `held` or `booked`"),
            ("limit" = Option<u32>, Query, description = "1 to 200"), ("cursor" = Option<String>, Query)
        ),
        responses((status = 200, description = "A page of slots, by time")), security(("bearer" = []))
    )]
    fn slots() {}

    #[utoipa::path(
        get, path = "/v1/clinic/appointments", tag = "clinic",
        params(
            ("slot_id" = Option<uuid::Uuid>, Query), ("saga_id" = Option<uuid::Uuid>, Query),
            ("limit" = Option<u32>, Query, description = "1 to 200"), ("cursor" = Option<String>, Query)
        ),
        responses((status = 200, description = "A page of appointments; for admins")), security(("bearer" = []))
    )]
    fn appointments() {}

    #[utoipa::path(
        get, path = "/v1/payments", tag = "payment",
        params(("saga_id" = Option<uuid::Uuid>, Query), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
        responses((status = 200, description = "Charges, refunds and net; for admins")), security(("bearer" = []))
    )]
    fn payments() {}

    #[utoipa::path(
        get, path = "/v1/notices", tag = "notify",
        params(("saga_id" = Option<uuid::Uuid>, Query), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
        responses((status = 200, description = "Notices that went out; for admins")), security(("bearer" = []))
    )]
    fn notices() {}
}

/// The document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The routes that show it.
pub(crate) fn docs() -> Router {
    SwaggerUi::new("/docs").url("/openapi.json", openapi()).into()
}

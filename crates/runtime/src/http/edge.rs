//! What surrounds every route: request ids, metrics, answers for unknown routes and for panics.
//!
//! Must hold: logs and metrics name the route's pattern, never the path, which may hold ids of people's things.

use std::any::Any;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use super::problem::Problem;

/// Names a request to client and log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's own request id is kept up to this length.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// The route in metrics when none matched.
const NO_ROUTE: &str = "none";

/// The id of a request: the client's, if it sent a usable one, else made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// Surrounds a router that has all its routes.
pub fn edge(router: Router) -> Router {
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(observe))
}

async fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "route_not_found", "Check the path against the API's description.")
}

async fn no_method(method: Method) -> Problem {
    let detail = format!("Use one of the methods in the header `Allow` instead of {method}.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// The payload of a panic may quote data, so only the panic hook, which names file and line, tells of it.
#[allow(clippy::needless_pass_by_value, reason = "the signature is the layer's")]
fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!("a handler panicked");
    Problem::internal().into_response()
}

async fn observe(mut request: Request, next: Next) -> Response<Body> {
    let id = request_id(&request);
    let method = known_method(request.method());
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => NO_ROUTE.to_owned(),
    };
    let span = tracing::info_span!("request", id = %id.0, method, route);
    request.extensions_mut().insert(id.clone());
    let begun = Instant::now();
    let mut response = next.run(request).instrument(span).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("bookend_http_requests_total", "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("bookend_http_request_seconds", "method" => method, "route" => route)
        .record(begun.elapsed().as_secs_f64());
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn request_id(request: &Request) -> RequestId {
    let usable = |id: &&str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(letter)
    };
    let sent = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(usable);
    RequestId(sent.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned))
}

/// A client may make up methods; metrics must not grow with them.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::{ALLOW, CONTENT_TYPE};
    use axum::routing::get;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    fn router() -> Router {
        let id = |axum::Extension(RequestId(id)): axum::Extension<RequestId>| async { id };
        edge(Router::new().route("/id", get(id)).route("/panics", get(panics)))
    }

    async fn panics() -> &'static str {
        panic!("a secret")
    }

    async fn ask(request: axum::http::request::Builder) -> (Response<()>, String) {
        let response = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (Response::from_parts(parts, ()), text)
    }

    async fn problem(request: axum::http::request::Builder) -> (Response<()>, Value) {
        let (response, text) = ask(request).await;
        assert_eq!(response.headers()[CONTENT_TYPE], super::super::problem::MEDIA_TYPE);
        assert!(response.headers().contains_key(REQUEST_ID));
        (response, serde_json::from_str(&text).unwrap())
    }

    #[tokio::test]
    async fn unknown_routes_and_methods_are_problems() {
        let (response, document) = problem(Request::get("/nowhere")).await;
        assert_eq!((response.status().as_u16(), &document["code"]), (404, &Value::from("route_not_found")));
        let (response, document) = problem(Request::post("/id")).await;
        assert_eq!((response.status().as_u16(), &document["code"]), (405, &Value::from("method_not_allowed")));
        assert_eq!(response.headers()[ALLOW], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_that_shows_nothing() {
        let (response, document) = problem(Request::get("/panics")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!document.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn a_usable_request_id_is_kept_and_another_replaced() {
        let (response, seen) = ask(Request::get("/id").header(REQUEST_ID, "mine-1.2_3")).await;
        assert_eq!((seen.as_str(), response.headers()[REQUEST_ID].to_str().unwrap()), ("mine-1.2_3", "mine-1.2_3"));
        for unusable in ["", "a b", "x\"y", &"x".repeat(REQUEST_ID_BYTES_MAX + 1)] {
            let (response, seen) = ask(Request::get("/id").header(REQUEST_ID, unusable)).await;
            assert!(Uuid::parse_str(&seen).is_ok(), "{seen}");
            assert_eq!(response.headers()[REQUEST_ID], seen.as_str());
        }
    }
}

//! The routes for whoever operates a process: `/livez`, `/readyz`, `/metrics`.
//!
//! Must hold: `/livez` looks at nothing but the process, so that an outage elsewhere restarts nobody; none of them
//! needs a token.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::IntoResponse;
use axum::routing::get;

use super::problem::Problem;
use crate::health::Health;
use crate::metrics::Recorder;

/// The format that Prometheus reads.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves health and metrics.
pub fn operations(health: Arc<Health>, recorder: Recorder) -> Router {
    let metrics = get(async move || ([(CONTENT_TYPE, METRICS_TYPE)], recorder.render()));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", metrics)
}

async fn ready(State(health): State<Arc<Health>>) -> Result<impl IntoResponse, Problem> {
    let failing = health.failing().await;
    if failing.is_empty() {
        return Ok("ok\n");
    }
    let detail = "Send no requests here until the checks listed in `failing` pass.";
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
        .with("failing", failing)
        .with_header(RETRY_AFTER, HeaderValue::from_static("1")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::Tasks;

    async fn ask(health: Health, path: &str) -> (StatusCode, String) {
        let router = operations(Arc::new(health), Recorder::unshared());
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn broken() -> Health {
        Health::new(&Tasks::new()).with("db", Duration::from_secs(1), async || Err("out of reach".to_owned()))
    }

    #[tokio::test]
    async fn a_process_without_failing_checks_is_ready() {
        assert_eq!(ask(Health::new(&Tasks::new()), "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn readiness_lists_what_fails_and_liveness_does_not_care() {
        let (status, body) = ask(broken(), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(document["failing"], serde_json::json!([{"name": "db", "reason": "out of reach"}]));
        assert_eq!(ask(broken(), "/livez").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_text() {
        assert_eq!(ask(broken(), "/metrics").await.0, StatusCode::OK);
    }
}

//! Errors as clients see them: RFC 9457 problem documents.
//!
//! Not for logs: whoever turns an error into a [`Problem`] logs its cause. Must hold: a document carries a stable
//! `code`, says in `detail` what to do, and shows neither internals nor values the client sent.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Members of the document that an extension must not replace.
const RESERVED: [&str; 5] = ["type", "title", "status", "detail", "code"];

/// An error answer.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    extensions: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Any status; `code` is snake_case and never changes its meaning.
    #[must_use]
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts {
            status,
            code: code.into(),
            detail: detail.into(),
            extensions: Map::new(),
            headers: Vec::new(),
        }))
    }

    /// 400: the request can't be understood.
    #[must_use]
    pub fn bad_request(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no token, or none that is known.
    #[must_use]
    pub fn unauthorized() -> Self {
        let detail = "Send a known token in the header `Authorization: Bearer <token>`.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: the token is known but not allowed to do this.
    #[must_use]
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: nothing of this name that the caller may see.
    #[must_use]
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 409: the request contradicts what is there.
    #[must_use]
    pub fn conflict(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 410: it was here and is kept no longer.
    #[must_use]
    pub fn gone(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::GONE, "gone", detail)
    }

    /// 412: the version named in `If-Match` is not the present one.
    #[must_use]
    pub fn precondition_failed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
    }

    /// 428: the request must name the version it is meant for.
    #[must_use]
    pub fn precondition_required(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required", detail)
    }

    /// 413: the body is over the limit.
    #[must_use]
    pub fn payload_too_large() -> Self {
        let detail = format!("Send a body of at most {} bytes.", super::json::BODY_BYTES_MAX);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
    }

    /// 415: the body is not declared as JSON, or comes in a form that is not read.
    #[must_use]
    pub fn unsupported_media_type(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 422: the request is well-formed and can't be carried out as it is.
    #[must_use]
    pub fn unprocessable(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 503 with `Retry-After: 1`: the same request may work in a moment.
    #[must_use]
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 500, which shows nothing of the cause.
    #[must_use]
    pub fn internal() -> Self {
        let detail = "The server met an error of its own. Report the value of the header `x-request-id`.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Adds a member to the document. A reserved name, or a value that is not JSON, is left out.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) if !RESERVED.contains(&key) => {
                self.0.extensions.insert(key.to_owned(), value);
            }
            Ok(_) | Err(_) => tracing::error!(key, "a problem's extension is reserved or not JSON"),
        }
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The stable name of the problem.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What the client should do.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    fn document(&self) -> Value {
        let mut document = Map::new();
        document.insert("type".to_owned(), json!(format!("/problems/{}", self.0.code.replace('_', "-"))));
        document.insert("title".to_owned(), json!(title(&self.0.code)));
        document.insert("status".to_owned(), json!(self.0.status.as_u16()));
        document.insert("detail".to_owned(), json!(self.0.detail));
        document.insert("code".to_owned(), json!(self.0.code));
        document.extend(self.0.extensions.clone());
        Value::Object(document)
    }
}

/// `slot_taken` reads `Slot taken`: the title belongs to the code, not to the occurrence.
fn title(code: &str) -> String {
    let words = code.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.document().to_string()));
        *response.status_mut() = self.0.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        for (name, value) in self.0.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_type_title_status_detail_and_code() {
        let document = Problem::conflict("slot_taken", "Choose another slot.").with("slot_id", 7).document();
        let expected = json!({
            "type": "/problems/slot-taken", "title": "Slot taken", "status": 409,
            "detail": "Choose another slot.", "code": "slot_taken", "slot_id": 7,
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn an_extension_can_not_replace_a_reserved_member() {
        let document = Problem::internal().with("status", 200).document();
        assert_eq!(document["status"], 500);
    }

    #[test]
    fn headers_leave_with_the_answer() {
        let unavailable = Problem::unavailable("Try again.").into_response();
        assert_eq!(unavailable.headers()[RETRY_AFTER], "1");
        assert_eq!(unavailable.headers()[CONTENT_TYPE], MEDIA_TYPE);
        let unauthorized = Problem::unauthorized().into_response();
        assert_eq!(unauthorized.headers()[WWW_AUTHENTICATE], "Bearer");
    }
}

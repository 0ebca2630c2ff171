//! JSON bodies, read with distrust.
//!
//! Not for what the values mean: the types say that, with `deny_unknown_fields`; nor for the walk through a text, which
//! is `saga_defs::json`. Must hold: size and depth are checked before a value is built; U+0000, repeated and reserved
//! keys go no further; an answer names the line and the field, never a value.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use saga_defs::json::{self, DEPTH_MAX, Flaw, RESERVED, Refused, Rules};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::shape;

/// A body's size at most.
pub const BODY_BYTES_MAX: usize = 256 * 1_024;
/// How long a client may take to send its body.
const BODY_WAIT_MAX: Duration = Duration::from_secs(10);

/// A JSON body, as an extractor and as an answer.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        check_encoding(request.headers())?;
        let body = read_body(request).await?;
        scan(&body)?;
        // serde takes an array for the fields in order.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::unprocessable("invalid_body", "Line 1: the body must be a JSON object."));
        }
        build(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response<Body> {
        match serde_json::to_string(&self.0) {
            Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

/// Reads a body of at most [`BODY_BYTES_MAX`] bytes, whatever its type.
///
/// # Errors
/// 413 when it is longer, 408 when it does not arrive in time, 400 when the connection broke.
pub async fn read_body(request: Request) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_WAIT_MAX, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::payload_too_large()),
        Ok(Err(_)) => Err(Problem::bad_request("body_broken", "Send the whole body.")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "Send the body faster.")),
    }
}

/// Reads a value with the same rules from bytes that are already here.
///
/// # Errors
/// 413 when they are too many; 400 when they are not JSON, too deep, contain U+0000, repeat a key or have a reserved one;
/// 422 when they are not of the expected shape.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Problem::payload_too_large());
    }
    scan(bytes)?;
    build(bytes)
}

/// Reads a value from a text that was looked through.
fn build<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let cause = error.into_inner();
        let wish = shape::explain(&cause.to_string());
        let detail = match field.as_str() {
            "." => format!("Line {}: the body {wish}.", cause.line()),
            _ => format!("Line {}: `{field}` {wish}.", cause.line()),
        };
        let problem = Problem::unprocessable("invalid_body", detail).with("line", cause.line());
        if field == "." { problem } else { problem.with("field", field) }
    })
}

/// The body must be declared as JSON in UTF-8, as it is.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let as_it_is = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(|value| as_it_is(value.as_bytes().trim_ascii())) {
        let problem = Problem::unsupported_media_type("Send the body as it is, without the header `Content-Encoding`.");
        return Err(problem.with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let value =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let subtype = parts.next().and_then(|media_type| media_type.strip_prefix("application/"));
    if !subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json")) {
        let detail = "Send the body as JSON with the header `Content-Type: application/json`.";
        return Err(Problem::unsupported_media_type(detail));
    }
    let mut charsets = parts.filter_map(|parameter| parameter.strip_prefix("charset="));
    if charsets.any(|charset| !matches!(charset.trim_matches(['"', '\'']), "utf-8" | "utf8" | "us-ascii")) {
        return Err(Problem::unsupported_media_type("Send the body in UTF-8: `Content-Type: application/json`."));
    }
    Ok(())
}

/// Walks through the text once without building values.
fn scan(bytes: &[u8]) -> Result<(), Problem> {
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::bad_request("malformed_json", "Send a body: it is empty, and must be JSON."));
    }
    let rules = Rules { depth_max: DEPTH_MAX, repeats: false };
    let Err(Refused { flaw, pointer, cause }) = json::check(bytes, rules) else { return Ok(()) };
    let line = cause.line();
    let (code, wish) = match flaw {
        Some(Flaw::Depth) => ("json_too_deep", format!("nest arrays and objects at most {DEPTH_MAX} deep")),
        Some(Flaw::Nul) => ("nul_character", "leave out the character U+0000".to_owned()),
        Some(Flaw::Repeated) => ("duplicate_key", "name every key of an object once".to_owned()),
        Some(Flaw::Reserved) => ("reserved_key", format!("rename `{pointer}`: no key may begin with `{RESERVED}`")),
        None => ("malformed_json", format!("correct the JSON at column {}", cause.column())),
    };
    Err(Problem::bad_request(code, format!("Line {line}: {wish}.")).with("line", line))
}

#[cfg(test)]
mod tests;

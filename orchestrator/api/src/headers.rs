//! The request headers that carry meaning: `Idempotency-Key`, `If-Match`, `If-None-Match` and `Prefer`.
//!
//! Must hold: a header that is sent twice or can't be read is refused and never guessed, save where its standard says
//! that it is ignored; no value is repeated in an answer.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use runtime::http::Problem;
use uuid::Uuid;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Longest idempotency key.
const KEY_BYTES_MAX: usize = 255;
/// Longest wait that can be asked for, in seconds: proxies cut longer silences.
const WAIT_S_MAX: u64 = 60;

/// The key by which a repeated request is recognized; `"a"` and `a` are the same key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let bad = || {
            let detail = "Send one `Idempotency-Key` of 1 to 255 visible ASCII characters, in quotes or without.";
            Problem::bad_request("idempotency_key_invalid", detail)
        };
        let Some(text) = only(&parts.headers, &IDEMPOTENCY_KEY, bad)? else {
            let detail =
                format!("Send the header `Idempotency-Key: {}`, and the same one when repeating.", Uuid::new_v4());
            return Err(Problem::bad_request("idempotency_key_missing", detail));
        };
        key(text).map(Self).ok_or_else(bad)
    }
}

fn key(text: &str) -> Option<String> {
    let bare = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').filter(|inner| !inner.contains(['"', '\\']))?,
        None => text,
    };
    let fits = (1..=KEY_BYTES_MAX).contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| bare.to_owned())
}

/// The version that an operation is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// Whatever it is.
    Any,
    /// Only this one.
    Version(u64),
}

impl IfMatch {
    /// The version, where whatever it is will not do.
    pub(crate) fn version(self) -> Result<u64, Problem> {
        match self {
            Self::Version(version) => Ok(version),
            Self::Any => Err(bad_if_match()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match only(&parts.headers, &IF_MATCH, bad_if_match)? {
            None => {
                let detail = "Send the saga's `ETag` in the header `If-Match`, such as `If-Match: \"7\"`.";
                Err(Problem::precondition_required(detail))
            }
            Some("*") => Ok(Self::Any),
            Some(text) => version(text).map(Self::Version).ok_or_else(bad_if_match),
        }
    }
}

fn bad_if_match() -> Problem {
    let detail = "Send one version in the header `If-Match`, quoted as in `ETag`: `\"7\"`. Only a cancel accepts `*`.";
    Problem::bad_request("if_match_invalid", detail)
}

fn version(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('"')?.strip_suffix('"')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What the client has already; a list or `*`. What can't be read matches nothing, as RFC 9110 wants it.
#[derive(Clone, Debug, Default)]
pub(crate) struct IfNoneMatch(Vec<String>);

impl IfNoneMatch {
    /// Whether the client has this version.
    pub(crate) fn has(&self, current: u64) -> bool {
        self.0.iter().any(|tag| tag == "*" || version(tag.strip_prefix("W/").unwrap_or(tag)) == Some(current))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let texts = parts.headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        Ok(Self(texts.flat_map(|text| split(text, ',')).map(|tag| tag.trim().to_owned()).collect()))
    }
}

/// How long the client would wait for a decision: `Prefer: wait=20`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wait(Option<u64>);

impl Wait {
    /// How long to wait, if it is wished.
    pub(crate) fn limit(self) -> Option<Duration> {
        self.0.map(Duration::from_secs)
    }

    /// What to say in `Preference-Applied`.
    pub(crate) fn applied(self) -> Option<HeaderValue> {
        self.0.map(|seconds| ascii(&format!("wait={seconds}")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        for value in parts.headers.get_all(PREFER) {
            let text = value.to_str().map_err(|_| bad_wait())?;
            // Of a preference that is sent twice the first one counts; others than `wait` are ignored: RFC 7240.
            if let Some(seconds) = split(text, ',').find_map(preferred_wait) {
                return seconds.map(|seconds| Self(Some(seconds))).ok_or_else(bad_wait);
            }
        }
        Ok(Self(None))
    }
}

fn bad_wait() -> Problem {
    Problem::bad_request("bad_preference", format!("Send `Prefer: wait=N` with N in seconds, at most {WAIT_S_MAX}."))
}

/// Seconds of one preference; none when it is another one, inner none when it can't be read.
fn preferred_wait(preference: &str) -> Option<Option<u64>> {
    let bare = split(preference, ';').next().unwrap_or_default();
    let (name, value) = bare.split_once('=').unwrap_or((bare, ""));
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let value = value.trim();
    let digits = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are still a wish to wait as long as possible.
    Some(is_number.then(|| digits.parse().unwrap_or(u64::MAX).min(WAIT_S_MAX)))
}

/// The one value of a header.
fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    bad: impl FnOnce() -> Problem,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.trim())),
        (Ok(_) | Err(_), _) => Err(bad()),
    }
}

/// Splits a list outside of its quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |letter: char| {
        let splits = letter == separator && !quoted;
        quoted ^= letter == '"' && !escaped;
        escaped = quoted && letter == '\\' && !escaped;
        splits
    })
}

/// The version as an entity tag.
pub(crate) fn etag(version: u64) -> HeaderValue {
    ascii(&format!("\"{version}\""))
}

/// A header's value from text of our own making.
pub(crate) fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids, numbers and encoded queries are visible ASCII")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn read<T: FromRequestParts<(), Rejection = Problem>>(headers: &[(HeaderName, &str)]) -> Result<T, String> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (mut parts, ()) = request.into_parts();
        T::from_request_parts(&mut parts, &()).await.map_err(|problem| problem.code().to_owned())
    }

    async fn key_of(values: &[&str]) -> Result<String, String> {
        let headers: Vec<_> = values.iter().map(|value| (IDEMPOTENCY_KEY, *value)).collect();
        read::<IdempotencyKey>(&headers).await.map(|key| key.0)
    }

    #[tokio::test]
    async fn a_key_is_the_same_in_quotes_and_without() {
        assert_eq!(key_of(&["a-7"]).await, key_of(&["\"a-7\""]).await);
        assert_eq!(key_of(&[&"x".repeat(255)]).await.unwrap().len(), 255);
        assert_eq!(key_of(&[]).await.unwrap_err(), "idempotency_key_missing");
        let long = "x".repeat(256);
        let unusable: [&[&str]; 8] =
            [&[""], &["\"\""], &["\"a"], &["\"a\"b\""], &["a b"], &["é"], &[&long], &["a", "a"]];
        for values in unusable {
            assert_eq!(key_of(values).await.unwrap_err(), "idempotency_key_invalid", "{values:?}");
        }
    }

    #[tokio::test]
    async fn a_version_is_one_quoted_number() {
        assert_eq!(read(&[(IF_MATCH, "\"7\"")]).await, Ok(IfMatch::Version(7)));
        assert_eq!(read(&[(IF_MATCH, "*")]).await, Ok(IfMatch::Any));
        assert_eq!(read::<IfMatch>(&[]).await.unwrap_err(), "precondition_required");
        for value in ["7", "\"\"", "\"+7\"", "W/\"7\"", "\"7\", \"8\"", "\"99999999999999999999\"", "\"x\""] {
            assert_eq!(read::<IfMatch>(&[(IF_MATCH, value)]).await.unwrap_err(), "if_match_invalid", "{value}");
        }
        assert_eq!(IfMatch::Any.version().unwrap_err().code(), "if_match_invalid");
    }

    #[tokio::test]
    async fn what_the_client_has_is_a_list_of_strong_or_weak_tags() {
        for (value, has) in
            [("\"7\"", true), ("W/\"7\"", true), ("\"6\" , \"7\"", true), ("*", true), ("\"8\"", false), ("7", false)]
        {
            assert_eq!(read::<IfNoneMatch>(&[(IF_NONE_MATCH, value)]).await.unwrap().has(7), has, "{value}");
        }
        assert!(!IfNoneMatch::default().has(7));
    }

    #[tokio::test]
    async fn a_wait_is_found_among_other_preferences_and_clamped() {
        let cases = [
            ("wait=20", Some(20)),
            ("respond-async, Wait = \"5\"; x=y", Some(5)),
            ("foo=\"a, wait=9\\\", wait=8\", wait=7", Some(7)),
            ("wait=1, wait=2", Some(1)),
            ("wait=61", Some(60)),
            ("wait=99999999999999999999", Some(60)),
            ("wait=0", Some(0)),
            ("return=minimal", None),
        ];
        for (value, seconds) in cases {
            assert_eq!(read(&[(PREFER, value)]).await, Ok(Wait(seconds)), "{value}");
        }
        assert_eq!(read(&[(PREFER, "x"), (PREFER, "wait=3")]).await, Ok(Wait(Some(3))));
        for value in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "wait=\"1"] {
            assert_eq!(read::<Wait>(&[(PREFER, value)]).await.unwrap_err(), "bad_preference", "{value}");
        }
        assert_eq!(Wait(Some(60)).applied().unwrap(), "wait=60");
    }
}

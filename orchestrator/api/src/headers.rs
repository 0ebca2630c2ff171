//! The request headers that carry meaning: `Idempotency-Key`, `Prefer`, `If-Match`, `If-None-Match`.

use std::time::Duration;

use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use runtime::http::Problem;

/// Longest idempotency key.
const KEY_BYTES_MAX: usize = 255;
/// Longest wait that a client may ask for.
const WAIT_S_MAX: u64 = 60;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static PREFER: HeaderName = HeaderName::from_static("prefer");
static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The idempotency key, quoted or bare: draft-ietf-httpapi-idempotency-key-header has it quoted, most clients do not.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else {
        let detail = "Send a header such as `Idempotency-Key: 6b1c0e0a-2f4e-4b53-9d0e-1f6f6e1f2a33`: a new value for each \
                      new request, the same value when you repeat one.";
        return Err(Problem::bad_request("idempotency_key_missing", detail));
    };
    let text = value.to_str().unwrap_or_default().trim();
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let visible = bare.bytes().all(|byte| byte.is_ascii_graphic());
    if bare.is_empty() || bare.len() > KEY_BYTES_MAX || !visible {
        let detail = "Idempotency-Key must be 1 to 255 visible ASCII characters without blanks.";
        return Err(Problem::bad_request("idempotency_key_malformed", detail));
    }
    Ok(bare.to_owned())
}

/// A wait that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    seconds: u64,
}

impl Wait {
    /// How long.
    pub(crate) fn limit(self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Says that the wait was kept, and when to ask again if the saga is still open.
    pub(crate) fn answer(self, headers: &mut HeaderMap, open: bool) {
        let applied = HeaderValue::from_str(&format!("wait={}", self.seconds)).expect("digits fit into a header");
        headers.insert(PREFERENCE_APPLIED.clone(), applied);
        if open {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
    }
}

/// `Prefer: wait=N` of RFC 7240, cut to what is served; other preferences are ignored, as the RFC asks.
pub(crate) fn wait(headers: &HeaderMap) -> Result<Option<Wait>, Problem> {
    let preferences = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = preferences.flat_map(|value| value.split(',')).map(str::trim);
    let Some(asked) = preferences.find_map(|preference| preference.strip_prefix("wait=")) else { return Ok(None) };
    let seconds: u64 = asked.trim_matches('"').parse().map_err(|_| {
        Problem::bad_request("bad_preference", "Prefer: wait=N takes a whole number of seconds, at most 60.")
    })?;
    Ok(Some(Wait { seconds: seconds.min(WAIT_S_MAX) }))
}

/// The version that an operation is meant for; none for whatever it is.
pub(crate) fn expected_version(headers: &HeaderMap, any_allowed: bool) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else {
        let detail = "Read the saga, look at it, and send its ETag as If-Match, so that you change what you saw.";
        return Err(Problem::precondition_required(detail));
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" && any_allowed {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|text| text.parse().ok());
    version.map(Some).ok_or_else(|| {
        let detail = "If-Match takes one ETag as it was sent, such as `\"7\"`; `*` is only for cancel.";
        Problem::bad_request("bad_if_match", detail)
    })
}

/// Whether the client has this version already.
pub(crate) fn is_known(headers: &HeaderMap, version: u64) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    let ours = format!("\"{version}\"");
    tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == ours)
}

/// Sets the version of what is answered.
pub(crate) fn set_version(headers: &mut HeaderMap, version: u64) {
    headers.insert(ETAG, HeaderValue::from_str(&format!("\"{version}\"")).expect("digits fit into a header"));
}

/// Says that an equal request was answered before.
pub(crate) fn set_replayed(headers: &mut HeaderMap) {
    headers.insert(IDEMPOTENT_REPLAYED.clone(), HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn keys_are_quoted_or_bare_and_limited() {
        assert_eq!(idempotency_key(&headers("idempotency-key", "a-1")).unwrap(), "a-1");
        assert_eq!(idempotency_key(&headers("idempotency-key", "\"a-1\"")).unwrap(), "a-1");
        for bad in ["", "\"\"", "a b", "ä", &"x".repeat(256)] {
            let problem = idempotency_key(&headers("idempotency-key", bad)).unwrap_err();
            assert_eq!(problem.code(), "idempotency_key_malformed", "{bad:?}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap_err().code(), "idempotency_key_missing");
    }

    #[test]
    fn waits_are_cut_and_other_preferences_ignored() {
        assert_eq!(wait(&headers("prefer", "wait=5")).unwrap(), Some(Wait { seconds: 5 }));
        assert_eq!(wait(&headers("prefer", "respond-async, wait=900")).unwrap(), Some(Wait { seconds: 60 }));
        assert_eq!(wait(&headers("prefer", "return=minimal")).unwrap(), None);
        assert_eq!(wait(&headers("prefer", "wait=soon")).unwrap_err().code(), "bad_preference");
    }

    #[test]
    fn versions_are_one_tag_or_any_where_allowed() {
        assert_eq!(expected_version(&headers("if-match", "\"7\""), false).unwrap(), Some(7));
        assert_eq!(expected_version(&headers("if-match", "*"), true).unwrap(), None);
        for bad in ["*", "7", "\"x\"", "\"1\", \"2\""] {
            assert_eq!(expected_version(&headers("if-match", bad), false).unwrap_err().code(), "bad_if_match");
        }
        assert_eq!(expected_version(&HeaderMap::new(), true).unwrap_err().status(), 428);
        assert!(is_known(&headers("if-none-match", "\"6\", W/\"7\""), 7));
        assert!(!is_known(&headers("if-none-match", "\"6\""), 7));
    }
}

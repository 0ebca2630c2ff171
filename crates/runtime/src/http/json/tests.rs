//! Bodies that must be read, and bodies that must not.

use axum::Router;
use axum::http::HeaderName;
use axum::routing::post;
use serde::Deserialize;
use serde_json::Value;
use tower::ServiceExt;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Booking {
    slot: u32,
    patient: Patient,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patient {
    kind: Kind,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    New,
    Known,
}

fn refused(text: &str) -> Problem {
    parse::<Booking>(text.as_bytes()).unwrap_err()
}

async fn send(content_type: Option<&str>, body: String) -> StatusCode {
    let headers = content_type.map(|content_type| (CONTENT_TYPE, content_type));
    send_with(headers.as_slice(), body).await
}

async fn send_with(headers: &[(HeaderName, &str)], body: String) -> StatusCode {
    let router = Router::new().route("/", post(|Json(_): Json<Value>| async {}));
    let mut request = Request::post("/");
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap().status()
}

/// What the extractor says of a body that is no booking.
async fn detail(body: &'static str) -> String {
    let request = Request::post("/").header(CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap();
    Json::<Booking>::from_request(request, &()).await.unwrap_err().detail().to_owned()
}

#[test]
fn a_body_of_the_right_shape_is_read() {
    let booking: Booking = parse(br#"{"slot": 7, "patient": {"kind": "new"}}"#).unwrap();
    assert_eq!(booking, Booking { slot: 7, patient: Patient { kind: Kind::New } });
}

#[test]
fn a_wrong_shape_names_line_and_field_but_no_value() {
    let cases = [
        ("{\"slot\": 7,\n \"patient\": {\"kind\": \"secret\"}}", "`patient.kind`", 2),
        ("{\"slot\": \"secret, expected secret\", \"patient\": {\"kind\": \"new\"}}", "`slot`", 1),
        ("{\"slot\": 7}", "`patient`", 1),
        ("{\"slot\": 7, \"patient\": {\"kind\": \"new\", \"surname\": \"secret\"}}", "`surname`", 1),
        ("{\"slot\": -5555, \"patient\": {\"kind\": \"new\"}}", "`slot`", 1),
        ("\"secret\"", "the body", 1),
    ];
    for (text, names, line) in cases {
        let problem = refused(text);
        assert_eq!((problem.status().as_u16(), problem.code()), (422, "invalid_body"), "{text}");
        assert!(problem.detail().contains(names), "{}", problem.detail());
        assert!(problem.detail().starts_with(&format!("Line {line}:")), "{}", problem.detail());
        assert!(!problem.detail().contains("secret") && !problem.detail().contains("5555"), "{}", problem.detail());
    }
}

#[test]
fn what_is_not_json_is_malformed() {
    for text in ["", "{", "{\"slot\": 7} trailing", "{'slot': 7}", "[1,]", "{\"slot\": NaN}"] {
        assert_eq!(refused(text).code(), "malformed_json", "{text}");
    }
    assert_eq!(parse::<Value>(b"\"\xff\"").unwrap_err().code(), "malformed_json");
    assert!(refused("{\n\n !").detail().starts_with("Line 3: correct the JSON at column 2"));
}

#[test]
fn depth_is_bounded_before_values_are_built() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse::<Value>(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(parse::<Value>(nested(DEPTH_MAX + 1).as_bytes()).unwrap_err().code(), "json_too_deep");
    assert_eq!(parse::<Value>("[".repeat(BODY_BYTES_MAX).as_bytes()).unwrap_err().code(), "json_too_deep");
}

#[test]
fn the_nul_character_is_refused_raw_or_escaped_in_values_and_keys() {
    for text in [r#""a\u0000b""#, r#"{"a\u0000": 1}"#, r#"[{"a": ["\u0000"]}]"#] {
        assert_eq!(parse::<Value>(text.as_bytes()).unwrap_err().code(), "nul_character", "{text}");
    }
    assert_eq!(parse::<Value>(b"\"a\0b\"").unwrap_err().code(), "malformed_json");
}

#[test]
fn a_repeated_key_is_refused_at_any_depth() {
    for text in [r#"{"a": 1, "a": 2}"#, r#"[{"b": {"a": 1, "\u0061": 2}}]"#] {
        assert_eq!(parse::<Value>(text.as_bytes()).unwrap_err().code(), "duplicate_key", "{text}");
    }
    assert!(parse::<Value>(br#"[{"a": 1}, {"a": 2}]"#).is_ok());
}

/// What is no first member is stored, sorted to the front, and not read again.
#[test]
fn a_name_that_json_texts_are_read_by_is_refused_wherever_it_stands() {
    for (text, pointer) in [
        (r#"{"$serde_json::private::RawValue": "{}"}"#, "/$serde_json::private::RawValue"),
        (r#"{"a": 1, "$serde_json::private::RawValue": "no JSON"}"#, "/$serde_json::private::RawValue"),
        (r#"{"a/b": [1, {"\u0024serde_json::private::Number": 1}]}"#, "/a~1b/1/$serde_json::private::Number"),
    ] {
        let problem = parse::<Value>(text.as_bytes()).unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (400, "reserved_key"), "{text}");
        assert!(problem.detail().starts_with(&format!("Line 1: rename `{pointer}`")), "{}", problem.detail());
    }
    for fine in [r#"{"$serde_json": 1, "a$serde_json::private::RawValue": 1}"#, r#""$serde_json::private::RawValue""#] {
        assert!(parse::<Value>(fine.as_bytes()).is_ok(), "{fine}");
    }
}

#[tokio::test]
async fn only_json_is_taken() {
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;Charset=\"UTF-8\"",
        "application/merge-patch+json",
    ] {
        assert_eq!(send(Some(content_type), "{}".to_owned()).await, StatusCode::OK, "{content_type}");
    }
    let others = ["text/plain", "application/jsonp", "text/json", "application/json; charset=iso-8859-1"];
    for content_type in others.map(Some).into_iter().chain([None]) {
        assert_eq!(send(content_type, "{}".to_owned()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type:?}");
    }
}

#[tokio::test]
async fn a_body_is_taken_as_it_is() {
    let with = async |encoding| {
        let headers = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, encoding)];
        send_with(&headers, "{}".to_owned()).await
    };
    assert_eq!(with("identity").await, StatusCode::OK);
    for encoding in ["gzip", "identity, br"] {
        assert_eq!(with(encoding).await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{encoding}");
    }
}

#[tokio::test]
async fn only_an_object_is_a_body() {
    for body in ["[7]", "[{}]", " \"a\"", "7", "null"] {
        assert_eq!(detail(body).await, "Line 1: the body must be a JSON object.", "{body}");
    }
    assert!(detail("[1,]").await.starts_with("Line 1: correct the JSON"), "what is no JSON is told first");
    assert_eq!(detail(" \n").await, "Send a body: it is empty, and must be JSON.");
    assert_eq!(
        detail("{\"slot\": 7, \"patient\": 1}").await,
        "Line 1: `patient` must be a JSON object.",
        "and no word of Rust"
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let text = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let json = Some("application/json");
    assert_eq!(send(json, text(BODY_BYTES_MAX)).await, StatusCode::OK);
    assert_eq!(send(json, text(BODY_BYTES_MAX + 1)).await, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_408() {
    let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let problem = read_body(Request::new(body)).await.unwrap_err();
    assert_eq!(problem.status(), StatusCode::REQUEST_TIMEOUT);
}

//! Query strings, read as strictly as bodies.
//!
//! Must hold: an unknown parameter, one without a value, one sent twice and one of the wrong type are named in the
//! answer, not ignored; U+0000 goes no further; no value is repeated.

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::shape;

/// The parameters of a request. `T` denies unknown fields. A parameter without a value is refused: it comes from a
/// variable that was empty by mistake, and a filter that is ignored would answer with everything.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Of a route without parameters: whatever is sent is named in the answer.
#[derive(Clone, Copy, Debug)]
pub struct NoQuery;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::<Nothing>::from_request_parts(parts, state).await.map(|_| Self)
    }
}

/// Reads the text behind the question mark.
///
/// # Errors
/// 400 `bad_parameter`, naming the parameter.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut seen = BTreeSet::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        if name.contains('\0') || value.contains('\0') {
            return Err(Problem::bad_request("nul_character", "Leave out the character U+0000."));
        }
        if value.is_empty() {
            return Err(bad(&name, "has no value: give it one or leave it out"));
        }
        if let Some(name) = seen.replace(name) {
            return Err(bad(&name, "is sent more than once"));
        }
    }
    let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text.as_bytes()));
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let name = error.path().to_string();
        bad(&name, &shape::explain(&error.into_inner().to_string()))
    })
}

fn bad(name: &str, wish: &str) -> Problem {
    match name {
        "." => Problem::bad_request("bad_parameter", format!("The query {wish}.")),
        _ => Problem::bad_request("bad_parameter", format!("The parameter `{name}` {wish}.")).with("parameter", name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        limit: Option<u32>,
        status: Option<Status>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Status {
        Running,
        Stuck,
    }

    #[test]
    fn known_parameters_are_read_and_may_be_left_out() {
        let list: List = parse("limit=5&status=stuck").unwrap();
        assert_eq!(list, List { limit: Some(5), status: Some(Status::Stuck) });
        assert_eq!(parse::<List>("&limit=5&").unwrap(), List { limit: Some(5), status: None });
        assert_eq!(parse::<List>("").unwrap(), List { limit: None, status: None });
    }

    #[test]
    fn a_bad_parameter_is_named_without_its_value() {
        let cases = [
            ("limit=secret", "`limit`"),
            ("status=secret", "`status`"),
            ("colour=secret", "`colour`"),
            ("limit=1&limit=2", "`limit`"),
            // What an empty variable of a script makes of a filter.
            ("status=", "`status`"),
            ("limit=1&status", "`status`"),
            ("colour=", "`colour`"),
            ("limit=1&colour", "`colour`"),
        ];
        for (text, named) in cases {
            let problem = parse::<List>(text).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "bad_parameter"), "{text}");
            assert!(problem.detail().contains(named), "{}", problem.detail());
            assert!(!problem.detail().contains("secret"), "{}", problem.detail());
        }
    }

    #[test]
    fn what_a_number_must_be_is_said() {
        for text in ["limit=-1", "limit=ten", "limit=1.5"] {
            let problem = parse::<List>(text).unwrap_err();
            assert_eq!(problem.detail(), "The parameter `limit` must be a whole number, 0 or more.", "{text}");
        }
    }

    #[tokio::test]
    async fn a_route_without_parameters_takes_none() {
        let ask = async |uri: &str| {
            let (mut parts, ()) = axum::http::Request::builder().uri(uri).body(()).unwrap().into_parts();
            NoQuery::from_request_parts(&mut parts, &()).await
        };
        assert!(ask("/sagas/7").await.is_ok() && ask("/sagas/7?").await.is_ok());
        for uri in ["/sagas/7?wait=secret", "/sagas/7?wait"] {
            let problem = ask(uri).await.unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "bad_parameter"), "{uri}");
            assert!(problem.detail().contains("`wait`") && !problem.detail().contains("secret"), "{problem:?}");
        }
    }

    #[test]
    fn the_nul_character_is_refused() {
        for text in ["limit=%00", "lim%00it=1"] {
            assert_eq!(parse::<List>(text).unwrap_err().code(), "nul_character");
        }
    }
}

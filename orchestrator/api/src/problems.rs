//! The problems that only this API has, and what the engine's errors look like from outside.
//!
//! Must hold: the cause of a 5xx is in the log and not in the answer; a 503 always may be repeated as it was, and says
//! when.

use axum::http::header::{ETAG, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use orchestrator::Error;
use runtime::clock::rfc3339;
use runtime::http::Problem;
use saga_defs::Timestamp;
use saga_defs::schema::Misfit;
use serde_json::json;
use uuid::Uuid;

use crate::headers::etag;
use crate::words::LetterState;

/// What the engine could not do, for a client.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn of_engine(error: Error) -> Problem {
    let problem = match &error {
        Error::Overloaded => later("overloaded", "Too much is under way and nothing was done. Repeat the request."),
        Error::Stopping => later("stopping", "The server is shutting down. Repeat the request as it was."),
        Error::NoAnswer => later(
            "outcome_unknown",
            "The outcome is not known yet. Repeat the request with the same `Idempotency-Key`.",
        ),
        Error::Foreign => later(
            "written_by_another_build",
            "The saga is looked after by servers of a newer build. Repeat the request; another server may take it.",
        ),
        Error::Unreadable { header, .. } => unreadable(header.id),
        Error::Store(cause) => return of_store(cause),
        Error::Poison => Problem::internal(),
    };
    log(&problem, &error);
    problem
}

/// What the store could not do, for a client.
pub(crate) fn of_store(error: &saga_store::Error) -> Problem {
    let problem = match error {
        saga_store::Error::Unavailable(_) | saga_store::Error::UnknownCommit(_) => {
            Problem::unavailable("The database is out of reach. Repeat the request as it was.")
        }
        saga_store::Error::Bug(_) | saga_store::Error::Corrupt(_) | saga_store::Error::DefinitionChanged(_) => {
            Problem::internal()
        }
    };
    log(&problem, error);
    problem
}

fn log(problem: &Problem, error: &(dyn std::error::Error + 'static)) {
    let cause = error.source();
    if problem.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(%error, cause, "a request could not be answered");
    } else {
        tracing::warn!(%error, cause, "a request could not be answered for now");
    }
}

fn later(code: &'static str, detail: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).with_header(RETRY_AFTER, HeaderValue::from_static("1"))
}

/// 500: the saga is there, and its row is not what was written.
fn unreadable(saga_id: Uuid) -> Problem {
    let detail = "The saga exists, but what is stored of it can't be read, so that nothing can be said of it or done with it. \
                  Nothing was changed. Repeating the request does not help: whoever looks after the database has to mend or \
                  restore its row, as docs/operations.md says; then the saga goes on.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "saga_unreadable", detail).with("saga_id", saga_id)
}

/// 404: no saga that the caller may see.
pub(crate) fn no_saga() -> Problem {
    Problem::not_found("There is no saga of yours with this id. `GET /v1/sagas` lists those that you may see.")
}

/// 410: an equal request started a saga that was deleted since.
pub(crate) fn gone(saga_id: Uuid) -> Problem {
    let detail = "This very request was made before. The saga that it started has ended and is kept no longer. Nothing was \
                  started: take a new Idempotency-Key for a new request.";
    Problem::gone(detail).with("saga_id", saga_id)
}

/// 422: the idempotency key came with another start before.
pub(crate) fn start_key_reused() -> Problem {
    let detail = "This Idempotency-Key was used for another request. Nothing was started: take a new key for a new \
                  request, or repeat the old one exactly.";
    Problem::unprocessable("idempotency_key_reused", detail)
}

/// 422: the idempotency key came with another operation on the saga before.
pub(crate) fn operation_key_reused() -> Problem {
    let detail = "This Idempotency-Key was used for another operation on this saga. Nothing was done: take a new key for \
                  a new operation, or repeat the old one exactly.";
    Problem::unprocessable("idempotency_key_reused", detail)
}

/// 422: a start names no definition that is known.
pub(crate) fn unknown_definition() -> Problem {
    let detail = "Name a definition of `GET /v1/definitions`, with or without its version: `name` or `name@1`.";
    Problem::unprocessable("unknown_definition", detail)
}

/// 422: the input does not fit the definition.
pub(crate) fn bad_input(misfits: Vec<Misfit>) -> Problem {
    let errors = misfits.into_iter().map(|rule| {
        // Places in the request body, of which the input is a member.
        json!({"pointer": format!("/input{}", rule.pointer), "detail": rule.detail})
    });
    Problem::unprocessable("invalid_input", "Correct the places in `errors`: the definition's schema asks for it.")
        .with("errors", errors.collect::<Vec<_>>())
}

/// 422: a member of the body is out of bounds.
pub(crate) fn bad_member(name: &str, wish: &str) -> Problem {
    Problem::unprocessable("invalid_body", format!("`{name}` {wish}.")).with("field", name)
}

/// 400: a parameter of the query is out of bounds.
pub(crate) fn bad_parameter(name: &str, wish: &str) -> Problem {
    Problem::bad_request("bad_parameter", format!("The parameter `{name}` {wish}.")).with("parameter", name)
}

/// 412: the saga has moved on.
pub(crate) fn stale(current: u64) -> Problem {
    let detail = "The saga has changed since you looked. Read it again, then decide again.";
    Problem::precondition_failed(detail).with("version", current).with_header(ETAG, etag(current))
}

/// 409: the saga is not where the action is possible.
pub(crate) fn not_possible(why: &str, possible: &[&str]) -> Problem {
    let detail = format!("This is not possible now: {why}. What is possible is listed in `actions`.");
    Problem::conflict("action_not_possible", detail).with("reason", why).with("actions", possible)
}

/// 404: no such dead letter.
pub(crate) fn no_letter() -> Problem {
    Problem::not_found("There is no dead letter with this id. `GET /v1/dead-letters?state=all` lists all of them.")
}

/// 409: somebody else decided otherwise.
pub(crate) fn letter_settled(state: LetterState) -> Problem {
    let detail = "The dead letter was settled otherwise, or has died again just now. Read it again, then decide again.";
    Problem::conflict("already_settled", detail).with("state", state)
}

/// 409: the participant may have forgotten the effect.
pub(crate) fn dedupe_window_over(until: Timestamp) -> Problem {
    let detail = "A command in it must not be sent any more: its participant may have forgotten whether it was executed. \
                  Find out what stands, settle its saga by hand and discard the letter.";
    Problem::conflict("dedupe_window_over", detail).with("dedupe_until", rfc3339(until))
}

/// 409: nobody would understand it now either.
pub(crate) fn still_unreadable(why: &str) -> Problem {
    let detail = format!("It can't be sent again by this build: {why}. Mend its sender and discard the letter.");
    Problem::conflict("still_unreadable", detail).with("reason", why)
}

/// 409: the reply was tried, and turned down as before.
pub(crate) fn still_failing() -> Problem {
    let detail =
        "A reply in it can't be committed, still; the server's log says why. Mend that and replay it, or discard it.";
    Problem::conflict("still_failing", detail)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use saga_store::Header;

    use super::*;

    fn header() -> Arc<Header> {
        Arc::new(Header {
            id: Uuid::nil(),
            tenant: String::new(),
            principal: String::new(),
            key: None,
            definition: String::new(),
            definition_version: 1,
            digest: String::new(),
            created_at: Timestamp(0),
        })
    }

    #[test]
    fn what_may_be_repeated_is_a_503_and_what_may_not_is_a_500() {
        let cases = [
            (Error::Overloaded, 503, "overloaded"),
            (Error::Stopping, 503, "stopping"),
            (Error::NoAnswer, 503, "outcome_unknown"),
            (Error::Foreign, 503, "written_by_another_build"),
            (Error::Poison, 500, "internal"),
            (Error::Unreadable { header: header(), why: "its state".to_owned() }, 500, "saga_unreadable"),
            (Error::Store(saga_store::Error::DefinitionChanged("x@1".to_owned())), 500, "internal"),
        ];
        for (error, status, code) in cases {
            let problem = of_engine(error);
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code));
        }
        assert!(of_engine(Error::NoAnswer).detail().contains("Idempotency-Key"));
    }
}

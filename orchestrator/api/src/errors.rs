//! What the engine's and the store's failures look like to a client.

use orchestrator::Error;
use runtime::http::Problem;

/// A failed engine call as a problem.
pub(crate) fn problem(error: Error) -> Problem {
    match error {
        Error::Overloaded => Problem::unavailable(
            "Too many sagas are being started. Nothing was written; ask again with the same Idempotency-Key after the time in Retry-After.",
        ),
        Error::Stopping => Problem::unavailable(
            "This instance is shutting down. Ask again with the same Idempotency-Key: if the request was written, you get its saga.",
        ),
        Error::NoAnswer => Problem::unavailable(
            "The outcome is not known yet. Ask again with the same Idempotency-Key: if the request was written, you get its saga.",
        ),
        Error::Store(error) => store(error),
        Error::Poison | Error::Definition(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a request failed for good");
            Problem::internal()
        }
    }
}

/// A failed read as a problem.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn store(error: saga_store::Error) -> Problem {
    use saga_store::Error as Store;
    match error {
        Store::Unavailable(_) | Store::UnknownCommit(_) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the store is out of reach");
            Problem::unavailable("The database is out of reach. Ask again after the time in Retry-After.")
        }
        Store::Bug(_) | Store::Corrupt(_) | Store::DefinitionChanged(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
            Problem::internal()
        }
    }
}

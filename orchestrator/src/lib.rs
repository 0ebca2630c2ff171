//! The engine: performs what the pure core decides, on a store and a transport.
//!
//! Not for decisions: those are rows in `saga-core`. Must hold: nothing is told to anyone before it is durable;
//! publishing never blocks a worker; no instance owns a saga; every task starts through the handle it is given, and
//! the world is reached only through ports, so that a simulator can run this very code.
//! The order of events in one turn: receive, load, decide, commit, then acknowledge, answer, hint, publish.

use std::sync::Arc;

use saga_store::Header;

mod options;

mod entropy;

mod definitions;

mod request;

mod work;

mod shared;

mod backlog;

mod gather;

mod worker;

mod decided;

mod fold;

mod commit;

mod keep;

mod settle;

mod unreadable;

mod replies;

mod timers;

mod flight;

mod outbound;

mod relay;

mod hints;

mod hot;

mod handover;

mod gauges;

mod dead_letters;

mod replay;

mod retention;

pub mod archive;

mod engine;

mod waits;

pub use engine::Engine;
pub use entropy::{Entropy, RandomEntropy, SeededEntropy};
pub use gauges::Held;
pub use hints::Watch;
pub use options::Options;
pub use replay::{LetterAction, LetterAnswer, LetterRefusal, LetterRequest};
pub use request::{OperateRequest, Operated, Snapshot, StartAnswer, StartRequest, Started};
pub use retention::Retention;

/// Why the engine did not do what was asked. Refusals of the saga itself are answers, not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too much is under way; nothing was written. Ask again soon.
    #[error("the engine is at its limit")]
    Overloaded,
    /// The engine is shutting down; nothing was written by this request as far as is known. Ask again with the same key.
    #[error("the engine is shutting down")]
    Stopping,
    /// No answer in time; it may or may not have happened. Ask again with the same key.
    #[error("no answer in time")]
    NoAnswer,
    /// The store failed; nothing was changed.
    #[error("the store failed")]
    Store(#[source] saga_store::Error),
    /// The input could not be committed for a reason that will not go away.
    #[error("the input could not be committed")]
    Poison,
    /// The saga is looked after by instances of a newer build; this one can't read it. Ask again, or ask another.
    #[error("the saga was written by another build")]
    Foreign,
    /// The saga's row is not what was written; nothing can be said of it or done with it until a person mends the row.
    #[error("saga {} can't be read: {why}", header.id)]
    Unreadable {
        /// Whose it is can be read.
        header: Arc<Header>,
        /// What is wrong with it, without a word of what is stored.
        why: String,
    },
}

impl From<saga_store::Error> for Error {
    fn from(error: saga_store::Error) -> Self {
        Self::Store(error)
    }
}

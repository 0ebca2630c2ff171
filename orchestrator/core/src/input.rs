//! What can be put to a saga, and why an operation is turned down.

use saga_defs::Reply;
use serde_json::Value;
use uuid::Uuid;

/// Something to decide on.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A participant answered.
    Reply(Reply),
    /// Time has passed.
    Tick,
    /// A person or client asks.
    Operation(Operation),
}

/// A request of an admin or a client, repeatable by its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Equal ids mean the same request.
    pub id: Uuid,
    /// Digest of what was asked, to tell a repetition from a mistake.
    pub digest: String,
    /// The version that the asker saw; none to ask whatever it is.
    pub expected_version: Option<u64>,
    /// What is asked.
    pub action: Action,
}

/// What can be asked of a saga. `Debug` is derived: outputs hold no personal data by contract.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send the stuck command again, with a new budget.
    Retry,
    /// Count the stuck command as succeeded, with this output.
    Skip(Value),
    /// Undo, although the saga could go on.
    Compensate,
    /// Undo if the pivot has not succeeded.
    Cancel,
    /// Stop here; what it holds stays as it is.
    Close,
}

impl Action {
    /// Every action, for lists of what is possible.
    pub const NAMES: [&'static str; 5] = ["retry", "skip", "compensate", "cancel", "close"];

    /// The action's name in paths and history.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip(_) => "skip",
            Self::Compensate => "compensate",
            Self::Cancel => "cancel",
            Self::Close => "close",
        }
    }
}

/// Why an operation was turned down. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The saga is not where this is possible.
    #[error("{action} is not possible: {why}")]
    NotAllowed {
        /// What was asked.
        action: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The saga has moved on since the asker looked.
    #[error("the saga is at version {current}")]
    Stale {
        /// Where it is.
        current: u64,
    },
    /// The same operation id came with another request.
    #[error("the operation id was used for another request")]
    Reused,
}

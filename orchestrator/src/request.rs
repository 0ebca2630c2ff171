//! What people and clients ask of the engine, and what it answers.
//!
//! Not for the wire: the edge has types of its own.

use std::sync::Arc;

use saga_core::{Action, Refusal, Saga};
use saga_defs::catalog::Loaded;
use saga_defs::schema::Misfit;
use saga_store::Header;
use serde_json::Value;
use uuid::Uuid;

use crate::hints::Watch;

/// A saga as it is at one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What stays the same.
    pub header: Arc<Header>,
    /// Where it is.
    pub saga: Arc<Saga>,
    /// What it runs by.
    pub loaded: Arc<Loaded>,
}

/// A client's wish for a new saga. `Debug` shows no input.
#[derive(Clone)]
pub struct StartRequest {
    /// Whose.
    pub tenant: String,
    /// Name of the client's token.
    pub principal: String,
    /// `client:NAME` or `admin:NAME`, for history.
    pub actor: String,
    /// The client's idempotency key.
    pub idempotency_key: String,
    /// `booking` for the newest version, `booking@1` for that one.
    pub definition: String,
    /// Business key, unique per tenant while the saga is open.
    pub key: Option<String>,
    /// The input document.
    pub input: Value,
}

impl std::fmt::Debug for StartRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StartRequest({})", self.definition)
    }
}

/// What came of a start.
#[derive(Debug)]
pub enum StartAnswer {
    /// The saga exists.
    Started(Box<Started>),
    /// There is no such definition.
    UnknownDefinition,
    /// The input does not fit the definition.
    BadInput(Vec<Misfit>),
    /// The idempotency key was used for another request.
    KeyReused,
    /// An equal request started this saga, which has ended and was deleted since.
    Gone {
        /// Which it was.
        saga_id: Uuid,
    },
    /// The business key belongs to an open saga.
    BusinessKeyTaken {
        /// Which.
        saga_id: Uuid,
    },
}

/// A saga that exists, by this request or an equal one before it.
#[derive(Debug)]
pub struct Started {
    /// The saga as it is now.
    pub snapshot: Snapshot,
    /// An equal request had started it before.
    pub replayed: bool,
    /// Hears of the saga since then, for [`Engine::follow`](crate::Engine::follow).
    pub watch: Watch,
}

/// A person's or client's wish about a saga.
#[derive(Clone, Debug)]
pub struct OperateRequest {
    /// The saga.
    pub saga_id: Uuid,
    /// Name of the asker's token.
    pub principal: String,
    /// `client:NAME` or `admin:NAME`, for history.
    pub actor: String,
    /// The asker's idempotency key.
    pub idempotency_key: String,
    /// The version that the asker saw; none for whatever it is.
    pub expected_version: Option<u64>,
    /// Why, in the asker's words.
    pub reason: String,
    /// What is wished.
    pub action: Action,
}

/// What came of an operation.
#[derive(Clone, Debug)]
pub enum Operated {
    /// It was applied, now or by an equal request before.
    Applied {
        /// The saga as it is now.
        snapshot: Box<Snapshot>,
        /// Names the operation in history.
        operation_id: Uuid,
        /// An equal request had applied it before.
        replayed: bool,
    },
    /// The saga turned it down.
    Refused {
        /// The saga as it is now.
        snapshot: Box<Snapshot>,
        /// Why.
        refusal: Refusal,
    },
    /// There is no such saga, or it was written by a build with another format.
    NotFound,
}

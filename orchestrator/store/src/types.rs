//! What goes into the store and comes out of it.
//!
//! Not for rows: each implementation has its own. Must hold: `Debug` shows ids only, because keys, inputs, states and
//! bodies may hold personal data.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use saga_core::state::Cause;
use saga_core::{Decision, Saga, Status};
use saga_defs::{Command, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What stays the same through a saga's life. `Debug` shows ids only.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// UUIDv7: sorts by creation.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: String,
    /// Name of the token that started it.
    pub principal: String,
    /// Business key, unique per tenant while the saga is open.
    pub key: Option<String>,
    /// Name of its definition.
    pub definition: String,
    /// Version of its definition.
    pub definition_version: u32,
    /// Content digest of its definition.
    pub digest: String,
    /// When it was accepted.
    pub created_at: Timestamp,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({} {}@{})", self.id, self.definition, self.definition_version)
    }
}

/// A state that this build can read, the format of one that it leaves to others, or what is wrong with one that nobody can
/// read.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Readable.
    Known(Arc<Saga>),
    /// Written by a build with another format.
    Foreign(u16),
    /// In a format of this build, and not what was written.
    Unreadable(Unreadable),
}

/// A saga whose state or input is not what was written: a person has to mend its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The version beside the state, which guards what is done about the row.
    pub version: u64,
    /// What is wrong with it, without a word of what is stored.
    pub why: String,
}

/// A saga as it is stored, with what the core needs to go on.
#[derive(Clone, PartialEq)]
pub struct Stored {
    /// What stays the same.
    pub header: Arc<Header>,
    /// Where it is.
    pub state: State,
    /// The client's input document; null where it can't be read.
    pub input: Arc<Value>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({})", self.header.id)
    }
}

/// Sagas at one moment of the database.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The database's time.
    pub now: Timestamp,
    /// Those that exist, by id.
    pub sagas: BTreeMap<Uuid, Stored>,
}

/// What a start is recognized by when it comes again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartKey {
    /// Whose.
    pub tenant: String,
    /// Name of the token.
    pub principal: String,
    /// The client's idempotency key.
    pub key: String,
}

/// How a transition meets what is stored.
#[derive(Clone, PartialEq)]
pub enum Guard {
    /// A new saga: only if the start key is free, and the business key among open sagas.
    Start {
        /// Recognizes the start when it comes again.
        start_key: StartKey,
        /// Digest of what was asked.
        fingerprint: String,
        /// The input document.
        input: Arc<Value>,
    },
    /// Only if the stored version is this one.
    Version(u64),
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { .. } => f.write_str("Start"),
            Self::Version(version) => write!(f, "Version({version})"),
        }
    }
}

/// One row of history: what one input made happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// 1, 2, 3 … without gaps; the version after it.
    pub seq: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// Who asked: `engine`, `participant:NAME`, `client:NAME` or `admin:NAME`.
    pub actor: String,
    /// Why, in the asker's words.
    pub reason: Option<String>,
    /// The operation, if one was asked for.
    pub operation_id: Option<Uuid>,
    /// Format of the events.
    pub format: u16,
    /// The events as exact JSON bytes.
    pub events: String,
}

/// A transition of one saga, several inputs folded, to be committed whole.
#[derive(Clone)]
pub struct Transition {
    /// The saga.
    pub header: Arc<Header>,
    /// When it may be committed.
    pub guard: Guard,
    /// The state after it.
    pub saga: Arc<Saga>,
    /// One row per input.
    pub history: Vec<HistoryRow>,
    /// What leaves once it is committed.
    pub commands: Vec<Command>,
}

impl fmt::Debug for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transition({} to version {})", self.header.id, self.saga.version)
    }
}

/// Transitions of different sagas that share one commit.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Marks every history row of the commit, so that a lost answer can be asked for.
    pub commit_id: Uuid,
    /// The database's time when the states were loaded.
    pub now: Timestamp,
    /// At most one per saga, and at most one per start key.
    pub transitions: Vec<Transition>,
    /// Outbox rows whose messages are safe at the other side; deleted along with whatever wins.
    pub confirmed: Vec<Uuid>,
}

impl Batch {
    /// The sagas of the transitions, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<Uuid> {
        self.transitions.iter().map(|transition| transition.header.id).collect()
    }
}

/// What came of one transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable.
    Committed,
    /// The stored version was another one; load and decide again.
    Lost,
    /// The start key is taken by this saga.
    KeyTaken {
        /// The saga that was started with it.
        saga_id: Uuid,
        /// Digest of what was asked then.
        fingerprint: String,
    },
    /// The business key is taken by this open saga.
    BusinessKeyTaken {
        /// The open saga that has it.
        saga_id: Uuid,
    },
}

/// A row of the outbox: a message, or several where a participant takes one command at a time. `Debug` shows no body.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboxMessage {
    /// The row.
    pub id: Uuid,
    /// To whom.
    pub participant: String,
    /// Commands as `saga_defs::message` writes them.
    pub body: Arc<str>,
    /// How often it was claimed before.
    pub attempts: u32,
}

impl fmt::Debug for OutboxMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboxMessage({} to {})", self.id, self.participant)
    }
}

/// What came of a batch.
#[derive(Clone, Debug)]
pub struct Committed {
    /// One per transition, in order.
    pub outcomes: Vec<Outcome>,
    /// The outbox rows of the winners; commands for one participant share messages. `due_at` is one second ahead,
    /// so that whoever committed can publish them first.
    pub messages: Vec<OutboxMessage>,
}

/// A reply that could not change its saga any more, kept as a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateReply {
    /// The saga it speaks of; it may not exist.
    pub saga_id: Uuid,
    /// The command it answers.
    pub command_id: Uuid,
    /// Why it is here.
    pub reason: LateReason,
    /// The reply as JSON, its output left out.
    pub reply: String,
    /// When it came.
    pub received_at: Timestamp,
}

/// Why a reply was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LateReason {
    /// The saga had ended; the reply adds a fact.
    Ended,
    /// The saga had ended; the reply contradicts what it ended on.
    Contradiction,
    /// A person had decided what it speaks of.
    Overruled,
    /// It answers nothing that was sent.
    Orphan,
}

/// Which sagas a list holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Whose.
    pub tenant: String,
    /// Only those started by this token.
    pub principal: Option<String>,
    /// Only in this status.
    pub status: Option<Status>,
    /// Only of this definition, any version.
    pub definition: Option<String>,
    /// Only with this business key.
    pub key: Option<String>,
    /// Only older than this saga: where the last page ended.
    pub before: Option<Uuid>,
}

/// A saga in a list, from columns alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What stays the same.
    pub header: Header,
    /// Its status.
    pub status: Status,
    /// Its decision.
    pub decision: Option<Decision>,
    /// Code of its failure.
    pub failure_code: Option<String>,
    /// What holds it for a person, and at which step.
    pub stuck: Option<(Cause, String)>,
    /// Its version.
    pub version: u64,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
}

/// How full the outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxLoad {
    /// Rows.
    pub rows: u64,
    /// Age of the oldest in milliseconds.
    pub oldest_ms: u64,
}

/// A published definition, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedDefinition {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Digest of its content.
    pub digest: String,
    /// The definition as JSON.
    pub body: String,
}

//! The engine's memory: the only owner of the engine's tables.
//!
//! The port takes slices and answers per item. The store is dumb: it never looks into a payload and decides
//! nothing. Must hold: state, history, outbox and timer of a transition are one commit, guarded by a
//! compare-and-swap on the version; what is returned as committed is durable; losers leave no trace. Every
//! implementation passes [`conformance`].

use std::fmt;
use std::ops::RangeInclusive;

use async_trait::async_trait;
use saga_core::Status;
use saga_defs::{DeadLetter, Timestamp};
use uuid::Uuid;

pub mod types;

pub mod dead_letters;

pub mod conformance;

pub mod replay;

pub mod retention;

mod memory;

mod sql;

/// Groups the winners' commands into messages, for every implementation alike.
mod messages;

pub use dead_letters::{KeptLetter, LetterFilter, LetterState, LetterSummary, Settled, Settlement, Settling};
pub use memory::{Fault, MemoryStore};
pub use replay::{Mismatch, check_replay};
pub use retention::{Leaving, Retention};
pub use sql::SqlStore;
pub use types::{
    Batch, Committed, Filter, Guard, Header, HistoryRow, LateReason, LateReply, Loaded, OutboxLoad, OutboxMessage,
    Outcome, PublishedDefinition, StartKey, State, Stored, Summary, Transition, Unreadable,
};

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was changed; the same call may work later.
    #[error("the store is out of reach")]
    Unavailable(#[source] db::Error),
    /// The commit was sent and no answer came: ask [`Store::committed`].
    #[error("the fate of the commit is unknown")]
    UnknownCommit(#[source] db::Error),
    /// Nothing was changed; the same call will fail again.
    #[error("the store refused a statement")]
    Bug(#[source] db::Error),
    /// A stored row can't be read. A saga that can't be is a [`State`] of its own.
    #[error("a stored row is not what was written")]
    Corrupt(#[source] serde_json::Error),
    /// A published definition must never change.
    #[error("definition {0} is published with another content; give the new content a new version")]
    DefinitionChanged(String),
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Transient(_) => Self::Unavailable(error),
            db::Error::Bug(_) | db::Error::SchemaName(_) => Self::Bug(error),
            db::Error::UnknownCommit(_) | db::Error::Unknown => Self::UnknownCommit(error),
        }
    }
}

/// The engine's memory.
#[async_trait]
pub trait Store: Retention + fmt::Debug {
    /// The database's time and the sagas with these ids. One that can't be read is told as such and spares the others.
    async fn load(&self, ids: &[Uuid]) -> Result<Loaded, Error>;

    /// Commits transitions: winners whole, losers not at all.
    async fn commit(&self, batch: Batch) -> Result<Committed, Error>;

    /// The saga that was started with this key, and the digest of what was asked.
    async fn started(&self, key: &StartKey) -> Result<Option<(Uuid, String)>, Error>;

    /// Those of these sagas whose history has a row of this commit.
    async fn committed(&self, commit_id: Uuid, ids: &[Uuid]) -> Result<Vec<Uuid>, Error>;

    /// Claims up to `limit` due outbox rows by pushing their `due_at` to `push_ms` from now, longer the more often a
    /// row was tried.
    async fn claim_outbox(&self, limit: u64, push_ms: u64) -> Result<Vec<OutboxMessage>, Error>;

    /// Makes every row due now. Only for a process that is alone with its store: others would send the same rows.
    async fn release_outbox(&self) -> Result<(), Error>;

    /// Pushes `due_at` of rows that are on their way; never back.
    async fn extend_outbox(&self, ids: &[Uuid], push_ms: u64) -> Result<(), Error>;

    /// Deletes rows whose messages are safe at the other side.
    async fn confirm_outbox(&self, ids: &[Uuid]) -> Result<(), Error>;

    /// How full the outbox is.
    async fn outbox_load(&self) -> Result<OutboxLoad, Error>;

    /// Claims up to `limit` sagas that are due, by pushing `wake_at` to `push_ms` from now; the version stays. A commit
    /// only pulls `wake_at` nearer or takes it away, because most sagas have moved on long before it comes; so a claimed
    /// saga may turn out not to be due.
    async fn claim_timers(&self, limit: u64, push_ms: u64) -> Result<Vec<Uuid>, Error>;

    /// Sets `wake_at` again where a claimed saga at this version was not due after all.
    async fn rearm_timers(&self, wakes: &[(Uuid, u64, Timestamp)]) -> Result<(), Error>;

    /// Keeps replies that could not change their sagas; known ones are not written twice.
    async fn keep_late(&self, replies: &[LateReply]) -> Result<(), Error>;

    /// Late replies of a saga, oldest first, at most 200.
    async fn late(&self, saga_id: Uuid) -> Result<Vec<LateReply>, Error>;

    /// Sagas with such ids that late replies contradict, in the order of ids, and how many replies do.
    async fn contradictions(&self, ids: RangeInclusive<Uuid>, limit: u64) -> Result<Vec<(Uuid, u64)>, Error>;

    /// Keeps dead letters. One that waits already is left as it is; one that was settled and died again waits again.
    async fn keep_dead_letters(&self, letters: &[DeadLetter]) -> Result<(), Error>;

    /// Dead letters that fit, newest first, without their items.
    async fn dead_letters(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<LetterSummary>, Error>;

    /// One dead letter, with its item.
    async fn dead_letter(&self, id: Uuid) -> Result<Option<KeptLetter>, Error>;

    /// Settles a waiting letter, and puts what is sent again into the outbox, due at once. False, and nothing is
    /// changed, when it does not wait.
    async fn settle_dead_letter(&self, id: Uuid, settlement: &Settlement) -> Result<bool, Error>;

    /// How many dead letters wait for a person.
    async fn dead_letters_waiting(&self) -> Result<u64, Error>;

    /// Those of these sagas that are decided or stuck, and their versions, for those who wait on them.
    async fn answered(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, u64)>, Error>;

    /// History of a saga after `after_seq`, oldest first.
    async fn history(&self, saga_id: Uuid, after_seq: u64, limit: u64) -> Result<Vec<HistoryRow>, Error>;

    /// Sagas that fit, newest first.
    async fn list(&self, filter: &Filter, limit: u64) -> Result<Vec<Summary>, Error>;

    /// How many sagas that have not ended are in each status, of all tenants. Costs nothing for those that have.
    async fn count_open(&self) -> Result<Vec<(Status, u64)>, Error>;

    /// Publishes definitions; one that is there with the same content is left alone.
    async fn publish_definitions(&self, definitions: &[PublishedDefinition]) -> Result<(), Error>;

    /// All published definitions.
    async fn definitions(&self) -> Result<Vec<PublishedDefinition>, Error>;

    /// Fails when the store can't be written.
    async fn check_writable(&self) -> Result<(), Error>;
}

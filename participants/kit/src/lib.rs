//! The kit that participants are built with: idempotency, tombstones and replies, so that a participant writes
//! only its business.
//!
//! A participant understands two verbs, `execute` and `compensate`, both named by the effect's idempotency key.
//! Not for the orchestrator, which knows participants only by their messages. Must hold: an effect happens at most
//! once and its answer is told for ever, whatever is lost, repeated, reordered or killed.

pub mod inbox;

mod set_sql;

mod rows;

mod forget_sql;

pub mod handler;

pub mod transactional;

mod leases;

mod live;

mod verdict;

mod recorder;

mod intents;

mod announce;

mod lanes;

mod work;

pub mod external;

mod publish;

mod aside;

pub mod serve;

pub mod memory;

pub mod conformance;

use async_trait::async_trait;
use saga_defs::{Command, Outcome, Timestamp, Verb};
use sea_orm::DbErr;
use serde_json::Value;

pub use db::Transaction;
pub use external::{ExternalHandler, ExternalOptions};
pub use handler::Handler;
pub use memory::InMemory;
pub use serve::{Options, serve};
pub use transactional::TransactionalHandler;

/// Why a participant could not do its work now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inbox's database failed.
    #[error("the inbox's database failed")]
    Db(#[from] db::Error),
}

impl Error {
    /// Whether the same call may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // A transaction whose task ended without an answer broke on a command, as on a panic in its effect: the inbox
            // knows what became of it, and waiting alone would never end.
            Self::Db(db::Error::Unknown) => false,
            Self::Db(error) => error.is_transient(),
        }
    }

    /// Whether it waited too long for what others hold: less at a time holds up less.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        match self {
            Self::Db(error) => error.is_blocked(),
        }
    }
}

/// A participant whose effects are rows of its own database: a slice of commands in one transaction.
#[async_trait]
pub trait Transactional: Send + Sync + 'static {
    /// The participant's name: its queue, and the mark on its inbox rows.
    fn name(&self) -> &'static str;

    /// Whether an executed effect can be undone. If not, `compensate` is only a fence.
    fn undoable(&self) -> bool;

    /// Locks every row of the owner that any of `commands` may change and that other effects change too, in one order
    /// that all participants of the owner share. Called once per transaction, with the whole batch, when the inbox rows
    /// that are there are locked, if they were looked for, and nothing is done yet: who waits for a lock then holds only what comes before it, so
    /// no two transactions wait for each other. Needed where an effect touches rows that are not its own; by default,
    /// nothing.
    ///
    /// # Errors
    /// As for [`Transactional::execute`].
    async fn lock(&self, tx: &Transaction, commands: &[&Command]) -> Result<(), DbErr> {
        let _ = (tx, commands);
        Ok(())
    }

    /// Makes the effects; one outcome per command, in order, `Succeeded` or `Refused` (stored for ever) or `Retry`
    /// (stores nothing, so the command must have changed nothing). A refusal must come from conditional SQL, never
    /// from a raised constraint. Another instance may be making the same effect at the same time: what is done here then
    /// is rolled back, whatever it came to, so nothing may be done outside of `tx`. The same goes for an effect that was made
    /// before, when a first attempt comes twice.
    ///
    /// # Errors
    /// When the database failed; the whole transaction is rolled back and every command stays unknown.
    async fn execute(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr>;

    /// Undoes executed effects; called only where [`Transactional::undoable`]; same rules.
    ///
    /// # Errors
    /// As for [`Transactional::execute`].
    async fn undo(&self, tx: &Transaction, now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr>;
}

/// An effect at a provider.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The `execute` command that asked for it. Once executed its payload is null, also when undoing: a payload may
    /// hold personal data, so an undo works from `output` and `provider_ref`.
    pub command: Command,
    /// What the provider dedupes on: `<key>:<verb>`.
    pub provider_key: String,
    /// What a former call noted about the provider's object, if one did: see [`Verdict::Unknown`].
    pub provider_ref: Option<String>,
    /// The output of the executed effect, when undoing one.
    pub output: Option<Value>,
    /// Whether a former run may have begun this call and never told what came of it.
    pub interrupted: bool,
    /// Whether an `execute` is no longer wanted: its undo was asked for while it was open. Where the provider can still be kept
    /// from making the effect, keep it from that, and refuse with [`FENCED`](saga_defs::message::FENCED).
    pub unwanted: bool,
}

/// What a call to a provider taught.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// `Succeeded` or `Refused`: known for ever.
    Definite(Outcome),
    /// Nothing definite: the call is repeated later with the same provider key.
    Unknown {
        /// Not earlier than this.
        retry_after_ms: u64,
        /// The provider's object, to be kept for the next call.
        provider_ref: Option<String>,
    },
}

/// An effect whose fate is known, about to be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Definite<'a> {
    /// The effect, as the provider was asked for it.
    pub effect: &'a Effect,
    /// What the provider was asked to do.
    pub verb: Verb,
    /// What came of it: `Succeeded` or `Refused`.
    pub outcome: &'a Outcome,
}

/// A participant whose effects happen at a provider, outside every transaction.
#[async_trait]
pub trait External: Send + Sync + 'static {
    /// The participant's name.
    fn name(&self) -> &'static str;

    /// Whether an executed effect can be undone. If not, `compensate` is only a fence.
    fn undoable(&self) -> bool;

    /// Makes the effect at the provider. Limited in time by itself. Never dropped half-way while the process lives.
    async fn execute(&self, effect: &Effect) -> Verdict;

    /// Undoes an executed effect at the provider; same rules.
    async fn undo(&self, effect: &Effect) -> Verdict;

    /// Writes the owner's rows for definite verdicts, in the transaction that records them: those of a slice, in the
    /// order in which they came. The inbox rows of the whole slice are locked, so a row that belongs to one effect
    /// alone can be written without more ado; rows that effects share must be locked here first, in one order. One
    /// verdict that can't be written fails the slice, and is told from the others by halving.
    ///
    /// # Errors
    /// When the database failed; the verdicts are recorded again later.
    async fn record(&self, tx: &Transaction, now: Timestamp, verdicts: &[Definite<'_>]) -> Result<(), DbErr>;
}

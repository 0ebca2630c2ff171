//! Dead letters as they are kept: waiting for a person, sent again, or thrown away.
//!
//! Not for reading them: the store never looks into an item. Must hold: `Debug` shows no item, because it may hold
//! personal data; a letter that a person has settled and whose item dies again waits again.

use std::fmt;

use saga_defs::Timestamp;
use saga_defs::dead_letter::{Encoding, Reason};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::OutboxMessage;

/// Where a dead letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// For a person.
    Waiting,
    /// Sent again.
    Replayed,
    /// Thrown away.
    Discarded,
}

/// Who settled a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// As in history: `admin:NAME`.
    pub by: String,
    /// In their words.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A dead letter without its item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterSummary {
    /// The same whenever the same item dies in the same queue.
    pub id: Uuid,
    /// Name of the queue that the item was in.
    pub queue: String,
    /// Why it died.
    pub reason: Reason,
    /// The same for a person.
    pub detail: String,
    /// When it died.
    pub at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// How long the item was, where only its beginning was kept.
    pub bytes: Option<u64>,
    /// Where it stands.
    pub state: LetterState,
    /// Who settled it last. A waiting letter that has this died again afterwards.
    pub settled: Option<Settled>,
}

/// A dead letter with its item. `Debug` leaves the item out.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptLetter {
    /// All but the item.
    pub summary: LetterSummary,
    /// How the item stands in `body`.
    pub encoding: Encoding,
    /// The item.
    pub body: String,
}

impl fmt::Debug for KeptLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptLetter({})", self.summary.id)
    }
}

/// Which dead letters a list holds.
#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    /// Only those that stand there.
    pub state: Option<LetterState>,
    /// Only those that died of this.
    pub reason: Option<Reason>,
    /// Only those of the queue with this name.
    pub queue: Option<String>,
    /// Only older than this one: where the last page ended.
    pub before: Option<(Timestamp, Uuid)>,
}

/// How a person settles a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settling {
    /// It is sent again: as this message, or by other means that have come to their end already.
    Replay(Option<OutboxMessage>),
    /// It is thrown away.
    Discard,
}

impl Settling {
    /// Where the letter stands afterwards.
    #[must_use]
    pub fn state(&self) -> LetterState {
        match self {
            Self::Replay(_) => LetterState::Replayed,
            Self::Discard => LetterState::Discarded,
        }
    }
}

/// A person's decision on a waiting letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// What is to become of it.
    pub how: Settling,
    /// As in history: `admin:NAME`.
    pub by: String,
    /// In their words.
    pub reason: String,
}

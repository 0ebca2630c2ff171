//! The messages between the engine and its participants: a JSON object, or an array of them for a batch.
//!
//! Not for transport headers: nothing is decided from those. Must hold: a message that this build writes can be
//! read by it; unknown fields are ignored so that a newer sender can add some; a foreign `v` is an error.
//! See `docs/participants.md`.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::{Timestamp, json};

mod reading;

pub use reading::{decode, items, read};

/// Version of the message format written by this build.
pub const VERSION: u16 = 1;
/// Most items one message may carry; longer arrays are not read at all.
pub const BATCH_ITEMS_MAX: usize = 256;
/// Most bytes one message body may have.
pub const BATCH_BYTES_MAX: usize = 128 * 1024;
/// Longer bodies are not read at all.
pub const BODY_BYTES_MAX: usize = 512 * 1024;

/// The two things a participant understands about an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Make the effect.
    Execute,
    /// Undo the effect, or make sure that it never happens.
    Compensate,
}

impl Verb {
    /// The verb's name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Compensate => "compensate",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Asks a participant for one verb on one effect. `Debug` leaves the payload out: it may hold personal data.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Format version, [`VERSION`].
    pub v: u16,
    /// Id of this attempt: [`crate::ids::command_id`].
    pub command_id: Uuid,
    /// Idempotency key of the effect: [`crate::ids::effect_key`].
    pub key: Uuid,
    /// The saga that asks.
    pub saga_id: Uuid,
    /// The saga's tenant.
    pub tenant: String,
    /// `name@version` of the saga's definition.
    pub definition: String,
    /// Step of the definition.
    pub step: String,
    /// Participant that is asked.
    pub participant: String,
    /// What is asked.
    pub verb: Verb,
    /// The command's business name, such as `booking.reserve`.
    pub command: String,
    /// 1 for the first attempt of this verb.
    pub attempt: u32,
    /// When the first command of this effect was sent.
    pub first_sent_at: Timestamp,
    /// The participant keeps its inbox row at least until here; the engine sends nothing later.
    pub dedupe_until: Timestamp,
    /// When the engine stops waiting for this attempt.
    pub deadline: Timestamp,
    /// Business payload. Empty for a compensation: the participant knows its effect by the key.
    pub payload: Value,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("command", &self.command)
            .field("verb", &self.verb)
            .field("attempt", &self.attempt)
            .field("key", &self.key)
            .field("saga_id", &self.saga_id)
            .finish_non_exhaustive()
    }
}

/// A participant's answer to one command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Format version, [`VERSION`].
    pub v: u16,
    /// The command that is answered.
    pub command_id: Uuid,
    /// The effect's key, echoed.
    pub key: Uuid,
    /// The saga, echoed: the key alone does not lead back to it.
    pub saga_id: Uuid,
    /// The verb, echoed.
    pub verb: Verb,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a command. `Debug` leaves bodies out.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// Done, now or earlier. The output is written to history: it must not hold personal data.
    Succeeded {
        /// What later steps may refer to.
        #[serde(default)]
        output: Value,
    },
    /// Definitely not done, for ever.
    Refused {
        /// Stable machine word, such as `slot_taken`.
        code: String,
        /// A sentence for a person; no personal data.
        #[serde(default)]
        message: String,
    },
    /// Not now. Says nothing about the effect.
    Retry {
        /// Ask again no earlier than this many milliseconds from now.
        #[serde(default)]
        after_ms: u64,
    },
}

/// Refusal of an `execute` whose effect was compensated or fenced before.
pub const FENCED: &str = "fenced";
/// Refusal of a `compensate` on an effect that stands and can't be undone.
pub const ALREADY_EXECUTED: &str = "already_executed";
/// Refusal of a command whose payload differs from the first one with the same key.
pub const CONTRACT_VIOLATION: &str = "contract_violation";
/// Member of a compensation's output: true when there was nothing to undo and a tombstone stands instead.
pub const NOTHING_TO_UNDO: &str = "nothing_to_undo";

impl Outcome {
    /// A success with this output.
    #[must_use]
    pub fn succeeded(output: Value) -> Self {
        Self::Succeeded { output }
    }

    /// A refusal with this code and sentence.
    #[must_use]
    pub fn refused(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { code: code.into(), message: message.into() }
    }

    /// The word used on the wire and as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Refused { .. } => "refused",
            Self::Retry { .. } => "retry",
        }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded { .. } => f.write_str("Succeeded"),
            Self::Refused { code, .. } => write!(f, "Refused({code})"),
            Self::Retry { after_ms } => write!(f, "Retry({after_ms} ms)"),
        }
    }
}

impl Command {
    /// The reply to this command with `outcome`.
    #[must_use]
    pub fn reply(&self, outcome: Outcome) -> Reply {
        Reply {
            v: VERSION,
            command_id: self.command_id,
            key: self.key,
            saga_id: self.saga_id,
            verb: self.verb,
            outcome,
        }
    }
}

/// A message that may stand alone or in a batch; every one begins with its format version `v`.
pub trait Item: Serialize + DeserializeOwned {
    /// How deep arrays and objects may be nested, the item itself included: what stands in it may be as deep as what
    /// clients send.
    const DEPTH_MAX: usize = 1 + json::DEPTH_MAX;

    /// The item's format version.
    fn version(&self) -> u16;
}

impl Item for Command {
    /// A payload is a template in which inputs and outputs stand, each as deep as it may be.
    const DEPTH_MAX: usize = 1 + 2 * json::DEPTH_MAX;

    fn version(&self) -> u16 {
        self.v
    }
}

impl Item for Reply {
    fn version(&self) -> u16 {
        self.v
    }
}

/// Room for a message, so that writing nearly any of them takes one allocation.
const ITEM_BYTES_USUAL: usize = 1_024;

/// Writes items as message bodies: one object when alone, else arrays within the batch limits.
#[must_use]
pub fn encode<T: Item>(items: &[T]) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut batch: Vec<String> = Vec::new();
    let mut bytes = 2;
    for item in items {
        let text = write(item);
        if !batch.is_empty() && (batch.len() == BATCH_ITEMS_MAX || bytes + text.len() + 1 > BATCH_BYTES_MAX) {
            bodies.push(join(&mut batch));
            bytes = 2;
        }
        bytes += text.len() + 1;
        batch.push(text);
    }
    if !batch.is_empty() {
        bodies.push(join(&mut batch));
    }
    bodies
}

fn write<T: Item>(item: &T) -> String {
    let mut text = Vec::with_capacity(ITEM_BYTES_USUAL);
    serde_json::to_writer(&mut text, item).expect("messages have string keys and no failing serializers");
    String::from_utf8(text).expect("JSON is written as UTF-8")
}

fn join(batch: &mut Vec<String>) -> String {
    let body = if batch.len() == 1 { batch.remove(0) } else { format!("[{}]", batch.join(",")) };
    batch.clear();
    body
}

/// The saga that a body written by [`encode`] is about, or the first of several: for traces. Reads no more than it must,
/// and nothing may be decided from it.
#[must_use]
pub fn about(body: &str) -> Option<Uuid> {
    const MARK: &str = r#""saga_id":""#;
    let start = body.find(MARK)? + MARK.len();
    Uuid::try_parse(body.get(start..start + 36)?).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn reply(n: u128) -> Reply {
        let id = Uuid::from_u128(n);
        Reply {
            v: VERSION,
            command_id: id,
            key: id,
            saga_id: id,
            verb: Verb::Execute,
            outcome: Outcome::Retry { after_ms: 5 },
        }
    }

    #[test]
    fn a_body_tells_what_it_is_about() {
        assert_eq!(about(&encode(&[reply(7), reply(8)])[0]), Some(Uuid::from_u128(7)));
        for silent in ["", "[]", r#"{"saga_id":"short"}"#, r#"{"saga_id":"""#] {
            assert_eq!(about(silent), None, "{silent}");
        }
    }

    #[test]
    fn one_is_an_object_many_are_arrays_within_limits() {
        assert!(encode(&[reply(1)])[0].starts_with('{'));
        let many: Vec<Reply> = (0..600).map(reply).collect();
        let bodies = encode(&many);
        assert_eq!(bodies.len(), 3);
        let back: Vec<Reply> =
            bodies.iter().flat_map(|body| decode::<Reply>(body.as_bytes()).unwrap()).map(Result::unwrap).collect();
        assert_eq!(back, many);
        assert!(bodies.iter().all(|body| body.len() <= BATCH_BYTES_MAX));
    }

    #[test]
    fn debug_shows_no_payload() {
        let text = format!("{:?}", Outcome::succeeded(json!({"phone": "+15005550006"})));
        assert!(!text.contains("+1500"));
    }
}

//! Ids derived from what they name, so that every retry, relay and restart says the same id again.
//!
//! Must hold: an equal id means an equal thing. Effect keys are equal on every attempt; command ids are
//! equal exactly for the same (key, verb, attempt). See `docs/architecture.md`, "Identity".

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::message::Verb;

/// Namespace of every id derived here.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b0f_9a52_31c4_5a6e_9d0e_b00c_e4d0_0001);

fn derive(parts: &[&[u8]]) -> Uuid {
    // An effect's or a command's parts are 66 bytes and more, with their lengths.
    let mut name = Vec::with_capacity(128);
    for part in parts {
        // Length first, so that ("a", "bc") and ("ab", "c") differ.
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

/// The idempotency key of one effect: the same for both verbs and for every attempt.
#[must_use]
pub fn effect_key(saga_id: Uuid, step: &str, generation: u32) -> Uuid {
    derive(&[b"effect", saga_id.as_bytes(), step.as_bytes(), &generation.to_be_bytes()])
}

/// The id of one command: one attempt of one verb on one effect.
#[must_use]
pub fn command_id(key: Uuid, verb: Verb, attempt: u32) -> Uuid {
    derive(&[b"command", key.as_bytes(), verb.as_str().as_bytes(), &attempt.to_be_bytes()])
}

/// The id of an admin's or client's operation on a saga, so that repeating the request repeats the answer.
#[must_use]
pub fn operation_id(saga_id: Uuid, principal: &str, idempotency_key: &str) -> Uuid {
    derive(&[b"operation", saga_id.as_bytes(), principal.as_bytes(), idempotency_key.as_bytes()])
}

/// The id of a dead letter: an item of a queue, by what is kept of it and how long it was if that is less.
#[must_use]
pub fn dead_letter_id(queue: &str, body: &str, bytes: Option<u64>) -> Uuid {
    let length = bytes.unwrap_or(0).to_be_bytes();
    derive(&[b"dead_letter", queue.as_bytes(), body.as_bytes(), &length])
}

/// What a document is recognized by: SHA-256 of its JSON with sorted members, in hex.
#[must_use]
pub fn digest(document: &Value) -> String {
    hex::encode(Sha256::digest(document.to_string()))
}

/// What a provider dedupes on: one string per effect and verb.
#[must_use]
pub fn provider_key(key: Uuid, verb: Verb) -> String {
    format!("{key}:{verb}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_separate_what_differs_and_join_what_is_equal() {
        let saga = Uuid::from_u128(7);
        let key = effect_key(saga, "payment", 0);
        assert_eq!(key, effect_key(saga, "payment", 0));
        assert_ne!(key, effect_key(saga, "payment", 1));
        assert_ne!(key, effect_key(saga, "booking", 0));
        let first = command_id(key, Verb::Execute, 1);
        assert_ne!(first, command_id(key, Verb::Execute, 2));
        assert_ne!(first, command_id(key, Verb::Compensate, 1));
    }

    #[test]
    fn the_digest_ignores_the_order_of_members_and_nothing_else() {
        let one: Value = serde_json::from_str(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#).unwrap();
        assert_eq!(digest(&one), digest(&two));
        assert_ne!(digest(&one), digest(&json!({"a": 1})));
        assert_ne!(digest(&json!({"a": 1})), digest(&json!({"a": "1"})));
    }

    /// Ids are written in databases: changing how they are derived would strand every open saga.
    #[test]
    fn derivation_is_frozen() {
        let key = effect_key(Uuid::from_u128(7), "payment", 0);
        assert_eq!(key.to_string(), "5d84f551-2986-5224-bb6e-ace71bab6900");
        let letter = dead_letter_id("bookend.replies", "{", None);
        assert_eq!(letter.to_string(), "4e61504b-f982-56a5-845c-3978d75589ac");
        assert_eq!(digest(&json!({})), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    }
}

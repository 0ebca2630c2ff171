//! A message, or one item of a batch, that nobody could handle: kept whole, for a person to look at.
//!
//! On the wire it is the body of a message to the queue of dead letters; anybody may put one there. Not for deciding
//! what becomes of it. Must hold: the item is kept byte for byte, up to [`ITEM_BYTES_MAX`]; equal items of one queue
//! have equal ids, so that one set aside twice is there once; `detail` tells nothing of what the item says, and
//! `Debug` shows no item: it may hold personal data.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::{BATCH_ITEMS_MAX, VERSION};
use crate::{Error, Timestamp, ids};

/// Most bytes that are kept of an item; of a longer one the beginning is.
pub const ITEM_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a dead letter that are read at all: an item, each byte escaped.
pub const LETTER_BYTES_MAX: usize = 6 * ITEM_BYTES_MAX + 64 * 1024;
/// Longest name of a queue.
const QUEUE_CHARS_MAX: usize = 255;
/// Longest detail.
const DETAIL_CHARS_MAX: usize = 500;

/// Why an item is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not JSON, not of the expected shape, or of what can't be stored and read again.
    BadJson,
    /// Of a format version that its consumer does not know.
    UnknownVersion,
    /// A command in the queue of another participant.
    WrongParticipant,
    /// Understood, and against the contract in a way that no reply can tell.
    ContractViolation,
    /// Longer than anybody reads, or of more items.
    Oversized,
    /// Understood, and handling it failed again and again.
    Failed,
    /// Rejected by its consumer, says the broker.
    Rejected,
    /// Delivered too often without an acknowledgement, says the broker.
    DeliveryLimit,
    /// Too old, says the broker.
    Expired,
    /// Its queue was too long, says the broker.
    Maxlen,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::BadJson,
        Self::UnknownVersion,
        Self::WrongParticipant,
        Self::ContractViolation,
        Self::Oversized,
        Self::Failed,
        Self::Rejected,
        Self::DeliveryLimit,
        Self::Expired,
        Self::Maxlen,
    ];

    /// The word on the wire, in the database and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::UnknownVersion => "unknown_version",
            Self::WrongParticipant => "wrong_participant",
            Self::ContractViolation => "contract_violation",
            Self::Oversized => "oversized",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::DeliveryLimit => "delivery_limit",
            Self::Expired => "expired",
            Self::Maxlen => "maxlen",
        }
    }

    /// What a broker's word means; an unknown word says no more than that the message was turned down.
    #[must_use]
    pub fn of_broker(word: &str) -> Self {
        let known = [Self::DeliveryLimit, Self::Expired, Self::Maxlen];
        known.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Rejected)
    }
}

/// How the item stands in `body`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it is.
    #[default]
    Utf8,
    /// It is no text, or one that a database does not take.
    Base64,
}

impl Encoding {
    /// What `body` stands for.
    ///
    /// # Errors
    /// When it is not what this encoding says.
    pub fn bytes(self, body: &str) -> Result<Vec<u8>, Error> {
        match self {
            Self::Utf8 => Ok(body.as_bytes().to_vec()),
            Self::Base64 => BASE64.decode(body).map_err(Error::Base64),
        }
    }
}

/// An item that was set aside.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Format version, [`VERSION`].
    pub v: u16,
    /// Name of the queue that the item was in.
    pub queue: String,
    /// Why it is here.
    pub reason: Reason,
    /// The same for a person; nothing of what the item says.
    #[serde(default)]
    pub detail: String,
    /// When it was set aside; whoever keeps it says so where the sender did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// How often it was tried.
    #[serde(default)]
    pub attempts: u32,
    /// How the item stands in `body`.
    #[serde(default)]
    pub encoding: Encoding,
    /// The item.
    pub body: String,
    /// How long the item was, where `body` holds only its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadLetter({} of {})", self.reason.as_str(), self.queue)
    }
}

impl DeadLetter {
    /// The dead letter of `item`, which was in `queue`.
    #[must_use]
    pub fn new(queue: &str, reason: Reason, item: &[u8]) -> Self {
        let (encoding, body, cut) = keep(item);
        Self {
            v: VERSION,
            queue: clip(queue, QUEUE_CHARS_MAX),
            reason,
            detail: String::new(),
            at: None,
            attempts: 0,
            encoding,
            body,
            bytes: cut.then_some(item.len() as u64),
        }
    }

    /// The dead letter of an item that could not be read.
    #[must_use]
    pub fn unreadable(queue: &str, error: &Error, item: &[u8]) -> Self {
        let (reason, detail) = explain(error);
        Self::new(queue, reason, item).saying(&detail)
    }

    /// The same letter with this detail, which must tell nothing of what the item says.
    #[must_use]
    pub fn saying(self, detail: &str) -> Self {
        Self { detail: clip(detail, DETAIL_CHARS_MAX), ..self }
    }

    /// The same letter after so many attempts.
    #[must_use]
    pub fn after(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// Names the item among those of its queue.
    #[must_use]
    pub fn id(&self) -> Uuid {
        ids::dead_letter_id(&self.queue, &self.body, self.bytes)
    }

    /// Whether only the item's beginning was kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.bytes.is_some()
    }

    /// The item's bytes, or as many as were kept.
    ///
    /// # Errors
    /// When the body is not what its encoding says.
    pub fn item(&self) -> Result<Vec<u8>, Error> {
        self.encoding.bytes(&self.body)
    }

    /// Writes a message body.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("dead letters have string keys and no failing serializers")
    }

    /// Reads a message body, whoever wrote it, into a letter that any store can keep.
    ///
    /// # Errors
    /// When it is too long or no dead letter of this version.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        if body.len() > LETTER_BYTES_MAX {
            return Err(Error::Oversized(body.len()));
        }
        let said: Self = serde_json::from_slice(body).map_err(Error::Json)?;
        if said.v != VERSION {
            return Err(Error::Version(said.v));
        }
        let kept = Self::new(&said.queue, said.reason, &said.item()?).saying(&said.detail).after(said.attempts);
        Ok(Self { at: said.at, bytes: said.bytes.or(kept.bytes), ..kept })
    }
}

/// What is kept of an item, and whether that is less than all of it.
fn keep(item: &[u8]) -> (Encoding, String, bool) {
    let cut = item.len() > ITEM_BYTES_MAX;
    match std::str::from_utf8(item) {
        // PostgreSQL has no text with U+0000.
        Ok(text) if !text.contains('\0') => {
            (Encoding::Utf8, text[..text.floor_char_boundary(ITEM_BYTES_MAX)].to_owned(), cut)
        }
        Ok(_) | Err(_) => (Encoding::Base64, BASE64.encode(&item[..item.len().min(ITEM_BYTES_MAX)]), cut),
    }
}

fn clip(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|letter| if letter == '\0' { '\u{fffd}' } else { letter }).collect()
}

/// Why an item can't be read, without a word of what it says.
#[must_use]
pub fn explain(error: &Error) -> (Reason, String) {
    match error {
        Error::Json(error) => (Reason::BadJson, misfit(error)),
        Error::Version(version) => {
            (Reason::UnknownVersion, format!("its format version is {version}, known is {VERSION}"))
        }
        Error::Oversized(bytes) => (Reason::Oversized, format!("it is {bytes} bytes long")),
        Error::Items(count) => {
            (Reason::Oversized, format!("it holds {count} items, at most {BATCH_ITEMS_MAX} are read"))
        }
        Error::Flaw(flaw) => (Reason::BadJson, flaw.to_string()),
        Error::Base64(_) => (Reason::BadJson, "its body is not base64".to_owned()),
        Error::Toml(_) | Error::Rules(_) | Error::Duplicate(_) => {
            (Reason::ContractViolation, "it is no message".to_owned())
        }
    }
}

/// A parser's words repeat values; only what it says about a missing member does not.
fn misfit(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    match (missing, error.is_data()) {
        (Some((member, _)), _) => format!("the member `{member}` is missing"),
        (None, true) => format!("JSON of another shape: {place}"),
        (None, false) => format!("not JSON: {place}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_item_comes_back_byte_for_byte() {
        let items: [&[u8]; 5] = [b"", b"{not JSON", "na\u{ef}ve".as_bytes(), b"\xff\x00\xfe", b"nul \0 in text"];
        for item in items {
            let letter = DeadLetter::new("bookend.payment", Reason::BadJson, item).saying("a test").after(3);
            let back = DeadLetter::decode(letter.encode().as_bytes()).unwrap();
            assert_eq!((&back, back.item().unwrap().as_slice()), (&letter, item));
            assert!(!back.is_cut() && !back.body.contains('\0'));
        }
    }

    #[test]
    fn a_long_item_is_cut_between_letters_and_says_so() {
        let long = "\u{e4}".repeat(ITEM_BYTES_MAX / 2 + 1) + "x";
        for item in [long.as_bytes(), &long.as_bytes()[1..]] {
            let letter = DeadLetter::new("q", Reason::Oversized, item);
            let kept = letter.item().unwrap();
            assert!(letter.is_cut() && kept.len() <= ITEM_BYTES_MAX && item.starts_with(&kept));
            assert_eq!(letter.bytes, Some(item.len() as u64));
            let back = DeadLetter::decode(letter.encode().as_bytes()).unwrap();
            assert_eq!((back.id(), back), (letter.id(), letter));
        }
    }

    #[test]
    fn an_id_names_an_item_of_a_queue() {
        let letter = |queue: &str, item: &str| DeadLetter::new(queue, Reason::BadJson, item.as_bytes());
        let id = letter("a", "x").id();
        let again = letter("a", "x").saying("another detail").after(9);
        assert_eq!((id, id), (again.id(), DeadLetter { reason: Reason::Failed, ..again }.id()));
        assert!([letter("b", "x"), letter("a", "y")].iter().all(|other| other.id() != id));
    }

    #[test]
    fn a_stranger_needs_four_members_and_can_harm_nobody() {
        let least = json!({"v": 1, "queue": "q\0", "reason": "failed", "body": "a\0b", "more": true});
        let letter = DeadLetter::decode(least.to_string().as_bytes()).unwrap();
        assert_eq!((letter.queue.as_str(), letter.encoding), ("q\u{fffd}", Encoding::Base64));
        assert_eq!(letter.item().unwrap(), b"a\0b");
        let long = json!({"v": 1, "queue": "q".repeat(999), "reason": "failed", "body": "", "detail": "d".repeat(999)});
        let letter = DeadLetter::decode(long.to_string().as_bytes()).unwrap();
        assert_eq!((letter.queue.len(), letter.detail.len()), (QUEUE_CHARS_MAX, DETAIL_CHARS_MAX));
        let with = |name: &str, value: serde_json::Value| {
            let mut letter = least.clone();
            letter[name] = value;
            DeadLetter::decode(letter.to_string().as_bytes())
        };
        assert!(matches!(with("v", json!(2)), Err(Error::Version(2))));
        assert!(matches!(with("reason", json!("bored")), Err(Error::Json(_))));
        assert!(matches!(with("encoding", json!("base64")), Err(Error::Base64(_))));
        assert!(matches!(DeadLetter::decode(&vec![b' '; LETTER_BYTES_MAX + 1]), Err(Error::Oversized(_))));
    }

    #[test]
    fn neither_detail_nor_debug_tell_what_the_item_says() {
        let item = br#"{"v": 1, "command_id": "Ada Lovelace"}"#;
        let error = crate::message::read::<crate::Command>(std::str::from_utf8(item).unwrap()).unwrap_err();
        let letter = DeadLetter::unreadable("q", &error, item);
        assert!(!format!("{letter:?} {}", letter.detail).contains("Ada"), "{}", letter.detail);
        let error = crate::message::read::<crate::Command>("{\"v\": 1}").unwrap_err();
        assert_eq!(DeadLetter::unreadable("q", &error, b"").detail, "the member `command_id` is missing");
    }

    /// The words lie in databases, messages and metrics.
    #[test]
    fn every_reason_has_one_word() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(Reason::of_broker("delivery_limit"), Reason::DeliveryLimit);
        assert_eq!(Reason::of_broker("whatever"), Reason::Rejected);
    }
}

//! What every part of Bookend agrees on: saga definitions, the messages on the wire, and the ids in them.
//!
//! Pure: no IO, no clock, no randomness, no async. Time enters as [`Timestamp`], ids are derived.
//! Not for the state of a running saga (`saga-core`) and not for moving messages (`transport`).

pub mod time;

pub mod ids;

pub mod json;

pub mod message;

pub mod ended;

pub mod dead_letter;

pub mod template;

pub mod schema;

pub mod definition;

pub mod check;

pub mod catalog;

pub mod contract;

pub use dead_letter::DeadLetter;
pub use definition::{Definition, Kind, Retry, Step};
pub use ended::Ended;
pub use message::{Command, Outcome, Reply, Verb};
pub use time::Timestamp;

/// Why a definition or a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not TOML of the definition's shape.
    #[error("the definition is not valid TOML of the expected shape")]
    Toml(#[source] toml::de::Error),
    /// The text is not JSON of the expected shape.
    #[error("the text is not valid JSON of the expected shape")]
    Json(#[source] serde_json::Error),
    /// The definition breaks structural rules; every broken rule is listed.
    #[error("the definition breaks {} rule(s): {}", .0.len(), check::join(.0))]
    Rules(Vec<check::Broken>),
    /// A stored or sent text has a version this build does not know.
    #[error("message version {0} is not known to this build")]
    Version(u16),
    /// A message body is longer than is read.
    #[error("the message body is {0} bytes long, which is too much")]
    Oversized(usize),
    /// A message is an array of more items than are read.
    #[error("the message holds {0} items, which is too many")]
    Items(usize),
    /// A message holds what can't be stored or not be read again.
    #[error("the message can't be kept: {0}")]
    Flaw(json::Flaw),
    /// A text that should be base64 is not.
    #[error("the text is not base64")]
    Base64(#[source] base64::DecodeError),
    /// Another content stands under the same name and version.
    #[error("{0} is there already with another content, and a version never changes")]
    Duplicate(String),
}

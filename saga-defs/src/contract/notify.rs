//! Participant `notify`: tells the patient, by SMS where that works and by mail where it does not.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Patient;
use crate::Timestamp;

/// The participant's name.
pub const NAME: &str = "notify";
/// The command that it executes.
pub const SEND: &str = "notify.send";
/// Both providers refused the message for good: the patient can be told neither by SMS nor by mail.
pub const UNDELIVERABLE: &str = "undeliverable";

/// Payload of `notify.send`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Whom to tell.
    pub patient: Patient,
    /// About which appointment.
    pub appointment_id: Uuid,
    /// When it begins.
    pub starts_at: Timestamp,
}

/// How a notice went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Text message.
    Sms,
    /// Mail, when the SMS provider can't be used.
    Mail,
}

impl Channel {
    /// The channel's name on the wire and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Mail => "mail",
        }
    }
}

/// Output of `notify.send`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The channel that accepted it.
    pub channel: Channel,
    /// The provider's id of the message.
    pub provider_ref: String,
}

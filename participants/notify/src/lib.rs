//! Tells patients about their appointments: the participant `notify`, and the owner of the list of notices.
//!
//! Not for deciding whether a booking stands: by the time of a notice it does. Must hold: a patient is told at least
//! once, by SMS where that works and by mail where it does not, or a person hears that both providers refused; no phone
//! number, mail address or name is stored, logged or shown by `Debug`.
//!
//! A patient may be told twice: an SMS that was sent but never acknowledged counts as unknown, and the mail goes out
//! as well. Each such switch is counted in `bookend_notify_switch_after_unknown_total`.

mod endpoint;

mod sms;

mod mail;

mod fates;

mod participant;

mod notices;

mod notices_sql;

pub mod query;

pub mod http;

use serde::Deserialize;

use crate::fates::Fate;

pub use participant::Notify;

/// Why a message did not go out for sure, or the notices could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
    /// There was no connection: nothing was sent.
    #[error("the provider is out of reach")]
    Unreachable(#[source] reqwest::Error),
    /// The provider is down or overloaded and says so, or takes nothing from this sender: nothing was sent.
    #[error("the provider takes no messages now, it answered with status {0}")]
    Down(u16),
    /// The provider refused this one message, and will again: nothing was sent.
    #[error("the provider refused the message with status {0}")]
    Rejected(u16),
    /// The circuit breaker is open: nothing was tried.
    #[error("the circuit breaker is open")]
    BreakerOpen,
    /// No answer came, or half of one: the message may have gone out.
    #[error("the provider did not answer")]
    Unanswered(#[source] reqwest::Error),
    /// The call was given up: the message may have gone out.
    #[error("the call to the provider was given up")]
    TimedOut,
    /// The answer leaves open whether the message went out.
    #[error("the provider answered with status {0}, which leaves the message unknown")]
    Status(u16),
    /// The notice database failed.
    #[error("the notice database failed")]
    Database(#[source] db::Error),
}

impl Error {
    /// What it says of the message.
    fn fate(&self) -> Fate {
        match self {
            Self::Client(_) | Self::Unreachable(_) | Self::Down(_) | Self::BreakerOpen | Self::Database(_) => {
                Fate::Unsent
            }
            Self::Unanswered(_) | Self::TimedOut | Self::Status(_) => Fate::Unknown,
            Self::Rejected(_) => Fate::Refused,
        }
    }

    /// Whether the provider as a whole is in trouble, rather than this one message.
    fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Down(_) | Self::Unanswered(_) | Self::TimedOut | Self::Status(_) => true,
            Self::Client(_) | Self::Rejected(_) | Self::BreakerOpen | Self::Database(_) => false,
        }
    }
}

/// Where the providers are, how long to wait for them, and when to leave the SMS provider alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Base address of the SMS provider, such as `http://127.0.0.1:7890`.
    pub sms_url: String,
    /// Base address of the mail provider.
    pub mail_url: String,
    /// Longest wait for one answer; one notice asks at most twice.
    pub timeout_ms: u64,
    /// The circuit breaker in front of the SMS provider.
    pub breaker: BreakerOptions,
}

/// When the circuit breaker opens, and for how long.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerOptions {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before it lets one probe through.
    pub open_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        let providers = "http://127.0.0.1:7890".to_owned();
        Self { sms_url: providers.clone(), mail_url: providers, timeout_ms: 5_000, breaker: BreakerOptions::default() }
    }
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, open_ms: 10_000 }
    }
}

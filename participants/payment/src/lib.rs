//! Charges cards and refunds them: the participant `payment`, and the owner of the payment ledger.
//!
//! Not for appointments or prices: what to charge comes with the command. Must hold: money moves at most once per
//! effect and direction, because the gateway dedupes on the effect's key; nothing is called a success or a refusal
//! unless the gateway said so; the ledger is written in the transaction that records the gateway's verdict.

mod gateway;

mod participant;

mod ledger;

mod ledger_sql;

pub mod query;

pub mod http;

use serde::Deserialize;

pub use participant::{Payment, Undone};

/// Why something about payments could not be done. What the gateway definitely said is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
    /// No answer came, or half of one: nothing is known.
    #[error("the gateway did not answer")]
    Unanswered(#[source] reqwest::Error),
    /// The gateway answered something that says nothing about the money.
    #[error("the gateway answered with status {0}, which says nothing about the money")]
    Status(u16),
    /// The gateway's answer lacks what it must have.
    #[error("the gateway's answer has an unknown shape")]
    Shape(#[source] serde_json::Error),
    /// The gateway does not know an intent that it created.
    #[error("the gateway does not know the intent")]
    IntentUnknown,
    /// Neither the effect nor the gateway says how much was charged, so no refund could be checked.
    #[error("it is not known how much was charged")]
    AmountUnknown,
    /// The payment database failed.
    #[error("the payment database failed")]
    Database(#[source] db::Error),
}

/// Where the gateway is and how long to wait for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Base address, such as `http://127.0.0.1:7890`.
    pub gateway_url: String,
    /// Longest wait for one answer; one charge asks at most three times.
    pub timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { gateway_url: "http://127.0.0.1:7890".to_owned(), timeout_ms: 5_000 }
    }
}

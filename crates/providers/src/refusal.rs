//! The ways in which a simulator says no, as `{code, message}` with the status that real providers use.
//!
//! Not problem+json on purpose: participants must cope with providers' own formats. Must hold: no message repeats
//! what the caller sent.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Longest idempotency key.
const KEY_BYTES_MAX: usize = 255;

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request lacks a usable `Idempotency-Key`.
    KeyRequired,
    /// No such intent.
    IntentUnknown,
    /// The amount can't be charged.
    AmountInvalid,
    /// The idempotency key belongs to an intent of another amount.
    AmountMismatch,
    /// The issuer said no.
    CardDeclined,
    /// The intent was canceled and will never be charged.
    Canceled,
    /// The intent is charged and can only be refunded.
    AlreadyCharged,
    /// The charge is under way.
    Processing,
    /// There is nothing to refund.
    NotCharged,
    /// No message can be sent to this phone or address.
    RecipientInvalid,
    /// The provider is down.
    Down,
    /// The simulator's memory is full.
    Full,
    /// The change could not be written down, so it was not made.
    Unwritable,
    /// The simulator is shutting down.
    Stopping,
    /// The cursor is not one that was handed out.
    CursorInvalid,
}

#[derive(Serialize)]
struct Body {
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::KeyRequired => {
                (StatusCode::BAD_REQUEST, "idempotency_key_required", "send an Idempotency-Key of 1 to 255 bytes")
            }
            Self::IntentUnknown => (StatusCode::NOT_FOUND, "intent_unknown", "there is no such intent"),
            Self::AmountInvalid => {
                (StatusCode::UNPROCESSABLE_ENTITY, "amount_invalid", "the amount must be more than zero")
            }
            Self::AmountMismatch => {
                (StatusCode::UNPROCESSABLE_ENTITY, "amount_mismatch", "the key belongs to an intent of another amount")
            }
            Self::CardDeclined => (StatusCode::PAYMENT_REQUIRED, "card_declined", "the issuer declined the card"),
            Self::Canceled => (StatusCode::CONFLICT, "canceled", "the intent was canceled"),
            Self::AlreadyCharged => (StatusCode::CONFLICT, "already_charged", "the intent is charged; refund it"),
            Self::Processing => (StatusCode::CONFLICT, "processing", "the charge is under way; ask again later"),
            Self::NotCharged => (StatusCode::CONFLICT, "not_charged", "the intent is not charged"),
            Self::RecipientInvalid => {
                (StatusCode::BAD_REQUEST, "recipient_invalid", "no message can be sent to this recipient")
            }
            Self::Down => (StatusCode::SERVICE_UNAVAILABLE, "provider_down", "the provider is down"),
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, "full", "the simulator remembers no more"),
            Self::Unwritable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unwritable", "the simulator can't write its journal")
            }
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "the simulator is shutting down"),
            Self::CursorInvalid => {
                (StatusCode::BAD_REQUEST, "bad_cursor", "send the next_cursor of a former page, or none")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message) = self.parts();
        (status, Json(Body { code, message })).into_response()
    }
}

/// The request's idempotency key.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<String, Refusal> {
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.len() > KEY_BYTES_MAX { Err(Refusal::KeyRequired) } else { Ok(key.to_owned()) }
}

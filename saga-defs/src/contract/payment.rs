//! Participant `payment`: charges a payment method, and refunds.

use serde::{Deserialize, Serialize};

use super::Money;

/// The participant's name.
pub const NAME: &str = "payment";
/// The command that it executes.
pub const CHARGE: &str = "payment.charge";
/// The issuer said no.
pub const CARD_DECLINED: &str = "card_declined";
/// The amount is not one that can be charged, or not the one that the gateway knows for this key.
pub const AMOUNT_MISMATCH: &str = "amount_mismatch";

/// Payload of `payment.charge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// How much; more than zero.
    pub amount: Money,
    /// The gateway's token for the card.
    pub payment_method: String,
}

/// Output of `payment.charge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charged {
    /// The gateway's id of the charge.
    pub charge_id: String,
    /// What was charged.
    pub amount: Money,
}

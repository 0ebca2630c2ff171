//! Payloads and outputs of the participants of this repository, one file each.
//!
//! For participants and their callers only: the engine sees JSON. Must hold: an output holds no personal data,
//! because outputs are written to history, which is never erased.

pub mod booking;
pub mod confirmation;
pub mod notify;
pub mod payment;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::message::CONTRACT_VIOLATION;
use crate::{Command, Outcome};

/// The payload of `command`, which a participant takes if it is the one called `name`.
///
/// # Errors
/// The answer to one that is called otherwise, or whose payload has another shape.
pub fn read<T: DeserializeOwned>(name: &str, command: &Command) -> Result<T, Outcome> {
    let refused = |message: String| Outcome::refused(CONTRACT_VIOLATION, message);
    if command.command != name {
        return Err(refused(format!("the command is not {name}, the only one that this participant executes")));
    }
    T::deserialize(&command.payload).map_err(|_| refused(format!("the payload is not one of {name}")))
}

/// An amount of money in the currency's minor unit, such as cents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Integer minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minor) = (if self.amount_minor < 0 { "-" } else { "" }, self.amount_minor.unsigned_abs());
        write!(f, "{sign}{}.{:02} {}", minor / 100, minor % 100, self.currency)
    }
}

/// Who is treated, and how to reach them. `Debug` prints none of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patient {
    /// Full name.
    pub name: String,
    /// E.164 phone number.
    pub phone: String,
    /// Mail address.
    pub email: String,
}

impl fmt::Debug for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patient(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_told_with_its_sign_once() {
        let told = |amount_minor| Money { amount_minor, currency: "EUR".into() }.to_string();
        assert_eq!(
            [told(4_505), told(-4_550), told(-5), told(0)],
            ["45.05 EUR", "-45.50 EUR", "-0.05 EUR", "0.00 EUR"]
        );
    }
}

//! Participant `confirmation`: makes a held appointment definite. The pivot of the booking saga.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The participant's name.
pub const NAME: &str = "confirmation";
/// The command that it executes.
pub const CONFIRM: &str = "confirmation.confirm";
/// The appointment is no longer held by this saga.
pub const RESERVATION_EXPIRED: &str = "reservation_expired";

/// Payload of `confirmation.confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The appointment that the saga holds.
    pub appointment_id: Uuid,
}

/// Output of `confirmation.confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The confirmed appointment.
    pub appointment_id: Uuid,
}

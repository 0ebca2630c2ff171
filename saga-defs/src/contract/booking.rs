//! Participant `booking`: holds a slot for a saga.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Money, Patient};
use crate::Timestamp;

/// The participant's name.
pub const NAME: &str = "booking";
/// The command that it executes.
pub const RESERVE: &str = "booking.reserve";
/// Another appointment is active on the slot.
pub const SLOT_TAKEN: &str = "slot_taken";
/// There is no such slot.
pub const SLOT_UNKNOWN: &str = "slot_unknown";
/// The slot has begun already.
pub const SLOT_IN_PAST: &str = "slot_in_past";

/// Payload of `booking.reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The slot to hold.
    pub slot_id: Uuid,
    /// For whom.
    pub patient: Patient,
}

/// Output of `booking.reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The pending appointment.
    pub appointment_id: Uuid,
    /// The held slot.
    pub slot_id: Uuid,
    /// When it begins.
    pub starts_at: Timestamp,
    /// What it costs.
    pub price: Money,
}

//! The words of the API: statuses, decisions, causes, kinds, as they stand in bodies and queries.
//!
//! Must hold: a word that left once keeps its spelling; the core may rename what it means without a client noticing,
//! and may not add a case without this file saying how it is called.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An enum of the edge with one word for each case of an inner enum.
macro_rules! words {
    ($(#[$about:meta])* $name:ident for $inner:ty { $($case:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name { $($case),+ }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                match inner { $(<$inner>::$case => Self::$case),+ }
            }
        }
    };
}

words! {
    /// Where a saga stands.
    Status for saga_core::Status { Running, Compensating, Stuck, Completed, Compensated, Closed }
}

impl From<Status> for saga_core::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Running => Self::Running,
            Status::Compensating => Self::Compensating,
            Status::Stuck => Self::Stuck,
            Status::Completed => Self::Completed,
            Status::Compensated => Self::Compensated,
            Status::Closed => Self::Closed,
        }
    }
}

words! {
    /// What a client may rely on; set once.
    Decision for saga_core::Decision { Committed, Refused, Undone, Abandoned }
}

words! {
    /// Why a saga needs a person.
    Cause for saga_core::state::Cause {
        AttemptsExhausted,
        CompensationExhausted,
        RefusedAfterPivot,
        CompensationRefused,
        ContractViolation,
        PayloadMapping,
        DedupeWindowOver,
    }
}

words! {
    /// What became of a request to cancel.
    CancelOutcome for saga_core::state::CancelOutcome { Pending, Granted, TooLate }
}

words! {
    /// What a participant is asked to do about an effect.
    Verb for saga_defs::Verb { Execute, Compensate }
}

words! {
    /// What a step's position makes of it.
    Kind for saga_defs::Kind { Compensatable, WithoutEffect, Pivot, Retriable }
}

words! {
    /// Where a step stands.
    StepStatus for saga_core::view::StepStatus {
        Pending,
        Unknown,
        Succeeded,
        Refused,
        Skipped,
        Compensating,
        Compensated,
        Fenced,
    }
}

words! {
    /// Why a reply was set aside.
    LateReason for saga_store::LateReason { Ended, Contradiction, Overruled, Orphan }
}

words! {
    /// Where a dead letter stands.
    LetterState for saga_store::LetterState { Waiting, Replayed, Discarded }
}

words! {
    /// Why something is a dead letter.
    LetterReason for saga_defs::dead_letter::Reason {
        BadJson,
        UnknownVersion,
        WrongParticipant,
        ContractViolation,
        Oversized,
        Failed,
        Rejected,
        DeliveryLimit,
        Expired,
        Maxlen,
    }
}

impl From<LetterReason> for saga_defs::dead_letter::Reason {
    fn from(reason: LetterReason) -> Self {
        match reason {
            LetterReason::BadJson => Self::BadJson,
            LetterReason::UnknownVersion => Self::UnknownVersion,
            LetterReason::WrongParticipant => Self::WrongParticipant,
            LetterReason::ContractViolation => Self::ContractViolation,
            LetterReason::Oversized => Self::Oversized,
            LetterReason::Failed => Self::Failed,
            LetterReason::Rejected => Self::Rejected,
            LetterReason::DeliveryLimit => Self::DeliveryLimit,
            LetterReason::Expired => Self::Expired,
            LetterReason::Maxlen => Self::Maxlen,
        }
    }
}

words! {
    /// How an item stands in `body`: as it is, or as base64 because it is no text.
    Encoding for saga_defs::dead_letter::Encoding { Utf8, Base64 }
}

/// What a saga waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WaitsFor {
    Reply,
    Backoff,
}

impl From<saga_core::step::Waiting> for WaitsFor {
    fn from(waiting: saga_core::step::Waiting) -> Self {
        match waiting {
            saga_core::step::Waiting::Reply { .. } => Self::Reply,
            saga_core::step::Waiting::Backoff { .. } => Self::Backoff,
        }
    }
}

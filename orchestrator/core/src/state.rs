//! What is known about one saga: a fold of its history.
//!
//! Not for the row around it (tenant, keys, times of the table). Must hold: a saga that is neither ended nor stuck
//! waits for something with an instant, see [`Saga::wake_at`].

use std::cmp::Reverse;
use std::collections::BTreeMap;

use saga_defs::{Timestamp, Verb, ids};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::step::{StepState, Waiting};

/// State of a saga. Written down, what changes comes before what stays: a database that logs of a row what lies between the
/// beginning and the end that two versions have in common then logs no step that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// Transitions so far; the compare-and-swap guard and the client's `ETag`.
    pub version: u64,
    /// Where it is heading.
    pub phase: Phase,
    /// What the client may rely on; set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// When the decision fell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// Why it needs a person, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<Stuck>,
    /// Why it does not go the forward way, if so; the first cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// A request to cancel, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// The newest operations, for repeating their answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Remembered>,
    /// Every step that was ever sent or skipped.
    #[serde(serialize_with = "newest_first")]
    pub steps: BTreeMap<String, StepState>,
    /// Undecided then, the saga is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<Timestamp>,
    /// Jitter is derived from it.
    pub seed: u64,
}

/// By when they were sent; what was skipped unsent comes last.
fn newest_first<S: Serializer>(steps: &BTreeMap<String, StepState>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut steps: Vec<_> = steps.iter().collect();
    steps.sort_by_key(|(_, step)| Reverse(step.first_sent_at));
    serializer.collect_map(steps)
}

/// Where a saga is heading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Executing steps in order.
    Forward,
    /// The pivot's fate is unknown; its fence was asked, and the verdict decides.
    Fencing,
    /// Undoing these steps, in this order. Frozen.
    Undoing(Vec<String>),
    /// Nothing is left to do.
    Ended(End),
}

/// How a saga ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All steps done.
    Completed,
    /// Nothing of it remains.
    Compensated,
    /// Closed by hand.
    Closed,
}

/// What a client may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The pivot succeeded: it stands.
    Committed,
    /// A step said no and nothing had to be undone.
    Refused,
    /// The undo plan was carried out.
    Undone,
    /// Closed by hand before it was decided.
    Abandoned,
}

/// A saga's status for people and queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// On its way.
    Running,
    /// Being undone.
    Compensating,
    /// Needs a person.
    Stuck,
    /// All steps done.
    Completed,
    /// Nothing of it remains.
    Compensated,
    /// Closed by hand.
    Closed,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Stuck, Self::Completed, Self::Compensated, Self::Closed];

    /// Whether a saga with this status has ended.
    #[must_use]
    pub fn is_ended(self) -> bool {
        match self {
            Self::Running | Self::Compensating | Self::Stuck => false,
            Self::Completed | Self::Compensated | Self::Closed => true,
        }
    }

    /// The status' word in the API, in tables and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Closed => "closed",
        }
    }
}

/// Why a saga does not go the forward way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step it came from; none for a cancel or a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// A refusal code, or one of the codes in [`failure`].
    pub code: String,
    /// A sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Failure codes of the engine itself.
pub mod failure {
    /// A step stayed unknown through its whole budget.
    pub const ATTEMPTS_EXHAUSTED: &str = "attempts_exhausted";
    /// A cancel was granted.
    pub const CANCELLED: &str = "cancelled";
    /// The deadline passed.
    pub const DEADLINE_PASSED: &str = "deadline_passed";
    /// An admin asked for the undo.
    pub const COMPENSATE_REQUESTED: &str = "compensate_requested";
}

/// Why a saga needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// The kind of trouble.
    pub cause: Cause,
    /// Since when.
    pub since: Timestamp,
    /// The step concerned.
    pub step: String,
    /// The verb concerned: what `retry` sends again.
    pub verb: Verb,
    /// A sentence for a person.
    pub message: String,
}

/// The kinds of trouble that need a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A step after the pivot stayed unknown through its whole budget.
    AttemptsExhausted,
    /// An undo or a fence stayed unknown through its whole budget.
    CompensationExhausted,
    /// A step that must succeed said no.
    RefusedAfterPivot,
    /// A participant refused to undo.
    CompensationRefused,
    /// What a participant says contradicts what it said, or it does not accept the command's form.
    ContractViolation,
    /// A payload refers to something that is not there.
    PayloadMapping,
    /// The participants may have forgotten the effect: sending again would not be safe.
    DedupeWindowOver,
}

impl Cause {
    /// The cause's word in the API, in tables and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::CompensationExhausted => "compensation_exhausted",
            Self::RefusedAfterPivot => "refused_after_pivot",
            Self::CompensationRefused => "compensation_refused",
            Self::ContractViolation => "contract_violation",
            Self::PayloadMapping => "payload_mapping",
            Self::DedupeWindowOver => "dedupe_window_over",
        }
    }
}

/// A request to cancel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// When it was stored.
    pub requested_at: Timestamp,
    /// Open while the pivot is unknown.
    pub outcome: CancelOutcome,
}

/// What became of a request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelOutcome {
    /// Waits for the pivot's verdict.
    Pending,
    /// The saga is undone because of it.
    Granted,
    /// The pivot had succeeded, or a person closed the saga.
    TooLate,
}

/// An operation whose answer is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The operation's id.
    pub id: Uuid,
    /// Digest of what was asked.
    pub digest: String,
}

impl Saga {
    /// The saga's status.
    #[must_use]
    pub fn status(&self) -> Status {
        match (&self.phase, &self.stuck) {
            (Phase::Ended(End::Completed), _) => Status::Completed,
            (Phase::Ended(End::Compensated), _) => Status::Compensated,
            (Phase::Ended(End::Closed), _) => Status::Closed,
            (Phase::Forward | Phase::Fencing | Phase::Undoing(_), Some(_)) => Status::Stuck,
            (Phase::Forward | Phase::Fencing, None) => Status::Running,
            (Phase::Undoing(_), None) => Status::Compensating,
        }
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether it goes forward or stands, and so counts on what was made.
    #[must_use]
    pub(crate) fn counts_on_effects(&self) -> bool {
        self.phase == Phase::Forward || self.decision == Some(Decision::Committed)
    }

    /// The step whose contradiction a person has in hand.
    #[must_use]
    pub(crate) fn in_hand(&self) -> Option<&str> {
        let stuck = self.stuck.as_ref().filter(|stuck| stuck.cause == Cause::ContractViolation);
        stuck.map(|stuck| stuck.step.as_str())
    }

    /// Whether a waiting client gets its answer: decided, or stuck.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.decision.is_some() || self.stuck.is_some()
    }

    /// When the saga has to be looked at again, without any message. None when it ended or waits for a person.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        if self.is_ended() || self.stuck.is_some() {
            return None;
        }
        let deadline = self.deadline_at.filter(|_| self.may_pass_deadline());
        let waits = self.steps.values().flat_map(|step| [step.execute.waiting, step.compensate.waiting]);
        waits.flatten().map(Waiting::until).chain(deadline).min()
    }

    /// Whether passing the deadline would still mean something.
    #[must_use]
    pub fn may_pass_deadline(&self) -> bool {
        self.phase == Phase::Forward && self.decision.is_none() && self.stuck.is_none()
    }

    /// What is waited for now: step, verb, and until when.
    #[must_use]
    pub fn waiting(&self) -> Option<(&str, Verb, Waiting)> {
        self.steps.iter().find_map(|(name, step)| {
            let of = |verb: Verb| step.asked(verb).waiting.map(|waiting| (name.as_str(), verb, waiting));
            of(Verb::Execute).or_else(|| of(Verb::Compensate))
        })
    }

    /// The step whose effect has this key, if it was ever touched. A key is derived anew for each step that is compared:
    /// what is waited for comes first, because it mostly is what answers.
    #[must_use]
    pub fn of_effect(&self, saga_id: Uuid, key: Uuid) -> Option<(&str, &StepState)> {
        let waited = self.waiting().and_then(|(name, ..)| self.steps.get_key_value(name));
        let candidates = waited.into_iter().chain(&self.steps);
        let of_key = |(name, state): &(&String, &StepState)| ids::effect_key(saga_id, name, state.generation) == key;
        candidates.into_iter().find(of_key).map(|(name, state)| (name.as_str(), state))
    }

    /// Whether an effect that a step had before it was given a new one has this key.
    #[must_use]
    pub fn had_effect(&self, saga_id: Uuid, key: Uuid) -> bool {
        let of_step = |(name, state): (&String, &StepState)| {
            (0..state.generation).any(|generation| ids::effect_key(saga_id, name, generation) == key)
        };
        self.steps.iter().any(of_step)
    }

    /// State of the step called `name`, if it was ever touched.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepState> {
        self.steps.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_one_word() {
        let causes = [
            Cause::AttemptsExhausted,
            Cause::CompensationExhausted,
            Cause::RefusedAfterPivot,
            Cause::CompensationRefused,
            Cause::ContractViolation,
            Cause::PayloadMapping,
            Cause::DedupeWindowOver,
        ];
        for cause in causes {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }
}

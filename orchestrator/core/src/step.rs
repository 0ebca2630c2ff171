//! What is known about one step: how its participant was asked, and what was said of its effect.
//!
//! Not for what the words mean together, see [`Word`]. Must hold: what is waited for has an instant.

use std::collections::BTreeSet;

use saga_defs::{Timestamp, Verb};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::words::Word;

/// State of a step. Written down, what changes comes first, as in [`Saga`](crate::Saga).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// How `execute` was asked.
    #[serde(default, skip_serializing_if = "Asked::is_unasked")]
    pub execute: Asked,
    /// How `compensate` was asked.
    #[serde(default, skip_serializing_if = "Asked::is_unasked")]
    pub compensate: Asked,
    /// What counts of the effect's making.
    #[serde(default, skip_serializing_if = "Effect::is_unknown")]
    pub effect: Effect,
    /// What was said of the effect besides, since it was last asked about anew.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub said: BTreeSet<Word>,
    /// What had been said before it was.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub before: BTreeSet<Word>,
    /// A person says that the effect counts as undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undo_skipped: bool,
    /// A person was told of the doubt there is, and of no more than that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
    /// Counts effects of this step; part of the idempotency key.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// When the effect's first command left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_sent_at: Option<Timestamp>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What is known about an effect's making.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing definite.
    #[default]
    Unknown,
    /// It was made.
    Succeeded(Value),
    /// It was not made and never will be.
    Refused(String),
    /// A person says it counts as made, with this output.
    Skipped(Value),
}

impl Effect {
    fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }
}

/// How often a verb was asked, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Commands ever sent.
    pub sent: u32,
    /// Attempts used up since the budget was last renewed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spent: u32,
    /// Attempts up to this one had left when the effect was last asked about anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub old: u32,
    /// Attempts up to this one had left when an undo of the effect was last refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub undo_refused: u32,
    /// What is waited for; none when the verdict is known or a person is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
}

impl Asked {
    fn is_unasked(&self) -> bool {
        self.sent == 0
    }
}

/// What a saga waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// A reply to the newest command.
    Reply {
        /// Silence until here ends the attempt.
        until: Timestamp,
    },
    /// The next attempt.
    Backoff {
        /// It leaves then.
        until: Timestamp,
    },
}

impl Waiting {
    /// When the waiting ends by itself.
    #[must_use]
    pub fn until(self) -> Timestamp {
        match self {
            Self::Reply { until } | Self::Backoff { until } => until,
        }
    }
}

impl StepState {
    /// How `verb` was asked.
    #[must_use]
    pub fn asked(&self, verb: Verb) -> &Asked {
        match verb {
            Verb::Execute => &self.execute,
            Verb::Compensate => &self.compensate,
        }
    }

    pub(crate) fn asked_mut(&mut self, verb: Verb) -> &mut Asked {
        match verb {
            Verb::Execute => &mut self.execute,
            Verb::Compensate => &mut self.compensate,
        }
    }

    /// The output that later steps may refer to.
    #[must_use]
    pub fn output(&self) -> Option<&Value> {
        match &self.effect {
            Effect::Succeeded(output) | Effect::Skipped(output) => Some(output),
            Effect::Unknown | Effect::Refused(_) => None,
        }
    }
}

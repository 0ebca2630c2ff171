//! What happened to a saga. History is a list of these, kept for ever as exact bytes.
//!
//! Must hold: events carry all that `evolve` needs and no personal data; a new kind of event or member is a new
//! `FORMAT`. Who asked and why lies in the history row around the events.

use saga_defs::{Timestamp, Verb};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::state::{Cause, Decision, End, Failure};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The saga was accepted.
    Started {
        /// `name@version` of the definition.
        definition: String,
        /// Content digest of the definition.
        digest: String,
        /// Where jitter comes from.
        seed: u64,
        /// Undecided then, it is undone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_at: Option<Timestamp>,
    },
    /// A command left.
    Sent {
        /// Its step.
        step: String,
        /// Its verb.
        verb: Verb,
        /// 1 for the first of this verb.
        attempt: u32,
        /// When.
        at: Timestamp,
        /// Silence until here ends the attempt.
        until: Timestamp,
    },
    /// An attempt ended without a verdict.
    AttemptFailed {
        /// Its step.
        step: String,
        /// Its verb.
        verb: Verb,
        /// Which one.
        attempt: u32,
        /// Silence, or the participant asked for a later attempt.
        why: Why,
        /// When the next attempt leaves; none when the budget is gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
    },
    /// The effect was made.
    Succeeded {
        /// Its step.
        step: String,
        /// What later steps may refer to.
        output: Value,
    },
    /// The effect was not made and never will be.
    Refused {
        /// Its step.
        step: String,
        /// Why, for machines.
        code: String,
        /// Why, for people.
        message: String,
    },
    /// The pivot's fate is unknown and its fence is asked.
    FenceStarted {
        /// The pivot.
        step: String,
        /// Why the saga does not simply wait.
        failure: Failure,
    },
    /// The fence holds: the pivot was never executed and never will be.
    Fenced {
        /// The pivot.
        step: String,
    },
    /// The fence came too late: the pivot was executed.
    AlreadyExecuted {
        /// The pivot.
        step: String,
    },
    /// The undo plan is frozen.
    UndoPlanned {
        /// Steps to undo, in this order.
        plan: Vec<String>,
        /// Why.
        failure: Failure,
    },
    /// An effect was undone.
    Compensated {
        /// Its step.
        step: String,
        /// There was nothing to undo: a tombstone stands.
        nothing_to_undo: bool,
    },
    /// Something was said of an effect that does not move the saga: its step's part is over, a person has something in hand, or it
    /// speaks against what was said before.
    Late {
        /// Its step.
        step: String,
        /// The verb that was answered.
        verb: Verb,
        /// What it said.
        fact: Fact,
    },
    /// A request to cancel was stored.
    CancelRequested {
        /// When.
        at: Timestamp,
    },
    /// The cancel leads to the undo.
    CancelGranted,
    /// The pivot had succeeded before the cancel could be granted, or a person closed the saga.
    CancelTooLate,
    /// The answer that a client may rely on.
    Decided {
        /// The answer.
        decision: Decision,
        /// When.
        at: Timestamp,
    },
    /// A person is needed.
    Stuck {
        /// The kind of trouble.
        cause: Cause,
        /// The step concerned.
        step: String,
        /// What a retry would send.
        verb: Verb,
        /// Since when.
        at: Timestamp,
        /// A sentence for a person.
        message: String,
    },
    /// An admin's or client's operation was applied; its effects follow in the same transition.
    Operated {
        /// The operation's id.
        id: Uuid,
        /// Its name.
        action: String,
        /// Digest of what was asked.
        digest: String,
    },
    /// The step's budget is new and the trouble is set aside.
    Renewed {
        /// The step.
        step: String,
        /// The verb.
        verb: Verb,
    },
    /// A person says what the participant would not.
    Skipped {
        /// The step.
        step: String,
        /// The verb that counts as succeeded.
        verb: Verb,
        /// The output that counts.
        output: Value,
    },
    /// Nothing is left to do.
    Ended {
        /// How it ended.
        end: End,
    },
}

/// Why an attempt ended without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No reply in time.
    Silence,
    /// The participant asked for a later attempt.
    Retry,
}

/// What a late reply said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Succeeded, with this output.
    Succeeded(Value),
    /// Refused, with this code.
    Refused(String),
}

//! What a saga looks like to people: possible actions, effects held, what is waited for.
//!
//! Reads only. The edge has its own types and converts from these.

use saga_defs::{Definition, Kind, Step, Timestamp, Verb};

use crate::admin;
use crate::input::Action;
use crate::state::Saga;
use crate::step::{Effect, StepState, Waiting};
use crate::words::{Weighed, Word};

/// An action and whether it is possible now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionView {
    /// Its name.
    pub name: &'static str,
    /// None when possible, else why not.
    pub denied: Option<&'static str>,
}

/// All actions, with the reasons of those that are not possible.
#[must_use]
pub fn actions(saga: &Saga) -> Vec<ActionView> {
    Action::NAMES.iter().map(|name| ActionView { name, denied: admin::possible(saga, name).err() }).collect()
}

/// One step, in the definition's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who is asked.
    pub participant: &'a str,
    /// What its position makes of it.
    pub kind: Kind,
    /// Where it stands.
    pub status: StepStatus,
    /// Commands sent to execute it.
    pub execute_attempts: u32,
    /// Commands sent to compensate it.
    pub compensate_attempts: u32,
    /// Refusal code, if it refused.
    pub code: Option<&'a str>,
    /// Whether its effect stands, as far as is known: none for unknown.
    pub holds_effect: Option<bool>,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// Not sent yet.
    Pending,
    /// Sent, no verdict.
    Unknown,
    /// The effect was made.
    Succeeded,
    /// It was refused.
    Refused,
    /// Counts as made, by a person's word.
    Skipped,
    /// Its undo or fence was asked, no verdict yet, or none in all attempts.
    Compensating,
    /// Its effect is gone.
    Compensated,
    /// It was never executed and never will be.
    Fenced,
}

impl StepStatus {
    /// The status' name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Unknown => "unknown",
            Self::Succeeded => "succeeded",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Fenced => "fenced",
        }
    }
}

/// All steps of the definition as they stand.
#[must_use]
pub fn steps<'a>(definition: &'a Definition, saga: &'a Saga) -> Vec<StepView<'a>> {
    let view = |(index, step): (usize, &'a Step)| {
        let state = saga.step(&step.name);
        let status = state.map_or(StepStatus::Pending, |state| step_status(state, saga.counts_on_effects()));
        StepView {
            name: &step.name,
            participant: &step.participant,
            kind: definition.kind(index),
            status,
            execute_attempts: state.map_or(0, |state| state.execute.sent),
            compensate_attempts: state.map_or(0, |state| state.compensate.sent),
            code: state.and_then(|state| match &state.effect {
                Effect::Refused(code) => Some(code.as_str()),
                Effect::Unknown | Effect::Succeeded(_) | Effect::Skipped(_) => None,
            }),
            holds_effect: match definition.kind(index) {
                Kind::WithoutEffect => Some(false),
                Kind::Compensatable | Kind::Pivot | Kind::Retriable => {
                    holds_effect(status).filter(|_| !is_doubtful(saga, step))
                }
            },
        }
    };
    definition.steps.iter().enumerate().map(view).collect()
}

fn step_status(state: &StepState, counted_on: bool) -> StepStatus {
    let undoing = state.compensate.sent > state.compensate.undo_refused && !counted_on;
    let against = [Word::Refused, Word::Undone, Word::NothingToUndo];
    let found = state.says(Word::AlreadyExecuted) && !against.iter().any(|word| state.before.contains(word));
    let sent = state.execute.sent > 0 || state.compensate.sent > 0;
    match &state.effect {
        _ if state.undo_skipped || state.says(Word::Undone) => StepStatus::Compensated,
        Effect::Unknown | Effect::Refused(_) if state.says(Word::NothingToUndo) => StepStatus::Fenced,
        Effect::Succeeded(_) | Effect::Skipped(_) if state.says(Word::NothingToUndo) => StepStatus::Compensated,
        Effect::Refused(_) => StepStatus::Refused,
        Effect::Unknown | Effect::Succeeded(_) | Effect::Skipped(_) if undoing => StepStatus::Compensating,
        Effect::Unknown if found => StepStatus::Succeeded,
        Effect::Unknown if sent => StepStatus::Unknown,
        Effect::Unknown => StepStatus::Pending,
        Effect::Succeeded(_) => StepStatus::Succeeded,
        Effect::Skipped(_) => StepStatus::Skipped,
    }
}

/// Whether something was said against what is known of the effect, and nobody has settled it since.
fn is_doubtful(saga: &Saga, step: &Step) -> bool {
    let Some(state) = saga.step(&step.name) else { return false };
    let refused = matches!(state.effect, Effect::Refused(_)) && !state.is_known_refused() && !state.is_gone();
    refused || state.is_in_doubt(Weighed::of(saga, step), None) || saga.in_hand() == Some(&step.name)
}

fn holds_effect(status: StepStatus) -> Option<bool> {
    match status {
        StepStatus::Pending | StepStatus::Refused | StepStatus::Compensated | StepStatus::Fenced => Some(false),
        StepStatus::Succeeded | StepStatus::Skipped => Some(true),
        StepStatus::Unknown | StepStatus::Compensating => None,
    }
}

/// What a saga waits for by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitView<'a> {
    /// The step concerned.
    pub step: &'a str,
    /// The verb concerned.
    pub verb: Verb,
    /// A reply, or the next attempt.
    pub waiting: Waiting,
    /// Until when.
    pub until: Timestamp,
}

/// What the saga waits for, if it neither ended nor is stuck.
#[must_use]
pub fn waiting(saga: &Saga) -> Option<WaitView<'_>> {
    saga.waiting().map(|(step, verb, waiting)| WaitView { step, verb, waiting, until: waiting.until() })
}

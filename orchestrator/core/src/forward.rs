//! The way forward: steps in order, the pivot that decides, the tail that is still owed.

use saga_defs::{Kind, Verb};
use serde_json::Value;

use crate::compensation;
use crate::draft::Draft;
use crate::event::Event;
use crate::state::{Cause, Decision, End, Failure, failure};
use crate::step::Effect;

/// Sends the first step that is not done, or completes the saga, unless a person is to be told of a contradiction.
pub(crate) fn advance(draft: &mut Draft<'_>) {
    if let Some(step) = draft.untold(|_| true) {
        return draft.tell(&step, Verb::Execute);
    }
    let definition = draft.definition();
    let open = definition.steps.iter().find(|step| match draft.saga.step(&step.name).map(|state| &state.effect) {
        Some(Effect::Succeeded(_) | Effect::Skipped(_)) => false,
        Some(Effect::Unknown | Effect::Refused(_)) | None => true,
    });
    match open {
        Some(step) => match known_refusal(draft, &step.name) {
            Some(code) => turned_down(draft, &step.name, &code, ""),
            None => draft.send(&step.name, Verb::Execute),
        },
        None => {
            draft.decide(Decision::Committed);
            draft.end(End::Completed);
        }
    }
}

/// A refusal that came while the saga was held for a person.
fn known_refusal(draft: &Draft<'_>, step: &str) -> Option<String> {
    match &draft.saga.step(step)?.effect {
        Effect::Refused(code) => Some(code.clone()),
        Effect::Unknown | Effect::Succeeded(_) | Effect::Skipped(_) => None,
    }
}

/// The effect was made.
pub(crate) fn succeeded(draft: &mut Draft<'_>, step: &str, output: Value) {
    draft.emit(Event::Succeeded { step: step.to_owned(), output });
    passed(draft, step);
}

/// The step counts as done, by its participant's word or a person's. What is stuck on another step stays so, and one step at a time
/// is asked.
pub(crate) fn passed(draft: &mut Draft<'_>, step: &str) {
    if draft.is_pivot(step) {
        commit(draft);
    }
    if draft.saga.stuck.is_none() && draft.saga.waiting().is_none() {
        advance(draft);
    }
}

/// The pivot was executed: the saga stands.
pub(crate) fn commit(draft: &mut Draft<'_>) {
    compensation::answer_cancel(draft, false);
    draft.decide(Decision::Committed);
}

/// The effect was not made and never will be.
pub(crate) fn refused(draft: &mut Draft<'_>, step: &str, code: &str, message: &str) {
    draft.emit(Event::Refused { step: step.to_owned(), code: code.to_owned(), message: message.to_owned() });
    turned_down(draft, step, code, message);
}

/// What follows from a refusal. Once the saga stands nothing is undone. A new effect is only offered where nothing was ever
/// said to have been made: a step before the pivot is asked again then only because its participant had contradicted itself.
fn turned_down(draft: &mut Draft<'_>, step: &str, code: &str, message: &str) {
    let was_made = draft.saga.steps[step].was_made();
    match (draft.kind(step), draft.saga.decision) {
        (Kind::Compensatable | Kind::WithoutEffect | Kind::Pivot, None) => {
            let failure = Failure { step: Some(step.to_owned()), code: code.to_owned(), message: message.to_owned() };
            compensation::turn_back(draft, failure);
        }
        (Kind::Retriable, _) if !was_made => {
            let text = format!("refused with `{code}`, but the saga stands; mend the cause and retry, or skip");
            draft.stick(Cause::RefusedAfterPivot, step, Verb::Execute, &text);
        }
        (Kind::Retriable, _) | (Kind::Compensatable | Kind::WithoutEffect | Kind::Pivot, Some(_)) => {
            let text = format!("refused with `{code}`, though the saga counts on it; find out by hand what stands");
            draft.stick(Cause::ContractViolation, step, Verb::Execute, &text);
        }
    }
}

/// All attempts of an `execute` ended without a verdict.
pub(crate) fn budget_gone(draft: &mut Draft<'_>, step: &str) {
    let message = format!("`{step}` gave no verdict in all its attempts");
    let failure = Failure { step: Some(step.to_owned()), code: failure::ATTEMPTS_EXHAUSTED.to_owned(), message };
    match (draft.kind(step), draft.saga.decision) {
        (Kind::Compensatable | Kind::WithoutEffect, None) => compensation::turn_back(draft, failure),
        (Kind::Pivot, None) => compensation::fence(draft, step, failure),
        (Kind::Retriable, _) | (Kind::Compensatable | Kind::WithoutEffect | Kind::Pivot, Some(_)) => {
            let text = "no verdict in all attempts; the booking stands, this is still owed";
            draft.stick(Cause::AttemptsExhausted, step, Verb::Execute, text);
        }
    }
}

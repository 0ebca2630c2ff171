//! The way back: the fence that finds out about the pivot, and the frozen undo plan.
//!
//! Must hold: the plan holds every effect ever sent and not known refused, contradicted ones and those that a person made
//! included, in reverse order, and never changes once the first `compensate` has left; the pivot is never in it, because its
//! fate is known before.

use saga_defs::{Kind, Verb};

use crate::draft::Draft;
use crate::event::Event;
use crate::forward;
use crate::state::{Cause, Decision, End, Failure, Phase};
use crate::step::{Effect, StepState};

/// Leaves the forward way: through the fence when the pivot's fate is unknown, else at once.
pub(crate) fn turn_back(draft: &mut Draft<'_>, failure: Failure) {
    let pivot = draft.definition().steps.iter().find(|step| step.pivot);
    let unknown = pivot.filter(|pivot| {
        draft.saga.step(&pivot.name).is_some_and(|state| state.execute.sent > 0 && !state.is_known_refused())
    });
    match unknown {
        Some(pivot) => fence(draft, &pivot.name, failure),
        None => begin(draft, failure),
    }
}

/// Asks the pivot's participant to make sure that it never executes, or to say that it did.
pub(crate) fn fence(draft: &mut Draft<'_>, pivot: &str, failure: Failure) {
    draft.emit(Event::FenceStarted { step: pivot.to_owned(), failure });
    draft.send(pivot, Verb::Compensate);
}

/// Goes on with a fence that another step's trouble held up. What was said meanwhile decides, unless it can't all be so.
pub(crate) fn resume_fence(draft: &mut Draft<'_>) {
    let pivot = draft.definition().steps.iter().find(|step| step.pivot).expect("only a pivot is fenced");
    let state = &draft.saga.steps[&pivot.name];
    if draft.is_in_doubt(&pivot.name, None) {
        draft.tell(&pivot.name, Verb::Compensate);
    } else if state.is_gone() || state.is_known_refused() {
        begin_fenced(draft);
    } else {
        ask_fence_again(draft, &pivot.name);
    }
}

/// Asks with a new budget.
pub(crate) fn ask_fence_again(draft: &mut Draft<'_>, pivot: &str) {
    draft.emit(Event::Renewed { step: pivot.to_owned(), verb: Verb::Compensate });
    draft.send(pivot, Verb::Compensate);
}

/// Turns back, since the pivot does not stand.
fn begin_fenced(draft: &mut Draft<'_>) {
    let failure = draft.saga.failure.clone().expect("a fence starts with its cause");
    begin(draft, failure);
}

/// Freezes the undo plan and sends its first command.
fn begin(draft: &mut Draft<'_>, failure: Failure) {
    answer_cancel(draft, true);
    draft.emit(Event::UndoPlanned { plan: plan(draft), failure });
    next(draft);
}

fn plan(draft: &Draft<'_>) -> Vec<String> {
    let definition = draft.definition();
    let undoable = definition.steps.iter().enumerate().filter(|(index, step)| {
        definition.kind(*index) == Kind::Compensatable
            && draft.saga.step(&step.name).is_some_and(|state| {
                let made_by_hand = matches!(state.effect, Effect::Skipped(_));
                (state.execute.sent > 0 || made_by_hand) && !state.is_known_refused()
            })
    });
    let mut plan: Vec<String> = undoable.map(|(_, step)| step.name.clone()).collect();
    plan.reverse();
    plan
}

/// Sends the first undo of the plan that is not done, or ends the saga, unless a person is to be told of a contradiction.
pub(crate) fn next(draft: &mut Draft<'_>) {
    let Phase::Undoing(plan) = &draft.saga.phase else { return };
    let open = plan.iter().find(|name| !draft.saga.steps[*name].is_gone()).cloned();
    // What leaves nothing behind matters no more.
    let untold = draft.untold(|kind| kind != Kind::WithoutEffect);
    match (open, untold) {
        (Some(step), _) => draft.send(&step, Verb::Compensate),
        (None, Some(step)) => draft.tell(&step, Verb::Compensate),
        (None, None) => {
            // Also what a person undid before anybody was asked.
            let undone = |step: &StepState| step.compensate.sent > 0 || step.undo_skipped;
            draft.decide(if draft.saga.steps.values().any(undone) { Decision::Undone } else { Decision::Refused });
            draft.end(End::Compensated);
        }
    }
}

/// The effect is gone, or a tombstone keeps it from ever being made. What is stuck on another step stays so, and one step
/// at a time is asked.
pub(crate) fn compensated(draft: &mut Draft<'_>, step: &str, nothing_to_undo: bool) {
    draft.emit(Event::Compensated { step: step.to_owned(), nothing_to_undo });
    if draft.saga.stuck.is_none() && draft.saga.waiting().is_none() {
        next(draft);
    }
}

/// The pivot's fence holds: it does not stand and never will.
pub(crate) fn fenced(draft: &mut Draft<'_>, step: &str, nothing_to_undo: bool) {
    draft.emit(if nothing_to_undo {
        Event::Fenced { step: step.to_owned() }
    } else {
        Event::Compensated { step: step.to_owned(), nothing_to_undo }
    });
    begin_fenced(draft);
}

/// The fence came too late: the saga stands. A pivot whose output is not known is asked once more for it.
pub(crate) fn already_executed(draft: &mut Draft<'_>, step: &str) {
    draft.emit(Event::AlreadyExecuted { step: step.to_owned() });
    forward::commit(draft);
    if draft.saga.steps[step].effect == Effect::Unknown {
        draft.emit(Event::Renewed { step: step.to_owned(), verb: Verb::Execute });
    }
    forward::advance(draft);
}

/// A participant refuses to undo, or to fence, or does not accept the command.
pub(crate) fn refused(draft: &mut Draft<'_>, step: &str, code: &str) {
    let text = format!("the participant refused to compensate with `{code}`; mend the cause and retry, or skip");
    draft.stick(Cause::CompensationRefused, step, Verb::Compensate, &text);
}

/// All attempts of a `compensate` ended without a verdict.
pub(crate) fn budget_gone(draft: &mut Draft<'_>, step: &str) {
    let text = "no verdict on the compensation in all attempts; retry when the participant is back";
    draft.stick(Cause::CompensationExhausted, step, Verb::Compensate, text);
}

/// Answers a pending cancel.
pub(crate) fn answer_cancel(draft: &mut Draft<'_>, granted: bool) {
    let pending =
        draft.saga.cancel.as_ref().is_some_and(|cancel| cancel.outcome == crate::state::CancelOutcome::Pending);
    if pending {
        draft.emit(if granted { Event::CancelGranted } else { Event::CancelTooLate });
    }
}

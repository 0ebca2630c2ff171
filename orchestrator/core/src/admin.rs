//! What people may ask of a saga: retry, skip, compensate, cancel, close.
//!
//! Must hold: one function says what is possible, for deciding and for showing; an operation is checked against the
//! version its asker saw; repeating it repeats the answer and changes nothing.

use saga_defs::Verb;

use crate::apply::Ignored;
use crate::compensation;
use crate::draft::Draft;
use crate::event::Event;
use crate::forward;
use crate::input::{Action, Operation, Refusal};
use crate::state::{Decision, End, Failure, Phase, Saga, failure};

/// Decides on an operation; `Some` when it was applied before.
pub(crate) fn operate(draft: &mut Draft<'_>, operation: &Operation) -> Result<Option<Ignored>, Refusal> {
    if let Some(known) = draft.saga.operations.iter().find(|known| known.id == operation.id) {
        return if known.digest == operation.digest { Ok(Some(Ignored::Repeated)) } else { Err(Refusal::Reused) };
    }
    let current = draft.saga.version;
    if operation.expected_version.is_some_and(|expected| expected != current) {
        return Err(Refusal::Stale { current });
    }
    let action = operation.action.as_str();
    possible(&draft.saga, action).map_err(|why| Refusal::NotAllowed { action, why })?;
    draft.emit(Event::Operated { id: operation.id, action: action.to_owned(), digest: operation.digest.clone() });
    match &operation.action {
        Action::Retry => retry(draft),
        Action::Skip(output) => skip(draft, output),
        Action::Compensate => {
            compensation::turn_back(draft, cause(failure::COMPENSATE_REQUESTED, "an admin asked for the undo"))
        }
        Action::Cancel => cancel(draft),
        Action::Close => {
            compensation::answer_cancel(draft, false);
            draft.decide(Decision::Abandoned);
            draft.end(End::Closed);
        }
    }
    Ok(None)
}

/// Whether the action called `name` is possible now.
///
/// # Errors
/// Why it is not, in a sentence for a person.
pub fn possible(saga: &Saga, name: &str) -> Result<(), &'static str> {
    match (name, &saga.phase) {
        (_, Phase::Ended(_)) => Err("the saga has ended"),
        ("retry" | "skip" | "close", _) if saga.stuck.is_none() => {
            Err("only a stuck saga can be repaired by hand; this one moves on by itself")
        }
        ("retry", Phase::Undoing(plan)) if saga.stuck.as_ref().is_some_and(|stuck| !plan.contains(&stuck.step)) => Err(
            "the step is not in the undo plan, so nothing can be asked again; find out what stands, then skip or close",
        ),
        ("retry" | "skip" | "close", _) => Ok(()),
        ("compensate" | "cancel", _) if saga.decision.is_some() => {
            Err("the pivot has succeeded; reverse it with a saga of its own")
        }
        ("compensate" | "cancel", Phase::Undoing(_)) => Err("the saga is being undone already"),
        ("cancel", Phase::Fencing) if saga.cancel.is_some() => {
            Err("a cancel is stored already and waits for the pivot's verdict")
        }
        ("compensate", Phase::Fencing) => {
            Err("the pivot's verdict is being asked for already; if that is stuck, retry it")
        }
        ("compensate" | "cancel", _) => Ok(()),
        (_, _) => Err("there is no such action"),
    }
}

/// Sends the stuck command again, with a new budget. On the way forward a step before it comes first that is not done.
fn retry(draft: &mut Draft<'_>) {
    let Some(stuck) = draft.saga.stuck.clone() else { return };
    match (&draft.saga.phase, stuck.verb) {
        // Nothing goes on before the pivot's fate is known, whatever the trouble was about.
        (Phase::Fencing, _) if draft.is_pivot(&stuck.step) => compensation::ask_fence_again(draft, &stuck.step),
        (Phase::Fencing, _) => compensation::resume_fence(draft),
        (Phase::Forward, Verb::Execute) => {
            draft.emit(Event::Renewed { step: stuck.step, verb: stuck.verb });
            forward::advance(draft);
        }
        (Phase::Forward | Phase::Undoing(_) | Phase::Ended(_), _) => {
            draft.emit(Event::Renewed { step: stuck.step.clone(), verb: stuck.verb });
            draft.send(&stuck.step, stuck.verb);
        }
    }
}

/// Counts the stuck command as succeeded. A pivot that counts as succeeded commits, also when its fence is stuck.
fn skip(draft: &mut Draft<'_>, output: &serde_json::Value) {
    let Some(stuck) = draft.saga.stuck.clone() else { return };
    let undoing = matches!(draft.saga.phase, Phase::Undoing(_));
    let verb = if undoing { Verb::Compensate } else { Verb::Execute };
    draft.emit(Event::Skipped { step: stuck.step.clone(), verb, output: output.clone() });
    match draft.saga.phase {
        Phase::Undoing(_) => compensation::next(draft),
        Phase::Fencing if !draft.is_pivot(&stuck.step) => compensation::resume_fence(draft),
        Phase::Forward | Phase::Fencing | Phase::Ended(_) => forward::passed(draft, &stuck.step),
    }
}

fn cancel(draft: &mut Draft<'_>) {
    draft.emit(Event::CancelRequested { at: draft.now });
    match draft.saga.phase {
        // The fence was asked for another reason; its verdict answers the cancel too.
        Phase::Fencing => {}
        Phase::Forward | Phase::Undoing(_) | Phase::Ended(_) => {
            compensation::turn_back(draft, cause(failure::CANCELLED, "the saga was cancelled"));
        }
    }
}

fn cause(code: &str, message: &str) -> Failure {
    Failure { step: None, code: code.to_owned(), message: message.to_owned() }
}

//! What a reply means, by verb, outcome, phase and what is known already.
//!
//! Must hold: an exact duplicate changes nothing; a reply to any attempt ever sent counts; `retry` is not
//! knowledge; contradictions make the saga stuck and are never resolved by guessing.

use saga_defs::{Kind, Outcome, Reply, Verb, message};
use serde_json::Value;

use crate::apply::{Ignored, answered};
use crate::compensation;
use crate::decide::attempt_failed;
use crate::draft::Draft;
use crate::event::{Event, Fact, Why};
use crate::evolve::nothing_to_undo;
use crate::forward;
use crate::state::{Cause, Decision, Effect, End, Phase, Saga, StepState, Undo, Waiting};

/// Decides on a reply; `Some` when nothing happened.
pub(crate) fn reply(draft: &mut Draft<'_>, reply: &Reply) -> Option<Ignored> {
    let found = answered(draft.context, &draft.saga, reply.key, reply.verb, reply.command_id);
    let Some((step, attempt)) = found.map(|(step, attempt)| (step.to_owned(), attempt)) else {
        return Some(of_no_command(draft, reply));
    };
    let relation = relate(&draft.saga, &draft.saga.steps[&step], reply.verb, &reply.outcome);
    match (&reply.outcome, relation) {
        (Outcome::Retry { after_ms }, _) => retry_later(draft, &step, reply.verb, attempt, *after_ms),
        (_, Relation::Same) => Some(Ignored::Duplicate),
        (_, Relation::Overruled) => Some(Ignored::Overruled),
        (outcome, Relation::New) if draft.saga.is_ended() => {
            Some(late_fact(&draft.saga.steps[&step], reply.verb, outcome))
        }
        (_, Relation::Contradiction) if draft.saga.is_ended() => Some(Ignored::LateContradiction),
        (outcome, Relation::Contradiction) => contradiction(draft, &step, reply.verb, outcome),
        (outcome, Relation::New) if is_old_word_of_fence(draft, &step, reply.verb, attempt) => {
            old_word_of_fence(draft, &step, outcome)
        }
        (Outcome::Succeeded { output }, Relation::New) => succeeded(draft, &step, reply.verb, output),
        (Outcome::Refused { code, message }, Relation::New) => refused(draft, &step, reply.verb, code, message),
    }
}

/// A reply to nothing that the saga asks for now. A step is only given a new effect once the old one was refused for ever.
fn of_no_command(draft: &Draft<'_>, reply: &Reply) -> Ignored {
    let made = matches!(reply.outcome, Outcome::Succeeded { .. }) && reply.verb == Verb::Execute;
    if made && draft.saga.had_effect(draft.context.saga_id, reply.key) {
        Ignored::LateContradiction
    } else {
        Ignored::Orphan
    }
}

/// How a verdict stands to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Same,
    New,
    Contradiction,
    /// A person has decided already; the participant's word is kept beside the saga.
    Overruled,
}

fn relate(saga: &Saga, state: &StepState, verb: Verb, outcome: &Outcome) -> Relation {
    match verb {
        Verb::Execute if is_echo_of_undo(saga, state, outcome) => Relation::Same,
        Verb::Execute if is_no_verdict(outcome) && state.effect != Effect::Unknown => Relation::Same,
        Verb::Execute if is_gone(saga, state, outcome) => Relation::Contradiction,
        Verb::Execute => relate_execute(state, outcome),
        Verb::Compensate if is_told_again(saga, state, outcome) => Relation::New,
        Verb::Compensate => relate_compensate(state, outcome),
    }
}

fn relate_execute(state: &StepState, outcome: &Outcome) -> Relation {
    match (&state.effect, outcome) {
        (_, Outcome::Retry { .. }) => Relation::New,
        // A tombstone answered the undo, so nothing may be executed after it.
        (Effect::Unknown | Effect::Refused(_), Outcome::Succeeded { .. }) if state.undo == Undo::NothingToUndo => {
            Relation::Contradiction
        }
        (Effect::Unknown, Outcome::Succeeded { .. } | Outcome::Refused { .. }) => Relation::New,
        (Effect::Succeeded(_), Outcome::Succeeded { .. }) => Relation::Same,
        (Effect::Refused(_), Outcome::Refused { .. }) => Relation::Same,
        (Effect::Skipped(_), Outcome::Succeeded { .. } | Outcome::Refused { .. }) => Relation::Overruled,
        (Effect::Succeeded(_), Outcome::Refused { .. }) => Relation::Contradiction,
        (Effect::Refused(_), Outcome::Succeeded { .. }) => Relation::Contradiction,
    }
}

/// That a participant does not accept a command's form is no word about the effect: an earlier command with the same key may
/// have made or undone it.
fn is_no_verdict(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused { code, .. } if code == message::CONTRACT_VIOLATION)
}

/// Once a compensation was asked, `fenced` only says that the command came after it. Whether an earlier one had made
/// the effect is the compensation's answer to give: the two may overtake each other. A saga that goes forward or stands
/// counts on the effect, and takes the word as it is.
fn is_echo_of_undo(saga: &Saga, state: &StepState, outcome: &Outcome) -> bool {
    let fenced = matches!(outcome, Outcome::Refused { code, .. } if code == message::FENCED);
    fenced && state.compensate.sent > 0 && !is_counted_on(saga)
}

/// Whether a success comes of an effect that was undone, while the saga counts on it.
fn is_gone(saga: &Saga, state: &StepState, outcome: &Outcome) -> bool {
    let made = matches!(outcome, Outcome::Succeeded { .. }) && state.effect == Effect::Unknown;
    made && state.undo == Undo::Done && is_counted_on(saga)
}

/// Whether the saga goes forward or stands.
fn is_counted_on(saga: &Saga) -> bool {
    saga.phase == Phase::Forward || saga.decision == Some(Decision::Committed)
}

/// Whether a fence that was refused is answered all the same: a refusal to undo may be mended, and no verdict was drawn from it.
fn is_told_again(saga: &Saga, state: &StepState, outcome: &Outcome) -> bool {
    let held = saga.stuck.as_ref().is_some_and(|stuck| stuck.cause == Cause::ContractViolation);
    let open = matches!(saga.phase, Phase::Fencing | Phase::Ended(End::Closed)) && !held;
    let undecided = open && saga.decision != Some(Decision::Committed) && state.undo == Undo::Standing;
    undecided
        && match outcome {
            Outcome::Succeeded { output } => !nothing_to_undo(output),
            Outcome::Refused { code, .. } => code == message::ALREADY_EXECUTED,
            Outcome::Retry { .. } => true,
        }
}

fn relate_compensate(state: &StepState, outcome: &Outcome) -> Relation {
    match (state.undo, outcome) {
        (Undo::Open, _) | (_, Outcome::Retry { .. }) => Relation::New,
        (Undo::Skipped, Outcome::Succeeded { .. } | Outcome::Refused { .. }) => Relation::Overruled,
        (Undo::Done | Undo::NothingToUndo, Outcome::Succeeded { .. }) => Relation::Same,
        (Undo::Done | Undo::NothingToUndo, Outcome::Refused { .. }) if is_no_verdict(outcome) => Relation::Same,
        // From before it was undone.
        (Undo::Done, Outcome::Refused { code, .. }) if code != message::ALREADY_EXECUTED => Relation::Same,
        (Undo::Done | Undo::NothingToUndo, Outcome::Refused { .. }) => Relation::Contradiction,
        (Undo::Standing, Outcome::Refused { .. }) => Relation::Same,
        (Undo::Standing, Outcome::Succeeded { .. }) => Relation::Contradiction,
    }
}

/// A verdict after the end: what the saga ended on says whether it only adds to that.
fn late_fact(state: &StepState, verb: Verb, outcome: &Outcome) -> Ignored {
    let stood = matches!(state.effect, Effect::Succeeded(_) | Effect::Skipped(_)) && state.undo == Undo::Open;
    match (verb, outcome) {
        // An effect that the saga counts on is gone.
        (Verb::Compensate, Outcome::Succeeded { .. }) if stood => Ignored::LateContradiction,
        // An effect stands that was said not to be made.
        (Verb::Compensate, Outcome::Refused { .. })
            if !is_no_verdict(outcome) && matches!(state.effect, Effect::Refused(_)) =>
        {
            Ignored::LateContradiction
        }
        (Verb::Execute | Verb::Compensate, _) => Ignored::LateFact,
    }
}

/// The participant asks for a later attempt. Only the newest one counts, and only while it is waited for.
fn retry_later(draft: &mut Draft<'_>, step: &str, verb: Verb, attempt: u32, after_ms: u64) -> Option<Ignored> {
    let asked = draft.saga.steps[step].asked(verb);
    let awaited = asked.sent == attempt && matches!(asked.waiting, Some(Waiting::Reply { .. }));
    if !awaited {
        return Some(Ignored::Duplicate);
    }
    attempt_failed(draft, step, verb, Why::Retry, after_ms);
    None
}

fn succeeded(draft: &mut Draft<'_>, step: &str, verb: Verb, output: &Value) -> Option<Ignored> {
    match (verb, place(draft, step)) {
        (Verb::Execute, Place::Forward) => forward::succeeded(draft, step, output),
        // The fence is asked, and may undo what was just reported: only its answer decides.
        (Verb::Execute, Place::Fencing) => late(draft, step, verb, Fact::Succeeded(output.clone())),
        (Verb::Execute, Place::Held) => forward::noted(draft, step, output),
        (Verb::Execute, Place::Undoing | Place::Passed) => late(draft, step, verb, Fact::Succeeded(output.clone())),
        (Verb::Compensate, Place::Undoing) => return undone(draft, step, output),
        (Verb::Compensate, Place::Fencing) => return fence_held(draft, step, output),
        (Verb::Compensate, Place::Held) => return undone_while_held(draft, step, output),
        (Verb::Compensate, Place::Forward | Place::Passed) => return late_fence(draft, step, output),
    }
    None
}

fn refused(draft: &mut Draft<'_>, step: &str, verb: Verb, code: &str, text: &str) -> Option<Ignored> {
    match (verb, place(draft, step)) {
        (Verb::Execute, _) if code == message::CONTRACT_VIOLATION => return not_understood(draft, step, text),
        (Verb::Execute, Place::Forward | Place::Fencing) => forward::refused(draft, step, code, text),
        (Verb::Execute, Place::Held | Place::Undoing | Place::Passed) => {
            late(draft, step, verb, Fact::Refused(code.to_owned()))
        }
        (Verb::Compensate, Place::Fencing) if code == message::ALREADY_EXECUTED => {
            compensation::already_executed(draft, step)
        }
        (Verb::Compensate, Place::Fencing | Place::Undoing) => {
            if is_known_refusal(draft, step) {
                return Some(Ignored::Duplicate);
            }
            compensation::refused(draft, step, code);
        }
        // That its effect stands speaks against a pivot's refusal, whichever comes first.
        (Verb::Compensate, Place::Held)
            if code != message::CONTRACT_VIOLATION && matches!(unheld(draft, step), Place::Fencing) =>
        {
            if matches!(draft.saga.steps[step].effect, Effect::Refused(_)) {
                return contradiction(draft, step, verb, &Outcome::refused(code, text));
            }
            late(draft, step, verb, Fact::Refused(code.to_owned()));
        }
        // It is asked again when the saga moves. Should there be nothing to undo then, one of the two words is wrong.
        (Verb::Compensate, Place::Held) if matches!(unheld(draft, step), Place::Fencing | Place::Undoing) => {
            if code == message::CONTRACT_VIOLATION || draft.saga.steps[step].untold {
                return Some(Ignored::Duplicate);
            }
            draft.emit(Event::Contradicted { step: step.to_owned(), verb, fact: Fact::Refused(code.to_owned()) });
        }
        (Verb::Compensate, Place::Passed) if code != message::CONTRACT_VIOLATION && is_undone_by_hand(draft, step) => {
            late(draft, step, verb, Fact::Refused(code.to_owned()));
        }
        (Verb::Compensate, Place::Forward | Place::Held | Place::Passed) => {
            let stands = matches!(draft.saga.steps[step].effect, Effect::Succeeded(_) | Effect::Skipped(_));
            if stands || code == message::CONTRACT_VIOLATION {
                return Some(Ignored::Duplicate);
            }
            return contradiction(draft, step, verb, &Outcome::refused(code, text));
        }
    }
    None
}

/// The effect is gone, or a tombstone keeps it from ever being made; which, must fit what was said before.
fn undone(draft: &mut Draft<'_>, step: &str, output: &Value) -> Option<Ignored> {
    if contradicts_success(draft, step, output) {
        return contradiction(draft, step, Verb::Compensate, &Outcome::succeeded(output.clone()));
    }
    compensation::compensated(draft, step, nothing_to_undo(output));
    None
}

/// The same, while a person has another step in hand. A saga that stands or goes forward counts on the effect.
fn undone_while_held(draft: &mut Draft<'_>, step: &str, output: &Value) -> Option<Ignored> {
    let counted_on = match draft.saga.phase {
        Phase::Forward => {
            let made = matches!(draft.saga.steps[step].effect, Effect::Succeeded(_) | Effect::Skipped(_));
            made || draft.saga.decision.is_some()
        }
        Phase::Fencing | Phase::Undoing(_) | Phase::Ended(_) => contradicts_success(draft, step, output),
    };
    if counted_on {
        return contradiction(draft, step, Verb::Compensate, &Outcome::succeeded(output.clone()));
    }
    compensation::noted(draft, step, nothing_to_undo(output));
    None
}

/// The pivot does not stand: it was never executed, or its participant can undo and did.
fn fence_held(draft: &mut Draft<'_>, step: &str, output: &Value) -> Option<Ignored> {
    if contradicts_success(draft, step, output) {
        return contradiction(draft, step, Verb::Compensate, &Outcome::succeeded(output.clone()));
    }
    compensation::fenced(draft, step, nothing_to_undo(output));
    None
}

/// Whether a fence speaks that was asked before a person looked at what was said of the pivot in two ways. That is settled by
/// what is asked afterwards, not by a copy of what was said.
fn is_old_word_of_fence(draft: &Draft<'_>, step: &str, verb: Verb, attempt: u32) -> bool {
    let state = &draft.saga.steps[step];
    let fencing = verb == Verb::Compensate && matches!(place(draft, step), Place::Fencing);
    let before = in_hand(draft).is_some() || !state.compensate.is_of_this_budget(attempt);
    fencing && before && (state.contradicted || state.untold)
}

fn old_word_of_fence(draft: &mut Draft<'_>, step: &str, outcome: &Outcome) -> Option<Ignored> {
    match outcome {
        // That it is gone is so whatever was said before.
        Outcome::Succeeded { output } if !nothing_to_undo(output) => fence_held(draft, step, output),
        // A person who has the pivot in hand may want to know; while the fence is asked, its answer is what counts.
        Outcome::Refused { code, .. }
            if code == message::ALREADY_EXECUTED
                && in_hand(draft).is_some()
                && draft.saga.steps[step].undo == Undo::Open =>
        {
            late(draft, step, Verb::Compensate, Fact::Refused(code.clone()));
            None
        }
        Outcome::Succeeded { .. } | Outcome::Refused { .. } | Outcome::Retry { .. } => Some(Ignored::Duplicate),
    }
}

/// There is nothing to undo of what was said to be made: by the participant, once at least, or by a person. Of a pivot the
/// last word counts once it was contradicted, since its fence is what settles the words before.
fn contradicts_success(draft: &Draft<'_>, step: &str, output: &Value) -> bool {
    let state = &draft.saga.steps[step];
    let made = match (&state.effect, draft.is_pivot(step)) {
        (Effect::Succeeded(_), true) => !state.contradicted,
        (Effect::Unknown | Effect::Refused(_) | Effect::Skipped(_), true) => false,
        (Effect::Succeeded(_) | Effect::Skipped(_), false) => true,
        (Effect::Unknown | Effect::Refused(_), false) => state.contradicted || state.untold,
    };
    made && nothing_to_undo(output)
}

/// The participant does not accept the form of an `execute`. While a fence or an undo is asked, that changes nothing.
fn not_understood(draft: &mut Draft<'_>, step: &str, text: &str) -> Option<Ignored> {
    match place(draft, step) {
        Place::Forward if in_hand(draft).is_none() => {
            draft.stick(Cause::ContractViolation, step, Verb::Execute, text);
            None
        }
        Place::Forward | Place::Fencing | Place::Undoing | Place::Held | Place::Passed => Some(Ignored::Duplicate),
    }
}

/// Where a step stands in its saga's way.
enum Place {
    /// On the way forward, its verdict moves the saga.
    Forward,
    /// It is the pivot whose fence was asked.
    Fencing,
    /// It is in the plan and not undone yet.
    Undoing,
    /// A contradiction is to be cleared up by a person first: facts are kept, nothing moves.
    Held,
    /// Its part is over.
    Passed,
}

fn place(draft: &Draft<'_>, step: &str) -> Place {
    let held = in_hand(draft).is_some_and(|other| other != step);
    if held { Place::Held } else { unheld(draft, step) }
}

/// Where it stands, or would if no person had another step in hand.
fn unheld(draft: &Draft<'_>, step: &str) -> Place {
    match &draft.saga.phase {
        Phase::Forward => Place::Forward,
        Phase::Fencing if draft.is_pivot(step) => Place::Fencing,
        Phase::Undoing(plan) if plan.iter().any(|name| name == step) && draft.saga.steps[step].undo == Undo::Open => {
            Place::Undoing
        }
        Phase::Fencing | Phase::Undoing(_) | Phase::Ended(_) => Place::Passed,
    }
}

fn is_known_refusal(draft: &Draft<'_>, step: &str) -> bool {
    draft.saga.stuck.as_ref().is_some_and(|stuck| stuck.cause == Cause::CompensationRefused && stuck.step == step)
}

/// Whether a person is to find out what stands of it, while others are undone. What the fence found of it is kept for that.
fn is_undone_by_hand(draft: &Draft<'_>, step: &str) -> bool {
    matches!(draft.saga.phase, Phase::Undoing(_)) && in_hand(draft) == Some(step)
}

/// The fence's answer, after the pivot's own verdict was faster.
fn late_fence(draft: &mut Draft<'_>, step: &str, output: &Value) -> Option<Ignored> {
    match draft.saga.steps[step].effect {
        Effect::Succeeded(_) | Effect::Skipped(_) if is_undone_by_hand(draft, step) => {
            late(draft, step, Verb::Compensate, Fact::Succeeded(output.clone()));
            None
        }
        Effect::Succeeded(_) | Effect::Skipped(_) => {
            contradiction(draft, step, Verb::Compensate, &Outcome::succeeded(output.clone()))
        }
        Effect::Refused(_) | Effect::Unknown => {
            late(draft, step, Verb::Compensate, Fact::Succeeded(output.clone()));
            None
        }
    }
}

fn late(draft: &mut Draft<'_>, step: &str, verb: Verb, fact: Fact) {
    draft.emit(Event::Late { step: step.to_owned(), verb, fact });
}

/// Two words of a participant that can't both be true. Nothing is guessed: a person looks at it.
fn contradiction(draft: &mut Draft<'_>, step: &str, verb: Verb, outcome: &Outcome) -> Option<Ignored> {
    let made = verb == Verb::Execute && matches!(outcome, Outcome::Succeeded { .. });
    let undoing = matches!(draft.saga.phase, Phase::Undoing(_));
    let this = in_hand(draft).map(|held| held == step);
    // What leaves nothing behind is no reason to hold an undo.
    let idle = undoing && draft.kind(step) == Kind::WithoutEffect;
    match (this, fact(outcome)) {
        // One thing after the other for a person. That an effect was made is never passed over.
        (held, Some(fact)) if (idle || held == Some(false)) && (made || !draft.saga.steps[step].untold) => {
            draft.emit(Event::Contradicted { step: step.to_owned(), verb, fact });
            None
        }
        (Some(true), Some(fact)) if made && undoing => {
            late(draft, step, verb, fact);
            None
        }
        (Some(_), _) => Some(Ignored::Duplicate),
        (None, _) if idle => Some(Ignored::Duplicate),
        (None, fact) => {
            // What the pivot's fence found is no undo of the plan.
            let of_fence = verb == Verb::Compensate && draft.is_pivot(step);
            if let Some(fact) = fact.filter(|_| undoing && (made || of_fence)) {
                late(draft, step, verb, fact);
            }
            let said = outcome.as_str();
            let text =
                format!("`{verb}` of `{step}` now says `{said}`, against what was known; find out by hand what stands");
            // What a retry asks again.
            let again = if undoing { Verb::Compensate } else { Verb::Execute };
            draft.stick(Cause::ContractViolation, step, again, &text);
            None
        }
    }
}

fn fact(outcome: &Outcome) -> Option<Fact> {
    match outcome {
        Outcome::Succeeded { output } => Some(Fact::Succeeded(output.clone())),
        Outcome::Refused { code, .. } => Some(Fact::Refused(code.clone())),
        Outcome::Retry { .. } => None,
    }
}

/// The step whose contradiction a person has in hand.
fn in_hand<'d>(draft: &'d Draft<'_>) -> Option<&'d str> {
    let stuck = draft.saga.stuck.as_ref().filter(|stuck| stuck.cause == Cause::ContractViolation);
    stuck.map(|stuck| stuck.step.as_str())
}

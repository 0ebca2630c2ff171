//! What a reply means, by what it says, where its step stands and what was said before.
//!
//! Must hold: a copy changes nothing; a reply to any attempt ever sent counts; `retry` is not knowledge; every word that is heard is
//! kept, whether or not it moves the saga; words that can't all be so make the saga stuck and are never resolved by guessing.

use saga_defs::{Kind, Outcome, Reply, Verb, message};

use crate::apply::{Ignored, answered};
use crate::compensation;
use crate::decide::attempt_failed;
use crate::draft::Draft;
use crate::event::{Event, Fact, Why};
use crate::forward;
use crate::state::{Cause, Phase};
use crate::step::{Effect, Waiting};
use crate::words::Word;

/// Decides on a reply; `Some` when nothing happened.
pub(crate) fn reply(draft: &mut Draft<'_>, reply: &Reply) -> Option<Ignored> {
    let found = answered(draft.context, &draft.saga, reply.key, reply.verb, reply.command_id);
    let Some((step, attempt)) = found.map(|(step, attempt)| (step.to_owned(), attempt)) else {
        return Some(of_no_command(draft, reply));
    };
    let (step, verb) = (step.as_str(), reply.verb);
    let said = |fact: Fact| Said { step, verb, attempt, word: Word::of(verb, &fact), fact };
    match &reply.outcome {
        Outcome::Retry { after_ms } => retry_later(draft, step, verb, attempt, *after_ms),
        Outcome::Refused { code, message } if code == message::CONTRACT_VIOLATION => {
            not_understood(draft, step, verb, attempt, message)
        }
        Outcome::Refused { code, message } => hear(draft, said(Fact::Refused(code.clone())), message),
        Outcome::Succeeded { output } => hear(draft, said(Fact::Succeeded(output.clone())), ""),
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

/// The participant asks for a later attempt.
fn retry_later(draft: &mut Draft<'_>, step: &str, verb: Verb, attempt: u32, after_ms: u64) -> Option<Ignored> {
    if !is_awaited(draft, step, verb, attempt) {
        return Some(Ignored::Duplicate);
    }
    attempt_failed(draft, step, verb, Why::Retry, after_ms);
    None
}

/// The participant does not accept the command's form, which is no word about the effect: an earlier command with the same key may
/// have made or undone it.
fn not_understood(draft: &mut Draft<'_>, step: &str, verb: Verb, attempt: u32, text: &str) -> Option<Ignored> {
    let state = &draft.saga.steps[step];
    let known = match verb {
        Verb::Execute => state.effect != Effect::Unknown,
        Verb::Compensate => state.is_gone(),
    };
    if draft.saga.is_ended() && !known {
        return Some(Ignored::LateFact);
    }
    if !is_awaited(draft, step, verb, attempt) {
        return Some(Ignored::Duplicate);
    }
    match verb {
        Verb::Execute => draft.stick(Cause::ContractViolation, step, verb, text),
        Verb::Compensate => compensation::refused(draft, step, message::CONTRACT_VIOLATION),
    }
    None
}

/// Whether it is the newest command that is answered, and the answer is waited for: what is no word about the effect counts only then.
fn is_awaited(draft: &Draft<'_>, step: &str, verb: Verb, attempt: u32) -> bool {
    let asked = draft.saga.steps[step].asked(verb);
    asked.sent == attempt && matches!(asked.waiting, Some(Waiting::Reply { .. }))
}

/// What a participant says of its effect, in answer to an attempt.
struct Said<'a> {
    step: &'a str,
    verb: Verb,
    attempt: u32,
    word: Word,
    fact: Fact,
}

fn hear(draft: &mut Draft<'_>, said: Said<'_>, text: &str) -> Option<Ignored> {
    let doubt = draft.is_in_doubt(said.step, Some(said.word));
    match (unheard(draft, &said), draft.saga.is_ended()) {
        (Some(ignored), _) => return Some(ignored),
        (None, true) if doubt || draft.saga.steps[said.step].is_denied_by(said.word) => {
            return Some(Ignored::LateContradiction);
        }
        (None, true) => return Some(Ignored::LateFact),
        (None, false) if doubt => contradicts(draft, said),
        (None, false) if draft.saga.in_hand().is_some_and(|step| step != said.step) => held(draft, said),
        (None, false) => moves(draft, said, text),
    }
    None
}

/// Why a word is not to be heard, if so. What comes after the end is kept beside the saga, be it overtaken or not.
fn unheard(draft: &Draft<'_>, said: &Said<'_>) -> Option<Ignored> {
    let Said { verb, attempt, word, .. } = *said;
    let state = &draft.saga.steps[said.step];
    let counted_on = draft.saga.counts_on_effects();
    let overruled = match verb {
        Verb::Execute => matches!(state.effect, Effect::Skipped(_)),
        Verb::Compensate => state.undo_skipped,
    };
    let fenced = matches!(&said.fact, Fact::Refused(code) if code == message::FENCED);
    let echo = verb == Verb::Execute && fenced && state.is_echo_of_undo(attempt, counted_on);
    let overtaken = !draft.saga.is_ended() && state.is_overtaken(verb, attempt, word, counted_on);
    if overruled {
        Some(Ignored::Overruled)
    } else if echo || overtaken || state.is_no_news(verb, attempt, word) {
        Some(Ignored::Duplicate)
    } else {
        None
    }
}

/// It can't be so together with what was said before. Nothing is guessed: a person looks at it, one step after the other. What
/// leaves nothing behind is no reason to hold an undo.
fn contradicts(draft: &mut Draft<'_>, said: Said<'_>) {
    let Said { step, verb, .. } = said;
    let undoing = matches!(draft.saga.phase, Phase::Undoing(_));
    let idle = undoing && draft.kind(step) == Kind::WithoutEffect;
    let told = match &said.fact {
        Fact::Succeeded(_) => "succeeded",
        Fact::Refused(code) => code.as_str(),
    };
    let text = format!("`{verb}` of `{step}` now says `{told}`, against what was known; find out by hand what stands");
    // What a retry asks again.
    let fencing = matches!(place(draft, step), Place::Fencing);
    let again = if undoing || fencing { Verb::Compensate } else { Verb::Execute };
    let to_be_told = match draft.saga.in_hand() {
        None => !idle,
        // Who has it in hand for another reason is told of this one.
        Some(held) => held == step && !draft.is_in_doubt(step, None),
    };
    late(draft, step, verb, said.fact);
    if to_be_told {
        draft.stick(Cause::ContractViolation, step, again, &text);
    }
}

/// A person has another step in hand: what is said is kept, and nothing moves. A pivot commits all the same, unless its fence was
/// asked: then only the fence's answer decides.
fn held(draft: &mut Draft<'_>, said: Said<'_>) {
    let commits = said.word == Word::Made && draft.is_pivot(said.step) && draft.saga.phase == Phase::Forward;
    late(draft, said.step, said.verb, said.fact);
    if commits {
        forward::commit(draft);
    }
}

/// What follows from it, by where its step stands.
fn moves(draft: &mut Draft<'_>, said: Said<'_>, text: &str) {
    let (step, nothing) = (said.step, said.word == Word::NothingToUndo);
    match (place(draft, step), said.verb, said.fact) {
        (Place::Forward, Verb::Execute, Fact::Succeeded(output)) => forward::succeeded(draft, step, output),
        (Place::Forward | Place::Fencing, Verb::Execute, Fact::Refused(code)) => {
            forward::refused(draft, step, &code, text);
        }
        (Place::Fencing, Verb::Compensate, Fact::Succeeded(_)) => compensation::fenced(draft, step, nothing),
        (Place::Fencing, Verb::Compensate, Fact::Refused(_)) if said.word == Word::AlreadyExecuted => {
            compensation::already_executed(draft, step);
        }
        (Place::Undoing, Verb::Compensate, Fact::Succeeded(_)) => compensation::compensated(draft, step, nothing),
        (Place::Fencing | Place::Undoing, verb @ Verb::Compensate, Fact::Refused(code)) => {
            late(draft, step, verb, Fact::Refused(code.clone()));
            compensation::refused(draft, step, &code);
        }
        // A fence that is asked may undo what was just reported: only its answer decides.
        (Place::Fencing, verb @ Verb::Execute, fact @ Fact::Succeeded(_))
        | (Place::Forward, verb @ Verb::Compensate, fact)
        | (Place::Undoing, verb @ Verb::Execute, fact)
        | (Place::Passed, verb, fact) => late(draft, step, verb, fact),
    }
}

/// Where a step stands in its saga's way.
enum Place {
    /// On the way forward, its verdict moves the saga.
    Forward,
    /// It is the pivot whose fence was asked.
    Fencing,
    /// It is in the plan and not undone yet, or a person is to find out what stands of it.
    Undoing,
    /// Its part is over.
    Passed,
}

fn place(draft: &Draft<'_>, step: &str) -> Place {
    let to_undo = |plan: &[String]| plan.iter().any(|name| name == step) && !draft.saga.steps[step].is_gone();
    match &draft.saga.phase {
        Phase::Forward => Place::Forward,
        Phase::Fencing if draft.is_pivot(step) => Place::Fencing,
        Phase::Undoing(plan) if to_undo(plan) || draft.saga.in_hand() == Some(step) => Place::Undoing,
        Phase::Fencing | Phase::Undoing(_) | Phase::Ended(_) => Place::Passed,
    }
}

fn late(draft: &mut Draft<'_>, step: &str, verb: Verb, fact: Fact) {
    draft.emit(Event::Late { step: step.to_owned(), verb, fact });
}

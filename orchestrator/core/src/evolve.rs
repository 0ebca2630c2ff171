//! Folds events into state. Nothing is decided here.
//!
//! Must hold: needs no definition and no clock, so that any history can be read back by itself; total over events.

use std::collections::BTreeMap;

use crate::event::{Event, Fact};
use crate::limits::OPERATIONS_REMEMBERED;
use crate::state::{Cancel, CancelOutcome, Cause, Failure, Phase, Remembered, Saga, Stuck};
use crate::step::{Effect, StepState, Waiting};
use crate::words::{OF_MAKING, OF_UNDOING, Word};
use saga_defs::Verb;
use serde_json::Value;

/// A history that can't be one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Corrupt {
    /// The first event must be `started`, and no other.
    #[error("history does not begin with exactly one `started` event")]
    Beginning,
    /// There is nothing.
    #[error("history is empty")]
    Empty,
}

/// State after a whole history, one slice of events per transition.
///
/// # Errors
/// When the history does not begin as a history must.
pub fn replay<'a>(transitions: impl IntoIterator<Item = &'a [Event]>) -> Result<Saga, Corrupt> {
    let mut saga: Option<Saga> = None;
    for events in transitions {
        for event in events {
            match (&mut saga, event) {
                (None, Event::Started { seed, deadline_at, .. }) => saga = Some(born(*seed, *deadline_at)),
                (Some(saga), event) if !matches!(event, Event::Started { .. }) => evolve(saga, event),
                (None | Some(_), _) => return Err(Corrupt::Beginning),
            }
        }
        if let Some(saga) = &mut saga {
            saga.version += 1;
        }
    }
    saga.ok_or(Corrupt::Empty)
}

/// The state in which a saga begins, before its first transition is counted.
pub(crate) fn born(seed: u64, deadline_at: Option<saga_defs::Timestamp>) -> Saga {
    Saga {
        version: 0,
        seed,
        deadline_at,
        phase: Phase::Forward,
        decision: None,
        decided_at: None,
        stuck: None,
        failure: None,
        cancel: None,
        steps: BTreeMap::new(),
        operations: Vec::new(),
    }
}

/// State after one more event. The version counts transitions, not events, and is left alone.
pub fn evolve(saga: &mut Saga, event: &Event) {
    match event {
        Event::Started { .. } => {}
        Event::Sent { step, verb, attempt, at, until } => {
            let step = entry(saga, step);
            step.first_sent_at.get_or_insert(*at);
            let asked = step.asked_mut(*verb);
            asked.sent = *attempt;
            asked.waiting = Some(Waiting::Reply { until: *until });
        }
        Event::AttemptFailed { step, verb, retry_at, .. } => {
            let asked = entry(saga, step).asked_mut(*verb);
            asked.spent += 1;
            asked.waiting = retry_at.map(|until| Waiting::Backoff { until });
        }
        Event::Succeeded { step, output } => settle(saga, step, |state| state.hear_made(output)),
        Event::Refused { step, code, .. } => settle(saga, step, |state| state.hear_refused(code)),
        Event::FenceStarted { step, failure } => {
            // Another step may be waited for that was asked again; only the fence decides now.
            quiet(saga);
            put_off(saga, step);
            entry(saga, step).set_aside(&Word::ALL);
            saga.phase = Phase::Fencing;
            fail(saga, failure);
        }
        Event::Fenced { step } => settle(saga, step, |state| state.hear(Word::NothingToUndo)),
        Event::AlreadyExecuted { step } => settle(saga, step, |state| state.hear(Word::AlreadyExecuted)),
        Event::UndoPlanned { plan, failure } => {
            quiet(saga);
            saga.stuck = None;
            saga.phase = Phase::Undoing(plan.clone());
            fail(saga, failure);
        }
        Event::Compensated { step, nothing_to_undo } => {
            let word = if *nothing_to_undo { Word::NothingToUndo } else { Word::Undone };
            settle(saga, step, |state| state.hear(word));
        }
        Event::Late { step, verb, fact } => say(saga, step, |state| late(state, *verb, fact)),
        Event::CancelRequested { at } => {
            saga.cancel = Some(Cancel { requested_at: *at, outcome: CancelOutcome::Pending });
        }
        Event::CancelGranted => answer_cancel(saga, CancelOutcome::Granted),
        Event::CancelTooLate => answer_cancel(saga, CancelOutcome::TooLate),
        Event::Decided { decision, at } => {
            saga.decision = Some(*decision);
            saga.decided_at = Some(*at);
            if *decision == crate::Decision::Committed {
                saga.phase = Phase::Forward;
            }
        }
        Event::Stuck { cause, step, verb, at, message } => {
            let stuck = Stuck { cause: *cause, since: *at, step: step.clone(), verb: *verb, message: message.clone() };
            hold(saga, stuck);
        }
        Event::Operated { id, digest, .. } => {
            saga.operations.push(Remembered { id: *id, digest: digest.clone() });
            if saga.operations.len() > OPERATIONS_REMEMBERED {
                saga.operations.remove(0);
            }
        }
        Event::Renewed { step, verb } => renew(saga, step, *verb),
        Event::Skipped { step, verb, output } => skip(saga, step, *verb, output),
        Event::Ended { end } => {
            quiet(saga);
            saga.stuck = None;
            saga.phase = Phase::Ended(*end);
        }
    }
}

fn entry<'a>(saga: &'a mut Saga, step: &str) -> &'a mut StepState {
    saga.steps.entry(step.to_owned()).or_default()
}

/// The first cause stays: what follows from it explains less.
fn fail(saga: &mut Saga, failure: &Failure) {
    saga.failure.get_or_insert_with(|| failure.clone());
}

/// Something was said of a step's effect that nobody was told of yet, but for who has the step in hand.
fn say(saga: &mut Saga, step: &str, word: impl FnOnce(&mut StepState)) {
    let in_hand = saga.in_hand() == Some(step);
    let state = entry(saga, step);
    state.told &= in_hand;
    word(state);
}

/// Its verdict is in: nothing is waited for. A fence that was asked loses its question, too; its answer will be a late fact.
fn settle(saga: &mut Saga, step: &str, word: impl FnOnce(&mut StepState)) {
    say(saga, step, word);
    answered(saga, step);
}

fn answered(saga: &mut Saga, step: &str) {
    let state = entry(saga, step);
    state.execute.waiting = None;
    state.compensate.waiting = None;
    unstick(saga, step);
}

fn unstick(saga: &mut Saga, step: &str) {
    if saga.stuck.as_ref().is_some_and(|stuck| stuck.step == step) {
        saga.stuck = None;
    }
}

/// Nothing is waited for any more; replies that come anyway are facts.
fn quiet(saga: &mut Saga) {
    for step in saga.steps.values_mut() {
        step.execute.waiting = None;
        step.compensate.waiting = None;
    }
}

fn late(step: &mut StepState, verb: Verb, fact: &Fact) {
    match (verb, fact) {
        (Verb::Execute, Fact::Succeeded(output)) => step.hear_made(output),
        (Verb::Execute, Fact::Refused(code)) => step.hear_refused(code),
        (Verb::Compensate, Fact::Succeeded(_) | Fact::Refused(_)) => step.hear(Word::of(verb, fact)),
    }
}

fn hold(saga: &mut Saga, stuck: Stuck) {
    quiet(saga);
    put_off(saga, &stuck.step);
    // A step may be stuck before it was ever sent.
    if let Some(state) = saga.steps.get_mut(&stuck.step) {
        state.told |= stuck.cause == Cause::ContractViolation;
    }
    saga.stuck = Some(stuck);
}

fn answer_cancel(saga: &mut Saga, outcome: CancelOutcome) {
    if let Some(cancel) = &mut saga.cancel {
        cancel.outcome = outcome;
    }
}

fn renew(saga: &mut Saga, step: &str, verb: Verb) {
    let refused = saga.stuck.as_ref().is_some_and(|stuck| stuck.cause == Cause::RefusedAfterPivot);
    let fence_in_hand = saga.phase == Phase::Fencing && saga.in_hand() == Some(step);
    let told = saga.stuck.as_ref().is_some_and(|stuck| stuck.step == step);
    // What nobody was told of is not set aside.
    let aside: &[Word] = match verb {
        _ if !told => &[],
        Verb::Execute => &OF_MAKING,
        Verb::Compensate if fence_in_hand => &Word::ALL,
        Verb::Compensate => &OF_UNDOING,
    };
    put_off(saga, step);
    let state = entry(saga, step);
    state.told = false;
    match verb {
        // A refusal is stored for ever under its key, and nothing was made under it: a new effect is safe.
        Verb::Execute if refused => {
            *state = StepState { generation: state.generation + 1, ..StepState::default() };
        }
        Verb::Execute => {
            state.execute.spent = 0;
            state.set_aside(aside);
            state.effect = Effect::Unknown;
        }
        Verb::Compensate => {
            state.compensate.spent = 0;
            state.set_aside(aside);
        }
    }
}

/// A person says what counts, and so was told.
fn skip(saga: &mut Saga, step: &str, verb: Verb, output: &Value) {
    let state = entry(saga, step);
    state.told = false;
    match verb {
        Verb::Execute => {
            state.set_aside(&OF_MAKING);
            state.effect = Effect::Skipped(output.clone());
        }
        Verb::Compensate => state.undo_skipped = true,
    }
    answered(saga, step);
}

/// The trouble is set aside to ask a step, or to tell of one. What a person had in hand is to be told of again, unless it is of
/// that step, which says what is so: asking the pivot's fence first says nothing of another's.
fn put_off(saga: &mut Saga, asked: &str) {
    let other = saga.in_hand().filter(|step| *step != asked).map(ToOwned::to_owned);
    saga.stuck = None;
    if let Some(state) = other.and_then(|step| saga.steps.get_mut(&step)) {
        state.told = false;
    }
}

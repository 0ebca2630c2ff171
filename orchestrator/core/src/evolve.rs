//! Folds events into state. Nothing is decided here.
//!
//! Must hold: needs no definition and no clock, so that any history can be read back by itself; total over events.

use std::collections::BTreeMap;

use crate::event::{Event, Fact};
use crate::limits::OPERATIONS_REMEMBERED;
use crate::state::{
    Cancel, CancelOutcome, Cause, Effect, Failure, Phase, Remembered, Saga, StepState, Stuck, Undo, Waiting,
};
use saga_defs::{Verb, message};
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
        Event::Succeeded { step, output } => settle_effect(saga, step, Effect::Succeeded(output.clone())),
        Event::Refused { step, code, .. } => settle_effect(saga, step, Effect::Refused(code.clone())),
        Event::FenceStarted { step, failure } => {
            // Another step may be waited for that was asked again; only the fence decides now.
            quiet(saga);
            put_off(saga, step);
            saga.phase = Phase::Fencing;
            fail(saga, failure);
        }
        Event::Fenced { step } => settle_undo(saga, step, Undo::NothingToUndo),
        Event::AlreadyExecuted { step } => settle_undo(saga, step, Undo::Standing),
        Event::UndoPlanned { plan, failure } => {
            quiet(saga);
            saga.stuck = None;
            saga.phase = Phase::Undoing(plan.clone());
            fail(saga, failure);
        }
        Event::Compensated { step, nothing_to_undo } => {
            settle_undo(saga, step, if *nothing_to_undo { Undo::NothingToUndo } else { Undo::Done });
        }
        Event::Late { step, verb, fact } => late(entry(saga, step), *verb, fact),
        Event::Contradicted { step, verb, fact } => contradicted(entry(saga, step), *verb, fact),
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
        Event::Skipped { step, verb, output } => match verb {
            Verb::Execute => settle_effect(saga, step, Effect::Skipped(output.clone())),
            Verb::Compensate => settle_undo(saga, step, Undo::Skipped),
        },
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

fn settle_effect(saga: &mut Saga, step: &str, effect: Effect) {
    let state = entry(saga, step);
    if matches!(effect, Effect::Skipped(_)) {
        // A person who says what counts was told.
        state.untold = false;
        forget_tombstone(state);
    }
    state.effect = effect;
    state.execute.waiting = None;
    // A fence that was asked loses its question with the verdict; its answer will be a late fact.
    state.compensate.waiting = None;
    unstick(saga, step);
}

fn settle_undo(saga: &mut Saga, step: &str, undo: Undo) {
    // Asked before another step's trouble, and maybe before what was said since.
    let held = saga.phase == Phase::Fencing && saga.stuck.as_ref().is_some_and(|stuck| stuck.step != step);
    let state = entry(saga, step);
    state.undo = undo;
    state.compensate.waiting = None;
    // Whatever was said of the effect before, it is gone now. Of what stands a person is still to be told.
    state.untold &= match undo {
        Undo::Standing => true,
        Undo::NothingToUndo => held,
        Undo::Open | Undo::Done | Undo::Skipped => false,
    };
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
    step.contradicted |= match (verb, fact, &step.effect) {
        (Verb::Execute, Fact::Succeeded(_), effect) => matches!(effect, Effect::Refused(_)),
        (Verb::Execute, Fact::Refused(_), effect) => matches!(effect, Effect::Succeeded(_)),
        (Verb::Compensate, Fact::Succeeded(_) | Fact::Refused(_), _) => false,
    };
    match (verb, fact) {
        (Verb::Execute, Fact::Succeeded(output)) => step.effect = Effect::Succeeded(output.clone()),
        (Verb::Execute, Fact::Refused(code)) => step.effect = Effect::Refused(code.clone()),
        (Verb::Compensate, Fact::Succeeded(output)) => {
            step.undo = if nothing_to_undo(output) { Undo::NothingToUndo } else { Undo::Done };
        }
        (Verb::Compensate, Fact::Refused(_)) => step.undo = Undo::Standing,
    }
}

/// Whether what an undo answered says that there was nothing.
pub(crate) fn nothing_to_undo(output: &Value) -> bool {
    output.get(message::NOTHING_TO_UNDO).and_then(Value::as_bool).unwrap_or(false)
}

/// An effect that was ever said to be made counts as made and contradicted, whatever comes after, so that words that come twice
/// change nothing. What is known of an undo stays: there is nothing else to go on from.
fn contradicted(step: &mut StepState, verb: Verb, fact: &Fact) {
    step.untold = true;
    match (verb, fact) {
        (Verb::Execute, Fact::Succeeded(_)) => late(step, verb, fact),
        (Verb::Execute, Fact::Refused(_)) => step.contradicted |= matches!(step.effect, Effect::Succeeded(_)),
        (Verb::Compensate, Fact::Succeeded(_) | Fact::Refused(_)) => {}
    }
}

fn hold(saga: &mut Saga, stuck: Stuck) {
    quiet(saga);
    // A step may be stuck before it was ever sent.
    if let Some(state) = saga.steps.get_mut(&stuck.step) {
        let known = state.untold || state.effect != Effect::Unknown;
        state.contradicted |= stuck.cause == Cause::ContractViolation && known;
        state.untold &= stuck.cause != Cause::ContractViolation;
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
    put_off(saga, step);
    let state = entry(saga, step);
    match verb {
        // A refusal is stored for ever under its key, and nothing was made under it: a new effect is safe.
        Verb::Execute if refused => {
            *state = StepState { generation: state.generation + 1, ..StepState::default() };
        }
        Verb::Execute => {
            state.execute.spent = 0;
            state.effect = Effect::Unknown;
            forget_tombstone(state);
        }
        Verb::Compensate => {
            state.compensate.spent = 0;
            state.undo = Undo::Open;
        }
    }
}

/// A tombstone, or an undo, that was spoken of before says nothing of what a person makes or asks for after it.
fn forget_tombstone(state: &mut StepState) {
    match state.undo {
        Undo::NothingToUndo | Undo::Done => state.undo = Undo::Open,
        Undo::Open | Undo::Standing | Undo::Skipped => {}
    }
}

/// The trouble is set aside to ask a step. A contradiction about an effect is to be told of again, unless it is of that step,
/// which says what is so: asking the pivot's fence first says nothing of another's.
fn put_off(saga: &mut Saga, asked: &str) {
    let contradiction = saga.stuck.take().filter(|stuck| stuck.cause == Cause::ContractViolation);
    let Some(stuck) = contradiction else { return };
    if let Some(state) = saga.steps.get_mut(&stuck.step) {
        state.untold = state.contradicted && stuck.step != asked;
    }
}

//! The table: what each input means in each situation. Each row's work is in the file named after its subject.

use saga_defs::Verb;

use crate::admin;
use crate::apply::Ignored;
use crate::compensation;
use crate::draft::Draft;
use crate::event::Why;
use crate::forward;
use crate::input::{Input, Refusal};
use crate::replies;
use crate::state::{Failure, failure};
use crate::step::Waiting;

/// Decides on `input`; `Some` when nothing happened.
pub(crate) fn decide(draft: &mut Draft<'_>, input: &Input) -> Result<Option<Ignored>, Refusal> {
    match input {
        Input::Reply(reply) => Ok(replies::reply(draft, reply)),
        Input::Tick => Ok(tick(draft)),
        Input::Operation(operation) => admin::operate(draft, operation),
    }
}

/// Time has passed: a deadline, a silent attempt, or the end of a delay.
fn tick(draft: &mut Draft<'_>) -> Option<Ignored> {
    let now = draft.now;
    if draft.saga.may_pass_deadline() && draft.saga.deadline_at.is_some_and(|deadline| deadline <= now) {
        let message = "the saga's deadline passed before it was decided".to_owned();
        let failure = Failure { step: None, code: failure::DEADLINE_PASSED.to_owned(), message };
        compensation::turn_back(draft, failure);
        return None;
    }
    let due = draft.saga.waiting().map(|(step, verb, waiting)| (step.to_owned(), verb, waiting));
    match due {
        Some((step, verb, Waiting::Reply { until })) if until <= now => {
            attempt_failed(draft, &step, verb, Why::Silence, 0);
            None
        }
        Some((step, verb, Waiting::Backoff { until })) if until <= now => {
            draft.send(&step, verb);
            None
        }
        Some(_) | None => Some(Ignored::NotDue),
    }
}

/// An attempt taught nothing. With budget left it is repeated; else the verb decides what happens.
pub(crate) fn attempt_failed(draft: &mut Draft<'_>, step: &str, verb: Verb, why: Why, after_ms: u64) {
    if draft.fail_attempt(step, verb, why, after_ms) {
        return;
    }
    match verb {
        Verb::Execute => forward::budget_gone(draft, step),
        Verb::Compensate => compensation::budget_gone(draft, step),
    }
}

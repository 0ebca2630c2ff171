//! A transition in the making: events so far and the state they lead to.
//!
//! Must hold: the state is changed by folding an emitted event and in no other way.

use saga_defs::{Definition, Kind, Step, Timestamp, Verb, template};
use serde_json::Value;

use crate::apply::Context;
use crate::event::{Event, Why};
use crate::evolve::evolve;
use crate::limits::RETRY_AFTER_MS_MAX;
use crate::retry::delay_ms;
use crate::state::{Cause, Decision, End, Saga};
use crate::words::{Weighed, Word};

pub(crate) struct Draft<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) now: Timestamp,
    pub(crate) saga: Saga,
    pub(crate) events: Vec<Event>,
    /// Of the commands that were sent, in their order.
    pub(crate) payloads: Vec<Value>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(context: &'a Context<'a>, saga: Saga, now: Timestamp) -> Self {
        Self { context, now, saga, events: Vec::new(), payloads: Vec::new() }
    }

    pub(crate) fn definition(&self) -> &'a Definition {
        self.context.definition
    }

    /// The definition's step. Every step in the state was put there through its definition.
    pub(crate) fn step(&self, name: &str) -> &'a Step {
        self.definition().step(name).expect("the saga's definition is pinned by its digest")
    }

    pub(crate) fn is_pivot(&self, name: &str) -> bool {
        self.step(name).pivot
    }

    pub(crate) fn emit(&mut self, event: Event) {
        evolve(&mut self.saga, &event);
        self.events.push(event);
    }

    /// Sends the next command of `verb`, unless that is not safe or not possible: then the saga is stuck.
    pub(crate) fn send(&mut self, name: &str, verb: Verb) {
        let state = self.saga.step(name);
        let first = state.and_then(|state| state.first_sent_at).unwrap_or(self.now);
        let sent = state.map_or(0, |state| state.asked(verb).sent);
        if self.now >= first.plus_ms(self.definition().dedupe_window_ms) {
            return self.stick(
                Cause::DedupeWindowOver,
                name,
                verb,
                "participants may have forgotten this effect; find out by hand whether it exists, then skip or close",
            );
        }
        match self.context.payload(&self.saga, name, verb) {
            Ok(payload) => self.payloads.push(payload),
            Err(missing) => {
                let message = format!("{missing}; the definition does not fit this saga's data");
                return self.stick(Cause::PayloadMapping, name, verb, &message);
            }
        }
        self.emit(Event::Sent {
            step: name.to_owned(),
            verb,
            attempt: sent + 1,
            at: self.now,
            until: self.now.plus_ms(self.step(name).budget(verb).timeout_ms),
        });
    }

    /// Ends the newest attempt without a verdict. True when budget is left and the next attempt is planned.
    pub(crate) fn fail_attempt(&mut self, name: &str, verb: Verb, why: Why, after_ms: u64) -> bool {
        let asked = self.saga.steps[name].asked(verb).clone();
        let policy = self.step(name).budget(verb);
        let spent = asked.spent + 1;
        let delay = delay_ms(policy, self.saga.seed, name, verb, spent).max(after_ms.min(RETRY_AFTER_MS_MAX));
        let retry_at = (spent < policy.attempts).then(|| self.now.plus_ms(delay));
        self.emit(Event::AttemptFailed { step: name.to_owned(), verb, attempt: asked.sent, why, retry_at });
        retry_at.is_some()
    }

    pub(crate) fn stick(&mut self, cause: Cause, step: &str, verb: Verb, message: &str) {
        let message = message.to_owned();
        self.emit(Event::Stuck { cause, step: step.to_owned(), verb, at: self.now, message });
    }

    pub(crate) fn kind(&self, name: &str) -> Kind {
        let index = self.definition().position(name).expect("the saga's definition is pinned by its digest");
        self.definition().kind(index)
    }

    /// Whether what was said of the step's effect, and maybe `also`, can't all be so.
    pub(crate) fn is_in_doubt(&self, name: &str, also: Option<Word>) -> bool {
        let weighed = Weighed::of(&self.saga, self.step(name));
        self.saga.step(name).is_some_and(|state| state.is_in_doubt(weighed, also))
    }

    /// The first step in doubt that a person is to be told of, among those that `matter`.
    pub(crate) fn untold(&self, matter: impl Fn(Kind) -> bool) -> Option<String> {
        let mut steps = self.definition().steps.iter().map(|step| &step.name);
        let untold = |name: &str| self.saga.step(name).is_some_and(|state| !state.told) && self.is_in_doubt(name, None);
        steps.find(|name| untold(name) && matter(self.kind(name))).cloned()
    }

    /// Holds the saga for a person because of such a step.
    pub(crate) fn tell(&mut self, step: &str, verb: Verb) {
        let text = format!(
            "`{step}` contradicted itself and that was never cleared up, see the history; find out by hand what stands"
        );
        self.stick(Cause::ContractViolation, step, verb, &text);
    }

    pub(crate) fn decide(&mut self, decision: Decision) {
        if self.saga.decision.is_none() {
            self.emit(Event::Decided { decision, at: self.now });
        }
    }

    pub(crate) fn end(&mut self, end: End) {
        self.emit(Event::Ended { end });
    }
}

impl Context<'_> {
    /// The payload of a command. A compensation carries none: the participant knows its effect by the key, and what
    /// is undone must not depend on anything evaluated later.
    pub(crate) fn payload(&self, saga: &Saga, step: &str, verb: Verb) -> Result<Value, template::Missing> {
        match verb {
            Verb::Compensate => Ok(Value::Object(serde_json::Map::new())),
            Verb::Execute => {
                let scope = template::Scope {
                    input: self.input,
                    output: |name: &str| saga.steps.get(name).and_then(|state| state.output()),
                };
                let template = &self.definition.step(step).expect("steps come from the definition").payload;
                template::render(template, &scope)
            }
        }
    }
}

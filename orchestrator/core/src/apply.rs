//! The one door to the state machine: decide, fold, read the commands off the events.

use saga_defs::{Command, Definition, Timestamp, Verb, ids, message};
use serde_json::Value;
use uuid::Uuid;

use crate::draft::Draft;
use crate::event::Event;
use crate::evolve::born;
use crate::input::{Input, Refusal};
use crate::state::Saga;
use crate::{decide, forward};

/// What stays the same through a saga's life.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The saga.
    pub saga_id: Uuid,
    /// Its tenant.
    pub tenant: &'a str,
    /// The definition it was started with.
    pub definition: &'a Definition,
    /// Its input document.
    pub input: &'a Value,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.saga_id)
    }
}

/// A transition: to be committed whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The state after it.
    pub saga: Saga,
    /// What happened, for history.
    pub events: Vec<Event>,
    /// What to send once it is committed.
    pub commands: Vec<Command>,
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Something happened.
    Applied(Box<Applied>),
    /// Nothing happened, and nothing needs to be written to the saga.
    Ignored(Ignored),
}

/// Why an input changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Known already.
    Duplicate,
    /// Nothing is due.
    NotDue,
    /// The operation was applied before.
    Repeated,
    /// The reply answers no command that this saga sent.
    Orphan,
    /// A person has decided what the reply now speaks of.
    Overruled,
    /// The saga had ended; the reply adds a fact.
    LateFact,
    /// The saga had ended; the reply contradicts what it ended on.
    LateContradiction,
}

/// Starts a saga.
///
/// `seed` is random; jitter is derived from it.
#[must_use]
pub fn start(context: &Context<'_>, digest: &str, seed: u64, now: Timestamp) -> Applied {
    let definition = context.definition;
    let deadline_at = definition.deadline_ms.map(|ms| now.plus_ms(ms));
    let mut draft = Draft::new(context, born(seed, deadline_at), now);
    draft.emit(Event::Started { definition: definition.reference(), digest: digest.to_owned(), seed, deadline_at });
    forward::advance(&mut draft);
    finish(draft)
}

/// Puts an input to a saga.
///
/// # Errors
/// Why an operation was turned down. Replies and ticks are never turned down.
pub fn apply(context: &Context<'_>, saga: &Saga, input: &Input, now: Timestamp) -> Result<Answer, Refusal> {
    let mut draft = Draft::new(context, saga.clone(), now);
    Ok(match decide::decide(&mut draft, input)? {
        None => Answer::Applied(Box::new(finish(draft))),
        Some(ignored) => Answer::Ignored(ignored),
    })
}

fn finish(draft: Draft<'_>) -> Applied {
    let Draft { context, mut saga, events, payloads, now: _ } = draft;
    saga.version += 1;
    let sent = events.iter().filter(|event| matches!(event, Event::Sent { .. }));
    let commands = sent.zip(payloads).filter_map(|(event, payload)| command(context, &saga, event, payload)).collect();
    Applied { saga, events, commands }
}

fn command(context: &Context<'_>, saga: &Saga, event: &Event, payload: Value) -> Option<Command> {
    let Event::Sent { step: name, verb, attempt, at, until } = event else { return None };
    let step = context.definition.step(name)?;
    let state = saga.steps.get(name)?;
    let key = ids::effect_key(context.saga_id, name, state.generation);
    let first_sent_at = state.first_sent_at.unwrap_or(*at);
    Some(Command {
        v: message::VERSION,
        command_id: ids::command_id(key, *verb, *attempt),
        key,
        saga_id: context.saga_id,
        tenant: context.tenant.to_owned(),
        definition: context.definition.reference(),
        step: name.clone(),
        participant: step.participant.clone(),
        verb: *verb,
        command: step.command(*verb).to_owned(),
        attempt: *attempt,
        first_sent_at,
        dedupe_until: first_sent_at.plus_ms(context.definition.dedupe_window_ms),
        deadline: *until,
        payload,
    })
}

/// Which step and attempt a reply answers, if this saga ever sent that command.
pub(crate) fn answered<'s>(
    context: &Context<'_>,
    saga: &'s Saga,
    key: Uuid,
    verb: Verb,
    command_id: Uuid,
) -> Option<(&'s str, u32)> {
    let (name, state) = saga.of_effect(context.saga_id, key)?;
    let attempt = (1..=state.asked(verb).sent).rev().find(|n| ids::command_id(key, verb, *n) == command_id)?;
    Some((name, attempt))
}

//! Turns a batch of inputs into transitions: one per saga, inputs folded in arrival order.
//!
//! Must hold: inputs are kept beside what came of them, so that a lost compare-and-swap can decide them again on
//! fresh state.

use std::collections::BTreeMap;
use std::sync::Arc;

use saga_core::state::Stuck;
use saga_core::{Answer, Applied, Context, FORMAT, Ignored, Input, Refusal, Saga};
use saga_defs::catalog::Loaded;
use saga_defs::{Command, Timestamp};
use saga_store::{Guard, Header, HistoryRow, StartKey, State, Stored, Transition};
use serde_json::Value;
use uuid::Uuid;

use crate::entropy::Entropy;
use crate::hints::{Hints, Watch};
use crate::request::Snapshot;
use crate::unreadable::Met;
use crate::work::{StartWork, Work};

/// What the core said to an input.
#[derive(Debug)]
pub(crate) enum Said {
    Applied,
    Ignored(Ignored),
    Refused(Refusal),
}

/// Inputs of one saga, what came of them, and the transition they make, if they make one.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) snapshot: Snapshot,
    pub(crate) said: Vec<(Work, Said)>,
    pub(crate) transition: Option<Transition>,
    /// Whether the saga could answer a wait before these inputs, and was not stuck: those who wait elsewhere were told.
    pub(crate) answered_before: bool,
    /// What held the saga for a person before these inputs.
    pub(crate) stuck_before: Option<Stuck>,
    input: Arc<Value>,
}

impl Group {
    /// Whether every input moved the saga.
    pub(crate) fn moved_by_all(&self) -> bool {
        self.said.iter().all(|(_, said)| matches!(said, Said::Applied))
    }

    /// The inputs, to be decided again.
    pub(crate) fn into_works(self) -> impl Iterator<Item = Work> {
        self.said.into_iter().map(|(work, _)| work)
    }

    /// The saga as it will be stored; none when nothing more is expected to move it.
    pub(crate) fn stored(&self) -> Option<Stored> {
        stored(&self.snapshot, &self.input)
    }
}

fn stored(snapshot: &Snapshot, input: &Arc<Value>) -> Option<Stored> {
    let Snapshot { header, saga, .. } = snapshot;
    (!saga.is_ended() && saga.stuck.is_none()).then(|| Stored {
        header: Arc::clone(header),
        state: State::Known(Arc::clone(saga)),
        input: Arc::clone(input),
    })
}

/// Starts with one key: the first makes the saga, the others get its answer.
#[derive(Debug)]
pub(crate) struct StartGroup {
    pub(crate) snapshot: Snapshot,
    pub(crate) starts: Vec<StartWork>,
    /// None once it is on its way to the store.
    pub(crate) transition: Option<Transition>,
    /// Made before anything can move the saga, so that who waits for it need not read it.
    pub(crate) watch: Watch,
}

impl StartGroup {
    /// As [`Group::stored`].
    pub(crate) fn stored(&self) -> Option<Stored> {
        stored(&self.snapshot, &self.starts.first()?.input)
    }
}

/// A batch by what its inputs belong to.
#[derive(Debug, Default)]
pub(crate) struct Split {
    pub(crate) sagas: BTreeMap<Uuid, Vec<Work>>,
    pub(crate) starts: BTreeMap<StartKey, Vec<StartWork>>,
}

/// Splits a batch by saga and start key, in arrival order within each.
pub(crate) fn split(batch: Vec<Work>) -> Split {
    let Split { mut sagas, mut starts } = Split::default();
    for work in batch {
        match (work.saga_id(), work) {
            (_, Work::Start(start)) => starts.entry(start.start_key.clone()).or_default().push(*start),
            (Some(id), work @ (Work::Reply { .. } | Work::Tick { .. } | Work::Operate(_))) => {
                sagas.entry(id).or_default().push(work);
            }
            (None, Work::Reply { .. } | Work::Tick { .. } | Work::Operate(_)) => {
                unreachable!("only a start has no saga yet")
            }
        }
    }
    Split { sagas, starts }
}

/// The first of equal starts becomes a new saga.
pub(crate) fn start(starts: Vec<StartWork>, entropy: &dyn Entropy, hints: &Hints, now: Timestamp) -> StartGroup {
    let first = &starts[0];
    let header = Arc::new(Header {
        id: entropy.id(now),
        tenant: first.start_key.tenant.clone(),
        principal: first.start_key.principal.clone(),
        key: first.business_key.clone(),
        definition: first.loaded.definition.name.clone(),
        definition_version: first.loaded.definition.version,
        digest: first.loaded.digest.clone(),
        created_at: now,
    });
    let context = context(&header, &first.loaded, &first.input);
    let applied = saga_core::start(&context, &first.loaded.digest, entropy.bits(), now);
    let row = HistoryRow {
        seq: applied.saga.version,
        at: now,
        actor: first.actor.clone(),
        reason: None,
        operation_id: None,
        format: FORMAT,
        events: serde_json::to_string(&applied.events).expect("events are JSON"),
    };
    let guard = Guard::Start {
        start_key: first.start_key.clone(),
        fingerprint: first.fingerprint.clone(),
        input: Arc::clone(&first.input),
    };
    let saga = Arc::new(applied.saga);
    let watch = hints.watch(header.id);
    let snapshot = Snapshot { header: Arc::clone(&header), saga: Arc::clone(&saga), loaded: Arc::clone(&first.loaded) };
    let transition = Transition { header, guard, saga, history: vec![row], commands: applied.commands };
    StartGroup { snapshot, starts, transition: Some(transition), watch }
}

/// Inputs that no saga could be had for.
#[derive(Debug)]
pub(crate) enum Unfolded {
    /// It is for instances that can read it.
    Foreign(Vec<Work>),
    /// Nobody can read it.
    Unreadable(Met),
}

impl Unfolded {
    /// The inputs, to be decided again.
    pub(crate) fn into_works(self) -> Vec<Work> {
        match self {
            Self::Foreign(works) | Self::Unreadable(Met { works, .. }) => works,
        }
    }
}

/// Folds inputs into a stored saga. `Err` gives them back when it can't be read.
pub(crate) fn fold(
    stored: Stored,
    definition: impl FnOnce(&Header) -> Option<Arc<Loaded>>,
    batch: Vec<Work>,
    now: Timestamp,
) -> Result<Group, Unfolded> {
    let Stored { header, state, input: document } = stored;
    let (mut saga, loaded) = match (state, definition(&header)) {
        (State::Known(saga), Some(loaded)) => (saga, loaded),
        (State::Known(_), None) | (State::Foreign(_), _) => return Err(Unfolded::Foreign(batch)),
        (State::Unreadable(what), _) => return Err(Unfolded::Unreadable(Met { header, what, works: batch })),
    };
    let expected = saga.version;
    let answered_before = saga.decision.is_some() && saga.stuck.is_none();
    let stuck_before = saga.stuck.clone();
    let context = context(&header, &loaded, &document);
    let mut history = Vec::new();
    let mut commands: Vec<Command> = Vec::new();
    let mut said = Vec::with_capacity(batch.len());
    for work in batch {
        let answer = match saga_core::apply(&context, &saga, &input(&work), now) {
            Ok(Answer::Applied(applied)) => {
                history.push(row(&work, &saga, &applied, now, &context));
                saga = Arc::new(applied.saga);
                commands.extend(applied.commands);
                Said::Applied
            }
            Ok(Answer::Ignored(ignored)) => Said::Ignored(ignored),
            Err(refusal) => Said::Refused(refusal),
        };
        said.push((work, answer));
    }
    let transition = (!history.is_empty()).then(|| Transition {
        header: Arc::clone(&header),
        guard: Guard::Version(expected),
        saga: Arc::clone(&saga),
        history,
        commands,
    });
    let snapshot = Snapshot { header, saga, loaded };
    Ok(Group { snapshot, said, transition, answered_before, stuck_before, input: document })
}

fn context<'a>(header: &'a Header, loaded: &'a Loaded, input: &'a serde_json::Value) -> Context<'a> {
    Context { saga_id: header.id, tenant: &header.tenant, definition: &loaded.definition, input }
}

fn input(work: &Work) -> Input {
    match work {
        Work::Reply { reply, .. } => Input::Reply((**reply).clone()),
        Work::Tick { .. } => Input::Tick,
        Work::Operate(work) => Input::Operation(work.operation.clone()),
        Work::Start(_) => unreachable!("starts are not folded into a stored saga"),
    }
}

/// What `work` made of the saga as it was `before`.
fn row(work: &Work, before: &Saga, applied: &Applied, now: Timestamp, context: &Context<'_>) -> HistoryRow {
    let (actor, reason, operation_id) = match work {
        Work::Reply { reply, .. } => (format!("participant:{}", participant(before, reply.key, context)), None, None),
        Work::Tick { .. } | Work::Start(_) => ("engine".to_owned(), None, None),
        Work::Operate(work) => (work.actor.clone(), Some(work.reason.clone()), Some(work.operation.id)),
    };
    HistoryRow {
        seq: applied.saga.version,
        at: now,
        actor,
        reason,
        operation_id,
        format: FORMAT,
        events: serde_json::to_string(&applied.events).expect("events are JSON"),
    }
}

fn participant<'a>(saga: &Saga, key: Uuid, context: &Context<'a>) -> &'a str {
    let named = saga.of_effect(context.saga_id, key);
    named.and_then(|(name, _)| context.definition.step(name)).map_or("unknown", |step| &step.participant)
}

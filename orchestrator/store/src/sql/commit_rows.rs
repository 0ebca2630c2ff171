//! The rows that a commit hands to its statements, as JSON objects whose members the statements name.
//!
//! Must hold: columns beside `state` are derived from the state and from nothing else; ids are written as plain hex,
//! which the statements turn into the 16 bytes that are stored.

use saga_defs::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use uuid::fmt::Simple;

use super::words::word;
use crate::messages::HEAD_START_MS;
use crate::{Guard, HistoryRow, OutboxMessage, Transition};

/// What every transition changes.
#[derive(Serialize)]
struct Changing<'a> {
    format: u16,
    status: String,
    decision: Option<String>,
    failure_code: Option<&'a str>,
    stuck_cause: Option<String>,
    waiting_on: Option<&'a str>,
    version: u64,
    wake_at: Option<Timestamp>,
    updated_at: Timestamp,
    decided_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    state: String,
}

impl<'a> Changing<'a> {
    fn of(transition: &'a Transition, now: Timestamp) -> Self {
        let saga = &transition.saga;
        let stuck_on = saga.stuck.as_ref().map(|stuck| stuck.step.as_str());
        Self {
            format: saga_core::FORMAT,
            status: word(saga.status()),
            decision: saga.decision.map(word),
            failure_code: saga.failure.as_ref().map(|failure| failure.code.as_str()),
            stuck_cause: saga.stuck.as_ref().map(|stuck| word(stuck.cause)),
            waiting_on: stuck_on.or_else(|| saga.waiting().map(|(step, ..)| step)),
            version: saga.version,
            wake_at: saga.wake_at(),
            updated_at: now,
            decided_at: saga.decided_at,
            ended_at: saga.is_ended().then_some(now),
            state: serde_json::to_string(saga).expect("states have string keys and no failing serializers"),
        }
    }
}

/// A saga that exists, and the version it must have.
#[derive(Serialize)]
pub(super) struct Change<'a> {
    id: Simple,
    expected: u64,
    #[serde(flatten)]
    changing: Changing<'a>,
}

impl<'a> Change<'a> {
    /// None for a start.
    pub(super) fn of(transition: &'a Transition, now: Timestamp) -> Option<Self> {
        match transition.guard {
            Guard::Start { .. } => None,
            Guard::Version(expected) => {
                let id = transition.header.id.simple();
                Some(Self { id, expected, changing: Changing::of(transition, now) })
            }
        }
    }
}

/// A new saga.
#[derive(Serialize)]
pub(super) struct Start<'a> {
    id: Simple,
    tenant: &'a str,
    principal: &'a str,
    business_key: Option<&'a str>,
    definition: &'a str,
    definition_version: u32,
    digest: &'a str,
    created_at: Timestamp,
    #[serde(flatten)]
    changing: Changing<'a>,
}

impl<'a> Start<'a> {
    pub(super) fn of(transition: &'a Transition, now: Timestamp) -> Self {
        let header = &transition.header;
        Self {
            id: header.id.simple(),
            tenant: &header.tenant,
            principal: &header.principal,
            business_key: header.key.as_deref(),
            definition: &header.definition,
            definition_version: header.definition_version,
            digest: &header.digest,
            created_at: header.created_at,
            changing: Changing::of(transition, now),
        }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id.into_uuid()
    }
}

/// A start key and who wants it.
#[derive(Serialize)]
pub(super) struct Key<'a> {
    tenant: &'a str,
    principal: &'a str,
    key: &'a str,
    saga_id: Simple,
    fingerprint: &'a str,
    created_at: Timestamp,
}

impl<'a> Key<'a> {
    /// None for a saga that exists.
    pub(super) fn of(transition: &'a Transition) -> Option<Self> {
        match &transition.guard {
            Guard::Start { start_key, fingerprint, .. } => Some(Self {
                tenant: &start_key.tenant,
                principal: &start_key.principal,
                key: &start_key.key,
                saga_id: transition.header.id.simple(),
                fingerprint,
                created_at: transition.header.created_at,
            }),
            Guard::Version(_) => None,
        }
    }

    pub(super) fn id(&self) -> Uuid {
        self.saga_id.into_uuid()
    }
}

/// An input document.
#[derive(Serialize)]
pub(super) struct Input {
    saga_id: Simple,
    body: String,
}

impl Input {
    /// None for a saga that exists.
    pub(super) fn of(transition: &Transition) -> Option<Self> {
        match &transition.guard {
            Guard::Start { input, .. } => {
                Some(Self { saga_id: transition.header.id.simple(), body: input.to_string() })
            }
            Guard::Version(_) => None,
        }
    }
}

/// A row of history.
#[derive(Serialize)]
pub(super) struct Past<'a> {
    saga_id: Simple,
    commit_id: Simple,
    seq: u64,
    at: Timestamp,
    actor: &'a str,
    reason: Option<&'a str>,
    operation_id: Option<Simple>,
    format: u16,
    events: &'a str,
}

impl<'a> Past<'a> {
    pub(super) fn of(transition: &'a Transition, commit_id: Uuid) -> impl Iterator<Item = Self> {
        let saga_id = transition.header.id.simple();
        transition.history.iter().map(move |row: &HistoryRow| Self {
            saga_id,
            commit_id: commit_id.simple(),
            seq: row.seq,
            at: row.at,
            actor: &row.actor,
            reason: row.reason.as_deref(),
            operation_id: row.operation_id.map(Uuid::simple),
            format: row.format,
            events: &row.events,
        })
    }
}

/// An outbox row.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    id: Simple,
    participant: &'a str,
    body: &'a str,
    due_at: Timestamp,
    created_at: Timestamp,
}

impl<'a> Message<'a> {
    pub(super) fn of(message: &'a OutboxMessage, now: Timestamp) -> Self {
        Self {
            id: message.id.simple(),
            participant: &message.participant,
            body: &message.body,
            due_at: now.plus_ms(HEAD_START_MS),
            created_at: now,
        }
    }
}
